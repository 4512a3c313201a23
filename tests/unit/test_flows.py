"""Flows of datagrams that have to be forgotten when the members behind a port change."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest

from lxcfleet.network.rules.flows import Flow, changed, is_wrong
from lxcfleet.network.rules.rules import Published
from lxcfleet.spec.container.ports import parse_publication

ONE, TWO = IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")


def published(port: str, *members: IPv4Address) -> Published:
    return Published(parse_publication(port), members, (IPv6Address("fd00::1"),) if members else ())


def test_udp_ports_with_other_members_count_and_tcp_ports_that_one_has_left() -> None:
    before = [published("53:5353/udp", ONE), published("80:80", ONE), published("9:9/udp", ONE), published("8:8/udp", ONE)]
    after = [published("53:5353/udp", ONE, TWO), published("80:80", TWO), published("9:9/udp", ONE)]
    assert changed(before, after) == [
        {"protocol": "udp", "address": None, "port": 53, "to": 5353, "members": ["10.0.0.1", "10.0.0.2", "fd00::1"]},
        {"protocol": "tcp", "address": None, "port": 80, "to": 80, "members": ["10.0.0.2", "fd00::1"]},
        {"protocol": "udp", "address": None, "port": 8, "to": 8, "members": []},
    ]
    assert [each["port"] for each in changed(None, after)] == [53, 80, 9]
    assert changed(after, after) == []
    assert changed([published("80:80", ONE)], [published("80:80", ONE, TWO)]) == []  # a connection goes where it goes


@pytest.mark.parametrize(
    ("flow", "wrong"),
    [
        (Flow("udp", "192.0.2.1", 53, "10.0.0.1", 5353), False),
        (Flow("udp", "192.0.2.1", 53, "10.0.0.2", 5353), True),  # to one that is gone
        (Flow("udp", "192.0.2.1", 53, "10.0.0.1", 5454), True),
        (Flow("udp", "192.0.2.1", 53, "192.0.2.1", 53), True),  # from before the port was published
        (Flow("udp", "127.0.0.1", 53, "127.0.0.1", 53), True),
        (Flow("udp", "::1", 53, "::1", 53), True),
        (Flow("udp", "192.0.2.1", 54, "10.0.0.2", 5353), False),
        (Flow("udp", "198.51.100.9", 53, "198.51.100.9", 53), False),  # passes through
        (Flow("udp", "192.0.2.1", 77, "10.0.0.2", 7), False),
        (Flow("udp", "127.0.0.1", 77, "127.0.0.1", 77), True),
        (Flow("tcp", "192.0.2.1", 53, "10.0.0.2", 5353), False),
    ],
)
def test_flows_that_lead_to_no_member_are_wrong(flow: Flow, wrong: bool) -> None:
    ports = changed(None, [published("53:5353/udp", ONE), published("127.0.0.1:77:7/udp", ONE)])
    assert is_wrong(flow, ports, {"192.0.2.1"}) is wrong
