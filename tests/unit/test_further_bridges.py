"""A fleet of more containers than a bridge has ports: further bridges hang on the fleet's own."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxcfleet.containers.container import Container
from lxcfleet.host.net import bridge_look, interfaces
from lxcfleet.network import inspection, requests
from lxcfleet.network.addresses.ranges import Subnet
from lxcfleet.network.rules.guard import Guest
from lxcfleet.spec.container.addresses import PER_BRIDGE, bridge_behind, cable, further_bridge, interface_name
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files.settings import NetworkSettings
from lxcfleet.spec.reading.terms import NetworkMode

from .network_parts import run

NAME_SIZE = 15
"""IFNAMSIZ, without the last zero."""


def test_each_thousand_addresses_have_a_bridge() -> None:
    found = [further_bridge(IPv4Interface(f"10.201.{number // 256}.{number % 256}/16")) for number in (2, 999, 1000, 2999)]
    assert found == [None, None, "lg0ac90000-1", "lg0ac90000-2"]


@given(st.integers(8, 29), st.integers(0, 2**32 - 1))
def test_names_fit_and_lead_back(prefix: int, number: int) -> None:
    address = IPv4Interface((IPv4Address(number), prefix))
    bridge = further_bridge(address)
    if bridge is None:
        assert int(address.ip) - int(address.network.network_address) < PER_BRIDGE
        return
    names = {bridge, *cable(bridge), interface_name(address.ip)}
    assert len(names) == 4
    assert max(map(len, names)) <= NAME_SIZE
    assert bridge_behind(cable(bridge)[0]) == bridge
    assert bridge_behind(interface_name(address.ip)) is None


def spec(number: int) -> Spec:
    own = IPv4Interface((IPv4Address("10.201.0.0") + number, 16))
    return Spec(f"c{number}", network=NetworkMode.BRIDGE, address=own)


def test_the_launcher_is_told_which_port_belongs_where() -> None:
    subnet = Subnet(IPv4Network("10.201.0.0/16"), None)
    ports: dict[str | None, list[str]] = {None: ["lf0ac90002"], "lg0ac90000-1": ["lf0ac903e8"]}
    found = requests.own(NetworkSettings(), subnet, ports, [], [], route6=False, behind=None)
    assert (found["ports"], found["further"]) == (["lf0ac90002"], {"lg0ac90000-1": ["lf0ac903e8"]})


def test_isolation_holds_between_bridges() -> None:
    guest = Guest(IPv4Address("10.201.3.232"), IPv6Address("fd00::3e8"), isolated=True)
    assert guest.elements()["bridge", "isolated_hardware"] == ["02:4c:0a:c9:03:e8"]


def test_a_cut_cable_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interfaces, "_NET", tmp_path)
    near, far = Container("c2", spec(2)), Container("c1000", spec(1000))
    for container in (near, far):
        run(container)
    numbers = {"br": 7, "lg0ac90000-1": 8}
    seen = {}
    for bridge, ports in (("br", ["lf0ac90002", "lh0ac90000-1"]), ("lg0ac90000-1", ["lf0ac903e8", "li0ac90000-1"])):
        for name in (bridge, *ports):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "flags").write_text("0x1003\n")
            (tmp_path / name / "mtu").write_text("1500\n")
        (tmp_path / bridge / "ifindex").write_text(f"{numbers[bridge]}\n")
        (tmp_path / bridge / "brif").mkdir()
        for port in ports:
            (tmp_path / bridge / "brif" / port).mkdir()
            seen[port] = bridge_look.BridgePort(port, numbers[bridge], 0x1003, 1500, 1, {})
    look, wanted = cast(Any, SimpleNamespace(look=lambda: seen)), inspection.WantedBridge("br", mtu=1500)
    assert inspection.faults(wanted, [near, far], look) == []
    (tmp_path / "lh0ac90000-1" / "mtu").write_text("1400\n")
    assert inspection.faults(wanted, [near, far], look) == ["the bridge lg0ac90000-1 had another MTU than br"]
    (tmp_path / "lh0ac90000-1" / "flags").write_text("0x1002\n")
    assert inspection.faults(wanted, [near, far], look) == ["the bridge lg0ac90000-1 was cut off from br"]
    assert inspection.faults(wanted, [near], look) == []
    del seen["lf0ac903e8"]
    assert inspection.faults(wanted, [far], look)[1] == "c1000 was not on lg0ac90000-1"
