"""Ports of the host: who may share one, and the rules for those behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

import pytest

from lxcfleet.containers.container import Container
from lxcfleet.errors import HostError, InvalidInput
from lxcfleet.network.publishing import Publishing, check_shared, published
from lxcfleet.network.rules import Published, publish
from lxcfleet.spec.ports import parse_publication
from lxcfleet.spec.spec import Spec
from lxcfleet.spec.terms import Network


def spec(number: int, *ports: str, **labels: str) -> Spec:
    return Spec(
        f"c{number}", labels=labels, network=Network.BRIDGE, publish=tuple(map(parse_publication, ports)),
        address=IPv4Interface(f"10.0.0.{number}/24"), address6=IPv6Interface(f"fd00::{number}/64"),
    )  # fmt: skip


def test_who_is_behind_a_port() -> None:
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
def test_who_can_not_share_is_refused(ports: str, labels: dict[str, str], count: int, complaint: str) -> None:
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
def test_who_can_share_may(ports: str, labels: dict[str, str], count: int) -> None:
    check_shared(spec(9, ports, **labels), count, [spec(1, "80:80", role="web", tier="front"), spec(2, "80:80", role="web")])


def test_addresses_of_their_own_do_not_meet() -> None:
    check_shared(spec(9, "192.0.2.1:80:80"), 1, [spec(1, "192.0.2.2:80:80")])
    with pytest.raises(InvalidInput):
        check_shared(spec(9, "80:80"), 1, [spec(1, "192.0.2.2:80:80")])


def test_rules_of_published_ports() -> None:
    members = (IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2"))
    text = publish("br", [
        Published(parse_publication("80:8080"), members, (IPv6Address("fd00::1"),)),
        Published(parse_publication("127.0.0.1:53:5353/udp"), members[:1], (IPv6Address("fd00::1"),)),
        Published(parse_publication("81:81"), ()),
    ])  # fmt: skip
    assert "tcp dport 80 dnat ip to numgen random mod 2 map { 0 : 10.0.0.1, 1 : 10.0.0.2 } : 8080" in text
    assert "tcp dport 80 dnat ip6 to numgen random mod 1 map { 0 : fd00::1 } : 8080" in text
    assert "ip daddr 127.0.0.1 udp dport 53 dnat ip to numgen random mod 1 map { 0 : 10.0.0.1 } : 5353" in text
    assert text.count("dnat") == 3
    assert "81" not in text
    assert "dnat" not in publish("br", [])


def test_changes_of_one_moment_are_one_transaction() -> None:
    wanted = [Published(parse_publication("80:80"), ())]
    done: list[Sequence[Published]] = []

    async def carry_out(what: Sequence[Published]) -> None:
        done.append(what)
        await asyncio.sleep(0.01)

    async def play() -> None:
        publishing = Publishing(lambda: list(wanted), carry_out)
        for _ in range(5):
            publishing.kick()
        await publishing.apply()
        await publishing.apply()
        assert done == [wanted]
        wanted.append(Published(parse_publication("81:81"), ()))
        publishing.kick()
        await asyncio.sleep(0.05)
        assert done[1:] == [wanted]
        publishing.distrust()
        await asyncio.sleep(0.05)
        assert len(done) == 3

    asyncio.run(play())


def test_who_has_to_know_hears_of_a_failure() -> None:
    async def carry_out(_: Sequence[Published]) -> None:
        raise HostError("no")

    async def play() -> None:
        with pytest.raises(HostError):
            await Publishing(lambda: [Published(parse_publication("80:80"), ())], carry_out).apply()

    asyncio.run(play())
