"""Answers of a name server, for the names that dnsmasq can't be taught while it runs. Pure.

dnspython knows the messages; this module knows the fleet's names. Everything has a lifetime of zero: a client that asks
again gets what is true then.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable
from ipaddress import ip_address
from itertools import groupby

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
from dns.message import Message
from dns.rdata import GenericRdata, Rdata
from dns.rdataclass import ANY as ANY_CLASS
from dns.rdataclass import IN
from dns.rdatatype import AAAA, ANY, SRV, A, RdataType
from dns.rdtypes.IN.SRV import SRV as Service
from dns.rrset import RRset

from lxcfleet.network.names.hosts import MARK

PLAIN_SIZE = 512
"""Bytes that an answer over UDP may have if the question says nothing of it."""
MAX_SIZE = 65535
_WEIGHT = 10
_OWN_SIZE = 4096
_KINDS = (A, AAAA, SRV)
_HEADER = struct.Struct("!6H")
"""Identity, flags, and how many records the four sections have; RFC 1035, 4.1.1."""
_IS_ANSWER = 0x80
"""In the third byte of a message."""
_OPCODE = 0x7800

Entry = dict[RdataType, list[Rdata]]
"""The records of one name."""
Records = dict[str, Entry]
"""The records in one file, by name in lower case without the last dot."""


def read_hosts(text: str) -> Records:
    """A file of network.hosts: lines ``ADDRESS NAME…``, and ``#srv NAME PORT TARGET``. Others are passed over."""
    records: Records = {}
    for line in text.splitlines():
        words = line.lower().split()
        try:
            if len(words) == 4 and words[0] == MARK:
                service = dns.rdata.from_text(IN, SRV, f"0 {_WEIGHT} {int(words[2])} {words[3]}.")
                records.setdefault(words[1], {}).setdefault(SRV, []).append(service)
            elif words and not words[0].startswith("#"):
                kind = A if ip_address(words[0]).version == 4 else AAAA
                for name in words[1:]:
                    data = dns.rdata.from_text(IN, kind, words[0])
                    records.setdefault(name, {}).setdefault(kind, []).append(data)
        except (ValueError, dns.exception.DNSException):
            continue
    return records


class Zone:
    """All names of the fleet. Each file can be replaced by itself."""

    def __init__(self, domain: str) -> None:
        self.domain = domain.lower()
        self._files: dict[str, Records] = {}
        self._names: dict[str, dict[str, Entry]] = {}
        """By name, then by file."""
        self._above: dict[str, int] = {}
        """How many names end with this one: it exists, though it stands for nothing."""

    def replace(self, file: str, records: Records) -> None:
        """Replace the records of ``file``."""
        for name in self._files.pop(file, {}):
            del self._names[name][file]
            if not self._names[name]:
                del self._names[name]
            self._count(name, -1)
        if records:
            self._files[file] = records
        for name, entry in records.items():
            self._names.setdefault(name, {})[file] = entry
            self._count(name, 1)

    def _count(self, name: str, step: int) -> None:
        while "." in name:
            name = name.partition(".")[2]
            self._above[name] = self._above.get(name, 0) + step
            if not self._above[name]:
                del self._above[name]

    def files(self) -> set[str]:
        """Those that say something."""
        return set(self._files)

    def covers(self, name: str) -> bool:
        """Whether the name is in the fleet's domain."""
        return name == self.domain or name.endswith(f".{self.domain}")

    def exists(self, name: str) -> bool:
        """Whether the name or one below it is there."""
        return name in self._names or name in self._above or name == self.domain

    def find(self, name: str, kind: RdataType) -> list[Rdata]:
        """The records of this kind that the name has."""
        return [data for entry in self._names.get(name, {}).values() for data in entry.get(kind, ())]


def answer(message: bytes, zone: Zone, limit: int = 0) -> bytes | None:
    """The answer to ``message``; None if it must not be answered, as it is an answer itself, or too short for anything.

    ``limit``: how many bytes the answer may have; 0: as many as the question says, over UDP.
    """
    if len(message) < _HEADER.size or message[2] & _IS_ANSWER:
        return None
    try:
        query = dns.message.from_wire(message)
        response = dns.message.make_response(query, our_payload=_OWN_SIZE)
    except Exception:
        # Not only what dnspython documents: bytes from anybody must cost nobody else an answer.
        return _malformed(message)
    if len(query.question) != 1:
        return _malformed(message)
    response.flags |= dns.flags.AA
    if query.edns > 0:
        response.set_rcode(dns.rcode.BADVERS)
    else:
        _fill(response, query.question[0], zone, query.opcode())
    size = limit or (max(PLAIN_SIZE, query.payload) if query.edns >= 0 else PLAIN_SIZE)
    # dnsmasq takes all records out of an answer that says it is cut, and not all who take so few bytes ask over TCP then. So
    # they get as many services as there is room for, as if there were no more.
    some = not limit and size == PLAIN_SIZE and query.question[0].rdtype == SRV
    # Other ones each time, but for those that say how much they take (EDNS): such programs follow a group, and would take
    # the services out that another answer lacks.
    return _wire(response, size, says_so=not some, by_chance=some and query.edns < 0)


def _malformed(message: bytes) -> bytes:
    """The answer that says so (FORMERR): RFC 1035, 4.1.1.

    It has the questions, if these can be read. dnsmasq knows an answer by its question, keeps the question of one
    without it for ten seconds, and refuses all others once it has 150 such questions.
    """
    try:
        response = dns.message.make_response(dns.message.from_wire(message, question_only=True))
        response.set_rcode(dns.rcode.FORMERR)
        return response.to_wire(max_size=PLAIN_SIZE)
    except Exception:  # as in ``answer``
        identity, flags, *_ = _HEADER.unpack_from(message)
        kept = flags & (_OPCODE | dns.flags.RD)
        return _HEADER.pack(identity, dns.flags.QR | kept | dns.rcode.FORMERR, 0, 0, 0, 0)


def _fill(response: Message, question: RRset, zone: Zone, opcode: int) -> None:
    name = question.name.to_text(omit_final_dot=True).lower()
    if opcode != dns.opcode.QUERY or question.rdclass not in (IN, ANY_CLASS):
        response.set_rcode(dns.rcode.NOTIMP)
    elif not zone.covers(name):
        response.set_rcode(dns.rcode.REFUSED)
    elif not zone.exists(name):
        response.set_rcode(dns.rcode.NXDOMAIN)
    else:
        for kind in _KINDS if question.rdtype == ANY else (question.rdtype,):
            found = zone.find(name, kind)
            if found:
                response.answer.append(_records(question.name, kind, found))
            if kind == SRV:
                response.additional += _beside(found, zone)


def _beside(services: list[Rdata], zone: Zone) -> list[RRset]:
    """Addresses that will be asked for next."""
    targets = dict.fromkeys(service.target for service in services if isinstance(service, Service))
    found = ((target, zone.find(target.to_text(omit_final_dot=True), A)) for target in targets)
    return [_records(target, A, addresses) for target, addresses in found if addresses]


def _records(name: dns.name.Name, kind: RdataType, found: Iterable[Rdata]) -> RRset:
    records = RRset(name, IN, kind)
    for data in found:
        # As bytes: dnspython would compress a service's target, which RFC 2782 forbids.
        records.add(GenericRdata(IN, kind, data.to_wire() or b""), ttl=0)  # type: ignore[no-untyped-call]
    return records


def _wire(response: Message, size: int, *, says_so: bool = True, by_chance: bool = False) -> bytes | None:
    """The message, no larger than ``size``. Records beside the answer may be left out silently; a cut answer says so, unless
    it is not to. ``by_chance``: which records are left out."""
    whole = _fitting(response, size)
    if whole is None:
        response.additional = []
        whole = _fitting(response, size)
    if whole is not None:
        return whole
    if says_so:
        response.flags |= dns.flags.TC
    every = [(records.name, records.rdtype, data) for records in response.answer for data in records]
    if by_chance:
        random.shuffle(every)

    def cut(count: int) -> bytes | None:
        response.answer = [
            _records(name, kind, [data for _, _, data in some])
            for (name, kind), some in groupby(every[:count], lambda record: record[:2])
        ]
        return _fitting(response, size)

    # Each step halves how many records may fit; none at all always do.
    best, fit, most = cut(0), 0, len(every)
    while most - fit > 1:
        middle = (fit + most) // 2
        wire = cut(middle)
        if wire is None:
            most = middle
        else:
            best, fit = wire, middle
    return best


def _fitting(response: Message, size: int) -> bytes | None:
    try:
        return response.to_wire(max_size=size)
    except dns.exception.TooBig:
        return None
