"""Ports of the host: which containers may share one, and the rules for containers behind it."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lxcfleet.containers.container import Container
from lxcfleet.errors import HostError, InvalidInput
from lxcfleet.host.net import sockets
from lxcfleet.launcher.items.network import ForeignPort
from lxcfleet.network.discovery import Discovery
from lxcfleet.network.events import PortsShared
from lxcfleet.network.membership import Membership
from lxcfleet.network.publishing import Publishing
from lxcfleet.network.rules.affinity import SLOTS, owners
from lxcfleet.network.rules.member_maps import LoadedMaps, MemberMap
from lxcfleet.network.rules.rules import Published, member_maps, publish, read_kept, read_published
from lxcfleet.network.rules.shared_ports import check_foreign, check_shared, clashes, published
from lxcfleet.spec.container.ports import Publication, parse_publication
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading.terms import Affinity, NetworkMode

from .network_parts import FakeLauncher, context_of, own_paths, run


def spec(number: int, *ports: str, **labels: str) -> Spec:
    return Spec(
        f"c{number}", labels=labels, network=NetworkMode.BRIDGE, publish=tuple(map(parse_publication, ports)),
        address=IPv4Interface(f"10.0.0.{number}/24"), address6=IPv6Interface(f"fd00::{number}/64"),
    )  # fmt: skip


def test_a_port_leads_to_the_containers_behind_it() -> None:
    one, two, three = spec(1, "80:8080"), spec(2, "80:8080", "53:53/udp"), spec(3)
    found = published([one, two, three], [Container(each.name, each) for each in (two, three)])
    assert [(str(each.publication), list(map(str, each.ipv4))) for each in found] == [
        ("53:53/udp", ["10.0.0.2"]),
        ("80:8080/tcp", ["10.0.0.2"]),
    ]
    assert [each.ipv4 for each in published([one], [])] == [()]


@pytest.mark.parametrize(
    ("ports", "labels", "count", "complaint"),
    [
        ("80:80", {}, 1, "no label in common"),
        ("80:80", {"role": "db"}, 1, "no label in common"),
        ("80:81", {"role": "web"}, 1, "publishes it as 80:80/tcp"),
        ("127.0.0.1:80:80", {"role": "web"}, 1, "publishes it as 80:80/tcp"),
        ("81:80", {}, 2, "label in common: -l"),
    ],
)
def test_containers_that_can_t_share_are_refused(ports: str, labels: dict[str, str], count: int, complaint: str) -> None:
    there = [spec(1, "80:80", role="web", tier="front"), spec(2, "80:80", role="web")]
    with pytest.raises(InvalidInput) as caught:
        check_shared(spec(9, ports, **labels), count, there)
    assert complaint in f"{caught.value.message} {caught.value.why} {caught.value.hint}"


@pytest.mark.parametrize(
    ("ports", "labels", "count"),
    [
        ("80:80", {"role": "web"}, 3),
        ("80:80/udp", {}, 1),
        ("81:80", {}, 1),
        ("81:80", {"a": "b"}, 2),
        ("127.0.0.1:81:80", {}, 1),
    ],
)
def test_containers_that_can_share_a_port_may(ports: str, labels: dict[str, str], count: int) -> None:
    check_shared(spec(9, ports, **labels), count, [spec(1, "80:80", role="web", tier="front"), spec(2, "80:80", role="web")])


def test_ports_on_different_addresses_do_not_conflict() -> None:
    check_shared(spec(9, "192.0.2.1:80:80"), 1, [spec(1, "192.0.2.2:80:80")])
    with pytest.raises(InvalidInput):
        check_shared(spec(9, "80:80"), 1, [spec(1, "192.0.2.2:80:80")])


def match(protocol: str, field: str, value: object) -> dict[str, object]:
    """An expression as libnftables-json(5) has it."""
    return {"match": {"op": "==", "left": {"payload": {"protocol": protocol, "field": field}}, "right": value}}


NFPROTO = {"match": {"op": "==", "left": {"meta": {"key": "nfproto"}}, "right": "ipv6"}}
CHAIN: list[dict[str, Any]] = [
    {"expr": [{"match": {"op": "!=", "left": {"fib": {"result": "type", "flags": ["daddr"]}}, "right": "local"}}]},
    {"expr": [match("tcp", "dport", 80), {"dnat": {"port": 8080}}]},
    {"expr": [match("ip", "daddr", "192.0.2.1"), match("udp", "dport", 53), {"continue": None}]},
    {"expr": [match("ip6", "daddr", "2001:db8::1"), match("udp", "dport", 54), {"continue": None}]},
    {"expr": [NFPROTO, match("tcp", "dport", 82), {"continue": None}]},
]


def test_ports_that_another_fleet_publishes_are_refused() -> None:
    others = read_published("lxcfleet_br1", "published", CHAIN)
    assert read_published("lxcfleet_br1", "published6", CHAIN[1:2])[0]["address"] == "::"
    assert [(each["protocol"], each["port"], each["address"]) for each in others] == [
        ("tcp", 80, None), ("udp", 53, "192.0.2.1"), ("udp", 54, "2001:db8::1"), ("tcp", 82, "::"),
    ]  # fmt: skip
    check_foreign(map(parse_publication, ["80:1/udp", "81:1", "192.0.2.2:53:1/udp", "0.0.0.0:82:1"]), others)
    for text in ("80:1", "192.0.2.1:80:1", "192.0.2.1:53:1/udp", "53:1/udp", "[::]:54:1/udp", "[2001:db8::1]:82:1"):
        with pytest.raises(InvalidInput, match="is published already"):
            check_foreign([parse_publication(text)], others)


def rules_of(*ports: Published, standing: LoadedMaps = LoadedMaps()) -> str:  # noqa: B008  # it is frozen
    return publish("br", ports, standing)


def test_rules_of_published_ports() -> None:
    members = (IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2"))
    pair = MemberMap("ip", ("10.0.0.1", "10.0.0.2")).name
    text = rules_of(
        Published(parse_publication("80:8080"), members, (IPv6Address("fd00::1"),)),
        Published(parse_publication("127.0.0.1:53:5353/udp"), members[:1], (IPv6Address("fd00::1"),)),
        Published(parse_publication("81:81"), ()),
    )
    assert f"map {pair} {{ typeof numgen random mod 2 : ip daddr; elements = {{ 0 : 10.0.0.1, 1 : 10.0.0.2 }}; }}" in text
    assert f"tcp dport 80 dnat ip to numgen random mod 2 map @{pair} : 8080" in text
    assert "tcp dport 80 dnat ip6 to fd00::1 : 8080" in text
    assert "ip daddr 127.0.0.1 udp dport 53 dnat ip to 10.0.0.1 : 5353" in text
    only6 = rules_of(
        Published(parse_publication("[::]:80:8080"), members, (IPv6Address("fd00::1"),)),
        Published(parse_publication("[2001:db8::1]:81:81"), members, ()),
        Published(parse_publication("0.0.0.0:82:82"), members[:1], (IPv6Address("fd00::1"),)),
    )
    assert "meta nfproto ipv6 tcp dport 80 dnat ip6 to fd00::1 : 8080" in only6
    assert "ip6 daddr 2001:db8::1 tcp dport 81 continue" in only6
    assert "meta nfproto ipv4 tcp dport 82 dnat ip to" in only6
    assert only6.count("dnat") == 2
    assert text.count("dnat") == 3
    assert text.count("tcp dport 81 continue") == 1  # so that other fleets see that it is taken
    assert "dnat" not in rules_of()


def test_a_client_s_address_chooses_the_member() -> None:
    members = (IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2"))
    port = Published(parse_publication("80:8080"), members, (IPv6Address("fd00::1"),), Affinity.CLIENT)
    text = rules_of(port)
    assert "tcp dport 80 dnat ip to jhash ip saddr mod 512 seed 0x6c786366 map @members_ip_" in text
    assert "tcp dport 80 dnat ip6 to fd00::1 : 8080" in text
    assert text == rules_of(replace(port, ipv4=members[::-1]))
    # Each slot by itself: a map of ranges has moments in which it finds nothing (kernel 6.18).
    assert re.findall(r"(\S+) : 10\.0\.0\.[12]", text) == [str(slot) for slot in range(SLOTS)]


def test_the_map_of_the_rules_before_stays_for_one_exchange() -> None:
    """A packet that began with these rules still looks into it: without the map, it was refused."""
    first, second, third = (
        Published(parse_publication("80:80"), tuple(IPv4Address(f"10.0.0.{number}") for number in range(1, last + 1)))
        for last in (2, 3, 4)
    )
    maps = [each.maps[4].name for each in (first, second, third)]
    twin = replace(first, publication=parse_publication("81:80"))
    standing, seen = LoadedMaps(), []
    for ports in ([first, twin], [second], [third], [second], [first], [first], [first]):
        text = rules_of(*ports, standing=standing)
        standing = standing.after(member_maps(ports))
        made = [maps.index(name) for name in re.findall(r"  map (\S+) ", text)]
        gone = [maps.index(name) for name in re.findall(r"delete map inet lxcfleet_br (\S+)", text)]
        seen.append((made, gone))
        assert all(f"map @{each.maps[4].name} : 80" in text for each in ports)
    assert seen == [([0], []), ([1], []), ([2], [0]), ([], []), ([0], [2]), ([], [1]), ([], [])]


def test_after_a_failure_no_rule_leads_to_a_map_that_may_be_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = FakeLauncher()

    def loaded() -> str:
        return [str(item["rules"]) for operation, item in launcher.asked if operation == "publish"][-1]

    many = [Published(parse_publication("80:80"), (IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")))]

    async def play() -> None:
        publishing, _, _ = parts(tmp_path, launcher)
        monkeypatch.setattr(publishing, "wanted", lambda: many)
        publishing.made_anew(many)
        await publishing.apply()
        assert "  map " not in loaded()
        launcher.failure = HostError("no")
        publishing.made_anew(many)
        with pytest.raises(HostError):
            await publishing.apply()
        launcher.failure = None
        await publishing.apply()
        assert "  map " in loaded()

    asyncio.run(play())


@given(st.integers(2, 60), st.data())
@settings(deadline=None)
def test_only_the_clients_of_a_member_that_leaves_get_another_one(count: int, data: st.DataObject) -> None:
    members = [f"10.0.0.{number}" for number in range(count)]
    gone = data.draw(st.sampled_from(members))
    before, after = owners(members), owners([each for each in members if each != gone])
    assert all(one == other for one, other in zip(before, after, strict=True) if one != gone)
    assert gone not in after
    assert max(Counter(before).values()) < 4 * len(before) / count
    assert len({*before}) == count or count > 30


def test_those_that_share_a_port_have_one_affinity() -> None:
    sticky = replace(spec(1, "80:80", role="web"), affinity=Affinity.CLIENT)
    check_shared(replace(spec(9, "80:80", role="web"), affinity=Affinity.CLIENT), 2, [sticky])
    with pytest.raises(InvalidInput) as caught:
        check_shared(spec(9, "80:80", role="web"), 1, [sticky])
    assert "shares it with affinity client, not none" in caught.value.why
    assert published([sticky], [])[0].affinity is Affinity.CLIENT


PAIR = (spec(1, "80:80", role="web"), spec(2, "81:81", role="web"))


def parts(tmp_path: Path, launcher: FakeLauncher) -> tuple[Publishing, Discovery, list[Container]]:
    """Two running containers, on a bridge that is up."""
    containers = [Container(each.name, each) for each in PAIR]
    for container in containers:
        run(container)
    context = context_of(own_paths(tmp_path), *containers, launcher=launcher)
    context.up = True
    membership = Membership(context.registry)
    publishing = Publishing(context, membership)
    return publishing, Discovery(context, membership, publishing), containers


async def turns() -> None:
    """Let all tasks that are ready go on."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_simultaneous_changes_are_one_transaction(tmp_path: Path) -> None:
    launcher = FakeLauncher()

    async def play() -> None:
        publishing, discovery, (one, two) = parts(tmp_path, launcher)
        for _ in range(5):
            discovery.publish(one)
        await publishing.apply()
        await publishing.apply()
        assert launcher.operations() == ["publish"]
        assert "10.0.0.1" in launcher.asked[0][1]["rules"]
        discovery.publish(two)
        await turns()
        assert launcher.operations() == ["publish"] * 2
        assert "10.0.0.2" in launcher.asked[1][1]["rules"]
        publishing.made_anew(publishing.wanted())
        await turns()
        assert launcher.operations() == [*["publish"] * 3, "published"]

    asyncio.run(play())


def test_a_port_that_two_fleets_publish_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a boot of the host neither's table is there when the other one asks: one got nothing, and nobody was told."""
    launcher = FakeLauncher()
    others: list[ForeignPort] = [
        {"table": "lxcfleet_br1", "protocol": "tcp", "port": 80, "address": address} for address in ("192.0.2.1", None)
    ]
    told: list[str] = []

    async def ask_large(operation: str, _: Any) -> Any:
        return {"ports": others, "name_servers": []}

    async def play() -> None:
        publishing, discovery, (one, _) = parts(tmp_path, launcher)
        monkeypatch.setattr(discovery._context, "ask_large", ask_large)
        discovery._context.bus.subscribe("test", PortsShared, lambda event: told.append(event.told().message))
        discovery.publish(one)
        for _ in range(2):
            publishing.made_anew(publishing.wanted())
            await turns()
        others.clear()
        publishing.made_anew(publishing.wanted())
        await turns()

    asyncio.run(play())
    assert told == ["published by two fleets, of which one gets nothing: 80/tcp (the bridge br1)"]
    assert clashes(map(parse_publication, ["81:1", "80:1/udp", "0.0.0.0:80:1"]), others) == []
    named = PortsShared(tuple(f"{port}/tcp (the bridge br1)" for port in range(80, 87))).told().message
    assert named.endswith("84/tcp (the bridge br1); 2 more")


def test_nothing_is_published_on_a_bridge_that_is_not_up(tmp_path: Path) -> None:
    launcher = FakeLauncher()

    async def play() -> None:
        publishing, discovery, (one, _) = parts(tmp_path, launcher)
        discovery._context.up = False
        discovery.publish(one)
        await publishing.apply()

    asyncio.run(play())
    assert launcher.asked == []


def test_a_caller_that_waits_hears_of_a_failure(tmp_path: Path) -> None:
    launcher = FakeLauncher()
    launcher.failure = HostError("no")

    async def play() -> None:
        publishing, _, _ = parts(tmp_path, launcher)
        with pytest.raises(HostError):
            await publishing.apply()

    asyncio.run(play())


def test_a_failed_publication_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lxcfleet.network.publishing.RETRY_SECONDS", 0.0)
    launcher = FakeLauncher()
    launcher.failure = HostError("no")

    async def play() -> None:
        _, discovery, (one, _) = parts(tmp_path, launcher)
        discovery.publish(one)
        await turns()
        launcher.failure = None
        tried = len(launcher.asked)
        await turns()
        assert len(launcher.asked) == tried + 1 > 2

    asyncio.run(play())


def test_port_53_is_free_beside_name_servers_of_other_fleets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their rules keep the port at their own addresses, whoever publishes it."""
    chain = [{"expr": [match("ip", "daddr", "10.9.0.1"), match("th", "dport", 53), {"dnat": {"addr": "10.9.0.1"}}]}]
    kept = read_kept(chain)
    assert kept == ["10.9.0.1"]
    held = {4711: {"10.9.0.1", "fe80::1"}}

    def refuse(publication: Publication) -> None:
        raise sockets.PortInUse(f"the host's port {publication.host}/{publication.protocol} is in use")

    class Launcher(FakeLauncher):
        async def ask_large(self, operation: str, argument: Any) -> Any:
            return {"ports": [], "name_servers": kept}

    monkeypatch.setattr(sockets, "check_free", refuse)
    monkeypatch.setattr(sockets, "users", lambda _: held)
    context = context_of(own_paths(tmp_path), launcher=Launcher())
    publishing = Publishing(context, Membership(context.registry))

    def check(port: str) -> None:
        asyncio.run(publishing.check(spec(1, port), 1))

    check("53:53/udp")
    for port in ("54:53/udp", "10.9.0.1:53:53"):
        with pytest.raises(InvalidInput, match="in use"):
            check(port)
    held[4712] = {"192.0.2.1"}
    with pytest.raises(InvalidInput, match="in use"):
        check("53:53/udp")
    held[4712] = {"fe80::2"}  # a resolver on a link of its own
    with pytest.raises(InvalidInput, match="in use"):
        check("53:53/udp")


def test_a_change_of_many_is_held_against_the_others_and_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The containers' own former ports conflict with nothing."""
    monkeypatch.setattr(sockets, "check_free", lambda _: None)
    one, two, three = spec(1, "80:8080"), spec(2), spec(3, "443:8443")
    context = context_of(own_paths(tmp_path), *(Container(each.name, each) for each in (one, two, three)))
    publishing = Publishing(context, Membership(context.registry))

    def check(*changed: tuple[Spec, Spec]) -> None:
        asyncio.run(publishing.check_changed(changed))

    check((one, spec(1, "80:9090")))
    check((one, spec(1)), (two, spec(2, "80:8080")))
    check(*((each, spec(n, "80:8080", role="web")) for n, each in ((1, one), (2, two))))
    with pytest.raises(InvalidInput, match="80/tcp"):
        check(*((each, spec(n, "80:8080")) for n, each in ((1, one), (2, two))))
    with pytest.raises(InvalidInput, match="443/tcp"):
        check((two, spec(2, "443:8443")))
