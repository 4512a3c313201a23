"""Bytes of a console as lines: where they are cut, and what of them the host's log gets. Pure.

A console is a terminal: its lines end with a carriage return and a line feed, and have colours and other sequences in them.
All of it comes from inside a container, so nothing of it may reach a terminal of the host as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_PLAIN = re.compile(rb"[\t\x20-\x7e]*")
"""Text that can be passed on as it is."""
_SEQUENCE = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*[@-~]"  # CSI: colours, movements of the cursor
    rb"|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)"  # OSC and other strings: titles, links
    rb"|[ -/]+[0-~]|[0-Z\\^-~])"  # character sets, and single commands
)
"""Sequences of ECMA-48 that only a terminal has a use for."""
_MOST_BACK = 3
"""A character of UTF-8 has at most so many bytes after its first one."""


class Line(NamedTuple):
    """One line, or a piece of one."""

    text: bytes
    end: int
    """Where the next one begins, counted from the begin of the bytes that were cut."""
    partial: bool = False
    """Whether the line goes on in the next piece."""


def cut(data: bytes, most: int) -> Iterator[Line]:
    """The whole lines in ``data``, without their ends, in pieces of at most ``most`` bytes. What follows the last line's end
    is left out, unless it is longer than a piece."""
    begin, size = 0, len(data)
    while begin < size:
        end = data.find(b"\n", begin, begin + most + 1)
        if end >= 0:
            yield Line(data[begin:end], end + 1)
            begin = end + 1
        elif size - begin > most:
            end = _between_characters(data, begin, begin + most)
            yield Line(data[begin:end], end, partial=True)
            begin = end
        else:
            return


def _between_characters(data: bytes, begin: int, end: int) -> int:
    """The nearest place before ``end`` that is not within a character; ``end`` if the bytes there are no UTF-8."""
    for place in range(end, max(end - _MOST_BACK, begin + 1) - 1, -1):
        if data[place] & 0xC0 != 0x80:
            return place
    return end


def clean(text: bytes) -> bytes:
    """A line as the host's log gets it: without what commands a terminal, with other control characters spelled out."""
    if text.endswith(b"\r"):
        text = text.rstrip(b"\r")
    if _PLAIN.fullmatch(text):
        return text
    readable = _SEQUENCE.sub(b"", text).decode("utf-8", "backslashreplace")
    if not readable.isprintable():
        readable = "".join(c if c.isprintable() or c == "\t" else _spelled(c) for c in readable)
    return readable.encode()


def _spelled(character: str) -> str:
    return character.encode("unicode_escape").decode()
