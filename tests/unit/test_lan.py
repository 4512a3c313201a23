"""Containers on a bridge of the operator's: their MAC addresses, leases and rules."""

from __future__ import annotations

import hashlib
from ipaddress import IPv4Address, IPv4Interface, IPv6Address
from pathlib import Path

import pytest

from lxcfleet.containers import store
from lxcfleet.containers.container import Container
from lxcfleet.errors import Broken, InvalidInput, NoCapacity, Unsupported
from lxcfleet.health import judge
from lxcfleet.host.net import dhcp, interfaces
from lxcfleet.network import needs
from lxcfleet.network.addressing import Addressing
from lxcfleet.network.rules import lan
from lxcfleet.spec.container.addresses import is_hardware, lan_port
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files.settings import Config, NetworkSettings, describe, parse
from lxcfleet.spec.reading.terms import Addresses, NetworkMode
from lxcfleet.spec.states import Health

from .network_parts import Names, context_of, own_paths, run

LAN = NetworkSettings(bridge="br0", addresses=Addresses.DHCP)
MAC = "06:0a:0b:0c:0d:0e"
SPEC = Spec("web1", labels={"role": "web"}, network=NetworkMode.BRIDGE, hardware=MAC, created="2026-01-01T00:00:00+00:00")


def test_a_name_has_always_the_same_mac_address() -> None:
    first = lan.hardware("host", "c1", {})
    assert first == lan.hardware("host", "c1", {"06:00:00:00:00:00": "c3"})
    assert is_hardware(first)
    others = [lan.hardware("host", "c2", {}), lan.hardware("other", "c1", {}), lan.hardware("host", "c1", {first: "c3"})]
    assert len({first, *others}) == 4


def test_each_new_container_has_a_mac_address_of_its_own_without_a_look_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand took a look at a thousand others each."""
    context = context_of(own_paths(tmp_path), Container("web1", SPEC), settings=LAN)
    looks: list[int] = []
    addresses = Addressing(context)

    def specs() -> list[Spec]:
        looks.append(1)
        return [SPEC]

    monkeypatch.setattr(addresses, "_specs", specs)
    new = [addresses.place(Spec(f"c{number}", network=NetworkMode.BRIDGE), ()) for number in range(50)]
    assert (len({each.mac for each in new}), len(looks)) == (50, 1)
    assert addresses.place(Spec("c7", network=NetworkMode.BRIDGE), ()).mac == new[7].mac  # it has it already
    digest = hashlib.sha256
    monkeypatch.setattr(
        "lxcfleet.network.rules.lan.hashlib.sha256",
        lambda data: digest(data.replace(b" other 0", b" c0 0")),
    )
    other = Spec("other", network=NetworkMode.BRIDGE)
    assert addresses.place(other, ()).mac != new[0].mac  # it is somebody's
    addresses.give_back(new[0])
    assert addresses.place(other, ()).mac == new[0].mac


def test_ports_of_the_bridge_are_named_by_it() -> None:
    assert lan_port(MAC) == SPEC.port == "ld0a0b0c0d0e"
    assert SPEC.mac == MAC
    assert len(SPEC.port) < 16
    assert (Spec("c").port, Spec("c").mac) == ("", "")


@pytest.mark.parametrize(
    ("text", "address"),
    [("none\n", None), ("address 10.0.0.7/24\n", IPv4Interface("10.0.0.7/24"))],
)
def test_a_lease_of_a_client_is_read(text: str, address: IPv4Interface | None) -> None:
    assert lan.parse_lease(text).address == address


@pytest.mark.parametrize("text", ["", "address", "address 10.0.0.300/24", "address fd00::1/64", "bound 10.0.0.1/24"])
def test_a_text_that_no_client_writes_is_no_lease(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        lan.parse_lease(text)


def test_the_kernels_own_addresses_of_a_prefix() -> None:
    table = (
        "fd770009000000000" "40a0bfffe0c0d0e 02 40 00 00     eth0\n"  # the container's own address
        "fd770009000000000" "40a0bfffe0c0d0f 02 40 00 00     eth0\n"  # the address of another machine
        "fd780009000000000" "40a0bfffe0c0d0e 02 40 00 40     eth0\n"  # a tentative address
        "fe80000000000000040a0bfffe0c0d0e 02 40 20 80     eth0\n"  # a link-local address
        "00000000000000000000000000000001 01 80 10 80       lo\n"
    )  # fmt: skip
    assert lan.routed6(table, MAC) == [IPv6Address("fd77:9::40a:bff:fe0c:d0e")]
    assert lan.routed6("", MAC) == []


def test_guests_and_leases_are_elements_of_sets() -> None:
    found = lan.LanGuest(MAC, isolated=False).elements()
    assert found["bridge", "clients"] == ['"ld0a0b0c0d0e" . 0x060a0b0c0d0e']
    assert found["bridge", "own6"] == ['"ld0a0b0c0d0e" . 0x040a0bfffe0c0d0e']
    assert ("bridge", "isolated") not in found
    assert lan.LanGuest(MAC, isolated=True).elements()["bridge", "isolated"] == ['"ld0a0b0c0d0e"']
    elements = lan.lease_elements([("ld0a0b0c0d0e", IPv4Address("10.0.0.7"))])
    wanted = 'add element bridge lxcfleet_br0 leased { "ld0a0b0c0d0e" . 0x0a000007 }\n'
    assert lan.change_leases("br0", elements, []) == wanted
    assert lan.change_leases("br0", [], []) == ""


def test_packets_of_others_on_the_bridge_are_left_alone() -> None:
    chain = lan.render_bridge("br0", guard=True, ipv6=True).partition("chain guard")[2]
    rules = [line.strip() for line in chain.splitlines()[2:]]
    assert rules[0] == "iifname != @ports accept"
    assert rules[rules.index("}") - 1] == "drop"
    assert "chain guard" not in lan.render_bridge("br0", guard=False, ipv6=True)
    assert "fe80::/10" not in chain
    assert "ip6 saddr != fe80::/10 ip6 saddr != :: drop" in lan.render_bridge("br0", guard=True, ipv6=False)
    assert "udp dport 67 accept" in lan.render_bridge("br0", guard=True, ipv6=True)  # the host may be the DHCP server
    assert 'oifname "br0" iifname' not in lan.render("br0", [], route6=False)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("addresses: dhcp", "bridge: with `addresses: dhcp`"),
        ("bridge: br0, addresses: static", "addresses: 'static' is none of own, dhcp"),
        ("bridge: br0, addresses: dhcp, ipv4: 10.1.0.0/16", "ipv4: with `addresses: dhcp`"),
        ("bridge: br0, addresses: dhcp, ipv6: 'fd00::/64'", "ipv6: with `addresses: dhcp`"),
        ("bridge: br0, addresses: dhcp, host_access: false", "host_access: with `addresses: dhcp`"),
    ],
)
def test_settings_without_effect_on_such_a_bridge_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse(f"network: {{{text}}}".encode(), "file")
    assert complaint in str(refused.value)


def test_settings_with_an_effect_are_accepted() -> None:
    settings = parse(b"network: {bridge: br0, addresses: dhcp, ipv6: none}", "file")
    assert settings.network.dhcp
    assert not Config().network.dhcp
    assert parse(describe(settings).encode(), "again") == settings


def test_specs_with_a_mac_address_survive() -> None:
    assert store.parse("web1", store.render(SPEC).encode(), "file") == SPEC
    text = store.render(SPEC)
    for wrong in (text.replace(MAC, "02:4c:00:00:00:01"), text.replace("address: null", "address: 10.0.0.2/24", 1),
                  text.replace('network: "bridge"', 'network: "none"')):  # fmt: skip
        assert wrong != text
        with pytest.raises(Broken):
            store.parse("web1", wrong.encode(), "file")


def test_a_container_that_waits_for_its_address_is_not_found(tmp_path: Path) -> None:
    paths = own_paths(tmp_path)
    web = Container("web1", SPEC)
    run(web)
    parts = Names(context_of(paths, web, settings=NetworkSettings(bridge="br0")))
    found, membership = parts.discovery, parts.membership
    found.moved(web)
    found.publish(web)
    assert (web.waits_for_address, membership.members(), (paths.hosts / "web1").exists()) == (True, [], False)
    web.leased = (IPv4Address("10.0.0.7"),)
    found.moved(web)
    assert (web.waits_for_address, membership.members()) == (False, [web])
    assert (paths.hosts / "web1").read_text().startswith("10.0.0.7 web1.fleet web.role.fleet")
    found.withdraw("web1")  # a container that is about to be stopped
    web.leased = (IPv4Address("10.0.0.8"),)
    found.moved(web)
    assert (membership.members(), (paths.hosts / "web1").exists()) == ([], False)


def test_a_container_without_an_address_is_not_healthy() -> None:
    assert judge.without_address(1) is Health.STARTING
    assert judge.without_address(judge.ADDRESS_SECONDS) is Health.UNHEALTHY


def test_findings_for_the_operator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(dhcp, "PROGRAM", tmp_path / "udhcpc")
    settings = parse(b"network: {bridge: nobridge9, addresses: dhcp}", "file").network
    client, bridge, ports = needs.findings(settings, count=1, served=True)
    assert ports.check == "bridge-ports"
    assert (client.level, client.hint) == ("fail", "apt install udhcpc")
    assert "nobridge9 is not there" in bridge.message
    with pytest.raises(Unsupported, match="DHCP"):
        needs.check(settings)


def test_a_bridge_has_room_for_so_many_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interfaces, "ports", lambda _: {f"p{number}" for number in range(1000)})
    operators = NetworkSettings(bridge="br0", addresses=Addresses.DHCP, dns=False)
    for count, level in ((23, "ok"), (24, "fail")):
        *_, found = needs.findings(operators, count=count, served=True)
        assert (found.check, found.level, found.have, found.need) == ("bridge-ports", level, 23, count)
    assert needs.findings(NetworkSettings(dns=False), count=24, served=True) == []  # the fleet's own has further ones
    needs.check_ports("br0", 23)
    with pytest.raises(NoCapacity, match="no room for 24 more containers on br0"):
        needs.check_ports("br0", 24)
