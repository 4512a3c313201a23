"""Raw keys of LXC: only those that can't take a wall away, with values that can't become another line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lxcfleet.containers import lxc_config, store
from lxcfleet.containers.lxc_config import Platform
from lxcfleet.errors import InvalidInput
from lxcfleet.paths import Paths
from lxcfleet.spec.container import assignments, combinations, raw_lxc
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files import fleet_file
from lxcfleet.spec.files.fleet_sources import Sources
from lxcfleet.spec.files.settings import Config
from lxcfleet.spec.reading.terms import Init, NetworkMode

APP = Spec("web", Init.APP, ("true",), first_id=1879048192, created="2026-01-01T00:00:00Z")


@pytest.mark.parametrize(("key", "value"), [
    ("lxc.prlimit.nofile", "65536"), ("lxc.prlimit.nofile", "1024:1048576"), ("lxc.prlimit.core", "0"),
    ("lxc.prlimit.memlock", "unlimited"), ("lxc.sysctl.net.ipv4.ip_forward", "1"),
    ("lxc.sysctl.kernel.sem", "250 32000 100 128"),
    ("lxc.sysctl.net.ipv4.conf.eth0/1.rp_filter", "2"), ("lxc.cgroup2.cpu.weight", "50"),
    ("lxc.cgroup2.io.max", "8:0 rbps=1048576"),
    ("lxc.cgroup2.memory.swap.max", "0"), ("lxc.cgroup2.hugetlb.2MB.max", "0"), ("lxc.cgroup.cpu.shares", "512"),
    ("lxc.cgroup.blkio.throttle.read_bps_device", "8:0 1048576"), ("lxc.environment.runtime", "MODE=a b"),
])  # fmt: skip
def test_what_a_container_may_have(key: str, value: str) -> None:
    assert raw_lxc.check(key, value) == (key, value)


@pytest.mark.parametrize(("key", "why"), [
    ("lxc.rootfs.path", "mounts the root"), ("lxc.idmap", "gives ids"), ("lxc.hook.pre-start", "runs as root of the host"),
    ("lxc.include", "any other key"), ("lxc.apparmor.profile", "confines"), ("lxc.apparmor.raw", "confines"),
    ("lxc.seccomp.profile", "confines"), ("lxc.cap.drop", "confines"), ("lxc.cap.keep", "confines"),
    ("lxc.namespace.share.net", "walls"), ("lxc.namespace.keep", "walls"),
    ("lxc.mount.entry", "volumes"), ("lxc.net.0.type", "network"),
    ("lxc.init.cmd", "command"), ("lxc.environment", "environment"), ("lxc.cgroup.dir", "only says how much"),
    ("lxc.cgroup2.devices.allow", "devices"), ("lxc.cgroup.devices.allow", "devices"), ("lxc.cgroup2.devices", "devices"),
    ("lxc.cgroup2.cgroup.procs", "only says how much"), ("lxc.cgroup2.cgroup.subtree_control", "only says how much"),
    ("lxc.cgroup2.cgroup.max.descendants", "only says how much"), ("lxc.cgroup2.memory.max", "memory"),
    ("lxc.cgroup2.cpu.max", "cpus"), ("lxc.cgroup2.pids.max", "pids"), ("lxc.cgroup.memory.limit_in_bytes", "memory"),
    ("lxc.cgroup.memory.oom_control", "only says how much"), ("lxc.cgroup.cpu.rt_runtime_us", "only says how much"),
    ("lxc.cgroup2.../../x", "only says how much"), ("lxc.cgroup2.cpu.weight/../x", "only says how much"),
    ("lxc.cgroup2.cpuset.cpus.partition", "only says how much"), ("lxc.cgroup.freezer.state", "only says how much"),
    ("lxc.prlimit.rtprio", "processor time"), ("lxc.prlimit.nice", "processor time"), ("lxc.prlimit.bogus", "no limit"),
    ("lxc.sysctl.kernel.core_pattern", "whole host's"), ("lxc.sysctl.vm.overcommit_memory", "whole host's"),
    ("lxc.sysctl.net.../kernel/core_pattern", "whole host's"), ("lxc.sysctl.net.ipv4.x..y", "whole host's"),
    ("lxc.sysctl.kernel/core_pattern", "whole host's"), ("lxc.sysctl.user.max_user_namespaces", "whole host's"),
    ("lxc.monitor.unshare", "harmless"), ("lxc.log.file", "harmless"), ("lxc.console.path", "harmless"),
    ("lxc.whatever.comes", "harmless"), ("LXC.prlimit.nofile", "no key"), ("memory", "no key"),
    ("lxc.prlimit.nofile\nlxc.include", "no limit"), ("lxc.cgroup2.cpu.weight\n", "only says how much"),
    ("lxc.sysctl.net.x\n", "whole host's"), ("", "no key"),
])  # fmt: skip
def test_what_is_refused_and_why(key: str, why: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        raw_lxc.check(key, "1")
    assert why in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("value", [
    "", " ", "1\nlxc.include = /x", "1\r", "1\0", "\x1b[2J", "ü", " 1", "1 ", "x" * 1025, "\t1",
])  # fmt: skip
def test_no_value_can_become_another_line(value: str) -> None:
    for key in ("lxc.cgroup2.cpu.weight", "lxc.sysctl.net.ipv4.ip_forward", "lxc.environment.runtime", "lxc.prlimit.nofile"):
        with pytest.raises(InvalidInput) as caught:
            raw_lxc.check(key, value)
        assert caught.value.message.isprintable()


@pytest.mark.parametrize(("key", "value"), [
    ("lxc.prlimit.nofile", "unlimited"), ("lxc.prlimit.nofile", "1048577"), ("lxc.prlimit.core", "2:1"),
    ("lxc.prlimit.core", "unlimited:1"), ("lxc.prlimit.core", "-1"), ("lxc.prlimit.core", "1:2:3"),
    ("lxc.prlimit.core", "1" * 30),
    ("lxc.environment.runtime", "1=x"), ("lxc.environment.runtime", "x"), ("lxc.environment.runtime", 'A="x"'),
])  # fmt: skip
def test_values_that_would_keep_it_from_starting(key: str, value: str) -> None:
    with pytest.raises(InvalidInput):
        raw_lxc.check(key, value)


@pytest.mark.parametrize("unified", [True, False])
def test_the_configuration_has_the_keys_for_the_host_s_cgroups(tmp_path: Path, unified: bool) -> None:
    keys = {"lxc.cgroup2.cpu.weight": "50", "lxc.cgroup.cpu.shares": "512", "lxc.prlimit.nofile": "65536"}
    paths = Paths(lxc=tmp_path, run=tmp_path, etc=tmp_path)
    platform = Platform(unified, frozenset({"memory", "cpu", "pids"}), False, False, "lxcfleet0", "", tmp_path)
    text = lxc_config.render(replace(APP, lxc=keys), paths, platform, 4)
    mine = [line for line in text.splitlines() if "shares" in line or "weight" in line or "nofile" in line]
    assert mine == ["lxc.cgroup2.cpu.weight = 50" if unified else "lxc.cgroup.cpu.shares = 512", "lxc.prlimit.nofile = 65536"]
    assert lxc_config.render(APP, paths, platform, 4) == lxc_config.render(replace(APP, lxc={}), paths, platform, 4)


def test_on_the_command_line_the_prefix_may_be_left_out() -> None:
    def change(spec: Spec, *texts: str) -> Spec:
        return assignments.apply(spec, assignments.parse_all(texts), Config())

    spec = change(APP, "lxc.prlimit.nofile=4096", "lxc.lxc.cgroup2.io.max=8:0 rbps=1")
    assert spec.lxc == {"lxc.prlimit.nofile": "4096", "lxc.cgroup2.io.max": "8:0 rbps=1"}
    assert store.parse("web", store.render(spec).encode(), "f") == spec
    assert change(spec, "lxc.prlimit.nofile=").lxc == {"lxc.cgroup2.io.max": "8:0 rbps=1"}
    with pytest.raises(InvalidInput, match="root of the host"):
        assignments.parse("lxc.hook.start=/bin/x")


def test_sysctls_of_the_host_s_own_network_are_refused() -> None:
    spec = replace(APP, network=NetworkMode.HOST, lxc={"lxc.sysctl.net.ipv4.ip_forward": "1"})
    with pytest.raises(InvalidInput, match="host's network"):
        combinations.check(spec)
    combinations.check(replace(spec, network=NetworkMode.NONE))


def read(text: str) -> Any:
    return fleet_file.parse(Sources(f"lxcfleet: 1\nfleet: shop\n{text}", "f"), Config())


def test_layers_merge_them_by_key_and_complain_with_the_line() -> None:
    profile = 'profiles: {p: {lxc: {lxc.prlimit.nofile: "1", lxc.prlimit.core: "0"}}}\n'
    own = '{lxc.prlimit.nofile: "2", lxc.prlimit.core: null}'
    file = read(f"{profile}groups:\n  web: {{command: [x], profiles: [p], lxc: {own}}}")
    assert file.groups["web"].said["lxc"] == {"lxc.prlimit.nofile": "2"}
    wrong = 'lxc.prlimit.nofile: 5\n      lxc.hook.start: "/x"\n      prlimit.core: "0"'
    with pytest.raises(InvalidInput) as caught:
        read(f"groups:\n  web:\n    command: [x]\n    lxc:\n      {wrong}")
    assert [line.partition(": ")[0] for line in caught.value.why.splitlines()] == ["f:7", "f:8", "f:9"]
    many = "\n".join(f'      lxc.sysctl.net.a{number}: "1"' for number in range(65))
    with pytest.raises(InvalidInput, match=""):
        read(f"groups:\n  web:\n    command: [x]\n    lxc:\n{many}")
