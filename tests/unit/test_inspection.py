"""What is found wrong with a bridge, and what is switched on again."""

from __future__ import annotations

import shutil
import socket
import struct
from ipaddress import IPv4Address, IPv4Interface, IPv6Address
from pathlib import Path

import pytest

from lxcfleet.containers.container import Container
from lxcfleet.errors import HostError
from lxcfleet.host.net import interfaces, sysctl
from lxcfleet.network.events import NetworkRepaired, NoNames
from lxcfleet.network.inspection import Switches, faults
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading.terms import Network


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with the bridge br, and web1's port on it."""
    monkeypatch.setattr(interfaces, "_NET", tmp_path / "net")
    monkeypatch.setattr(interfaces, "_ROUTES", tmp_path / "route")
    monkeypatch.setattr(interfaces, "has_address", lambda name, address: address.version == 4)
    monkeypatch.setattr(interfaces, "_flags", lambda asks, name: 0x1003)
    monkeypatch.setattr(sysctl, "_SYSCTL", tmp_path / "sys")
    port = web().spec.port  # type: ignore[union-attr]
    (tmp_path / "net/br/brif" / port).mkdir(parents=True)
    (tmp_path / "net" / port).mkdir()
    (tmp_path / "net/br/flags").write_text("0x1003\n")
    (tmp_path / "net/br/address").write_text("02:4c:0a:00:00:01\n")
    (tmp_path / "route").write_text("Iface\tDestination\neth0\t00000000\neth1\t0000000A\nlo\t1\nbr\t2\n")
    for name in ("br", "eth0", "eth1"):
        for switch in ("forwarding", "route_localnet"):
            write(tmp_path, f"ipv4/conf/{name}/{switch}", "0")
    write(tmp_path, "ipv6/conf/br/disable_ipv6", "0")
    return tmp_path


def web() -> Container:
    return Container("web1", Spec("web1", network=Network.BRIDGE, address=IPv4Interface("10.0.0.2/8")))


def write(host: Path, switch: str, value: str) -> None:
    file = host / "sys" / switch
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{value}\n")


OWN: list[IPv4Address | IPv6Address] = [IPv4Address("10.0.0.1"), IPv6Address("fd00::1")]


def test_what_somebody_took_away_is_found(host: Path) -> None:
    assert faults("br", OWN[:1], [web()]) == []
    assert faults("br", OWN, [web()]) == ["br had lost fd00::1"]
    write(host, "ipv6/conf/br/disable_ipv6", "1")
    assert faults("br", OWN, [web()]) == []
    (host / "net/br/flags").write_text("0x1002\n")
    (next((host / "net/br/brif").iterdir())).rmdir()
    assert faults("br", OWN, [web()]) == ["the bridge br was down", "web1 was not on br"]
    assert faults("br", [], []) == []  # an operator's bridge is not ours to set up


def test_a_port_that_is_down_and_another_mac_address_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert faults("br", OWN[:1], [web()], "02:4c:0a:00:00:01") == []
    assert faults("br", OWN[:1], [web()], "02:4c:0a:00:00:02") == ["br had another MAC address"]
    assert faults("br", [], [web()], "") == []
    monkeypatch.setattr(interfaces, "_flags", lambda asks, name: 0x1002)
    assert faults("br", OWN[:1], [web()]) == ["the port of web1 was down"]


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

    switches = Switches()
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
    assert Switches().switch_on("br", forward=True, localhost=False) == []
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
