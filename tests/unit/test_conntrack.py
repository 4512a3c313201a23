"""What the kernel says of the flows that it remembers."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address

import pytest

from lxcfleet.host.net.conntrack import Flow, read
from lxcfleet.host.net.rtnetlink import NESTED, attribute


def direction(kind: int, source: str, source_port: int, target: str, target_port: int, protocol: int) -> bytes:
    """CTA_TUPLE_ORIG (1) or CTA_TUPLE_REPLY (2)."""
    first = 1 if ip_address(source).version == 4 else 3
    addresses = attribute(first, ip_address(source).packed) + attribute(first + 1, ip_address(target).packed)
    ports = attribute(2, struct.pack("!H", source_port)) + attribute(3, struct.pack("!H", target_port))
    parts = attribute(1 | NESTED, addresses) + attribute(2 | NESTED, attribute(1, bytes((protocol,))) + ports)
    return attribute(kind | NESTED, parts)


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize(
    ("family", "client", "host", "member", "protocol"),
    [
        (socket.AF_INET, "192.0.2.7", "192.0.2.1", "10.0.0.2", socket.IPPROTO_TCP),
        (socket.AF_INET6, "2001:db8::7", "2001:db8::1", "fd00::2", socket.IPPROTO_UDP),
    ],
)
def test_a_flow_is_read_in_both_directions(
    family: int, client: str, host: str, member: str, protocol: int, answered: bool
) -> None:
    there = direction(1, client, 40_000, host, 80, protocol)
    back = direction(2, member, 8080, client, 40_000, protocol)
    status = attribute(3, struct.pack("!I", 0x188 | answered << 1))
    message = bytes((family, 0, 0, 0)) + there + back + status
    assert read(message) == Flow(there, protocol, answered, host, 80, member, 8080)
    zone = attribute(18, struct.pack("!H", 5))
    flow = read(message + zone)
    assert flow is not None
    assert flow.key == there + zone


def test_flows_without_ports_are_left_out() -> None:
    """Of ICMP, ESP and their like."""
    icmp = attribute(1 | NESTED, attribute(2 | NESTED, attribute(1, b"\1") + attribute(4, b"\0\1")))
    assert read(bytes((socket.AF_INET, 0, 0, 0)) + icmp) is None
