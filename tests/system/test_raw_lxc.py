"""Raw keys of LXC in a spec, on real containers."""

from __future__ import annotations

import pytest

from lxcfleet.host.process import cgroup, descriptors

from .harness import Fleet

pytestmark = pytest.mark.system

SHARE = ("lxc.cgroup2.", "cpu.weight", "50") if cgroup.unified() else ("lxc.cgroup.", "cpu.shares", "512")
OTHER = "lxc.cgroup.cpu.shares=9" if cgroup.unified() else "lxc.cgroup2.cpu.weight=9"
PORTS = "net.ipv4.ip_unprivileged_port_start"


def test_raw_keys_take_effect_and_are_tried_before_the_spec_is_written(fleet: Fleet) -> None:
    name = fleet.name("raw")
    prefix, file_name, value = SHARE
    keys = (f"{prefix}{file_name}={value}", f"lxc.sysctl.{PORTS}=80", OTHER)
    made = fleet.run("create", name, *(word for key in keys for word in ("--lxc", key)), "--", "sleep", "infinity")
    assert made.status == 0, made
    assert f"{OTHER.partition('=')[0]} has no effect: this host has cgroup" in made.err
    assert fleet.inside(name, f"cat /proc/sys/{PORTS.replace('.', '/')}") == "80"
    file = cgroup.payload(fleet.pid(name), name).file("cpu", file_name, file_name)
    assert file is not None
    assert file.read_text().strip() == value

    before = fleet.paths.container(name).spec.read_text()
    assert fleet.run("set", name, "lxc.sysctl.kernel.core_pattern=|/x").status == 2
    assert fleet.run("set", name, "lxc.cgroup2.devices.allow=a").status == 2
    tried = fleet.run("set", name, "lxc.environment.runtime=A=b", "--no-restart")
    if tried.status:  # LXC 5 does not know it yet
        assert "LXC does not take these keys" in tried.err
        assert fleet.paths.container(name).spec.read_text() == before
    limited = fleet.run("set", name, "lxc.prlimit.nofile=1000:2000")
    if descriptors.may_raise():
        assert fleet.inside(name, "ulimit -n; ulimit -Hn").split() == ["1000", "2000"]
    else:
        assert "CAP_SYS_RESOURCE" in limited.err
