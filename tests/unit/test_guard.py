"""The packets that containers may send, as rules; and the notice that the rules are gone."""

from __future__ import annotations

import struct
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxcfleet.host.net.nft_watch import messages
from lxcfleet.network.addresses.ranges import Subnet
from lxcfleet.network.rules import lan
from lxcfleet.network.rules.bandwidth import Bandwidth
from lxcfleet.network.rules.guard import AnyGuest, Guest, admit, differences, link_local, ports, removal, render
from lxcfleet.spec.reading.terms import MAX_MBIT

ONE = Guest(IPv4Address("10.201.0.2"), IPv6Address("fd00::2"), isolated=False)
TWO = Guest(IPv4Address("10.201.0.3"), None, isolated=True)


def test_a_guest_has_its_own_addresses_and_no_others() -> None:
    assert admit("br", [ONE]).splitlines() == [
        'add element bridge lxcfleet_br hardware { "lf0ac90002" . 02:4c:0a:c9:00:02 }',
        'add element bridge lxcfleet_br own4 { "lf0ac90002" . 10.201.0.2 }',
        'add element bridge lxcfleet_br own6 { "lf0ac90002" . fe80::4c:aff:fec9:2, "lf0ac90002" . fd00::2 }',
        'add element bridge lxcfleet_br targets { "lf0ac90002" . 0xfe80000000000000004c0afffec90002, '
        '"lf0ac90002" . 0xfd000000000000000000000000000002 }',
        "add element bridge lxcfleet_br owners4 { 10.201.0.2 : 02:4c:0a:c9:00:02 }",
        "add element bridge lxcfleet_br owners6 { 0xfe80000000000000004c0afffec90002 : 02:4c:0a:c9:00:02, "
        "0xfd000000000000000000000000000002 : 02:4c:0a:c9:00:02 }",
    ]


def test_isolated_guests_are_in_the_sets_for_that() -> None:
    text = admit("br", [TWO], gone=[ONE])
    assert 'add element bridge lxcfleet_br isolated { "lf0ac90003" }' in text
    assert "add element inet lxcfleet_br isolated4 { 10.201.0.3 }" in text
    assert "add element inet lxcfleet_br isolated6 { fe80::4c:aff:fec9:3 }" in text
    assert text.index("delete") < text.index("add")
    assert "isolated" not in admit("br", [], gone=[ONE])


def test_guests_are_admitted_and_forgotten() -> None:
    present: dict[str, AnyGuest] = {ONE.port: ONE}
    assert differences(present, {}) == ([ONE], [])
    assert differences(present, present) == ([], [])
    again = Guest(ONE.ipv4, ONE.ipv6, isolated=True)
    assert differences({ONE.port: again}, present) == ([again], [ONE])
    assert differences({TWO.port: TWO}, present) == ([TWO], [ONE])


@pytest.mark.parametrize(
    ("network", "pattern"),
    [("10.201.0.0/16", "lf0ac9*"), ("10.0.0.0/8", "lf0a*"), ("10.99.7.0/29", "lf0a63070*"), ("10.99.4.0/22", "lf0a630*")],
)
def test_the_ports_of_a_network(network: str, pattern: str) -> None:
    assert ports(IPv4Network(network)) == pattern


SUBNET = Subnet(IPv4Network("10.201.0.0/16"), IPv6Network("fd00::/64"))


def test_the_last_rule_drops_every_other_packet() -> None:
    lines = [line.strip() for line in render(SUBNET, "br", guard=True).splitlines()]
    assert lines[lines.index("}", lines.index("chain guard {")) - 1] == "drop"
    assert "chain guard" not in render(SUBNET, "br", guard=False)
    assert removal("br").count("table bridge lxcfleet_br") == 2


def test_a_frame_with_a_tag_is_dropped_before_what_is_behind_the_tag_counts() -> None:
    text = render(SUBNET, "br", guard=True)
    assert text.index("ether type { 8021q, 8021ad } drop") < text.index("ip saddr @own4 accept")


def test_a_question_about_an_address_goes_to_its_owner() -> None:
    text = render(SUBNET, "br", guard=True)
    assert "add element bridge lxcfleet_br owners4 { 10.201.0.1 : 02:4c:0a:c9:00:01 }" in text
    assert "0xfd000000000000000000000000000001 : 02:4c:0a:c9:00:01 }" in text
    arp, solicitation = text.index("map @owners4"), text.index("map @owners6")
    # Who asks is looked at after that. A multicast is dropped before.
    assert arp < text.index("arp saddr ip @own4 accept")
    assert text.index("nd-router-solicit") < solicitation < text.index("ip6 saddr @own6 accept")
    assert "arp operation request oifname . arp daddr ip != @own4 drop" in text  # the host asks
    alone = render(Subnet(IPv4Network("10.201.0.0/16"), None), "br", guard=True)
    assert alone.count("add element") == 2


def test_link_local_addresses() -> None:
    assert link_local("02:4c:0a:c9:01:02") == IPv6Address("fe80::4c:aff:fec9:102")


def message(kind: int, family: int, name: str) -> bytes:
    """A message in the kernel's form: some attribute, then the name."""
    text = name.encode() + b"\0"
    attributes = struct.pack("=HHI", 8, 2, 7) + struct.pack("=HH", 4 + len(text), 1) + text
    attributes += bytes(-len(attributes) % 4)
    body = struct.pack("=BBH", family, 0, 0) + attributes
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def test_messages_about_tables() -> None:
    data = message(0xA02, 7, "one") + message(0xA05, 7, "rule") + message(0xA00, 1, "two") + message(0xA0F, 0, "\0\0\1")
    data += message(0xB02, 7, "of another subsystem")
    assert list(messages(data)) == [("one", False, 0), ("rule", False, 0), ("two", False, 0), ("", True, 256)]


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(data: bytes) -> None:
    list(messages(data))
    list(messages(struct.pack("=IHHII", 16 + len(data), 0xA02, 0, 0, 0) + data))


def test_the_kernel_can_count_with_the_highest_limit_of_bandwidth() -> None:
    """It multiplies both numbers by the nanoseconds of a second, and refuses what 64 bits can't have: with one such limit
    no rules of the fleet's could be loaded any more, and no container started. The burst has 32 bits."""
    [line] = Bandwidth(send=MAX_MBIT).added("lf0ac90002", "lxcfleet_br")
    rate, burst = (int(word) for word in line.replace("bytes/second", "").split() if word.isdigit())
    assert (rate + burst) * 10**9 < 1 << 64
    assert burst < 1 << 32


def test_a_limit_of_bandwidth_is_an_object_that_comes_and_goes_with_its_elements() -> None:
    slow = replace(ONE, bandwidth=Bandwidth(receive=10, send=0.5))
    lines = admit("br", [slow]).splitlines()
    assert lines[:2] == [
        "add limit bridge lxcfleet_br lf0ac90002_received { rate over 1250000 bytes/second burst 262144 bytes }",
        "add limit bridge lxcfleet_br lf0ac90002_sent { rate over 62500 bytes/second burst 262144 bytes }",
    ]
    assert 'add element bridge lxcfleet_br sent { "lf0ac90002" : "lf0ac90002_sent" }' in lines
    faster = replace(ONE, bandwidth=Bandwidth(receive=10_000))
    text = admit("br", [faster], [slow])
    parts = ("delete element bridge lxcfleet_br sent", "delete limit", "add limit", "add element")
    order = [text.index(part) for part in parts]
    assert order == sorted(order)
    assert "burst 156250000 bytes" in text
    assert text.count("delete limit") == 2
    assert "limit" not in admit("br", [ONE], [ONE])
    for rules in (render(SUBNET, "br", guard=False), lan.render_bridge("br", guard=False, ipv6=True)):
        assert "limit name iifname map @sent drop" in rules
        assert "limit name oifname map @received drop" in rules
