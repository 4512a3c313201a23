"""Which libraries an ELF file asks for; elf(5). It may have been made by anybody, so everything read from it is bounded."""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

_MAGIC = b"\x7fELF\x02\x01"
"""64 bits, little-endian: what Debian's usual architectures have."""
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_ENTRY = struct.Struct("<qQ")
_LOAD, _DYNAMIC = 1, 2
_END, _NEEDED, _STRINGS = 0, 1, 5
_MOST_SEGMENTS, _MOST_ENTRIES, _MOST_NEEDED = 64, 4096, 256
_LONGEST = 255


class _Segment(NamedTuple):
    kind: int
    offset: int
    address: int
    size: int


def needed(file: int) -> tuple[str, ...]:
    """The names of the libraries that the open file asks for (DT_NEEDED); none: it is no such file, or makes no sense."""
    try:
        return _needed(file)
    except (OSError, struct.error, ValueError, OverflowError):
        return ()


def _needed(file: int) -> tuple[str, ...]:
    head = os.pread(file, _HEADER.size, 0)
    if not head.startswith(_MAGIC):
        return ()
    fields = _HEADER.unpack(head)
    start, size, count = fields[5], fields[9], fields[10]
    if size != _SEGMENT.size or count > _MOST_SEGMENTS:
        return ()
    segments = []
    for kind, _, offset, address, _, inside, _, _ in _SEGMENT.iter_unpack(os.pread(file, size * count, start)):
        segments.append(_Segment(kind, offset, address, inside))
    dynamic = next((each for each in segments if each.kind == _DYNAMIC), None)
    if dynamic is None:
        return ()
    length = min(dynamic.size // _ENTRY.size, _MOST_ENTRIES) * _ENTRY.size
    names: list[int] = []
    strings = None
    for tag, value in _ENTRY.iter_unpack(os.pread(file, length, dynamic.offset)):
        if tag == _END:
            break
        if tag == _NEEDED and len(names) < _MOST_NEEDED:
            names.append(value)
        elif tag == _STRINGS:
            strings = next((each.offset + value - each.address for each in segments
                            if each.kind == _LOAD and 0 <= value - each.address < each.size), None)  # fmt: skip
    if strings is None:
        return ()
    read = (os.pread(file, _LONGEST + 1, strings + name).partition(b"\0")[0] for name in names)
    return tuple(text.decode("ascii") for text in read if text and len(text) <= _LONGEST)
