"""Answers of a name server, for the names that dnsmasq can't be taught while it runs. Pure.

RFC 1035 (messages), RFC 2782 (SRV), RFC 6891 (EDNS). Everything has a lifetime of zero: who asks again gets what
is true then.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address

A, AAAA, SRV, OPT, ANY = 1, 28, 33, 41, 255
IN = 1
OK, NO_NAME, NOT_DONE, REFUSED = 0, 3, 4, 5
PLAIN_SIZE = 512
"""What fits into an answer over UDP for those who say nothing of what they take."""
MAX_SIZE = 65535
MARK = "#srv"
"""Begins a line of a hosts file that is none for others; see net.names."""
_WEIGHT = 10
_HEADER = struct.Struct("!6H")


@dataclass
class Entry:
    """What one name stands for."""

    addresses: dict[int, list[bytes]] = field(default_factory=dict)
    """By type of record, A or AAAA."""
    services: list[tuple[int, str]] = field(default_factory=list)
    """Ports and the names of those who listen there."""


Records = dict[str, Entry]
"""What one file says, by name in lower case without the last dot."""


def read_hosts(text: str) -> Records:
    """A file of net.names: lines ``ADDRESS NAME…``, and ``#srv NAME PORT TARGET``. Others are passed over."""
    records: Records = {}
    for line in text.splitlines():
        words = line.lower().split()
        if len(words) == 4 and words[0] == MARK and words[2].isdecimal():
            records.setdefault(words[1], Entry()).services.append((int(words[2]), words[3]))
        elif words and not words[0].startswith("#"):
            try:
                address = ip_address(words[0])
            except ValueError:
                continue
            kind = A if address.version == 4 else AAAA
            for name in words[1:]:
                records.setdefault(name, Entry()).addresses.setdefault(kind, []).append(address.packed)
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
        """What ``file`` says now."""
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
        """Whether it is ours to say what this name stands for."""
        return name == self.domain or name.endswith(f".{self.domain}")

    def exists(self, name: str) -> bool:
        """Whether the name or one below it is there."""
        return name in self._names or name in self._above or name == self.domain

    def addresses(self, name: str, kind: int) -> Iterator[bytes]:
        """Of a name, of type A or AAAA."""
        for entry in self._names.get(name, {}).values():
            yield from entry.addresses.get(kind, ())

    def services(self, name: str) -> list[tuple[int, str]]:
        """Ports and targets."""
        return [service for entry in self._names.get(name, {}).values() for service in entry.services]


@dataclass(frozen=True)
class Query:
    """A question."""

    identity: int
    opcode: int
    recursion: bool
    question: bytes
    """As it came: the answer repeats it, with the case of its letters."""
    name: str
    kind: int
    kind_class: int
    size: int | None
    """The largest answer over UDP that is taken; None: no EDNS."""


def parse(message: bytes) -> Query | None:
    """The question in ``message``; None if there is nothing that one could answer."""
    try:
        identity, flags, questions, answers, authorities, more = _HEADER.unpack_from(message)
        if flags & 0x8000 or questions != 1 or answers or authorities:
            return None
        name, end = _name(message, _HEADER.size)
        kind, kind_class = struct.unpack_from("!HH", message, end)
        end += 4
        size = _payload(message, end) if more else None
    except (struct.error, IndexError, UnicodeDecodeError):
        return None
    question = message[_HEADER.size : end]
    return Query(identity, flags >> 11 & 15, bool(flags & 0x100), question, name, kind, kind_class, size)


def _name(message: bytes, at: int) -> tuple[str, int]:
    """A name without pointers, as questions have it, and where it ends."""
    labels = []
    while length := message[at]:
        if length > 63:
            raise IndexError
        labels.append(message[at + 1 : at + 1 + length].decode("ascii").lower())
        at += 1 + length
    return ".".join(labels), at + 1


def _payload(message: bytes, at: int) -> int | None:
    """The size in an OPT record, which has the root's empty name."""
    if message[at] != 0:
        return None
    kind, size = struct.unpack_from("!HH", message, at + 1)
    return max(PLAIN_SIZE, size) if kind == OPT else None


def answer(message: bytes, zone: Zone, limit: int = 0) -> bytes | None:
    """The answer to ``message``, if there is one. ``limit``: bytes; 0: as the question says, over UDP."""
    query = parse(message)
    if query is None:
        return None
    size = limit or query.size or PLAIN_SIZE
    if query.opcode or query.kind_class not in (IN, ANY):
        return _message(query, NOT_DONE, (), (), size)
    if not zone.covers(query.name):
        return _message(query, REFUSED, (), (), size)
    if not zone.exists(query.name):
        return _message(query, NO_NAME, (), (), size)
    found, beside = _found(query, zone)
    return _message(query, OK, found, beside, size)


def _found(query: Query, zone: Zone) -> tuple[list[bytes], list[bytes]]:
    """The records asked for, and addresses that will be asked for next."""
    found: list[bytes] = []
    for kind in (A, AAAA):
        if query.kind in (kind, ANY):
            found += (_record(b"\xc0\x0c", kind, data) for data in zone.addresses(query.name, kind))
    beside: list[bytes] = []
    if query.kind in (SRV, ANY):
        for port, target in zone.services(query.name):
            found.append(_record(b"\xc0\x0c", SRV, struct.pack("!HHH", 0, _WEIGHT, port) + _wire(target)))
            beside += (_record(_wire(target), A, data) for data in zone.addresses(target, A))
    return found, beside


def _record(name: bytes, kind: int, data: bytes) -> bytes:
    return name + struct.pack("!HHIH", kind, IN, 0, len(data)) + data


def _wire(name: str) -> bytes:
    """RFC 2782: a target's name is not compressed."""
    return b"".join(bytes((len(label),)) + label.encode("ascii") for label in name.split(".")) + b"\0"


def _message(query: Query, code: int, found: Iterable[bytes], beside: Iterable[bytes], size: int) -> bytes:
    """Put together what fits. An answer that was cut says so; what is beside it may be left out silently."""
    records, more = list(found), list(beside)
    options = b"" if query.size is None else b"\0" + struct.pack("!HHIH", OPT, 4096, 0, 0)
    room = size - _HEADER.size - len(query.question) - len(options)
    cut = sum(map(len, records)) > room
    if cut:
        records, more = _fitting(records, room), []
    elif sum(map(len, records)) + sum(map(len, more)) > room:
        more = []
    flags = 0x8400 | query.opcode << 11 | query.recursion << 8 | cut << 9 | code
    header = _HEADER.pack(query.identity, flags, 1, len(records), 0, len(more) + bool(options))
    return b"".join([header, query.question, *records, *more, options])


def _fitting(records: list[bytes], room: int) -> list[bytes]:
    taken = []
    for record in records:
        room -= len(record)
        if room < 0:
            break
        taken.append(record)
    return taken
