"""Ports as they are written on the command line and in files."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.container.ports import (
    MAX_RANGE,
    Port,
    Publication,
    check_ports,
    check_publications,
    gather_publications,
    meet,
    parse_port,
    parse_publication,
    spread_publication,
)

NUMBERS = st.integers(1, 65535)
PROTOCOLS = st.sampled_from(["tcp", "udp"])
ADDRESSES6 = st.ip_addresses(network="2000::/3").map(str) | st.just("::")


@given(NUMBERS, PROTOCOLS)
def test_a_port_is_written_as_it_is_read(number: int, protocol: str) -> None:
    port = Port("http", number, protocol)
    assert parse_port(str(port)) == port


@given(NUMBERS, NUMBERS, PROTOCOLS, st.none() | st.ip_addresses(v=4).map(str) | ADDRESSES6)
def test_a_publication_is_written_as_it_is_read(host: int, container: int, protocol: str, address: str | None) -> None:
    publication = Publication(host, container, protocol, address)
    assert parse_publication(str(publication)) == publication


def test_the_usual_protocol_may_be_left_out() -> None:
    assert parse_port("http=80") == Port("http", 80)
    assert parse_port("dns=53/udp") == Port("dns", 53, "udp")
    assert parse_publication("8080:80") == Publication(8080, 80)
    assert parse_publication("127.0.0.1:53:53/udp") == Publication(53, 53, "udp", "127.0.0.1")


@pytest.mark.parametrize(
    "text",
    ["", "http", "http=", "http=0", "http=65536", "http=8080/sctp", "=80", "HTTP=80", "80=80", "a--b=1", "-a=1",
     "http=80/", "http= 80", "http=٣", f"{'a' * 16}=1", "http=80=80"],
)  # fmt: skip
def test_a_text_that_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="SERVICE=PORT"):
        parse_port(text)


@pytest.mark.parametrize(
    "text",
    ["", "80", ":80", "80:", "8080:80/sctp", "8080/udp:80", "70000:80", "80:0", "a:80", "1.2.3:80:80", "::1:80:80",
     "1.2.3.4:80", "8080:80:tcp", "1.2.3.4::80", "[::1]:80:80", "[fe80::1]:80:80", "[::ffff:1.2.3.4]:80:80", "[]:80:80",
     "[1.2.3.4]:80:80", "[2001:db8::1%eth0]:80:80"],
)  # fmt: skip
def test_a_text_that_is_no_publication_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_publication(text)


@pytest.mark.parametrize(
    ("text", "single"),
    [
        ("8000-8002:9000-9002", ["8000:9000", "8001:9001", "8002:9002"]),
        ("10.0.0.1:53-54:1053-1054/udp", ["10.0.0.1:53:1053/udp", "10.0.0.1:54:1054/udp"]),
        ("80-80:8080", ["80:8080"]),
        ("80:8080", ["80:8080"]),
        ("[2001:db8::1]:80-81:90-91", ["[2001:db8::1]:80:90", "[2001:db8::1]:81:91"]),
        ("no-publication", ["no-publication"]),
    ],
)
def test_a_range_stands_for_its_ports(text: str, single: list[str]) -> None:
    assert list(spread_publication(text)) == single


@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.integers(1, 9), PROTOCOLS, st.sampled_from([None, "10.0.0.1", "2001:db8::1"])),
        max_size=9,
    ).map(lambda each: [Publication(*one) for one in each])
    | st.integers(1, 40).map(lambda count: [Publication(80 + number, 8080 + number) for number in range(count)])
)
def test_ports_that_follow_each_other_are_written_as_a_range(publications: list[Publication]) -> None:
    texts = gather_publications(publications)
    assert [parse_publication(single) for text in texts for single in spread_publication(text)] == publications
    assert len(texts) <= len(publications)


def test_three_ports_make_a_range() -> None:
    one, two, three = (Publication(80 + number, 8080 + number) for number in range(3))
    assert gather_publications([one, two]) == ["80:8080/tcp", "81:8081/tcp"]
    assert gather_publications([one, two, three, Publication(90, 90)]) == ["80-82:8080-8082/tcp", "90:90/tcp"]


@pytest.mark.parametrize(
    ("text", "why"),
    [("1-3:1-2", "3 ports of the host can't lead to 2"), ("3-1:1-3", "3-1 ends before"), ("0-3:0-3", "0 is not a port"),
     ("1-:1-2", "nothing is not a port"), ("1-2-3:1-3", "2-3 is not a port"), (f"1-{MAX_RANGE + 1}:" * 2, "is not a port"),
     (f"1-{MAX_RANGE + 1}:1-{MAX_RANGE + 1}", "are more than 1024"), ("1-2/udp:1-2", "the protocol stands at the end")],
)  # fmt: skip
def test_a_range_that_makes_no_sense_is_refused(text: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(why)):
        list(map(parse_publication, spread_publication(text)))


def test_a_container_has_a_limit_of_ports() -> None:
    check_publications([Publication(number, number) for number in range(1, MAX_RANGE + 1)])
    with pytest.raises(InvalidInput, match="1025 published ports are more than 1024"):
        check_publications([Publication(number, number) for number in range(1, MAX_RANGE + 2)])


@given(st.text(max_size=30) | st.from_regex(r"[0-9]{1,5}-[0-9]{1,5}:[0-9]{1,5}(-[0-9]{1,5})?(/udp)?", fullmatch=True))
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_port, parse_publication, spread_publication):
        try:
            parse(text)
        except InvalidInput:
            continue


def test_no_port_comes_twice() -> None:
    check_ports([Port("dns", 53), Port("dns", 53, "udp")])
    with pytest.raises(InvalidInput, match="http/tcp is declared twice"):
        check_ports([Port("http", 80), Port("http", 81)])
    check_publications([Publication(53, 53), Publication(53, 53, "udp")])
    with pytest.raises(InvalidInput, match="80/tcp is published twice"):
        check_publications([Publication(80, 1), Publication(80, 2)])


def test_a_port_may_be_published_at_addresses_of_both_kinds() -> None:
    both = [parse_publication("0.0.0.0:80:8080"), parse_publication("[::]:80:8081")]
    check_publications(both)
    assert [each.versions for each in both] == [(4,), (6,)]
    for text in ("80:80", "[2001:DB8::1]:80:80", "10.0.0.1:80:80"):
        with pytest.raises(InvalidInput, match="80/tcp is published twice"):
            check_publications([*both, parse_publication(text)])
    assert str(parse_publication("[2001:DB8:0::1]:80:80")) == "[2001:db8::1]:80:80/tcp"


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [(None, "::", True), ("::", "0.0.0.0", False), ("::", "2001:db8::1", True), ("0.0.0.0", "10.0.0.1", True),
     ("10.0.0.1", "::", False), ("10.0.0.1", "10.0.0.2", False), ("2001:db8::1", "2001:db8::1", True)],
)  # fmt: skip
def test_addresses_meet(one: str | None, other: str | None, expected: bool) -> None:
    assert meet(one, other) == meet(other, one) == expected
