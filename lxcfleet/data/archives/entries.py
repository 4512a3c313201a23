"""Reads the entries of an archive, strictly: whatever ``lxcfleet export`` would not have written ends the reading.

Python's tarfile and GNU tar accept a dozen dialects. What a checker reads in one of them, an unpacker may read in another.
So there is one reader here, for checking, unpacking and comparing alike, and it knows one dialect: the headers that GNU tar
writes with ``--format=posix --sparse --xattrs`` (pax, IEEE Std 1003.1; sparse files of format 1.0).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from lxcfleet.data.archives.head import VOLUMES
from lxcfleet.errors import InvalidInput, NoCapacity
from lxcfleet.spec.reading.terms import RANGE_SIZE
from lxcfleet.units import as_size, words_of_size

BLOCK = 512
DEEPEST = 400
"""Directories on the way to an entry. Each is held open, and a process has 1,024 descriptors at least."""
_PIECE = 1 << 20
_MOST_HEADER = 1 << 20
_MOST_NAME = 255
_MOST_PATH = 1 << 16
_MOST_LINK = 4095
"""Bytes of a symbolic link's target; symlink(2)."""
_MOST_VALUE = 1 << 16
"""Bytes of an extended attribute; xattr(7)."""
_MOST_PIECES = 1 << 20
_MOST_SIZE = (1 << 63) - 1

OPAQUE = b"trusted.overlay.opaque"
ESCAPED = b"trusted.overlay.overlay."
"""The prefix of attributes of an overlay inside a privileged container; the container's own overlay gives them no meaning."""
CAPABILITY = b"security.capability"
ACLS = (b"system.posix_acl_access", b"system.posix_acl_default")
ATTRIBUTES = ("user.*", CAPABILITY.decode(), OPAQUE.decode(), f"{ESCAPED.decode()}*", *(each.decode() for each in ACLS))
"""The extended attributes that archives have, as patterns for tar. Access lists are among them, as tar's own option for these
writes names of this host's users in the place of ids (1.34)."""

_NUMBER = re.compile(rb"[0-9]{1,19}")
_TIME = re.compile(rb"(-?)([0-9]{1,12})(?:\.([0-9]{1,9})[0-9]*)?")
_LENGTH = re.compile(rb"[0-9]{1,8}")
_IGNORED = (b"atime", b"ctime", b"uname", b"gname", b"hdrcharset", b"comment")


class EntryKind(Enum):
    """The kinds of entries; the value is the type in their headers."""

    FILE = b"0"
    LINK = b"1"
    """A further name of an entry before it."""
    SYMLINK = b"2"
    WHITEOUT = b"3"
    DIRECTORY = b"5"
    FIFO = b"6"


class ArchiveSource(Protocol):
    """The source that an archive is read from."""

    def read(self, count: int, /) -> bytes:
        """At most ``count`` bytes; none at the end."""


@dataclass(frozen=True)
class ArchiveLimits:
    """The most that an archive may have."""

    entries: int = 10_000_000
    data: int = 1 << 50
    """Bytes of all files together, without their holes."""


@dataclass
class ArchiveEntry:
    """One entry."""

    path: tuple[bytes, ...]
    kind: EntryKind
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    """Bytes of a file, with its holes."""
    target: bytes = b""
    """Where a symbolic link leads; the path of the entry that a link is another name of."""
    attributes: dict[bytes, bytes] = field(default_factory=dict)
    pieces: list[tuple[int, int]] = field(default_factory=list)
    """Offset and length of the parts of a file that are no holes."""

    @property
    def shown(self) -> str:
        """Its path for people."""
        return shown(b"/".join(self.path))


def shown(text: bytes) -> str:
    """Bytes of an archive for people, on one line and not too long."""
    found = text.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in found)[:200]


def refused(why: str) -> InvalidInput:
    """The error for an archive that is refused."""
    return InvalidInput(
        "this archive is refused", why=why,
        hint="nothing of it was kept; `lxcfleet export` makes archives that can be imported",
    )


def cut_off() -> InvalidInput:
    """The error for an archive without its end."""
    return InvalidInput(
        "this archive is not whole", why="it ends in the middle", hint="nothing of it was kept; copy or export it again"
    )


class Reader:
    """The entries of one archive, in their order."""

    def __init__(self, source: ArchiveSource, limits: ArchiveLimits) -> None:
        self._source = source
        self._limits = limits
        self._entries = 0
        self._left: int = 0
        """Bytes of the present entry's data that were not read yet."""
        self._padding = 0
        self.data = 0
        """Bytes of files that were read, without holes."""
        self.first_id: int | None = None
        """The first of the ids that the container had on its host; None: not known, or it was privileged."""
        self.taken: Mapping[bytes, int | None] = {}
        """The volumes whose files are taken, by their names in the archive: the first of the ids that they had on their
        host, if that is known."""

    @property
    def count(self) -> int:
        """How many entries were read."""
        return self._entries

    def limit(self, limits: ArchiveLimits) -> None:
        """Allow so much from here on."""
        self._limits = limits

    def next(self) -> ArchiveEntry | None:
        """The next entry; None: there are no more, and the archive is whole. Raises InvalidInput, NoCapacity."""
        self._skip_rest()
        records: dict[bytes, bytes] = {}
        extended = False
        while True:
            header = self._exactly(BLOCK)
            if not header.strip(b"\0"):
                if extended:
                    raise refused("attributes without an entry")
                self._end()
                return None
            size, kind = _check_header(header)
            if kind != b"x":
                break
            if extended:
                raise refused("attributes of attributes")
            if size > _MOST_HEADER + _MOST_HEADER // 4:
                raise refused(f"attributes of an entry of {as_size(size)}")
            records, extended = _records(self._padded(size)), True
        self._entries += 1
        if self._entries > self._limits.entries:
            raise NoCapacity(
                "this archive is refused", why=f"it has more than {self._limits.entries} entries",
                hint="nothing of it was kept; the file system has no room for more",
            )
        return self._entry(header, kind, size, records)

    def pieces(self, entry: ArchiveEntry) -> Iterator[tuple[int, bytes]]:
        """The data of the file that ``next`` gave: offsets, and what is there."""
        for offset, length in entry.pieces:
            done = 0
            while done < length:
                piece = self._some(min(_PIECE, length - done))
                yield offset + done, piece
                done += len(piece)

    def whole(self, entry: ArchiveEntry, most: int) -> bytes:
        """The content of a small file without holes."""
        if entry.kind is not EntryKind.FILE or entry.size > most or entry.pieces != [(0, entry.size)][: bool(entry.size)]:
            raise refused(f"{entry.shown} is no plain file of at most {as_size(most)}")
        return b"".join(data for _, data in self.pieces(entry))

    # -- headers ---------------------------------------------------------------------------------------------

    def _entry(self, header: bytes, kind: bytes, stored: int, records: Mapping[bytes, bytes]) -> ArchiveEntry:
        try:
            found = EntryKind(kind)
        except ValueError:
            what = "a device" if kind == b"4" else f"an entry of type {shown(kind)!r}"
            raise refused(f"{_name(header)!r} is {what}") from None
        entry = ArchiveEntry((), found)
        stored = _number(records.get(b"size"), stored)
        name = records.get(b"GNU.sparse.name", records.get(b"path", _name_of(header)))
        entry.path = _path(name, directory=found is EntryKind.DIRECTORY)
        entry.mode = _octal(header[100:108], 0o7777)
        entry.uid = _number(records.get(b"uid"), _octal(header[108:116], _MOST_SIZE))
        entry.gid = _number(records.get(b"gid"), _octal(header[116:124], _MOST_SIZE))
        entry.mtime_ns = _time(records.get(b"mtime"), _octal(header[136:148], _MOST_SIZE))
        entry.target = records.get(b"linkpath", header[157:257].split(b"\0", 1)[0])
        _check_numbers(entry, header)
        _check_target(entry)
        if found is not EntryKind.FILE and stored:
            raise refused(f"{entry.shown} has data and is no file")
        entry.attributes = self._attributes(entry, records)
        if found is EntryKind.FILE:
            self._begin_data(entry, stored, records)
        return entry

    def _attributes(self, entry: ArchiveEntry, records: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        if entry.path[0] != VOLUMES.encode():
            return _attributes(entry, records, self.first_id, checked=True)
        name = entry.path[1] if len(entry.path) > 1 else b""
        return _attributes(entry, records, self.taken.get(name), checked=name in self.taken)

    def _begin_data(self, entry: ArchiveEntry, stored: int, records: Mapping[bytes, bytes]) -> None:
        self._left, self._padding = stored, -stored % BLOCK
        entry.size = stored
        entry.pieces = [(0, stored)] if stored else []
        sparse = {key for key in records if key.startswith(b"GNU.sparse.")}
        if sparse:
            if records.get(b"GNU.sparse.major") != b"1" or records.get(b"GNU.sparse.minor") != b"0":
                raise refused(f"{entry.shown} has holes in a form that lxcfleet does not write")
            if sparse != {b"GNU.sparse.major", b"GNU.sparse.minor", b"GNU.sparse.name", b"GNU.sparse.realsize"}:
                raise refused(f"{entry.shown} has attributes about its holes that lxcfleet does not write")
            entry.size = _number(records[b"GNU.sparse.realsize"], 0)
            entry.pieces = self._map(entry)
        self.data += self._left
        if self.data > self._limits.data:
            raise NoCapacity(
                "this archive is refused", why=f"its files have more than {words_of_size(self._limits.data)}",
                hint="nothing of it was kept; make room, or allow more: --limit SIZE",
            )

    def _map(self, entry: ArchiveEntry) -> list[tuple[int, int]]:
        """The parts of a sparse file that are no holes: decimal numbers, one a line, before its data."""
        text, numbers, wanted, blocks = b"", list[int](), 1, 0
        while len(numbers) < wanted:
            if blocks > _MOST_PIECES * 40 // BLOCK or self._left < BLOCK:
                raise refused(f"{entry.shown}: the list of its holes makes no sense")
            *lines, text = (text + self._some(BLOCK, whole=True)).split(b"\n")
            blocks += 1
            for line in lines:
                numbers.append(_number(line, 0))
                wanted = 1 + 2 * numbers[0]
        if len(numbers) > wanted or text.strip(b"\0"):
            raise refused(f"{entry.shown}: the list of its holes makes no sense")
        pieces, end = [], 0
        for offset, length in zip(numbers[1::2], numbers[2::2], strict=True):
            if offset < end or offset + length > entry.size:
                raise refused(f"{entry.shown}: the list of its holes makes no sense")
            end = offset + length
            pieces += [(offset, length)] if length else []
        if sum(length for _, length in pieces) != self._left:
            raise refused(f"{entry.shown}: the list of its holes does not fit its data")
        return pieces

    # -- bytes -----------------------------------------------------------------------------------------------

    def _exactly(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            piece = self._source.read(count - len(found))
            if not piece:
                raise cut_off()
            found += piece
        return found

    def _padded(self, size: int) -> bytes:
        return self._exactly(size + -size % BLOCK)[:size]

    def _some(self, count: int, *, whole: bool = False) -> bytes:
        piece = self._exactly(count) if whole else self._source.read(count)
        if not piece:
            raise cut_off()
        self._left -= len(piece)
        return piece

    def _skip_rest(self) -> None:
        while self._left:
            self._some(min(_PIECE, self._left))
        if self._padding:
            self._exactly(self._padding)
            self._padding = 0

    def _end(self) -> None:
        """See that nothing but zeros comes after the first empty block, of which there are at least two."""
        if self._exactly(BLOCK).strip(b"\0"):
            raise refused("entries after its end")
        while piece := self._source.read(_PIECE):
            if piece.strip(b"\0"):
                raise refused("entries after its end")


def _check_header(header: bytes) -> tuple[int, bytes]:
    """The size and the type in a header."""
    if header[257:265] != b"ustar\x0000":
        raise refused("it has a header of a form that lxcfleet does not write")
    total = sum(header) - sum(header[148:156]) + 8 * 32
    if _octal(header[148:156], 1 << 20) != total:
        raise refused("a header is damaged")
    return _octal(header[124:136], _MOST_SIZE), header[156:157]


def _octal(text: bytes, most: int) -> int:
    digits = text.strip(b" \0")
    if digits.strip(b"01234567") or (number := int(digits or b"0", 8)) > most:
        raise refused("a header has a number that makes no sense")
    return number


def _number(text: bytes | None, otherwise: int) -> int:
    if text is None:
        return otherwise
    if not _NUMBER.fullmatch(text) or (number := int(text)) > _MOST_SIZE:
        raise refused("an entry has a number that makes no sense")
    return number


def _time(text: bytes | None, otherwise: int) -> int:
    """A time in nanoseconds since 1970."""
    if text is None:
        return otherwise * 10**9
    found = _TIME.fullmatch(text)
    if not found:
        raise refused("an entry has a time that makes no sense")
    value = int(found[2]) * 10**9 + int((found[3] or b"").ljust(9, b"0"))
    return -value if found[1] else value


def _name_of(header: bytes) -> bytes:
    name, prefix = header[:100].split(b"\0", 1)[0], header[345:500].split(b"\0", 1)[0]
    return prefix + b"/" + name if prefix else name


def _name(header: bytes) -> str:
    return shown(_name_of(header))


def _path(name: bytes, *, directory: bool) -> tuple[bytes, ...]:
    """The parts of a path. Only a directory's may end with a slash."""
    if len(name) > _MOST_PATH:
        raise refused(f"a path of {len(name)} bytes")
    parts = (name[:-1] if directory and name.endswith(b"/") else name).split(b"/")
    if len(parts) > DEEPEST:
        raise refused(f"{shown(name)} is more than {DEEPEST} directories deep")
    for part in parts:
        if part in (b"", b".", b"..") or b"\0" in part or len(part) > _MOST_NAME:
            raise refused(f"{shown(name)!r} is no path in a container")
    return tuple(parts)


def _check_numbers(entry: ArchiveEntry, header: bytes) -> None:
    if entry.uid >= RANGE_SIZE or entry.gid >= RANGE_SIZE:
        raise refused(f"{entry.shown} belongs to {entry.uid}:{entry.gid}, and a container has the ids up to {RANGE_SIZE - 1}")
    if entry.kind is EntryKind.WHITEOUT and (_octal(header[329:337], 1 << 32) or _octal(header[337:345], 1 << 32)):
        raise refused(f"{entry.shown} is a device")
    if abs(entry.mtime_ns) > _MOST_SIZE:
        raise refused(f"{entry.shown} has a time that makes no sense")


def _check_target(entry: ArchiveEntry) -> None:
    if entry.kind is EntryKind.SYMLINK:
        if not entry.target or b"\0" in entry.target or len(entry.target) > _MOST_LINK:
            raise refused(f"{entry.shown} is a link to nothing")
    elif entry.kind is EntryKind.LINK:
        _path(entry.target, directory=False)
    elif entry.target:
        raise refused(f"{entry.shown} has a target and is no link")


def _records(text: bytes) -> dict[bytes, bytes]:
    """The attributes in a pax header: ``LENGTH KEY=VALUE\\n``, the length being that of the whole record."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(text):
        space = text.find(b" ", at, at + 9)
        length = text[at:space] if space > at else b""
        if not _LENGTH.fullmatch(length):
            raise refused("attributes of an entry make no sense")
        end = at + int(length)
        key, equals, value = text[space + 1 : end - 1].partition(b"=")
        if end > len(text) or end <= space + 2 or text[end - 1 : end] != b"\n" or not equals or not key or key in found:
            raise refused("attributes of an entry make no sense")
        found[key] = value
        at = end
    return found


_KNOWN = (b"path", b"linkpath", b"size", b"mtime", b"uid", b"gid", *_IGNORED)
_XATTR = b"SCHILY.xattr."


def _attributes(
    entry: ArchiveEntry, records: Mapping[bytes, bytes], first_id: int | None, *, checked: bool
) -> dict[bytes, bytes]:
    """The extended attributes of an entry, access lists among them, as setxattr(2) takes them. ``first_id``: see
    ``with_own_ids``; ``checked``: whether ids that no container has are refused, as in all that is taken."""
    found: dict[bytes, bytes] = {}
    for key, value in records.items():
        if key.startswith(_XATTR):
            name = key.removeprefix(_XATTR).replace(b"%3D", b"=").replace(b"%25", b"%")
            own = with_own_ids(value, first_id) if name in ACLS else value
            _check_attribute(entry, name, own, checked=checked)
            found[name] = own
        elif key not in _KNOWN and not key.startswith(b"GNU.sparse."):
            raise refused(f"{entry.shown} has the attribute {shown(key)!r}, which lxcfleet does not write")
    if found and entry.kind is EntryKind.SYMLINK:
        raise refused(f"{entry.shown} is a symbolic link with attributes")
    # tar writes them for each name of a file. A whiteout may have inherited an access list, which nobody ever asks.
    return {} if entry.kind in (EntryKind.LINK, EntryKind.WHITEOUT) else found


def _check_attribute(entry: ArchiveEntry, name: bytes, value: bytes, *, checked: bool) -> None:
    """Refuse what the kernel's overlay would follow out of the container's layer, and what is not the container's to give."""
    if name in ACLS:
        if name == ACLS[1] and entry.kind is not EntryKind.DIRECTORY:
            raise refused(f"{entry.shown} has an access list for new entries and is no directory")
        _check_acl(entry, value, checked=checked)
        return
    file = entry.kind in (EntryKind.FILE, EntryKind.LINK)
    usual = name.startswith((b"user.", ESCAPED)) and (file or entry.kind is EntryKind.DIRECTORY)
    capability = name == CAPABILITY and file and len(value) <= struct.calcsize("<6I")
    opaque = name == OPAQUE and entry.kind is EntryKind.DIRECTORY and value == b"y"
    if not (usual or capability or opaque) or b"\0" in name or len(name) > _MOST_NAME or len(value) > _MOST_VALUE:
        raise refused(f"{entry.shown} has the attribute {shown(name)}, which containers' files do not have in archives")


_ACL_HEAD, _ACL_LINE, _ACL_VERSION = struct.Struct("<I"), struct.Struct("<HHI"), 2
"""linux/posix_acl_xattr.h"""
_NAMED = (0x02, 0x08)
"""The tags of lines for a user and a group by id."""


def with_own_ids(value: bytes, first_id: int | None) -> bytes:
    """An access list with a container's own ids in the place of those of its range on the host, which begins with
    ``first_id``.

    Linux 6.1 gives these to who reads the list of a file on an idmapped mount, while it maps owners, and lists that are
    written (tried; 6.18 maps all of them).
    """
    lines = value[_ACL_HEAD.size :]
    if first_id is None or len(lines) % _ACL_LINE.size:
        return value
    found = [value[: _ACL_HEAD.size]]
    for tag, rights, who in _ACL_LINE.iter_unpack(lines):
        mapped = tag in _NAMED and first_id <= who < first_id + RANGE_SIZE
        found.append(_ACL_LINE.pack(tag, rights, who - first_id if mapped else who))
    return b"".join(found)


def _check_acl(entry: ArchiveEntry, value: bytes, *, checked: bool) -> None:
    """Refuse an access list of a form that the kernel does not have, or with ids that no container has."""
    lines = value[_ACL_HEAD.size :]
    fits = len(value) >= _ACL_HEAD.size and len(lines) % _ACL_LINE.size == 0 and len(value) <= _MOST_VALUE
    if not fits or _ACL_HEAD.unpack_from(value) != (_ACL_VERSION,):
        raise refused(f"{entry.shown} has an access list that makes no sense")
    for tag, _, who in _ACL_LINE.iter_unpack(lines):
        if tag in _NAMED and who >= RANGE_SIZE and checked:
            raise refused(f"{entry.shown} has an access list with the id {who}, and a container has ids below {RANGE_SIZE}")
