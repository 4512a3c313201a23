"""What is found wrong with a bridge, and what is switched on again."""

from __future__ import annotations

import shutil
import socket
import struct
import time
from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxcfleet.containers.container import Container
from lxcfleet.errors import HostError
from lxcfleet.host.net import bridge_look, interfaces, sysctl
from lxcfleet.host.net.bridge_look import BridgePort
from lxcfleet.host.net.bridge_port import Switches
from lxcfleet.network.events import NetworkRepaired, NoNames
from lxcfleet.network.inspection import LASTING_SECONDS, Lasting, Switchboard, WantedBridge, faults
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading.terms import NetworkMode

HARDWARE = "02:4c:0a:00:00:01"
PLAIN = {1: 3, 4: 0, 5: 0, 6: 0, 8: 1, 9: 0, 27: 1, 30: 1, 32: 0, 33: 0}
"""What the kernel says of a port that is as it should be: learning and floods of multicast, none of the rest."""


class Kernel:
    """A host with the bridge br, and web1's port on it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ports: list[BridgePort] = [BridgePort(PORT, 7, 0x11043, 1500, 2, dict(PLAIN))]
        self.pinned = {MAC: 2}
        self.looked = 0

    def look(self) -> dict[str, BridgePort]:
        """In the place of Ports.look."""
        self.looked += 1
        return {port.name: port for port in self.ports}

    def change(self, **fields: Any) -> None:
        """Have web1's port otherwise."""
        self.ports[0] = self.ports[0]._replace(**fields)

    def set(self, which: int, value: int) -> None:
        """One of its settings."""
        self.change(settings={**self.ports[0].settings, which: value})

    def file(self, name: str, text: str) -> None:
        """One of /sys/class/net."""
        (self.directory / "net" / name).parent.mkdir(parents=True, exist_ok=True)
        (self.directory / "net" / name).write_text(f"{text}\n")


def web(name: str = "web1", number: int = 2) -> Container:
    return Container(name, Spec(name, network=NetworkMode.BRIDGE, address=IPv4Interface(f"10.0.0.{number}/8")))


PORT, MAC = web().spec.port, web().spec.mac  # type: ignore[union-attr]
OWN = (IPv4Interface("10.0.0.1/8"), IPv6Interface("fd00::1/64"))
WANTED = WantedBridge("br", OWN[:1], HARDWARE, 1500, {PORT: Switches(False, False, MAC, None, 1500)})


def found(kernel: Kernel, wanted: WantedBridge = WANTED, *running: Container) -> list[str]:
    """What a look finds."""
    return faults(wanted, running or [web()], cast(Any, kernel))


@pytest.fixture(autouse=True)
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """As it should be."""
    own = Kernel(tmp_path)
    monkeypatch.setattr(interfaces, "_NET", tmp_path / "net")
    monkeypatch.setattr(interfaces, "_ROUTES", tmp_path / "route")
    monkeypatch.setattr(interfaces, "has_address", lambda name, address: address.version == 4)
    monkeypatch.setattr(bridge_look, "pinned", lambda bridge: own.pinned)
    monkeypatch.setattr(sysctl, "_SYSCTL", tmp_path / "sys")
    for name, text in {"flags": "0x1003", "address": HARDWARE, "mtu": "1500", "ifindex": "7"}.items():
        own.file(f"br/{name}", text)
    (tmp_path / "net" / PORT).mkdir()
    (tmp_path / "route").write_text(f"{ROUTES}lo\t1\n{ROUTE}")
    for name in ("br", "eth0", "eth1"):
        for switch in ("forwarding", "route_localnet"):
            write(tmp_path, f"ipv4/conf/{name}/{switch}", "0")
    write(tmp_path, "ipv6/conf/br/disable_ipv6", "0")
    return own


@pytest.fixture
def host(kernel: Kernel) -> Path:
    """Its files."""
    return kernel.directory


ROUTES = "Iface\tDestination\neth0\t00000000\neth1\t0000000A\n"
ROUTE = "br\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n"


def write(host: Path, switch: str, value: str) -> None:
    file = host / "sys" / switch
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{value}\n")


def test_what_somebody_took_away_is_found(host: Path, kernel: Kernel) -> None:
    assert found(kernel) == []
    both = replace(WANTED, own=OWN)
    assert found(kernel, both) == ["br had lost fd00::1"]
    write(host, "ipv6/conf/br/disable_ipv6", "1")
    assert found(kernel, both) == []
    kernel.file("br/flags", "0x1002")
    kernel.ports.clear()
    assert found(kernel) == ["the bridge br was down", "web1 was not on br"]
    assert found(kernel, WantedBridge("br"), web("web2", 3)) == []  # an operator's bridge is not ours to set up


def test_a_port_on_another_bridge_is_found(kernel: Kernel) -> None:
    kernel.change(bridge=8)
    assert found(kernel) == ["web1 was not on br"]


def test_a_port_that_is_down_and_another_mac_address_are_found(kernel: Kernel) -> None:
    assert found(kernel, replace(WANTED, hardware="02:4c:0a:00:00:02")) == ["br had another MAC address"]
    kernel.change(flags=0x1002)
    assert found(kernel) == ["the port of web1 was down"]


def test_a_changed_bridge_is_found(kernel: Kernel, host: Path) -> None:
    """Its MTU, its route, and what keeps frames from its ports."""
    kernel.file("br/mtu", "1400")
    kernel.file("br/bridge/stp_state", "1")
    kernel.file("br/bridge/vlan_filtering", "1")
    (host / "route").write_text(ROUTES + ROUTE.replace("br", "eth1"))
    assert found(kernel) == [
        "br had no route to 10.0.0.0/8", "br had the MTU 1400 in the place of 1500", "br had stp_state on",
        "br had vlan_filtering on",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [(8, 0, "learning"), (9, 1, "flood"), (27, 0, "mcast_flood"), (30, 0, "bcast_flood"), (32, 1, "neigh_suppress"),
     (33, 1, "isolated"), (4, 1, "hairpin"), (5, 1, "guard"), (6, 1, "root_block"), (39, 1, "locked"), (1, 0, "state")],
)  # fmt: skip
def test_each_changed_setting_of_a_port_is_found(kernel: Kernel, setting: int, value: int, told: str) -> None:
    """By `bridge link set` of another tool. Before, none was."""
    kernel.set(setting, value)
    assert found(kernel) == [f"the port of web1 was set otherwise: {told}"]
    assert found(kernel, replace(WANTED, ports={})) == []  # it has just been started by somebody else


def test_a_port_without_a_cable_does_not_forward(kernel: Kernel) -> None:
    """The kernel itself sets its state so, and back."""
    kernel.change(flags=0x1003)
    kernel.set(1, 0)
    assert found(kernel) == []


def test_on_the_operators_bridge_only_our_own_settings_count(kernel: Kernel) -> None:
    ours = WantedBridge("br", ports={PORT: Switches(True, True, MAC, True)})
    kernel.change(settings={**PLAIN, 4: 1, 5: 1, 33: 1, 8: 0, 32: 1, 1: 4}, mtu=9000)
    assert found(kernel, ours) == []
    kernel.set(33, 0)
    assert found(kernel, ours) == ["the port of web1 was set otherwise: isolated"]


def test_another_mtu_of_a_port_and_a_lost_entry_of_the_bridges_table_are_found(kernel: Kernel) -> None:
    kernel.change(mtu=1200)
    kernel.pinned.clear()
    assert found(kernel) == [
        "the port of web1 had the MTU 1200 in the place of 1500", "br did not know web1 at its port"
    ]  # fmt: skip
    kernel.change(mtu=1500)
    kernel.pinned[MAC] = 3  # somebody has it lead to another port
    assert found(kernel) == ["br did not know web1 at its port"]
    assert found(kernel, replace(WANTED, ports={PORT: Switches(False, False, None, None, 1500)})) == [
        "the port of web1 was set otherwise: flood"
    ]


def test_what_can_not_be_mended_is_tried_again_after_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A repair loads all rules: none every five seconds for ever, and nobody is told of a repair that was none."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    lasting = Lasting()
    assert lasting.due(["a", "b"]) == ["a", "b"]
    assert lasting.mended(["a", "b"], ["b"]) == ["a"]
    assert lasting.due(["b", "c"]) == ["c"]
    assert lasting.mended(["c"], ["b"]) == ["c"]
    now[0] += LASTING_SECONDS
    assert lasting.due(["b"]) == ["b"]
    assert lasting.mended(["b"], ["b"]) == []
    assert lasting.due([]) == []  # it went by itself
    assert lasting.due(["b"]) == ["b"]


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def test_ports_are_read_as_the_kernel_tells_them() -> None:
    settings = attribute(1, b"\3") + attribute(18, b"\5\x80") + attribute(33, b"\1")
    link = struct.pack("=BxHiII", 7, 1, 10, 0x11043, 0)
    body = link + attribute(3, b"lf1\0") + attribute(10, b"\2\0\0\0") + attribute(4, b"\xdc\5\0\0")
    body += attribute(12 | 0x8000, settings)
    datagram = struct.pack("=IHHII", 16 + len(body), 16, 2, 0, 0) + body
    (kind, flags, message), *rest = bridge_look.split(datagram + struct.pack("=IHHII", 16, 3, 2, 0, 0))
    assert (kind, flags, [each[0] for each in rest]) == (16, 2, [3])
    port = bridge_look.read(message)
    assert port == BridgePort("lf1", 2, 0x11043, 1500, 0x8005, {1: 3, 18: 0x8005, 33: 1})
    assert (port.is_up, port.runs) == (True, True)


@given(st.binary(max_size=120))
def test_any_bytes_are_survived(data: bytes) -> None:
    for _, _, message in bridge_look.split(data):
        if len(message) >= 16:
            bridge_look.read(message)


def test_the_bridges_table_has_what_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was learned ages, and the ports' own addresses are no container's."""
    monkeypatch.undo()
    monkeypatch.setattr(bridge_look, "_NET", tmp_path)
    (tmp_path / "br").mkdir()
    entries = [(b"\2\x4c\0\0\0\1", 1, 0, 0, 2), (b"\2\x4c\0\0\0\2", 2, 0, 77, 0), (b"\2\x4c\0\0\0\3", 3, 1, 0, 0)]
    table = b"".join(struct.pack("=6sBBIBxH", mac, low, local, age, high, 0) for mac, low, local, age, high in entries)
    (tmp_path / "br/brforward").write_bytes(table + b"half")
    assert bridge_look.pinned("br") == {"02:4c:00:00:00:01": 0x201}
    assert bridge_look.pinned("gone") == {}


def test_addresses_are_read_with_their_interfaces() -> None:
    """Also those under a label of their own, as ifconfig(8) has them."""
    table = b"".join(
        label.ljust(16, b"\0") + struct.pack("=HH", socket.AF_INET, 0) + bytes(map(int, address.split("."))) + bytes(16)
        for label, address in ((b"br", "10.0.0.1"), (b"eth0:1", "192.0.2.1"))
    )
    assert interfaces.addresses4(table) == {("br", "10.0.0.1"), ("eth0", "192.0.2.1")}
    assert interfaces.addresses4(b"") == set()


def test_switches_of_new_interfaces_are_set_without_a_word(host: Path) -> None:
    def state(name: str, switch: str = "forwarding") -> str:
        return (host / f"sys/ipv4/conf/{name}/{switch}").read_text().strip()

    switches = Switchboard()
    assert switches.switch_on("br", forward=True, localhost=False) == []
    assert [state(name) for name in ("br", "eth0", "eth1")] == ["1", "1", "1"]
    assert state("br", "route_localnet") == "0"
    assert switches.switch_on("br", forward=True, localhost=True) == []
    assert state("br", "route_localnet") == "1"
    write(host, "ipv4/conf/eth1/forwarding", "0")
    write(host, "ipv4/conf/br/route_localnet", "0")
    told = switches.switch_on("br", forward=True, localhost=True)
    assert told == ["forwarding for eth1 was off", "route_localnet for br was off"]
    assert (state("eth1"), state("br", "route_localnet")) == ("1", "1")
    write(host, "ipv4/conf/eth0/forwarding", "0")
    assert switches.switch_on("br", forward=False, localhost=False) == []
    assert state("eth0") == "0"


def test_an_interface_that_goes_away_meanwhile_costs_nothing(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other programs take theirs away between the look at what there is and the write."""
    shutil.rmtree(host / "sys/ipv4/conf/eth0")
    sysctl.forward(["br", "eth0", "eth1"])
    assert [(host / f"sys/ipv4/conf/{name}/forwarding").read_text() for name in ("br", "eth1")] == ["1\n", "1\n"]
    monkeypatch.setattr(sysctl, "forwards", lambda _: False)
    assert Switchboard().switch_on("br", forward=True, localhost=False) == []
    with pytest.raises(HostError, match="published to the host itself"):
        sysctl.route_localhost("eth0")
    (host / "sys/ipv4/conf/eth1/forwarding").unlink()
    (host / "sys/ipv4/conf/eth1/forwarding").mkdir()
    with pytest.raises(HostError, match=r"forwarding can't be switched on\n.*/eth1/forwarding: Is a directory"):
        sysctl.forward(["eth1"])


def test_messages_name_some_of_what_was_wrong() -> None:
    told = NetworkRepaired(tuple(f"web{number} was not on br" for number in range(8))).told()
    assert told.message.endswith("web4 was not on br; 3 more")
    assert NoNames("why\nwhat next").told().message == "why; what next"
