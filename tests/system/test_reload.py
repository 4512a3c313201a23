"""A reload of changed settings: the daemon takes them over while containers run, or says why not."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from .harness import SLEEP, Fleet, free_port, until

pytestmark = pytest.mark.system


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """A fleet whose containers are connected by default."""
    own = Fleet()
    write(own)
    try:
        own.start_daemon()
        yield own
        own.clean()
        until(lambda: not traces(own.bridge) and not traces(other(own)), what="bridge and rules are removed")
    finally:
        own.run("destroy", "--all", "--force", "-q")
        own.remove()


def write(fleet: Fleet, **keys: object) -> None:
    keys = {"bridge": fleet.bridge, "drain": 0, **keys}
    fleet.settings(f"network: {{{', '.join(f'{key}: {value}' for key, value in keys.items())}}}\n")


def reload(fleet: Fleet) -> None:
    """Have the daemon read its settings, and wait until it has."""
    done = fleet.log().count("settings taken over")
    pid = fleet.daemon_pid()
    assert pid is not None
    os.kill(pid, signal.SIGHUP)
    until(lambda: fleet.log().count("settings taken over") > done, 15, "the settings are taken over")


def nft(*what: str) -> str:
    """The output of `nft list`."""
    return subprocess.run(["/usr/sbin/nft", "list", *what], capture_output=True, text=True, check=True).stdout


def other(fleet: Fleet) -> str:
    """The name of another bridge."""
    return f"lu{fleet.tag}"


def there(bridge: str) -> bool:
    return os.path.exists(f"/sys/class/net/{bridge}")


def traces(bridge: str) -> bool:
    return there(bridge) or f"lxcfleet_{bridge}" in nft("tables")


def ports(bridge: str) -> int:
    return len(os.listdir(f"/sys/class/net/{bridge}/brif"))


def found(fleet: Fleet, inside: str, name: str) -> bool:
    """Whether the resolver in a container finds a name."""
    return fleet.run("exec", inside, "--", "getent", "hosts", name).status == 0


def test_the_rules_for_containers_change_at_once(fleet: Fleet) -> None:
    write(fleet, guard="false", nat="false")
    reload(fleet)
    one, two = fleet.name(1), fleet.name(2)
    fleet.create(one, options=("-p", f"{free_port()}:80", "--isolated"))
    table = f"lxcfleet_{fleet.bridge}"
    inet, bridge = nft("table", "inet", table), nft("table", "bridge", table)
    assert ("dnat" in inet, "masquerade" in inet.split("daddr !=")[-1][:60]) == (True, False)
    assert "chain guard" not in bridge
    pid = fleet.pid(one)
    write(fleet, guard="true", host_access="false")
    reload(fleet)
    inet, bridge = nft("table", "inet", table), nft("table", "bridge", table)
    assert "dnat" in inet
    assert "ip daddr != 10." in inet
    assert inet.partition("chain to_the_host")[2].partition("\t}")[0].rstrip().endswith("drop")
    assert "chain guard" in bridge
    assert "elements" in bridge.partition("set hardware")[2].partition("}")[0]
    assert fleet.pid(one) == pid
    fleet.create(two)
    until(lambda: found(fleet, two, one), what="the name is known")


def test_the_names_of_containers_change_at_once(fleet: Fleet) -> None:
    one, two = fleet.name(1), fleet.name(2)
    fleet.create(one, two)
    write(fleet, domain="other.test")
    reload(fleet)
    until(lambda: found(fleet, one, f"{two}.other.test"), what="the new name is known")
    assert not found(fleet, one, f"{two}.fleet")
    write(fleet, dns="false")
    reload(fleet)
    assert not found(fleet, one, f"{two}.other.test")
    assert not found(fleet, one, f"{two}.fleet")
    write(fleet)
    reload(fleet)
    until(lambda: found(fleet, one, f"{two}.fleet"), what="the old name is known again")
    fleet.ok("restart", one)
    until(lambda: found(fleet, one, two), what="the name is known")


def test_no_container_is_left_on_another_bridge(fleet: Fleet) -> None:
    one, two, new = fleet.name(1), fleet.name(2), other(fleet)
    fleet.create(one)
    write(fleet, bridge=new, ipv4="10.97.0.0/16")
    for begin_anew in (False, True):
        if begin_anew:
            fleet.stop_daemon()
            fleet.start_daemon()
        else:
            reload(fleet)
        log = fleet.log()
        assert f"network.bridge stays {fleet.bridge}, not {new}: containers run on it" in log
        assert "network.ipv4 stays auto, not 10.97.0.0/16: connected containers have addresses by it" in log
        assert (there(new), ports(fleet.bridge)) == (False, 1)
    fleet.create(two)
    assert ports(fleet.bridge) == 2
    until(lambda: found(fleet, two, one), what="the name is known")

    before = fleet.record(one)["addresses"]
    fleet.ok("stop", "--all")
    reload(fleet)
    assert not traces(fleet.bridge)
    fleet.ok("start", "--all")
    assert ports(new) == 2
    assert fleet.record(one)["addresses"] == before
    until(lambda: found(fleet, two, one), what="the name is known")
    fleet.ok("stop", "--all")
    write(fleet)
    fleet.stop_daemon()
    fleet.start_daemon()
    fleet.ok("start", one)
    assert (there(new), ports(fleet.bridge)) == (False, 1)


def test_without_containers_bridge_and_addresses_change(fleet: Fleet) -> None:
    one = fleet.name(1)
    fleet.create(one)
    fleet.ok("destroy", one, "--force")
    write(fleet, bridge=other(fleet), ipv4="10.97.0.0/16")
    reload(fleet)
    fleet.ok("create", one, *SLEEP)
    assert fleet.record(one)["addresses"][0].startswith("10.97.")
    assert (there(fleet.bridge), ports(other(fleet))) == (False, 1)

