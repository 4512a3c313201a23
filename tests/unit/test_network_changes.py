"""Changes of the network's settings: which of them existing containers can follow."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path

import pytest

from lxcfleet.network import records
from lxcfleet.network.addresses import changes
from lxcfleet.paths import Paths
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files.settings import NetworkSettings
from lxcfleet.spec.reading.terms import Addresses, NetworkMode

OLD = NetworkSettings()
SPECS = [
    Spec("c1", network=NetworkMode.BRIDGE, address=IPv4Interface("10.201.0.2/16"), address6=IPv6Interface("fd00::2/64"))
]
LAN = NetworkSettings(bridge="br0", addresses=Addresses.DHCP)


def kept(new: NetworkSettings, specs: list[Spec], *, run: bool) -> list[str]:
    """The keys that keep their former value."""
    found, lines = changes.change(OLD, new, specs, run=run)
    keys = [line.split()[0].removeprefix("network.") for line in lines]
    assert replace(new, **{key: getattr(OLD, key) for key in keys}) == found
    return keys


@pytest.mark.parametrize(
    ("new", "there", "running"),
    [
        (OLD, [], []),
        (replace(OLD, nat=False, dns=False, domain="x", guard=False, host_access=False, drain=1), [], []),
        (replace(OLD, bridge="other"), [], ["bridge"]),
        (replace(OLD, ipv4="10.7.0.0/16"), ["ipv4"], ["ipv4"]),
        (replace(OLD, ipv4="10.201.0.0/16"), [], []),  # the range that auto chose
        (replace(OLD, ipv4="10.201.0.0/17"), ["ipv4"], ["ipv4"]),
        (replace(OLD, ipv6="none"), ["ipv6"], ["ipv6"]),
        (LAN, ["addresses", "bridge"], ["addresses", "bridge"]),
    ],
)
def test_containers_stay_where_they_are(new: NetworkSettings, there: list[str], running: list[str]) -> None:
    assert kept(new, [], run=False) == []
    assert kept(new, SPECS, run=False) == there
    assert kept(new, SPECS, run=True) == running


def test_kept_settings_are_told_with_a_next_step() -> None:
    _, lines = changes.change(OLD, replace(OLD, bridge="other", ipv6="none"), SPECS, run=True)
    assert lines == [
        "network.ipv6 stays auto, not none: connected containers have addresses by it: "
        "set it back, or destroy them and reload",
        "network.bridge stays lxcfleet0, not other: containers run on it: "
        "set it back, or stop those that are connected and reload",
    ]


def test_only_a_new_place_removes_the_old_one() -> None:
    assert not changes.elsewhere(OLD, replace(OLD, guard=False), SPECS)
    assert not changes.elsewhere(OLD, replace(OLD, ipv4="10.201.0.0/16"), SPECS)
    assert changes.elsewhere(OLD, replace(OLD, bridge="other"), SPECS)
    assert changes.elsewhere(OLD, replace(OLD, ipv4="10.7.0.0/16"), [])


def test_the_next_daemon_knows_the_present_network(tmp_path: Path) -> None:
    paths = Paths(lxc=tmp_path, run=tmp_path, etc=tmp_path)
    assert records.recorded(paths, OLD) == OLD
    records.record(paths, LAN)
    assert records.recorded(paths, replace(OLD, nat=False)) == replace(LAN, nat=False)
    for bad in ("", "[]", "{}", '{"addresses": "x"}', '{"addresses": "own", "color": 1}'):
        paths.network_record.write_text(bad)
        assert records.recorded(paths, OLD) == OLD
