"""Answers to questions about names, as bytes on the wire."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxcfleet.network.names.dns import Zone, answer, read_hosts
from lxcfleet.network.names.hosts import hosts_lines
from lxcfleet.spec.container.ports import Port

A, AAAA, SRV, ANY = 1, 28, 33, 255
OK, MALFORMED, NO_NAME, NOT_DONE, REFUSED = 0, 1, 3, 4, 5


class Said(NamedTuple):
    """An answer, parsed."""

    code: int
    cut: bool
    answers: list[tuple[int, object]]
    beside: list[tuple[int, object]]


def question(name: str, kind: int, size: int | None = None, kind_class: int = 1) -> bytes:
    wire = b"".join(bytes((len(label),)) + label.encode() for label in name.split(".") if label) + b"\0"
    more = b"" if size is None else b"\0" + struct.pack("!HHIH", 41, size, 0, 0)
    return struct.pack("!6H", 7, 0x100, 1, 0, 0, bool(more)) + wire + struct.pack("!HH", kind, kind_class) + more


def name_at(message: bytes, at: int) -> tuple[str, int]:
    labels: list[str] = []
    while length := message[at]:
        if length >= 192:
            return ".".join([*labels, name_at(message, struct.unpack_from("!H", message, at)[0] & 0x3FFF)[0]]), at + 2
        labels.append(message[at + 1 : at + 1 + length].decode())
        at += 1 + length
    return ".".join(labels), at + 1


def read(message: bytes | None) -> Said:
    assert message is not None
    identity, flags, _, answers, authorities, more = struct.unpack_from("!6H", message)
    assert (identity, flags & 0x8000, authorities) == (7, 0x8000, 0)
    at = name_at(message, 12)[1] + 4
    found: list[list[tuple[int, object]]] = [[], []]
    for number in range(answers + more):
        at = name_at(message, at)[1]
        kind, _, lifetime, size = struct.unpack_from("!HHIH", message, at)
        at += 10
        data = message[at : at + size]
        value: object = None
        if kind in (A, AAAA):
            value = str(ip_address(data))
        elif kind == SRV:
            value = (*struct.unpack_from("!3H", data)[::2], name_at(message, at + 6)[0])
        if kind != 41:
            assert lifetime == 0
            found[number >= answers].append((kind, value))
        at += size
    assert at == len(message)
    return Said(flags & 15, bool(flags & 0x200), *found)


def zone(count: int = 2) -> Zone:
    own = Zone("fleet")
    for number in range(1, count + 1):
        first = IPv4Address(f"10.0.{number >> 8}.{number & 255}")
        addresses: list[IPv4Address | IPv6Address] = [first, IPv6Address(f"fd00::{number:x}")]
        text = hosts_lines(f"web{number}", {"role": "web"}, addresses, "fleet", [Port("http", 8080)])
        own.replace(f"web{number}", read_hosts(text))
    return own


GROUP = "_http._tcp.web.role.fleet"


def test_services_of_a_container_and_of_a_group() -> None:
    own = zone()
    one = read(answer(question("_http._tcp.web1.fleet", SRV), own))
    assert one == Said(OK, False, [(SRV, (0, 8080, "web1.fleet"))], [(A, "10.0.0.1")])
    both = read(answer(question("_HTTP._tcp.Web.role.fleet", SRV), own))
    assert sorted(both.answers) == [(SRV, (0, 8080, "web1.fleet")), (SRV, (0, 8080, "web2.fleet"))]
    assert sorted(both.beside) == [(A, "10.0.0.1"), (A, "10.0.0.2")]


def test_addresses() -> None:
    assert sorted(read(answer(question("web.role.fleet", A), zone())).answers) == [(A, "10.0.0.1"), (A, "10.0.0.2")]
    assert read(answer(question("web1.fleet", AAAA), zone())).answers == [(AAAA, "fd00::1")]


@pytest.mark.parametrize(
    ("name", "code"),
    [("web.role.fleet", OK), ("role.fleet", OK), ("_tcp.web1.fleet", OK), ("fleet", OK), ("web3.fleet", NO_NAME),
     ("_https._tcp.web1.fleet", NO_NAME), ("example.org", REFUSED), ("notfleet", REFUSED), ("", REFUSED)],
)  # fmt: skip
def test_a_name_without_records_gets_the_right_kind_of_empty_answer(name: str, code: int) -> None:
    assert read(answer(question(name, SRV), zone())) == Said(code, False, [], [])


def test_a_file_that_goes_takes_its_names_along() -> None:
    own = zone()
    own.replace("web2", {})
    assert read(answer(question(GROUP, SRV), own)).answers == [(SRV, (0, 8080, "web1.fleet"))]
    own.replace("web1", {})
    assert own.files() == set()
    for name in (GROUP, "web.role.fleet", "role.fleet"):
        assert read(answer(question(name, SRV), own)).code == NO_NAME


def test_a_file_that_changes_replaces_its_former_names() -> None:
    own = zone(1)
    own.replace("web1", read_hosts(hosts_lines("web1", {}, [IPv4Address("10.0.0.9")], "fleet")))
    assert read(answer(question("web1.fleet", A), own)).answers == [(A, "10.0.0.9")]
    assert read(answer(question(GROUP, SRV), own)).code == NO_NAME


@pytest.mark.parametrize("size", [None, 512, 1232, 4096, 8192])
def test_an_answer_is_no_larger_than_the_client_accepts(size: int | None) -> None:
    own = zone(400)
    message = answer(question(GROUP, SRV, size), own)
    assert message is not None
    assert len(message) <= (size or 512)
    said = read(message)
    assert said.cut == ((size or 512) > 512)
    assert said.answers
    assert said.beside == []


@pytest.mark.parametrize("kind", [A, AAAA, SRV, ANY])
@pytest.mark.parametrize("name", [GROUP, "web.role.fleet"])
@pytest.mark.parametrize("count", [1, 11, 60, 1000])
def test_every_cut_answer_has_as_many_records_as_fit(name: str, kind: int, count: int) -> None:
    """Before, a question for ANY without EDNS about a group of 60 was worked on for ever."""
    message = answer(question(name, kind), zone(count))
    assert message is not None
    said = read(message)
    full = read(answer(question(name, kind), zone(count), limit=65535)).answers
    assert set(said.answers) <= set(full)
    partial = len(said.answers) < len(full)
    assert said.cut == (partial and kind != SRV)
    if partial:
        assert 512 - 64 < len(message) <= 512  # even the longest record would not have fitted


def test_who_takes_the_smallest_answers_only_gets_some_services_of_a_large_group() -> None:
    """Before, dnsmasq made an empty answer of one that said it was cut, and who did not ask over TCP then had none."""
    own = zone(60)
    full = set(read(answer(question(GROUP, SRV), own, limit=65535)).answers)
    assert len(full) == 60
    seen = set()
    for _ in range(100):
        said = read(answer(question(GROUP, SRV), own))
        assert (said.cut, len(said.answers) > 10) == (False, True)
        seen |= set(said.answers)
    assert seen == full
    followed = [read(answer(question(GROUP, SRV, 512), own)).answers for _ in range(10)]
    assert all(set(each) == set(followed[0]) and len(each) > 10 for each in followed)


def test_additional_records_are_left_out_first_and_silently() -> None:
    own = zone(30)
    said = read(answer(question(GROUP, SRV, 1232), own))
    assert (said.cut, len(said.answers), said.beside) == (False, 30, [])
    assert len(read(answer(question(GROUP, SRV, 8192), own)).beside) == 30
    whole = read(answer(question(GROUP, SRV), zone(1000), limit=65535))
    assert (whole.cut, len(whole.answers)) == (False, 1000)


def test_a_group_of_two_hundred_fits_into_the_answers_that_dnsmasq_and_haproxy_accept() -> None:
    assert not read(answer(question(GROUP, SRV, 8192), zone(200))).cut


@pytest.mark.parametrize("message", [b"", b"\0" * 11, b"\0\7\x80\0" + b"\0" * 20])
def test_a_message_that_is_no_question_is_not_answered(message: bytes) -> None:
    """Otherwise two servers could answer each other's answers for ever."""
    assert answer(message, zone()) is None


@pytest.mark.parametrize(
    "message",
    [question("web1.fleet", A)[:-3], question("web1.fleet", A)[:12], struct.pack("!6H", 7, 0x100, 0, 0, 0, 0),
     struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1"],
)  # fmt: skip
def test_a_malformed_question_gets_an_error(message: bytes) -> None:
    assert answer(message, zone()) == struct.pack("!6H", 7, 0x8100 | MALFORMED, 0, 0, 0, 0)


_OPTION_TOO_LONG = b"\0" + struct.pack("!HHIH", 41, 4096, 0, 4) + struct.pack("!HH", 10, 40)
_UNKNOWN_SIGNATURE = b"\0" + struct.pack("!HHIH", 250, 255, 0, 3) + b"abc"


@pytest.mark.parametrize("beside", [_OPTION_TOO_LONG, _UNKNOWN_SIGNATURE, b"", b"\xc0"])
def test_the_error_about_what_follows_a_question_has_the_question(beside: bytes) -> None:
    """dnsmasq knows an answer by it: else it waits for ten seconds, and has room for 150 questions."""
    asked = question(GROUP, SRV)[12:]
    message = struct.pack("!6H", 7, 0x100, 1, 0, 0, 1) + asked + beside
    assert answer(message, zone()) == struct.pack("!6H", 7, 0x8100 | MALFORMED, 1, 0, 0, 0) + asked


def test_a_later_version_of_edns_is_refused() -> None:
    message = bytearray(question("web1.fleet", A, 1232))
    message[-5] = 1  # the version, in the option record's lifetime
    reply = answer(bytes(message), zone())
    assert reply is not None
    assert (reply[3] & 15, reply[-6], struct.unpack_from("!H", reply, 6)[0]) == (0, 1, 0)  # 16, in two parts


def test_a_kind_of_question_that_is_not_implemented_gets_an_error() -> None:
    assert read(answer(question("web1.fleet", A, kind_class=3), zone())).code == NOT_DONE
    notify = bytearray(question("web1.fleet", A))
    notify[2] |= 4 << 3
    assert read(answer(bytes(notify), zone())).code == NOT_DONE


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(message: bytes) -> None:
    answer(message, zone())
    answer(struct.pack("!6H", 7, 0x100, 1, 0, 0, 1) + message, zone())


@given(st.text(max_size=200))
def test_any_file_is_survived(text: str) -> None:
    Zone("fleet").replace("x", read_hosts(text))
