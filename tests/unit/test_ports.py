"""Ports as they are written on the command line and in files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.ports import Port, Publication, check_ports, check_publications, parse_port, parse_publication

NUMBERS = st.integers(1, 65535)
PROTOCOLS = st.sampled_from(["tcp", "udp"])


@given(NUMBERS, PROTOCOLS)
def test_a_port_is_written_as_it_is_read(number: int, protocol: str) -> None:
    port = Port("http", number, protocol)
    assert parse_port(str(port)) == port


@given(NUMBERS, NUMBERS, PROTOCOLS, st.none() | st.ip_addresses(v=4).map(str))
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
     "1.2.3.4:80", "8080:80:tcp", "1.2.3.4::80"],
)  # fmt: skip
def test_a_text_that_is_no_publication_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_publication(text)


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_port, parse_publication):
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
