"""Sizes, lengths of time and long lists as people write them. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lxcfleet.errors import InvalidInput

_SIZE = re.compile(r"([0-9]{1,16})([KMGT]?)i?B?", re.IGNORECASE)
LEAST_SIZE = 4 << 20
"""The least amount of memory or disk space with which a container does anything."""
_MOST_SIZE = 1 << 50


def parse_size(text: str, least: int = LEAST_SIZE) -> int:
    """Bytes from a text such as 512M or 2GiB, in steps of 1024; raises InvalidInput. ``least``: see ``check_size``."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidInput(f"{text!r} is not a size", hint="write it as 512M or 2G, in whole K, M, G or T; 0 is no limit")
    return check_size(int(match[1]) << 10 * " KMGT".index(match[2].upper() or " "), least)


_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?) *(s|m|min|h|d)?", re.IGNORECASE)
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def parse_duration(text: str) -> float:
    """Seconds from a text such as 90, 45s, 10m, 2h or 1d; raises InvalidInput."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise InvalidInput(f"{text!r} is no length of time", hint="write it as 90, 45s, 10m, 2h or 1d")
    return float(match[1]) * _SECONDS[(match[2] or "s").lower()]


def as_duration(seconds: float) -> str:
    """The shortest text that ``parse_duration`` reads as so many seconds."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{seconds / _SECONDS[unit]:.0f}{unit}"
    return f"{seconds:g}s" if seconds else "0"


def as_size(count: int) -> str:
    """The shortest text that ``parse_size`` reads as ``count`` bytes."""
    unit = 0
    while count and not count % 1024 and unit < 4:
        count, unit = count >> 10, unit + 1
    return f"{count}{' KMGT'[unit]}".rstrip()


def words_of_size(count: int) -> str:
    """A number of bytes in a form for people."""
    number = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def check_size(size: int, least: int = LEAST_SIZE) -> int:
    """``size`` itself, if it is at least so much, or 0; raises InvalidInput."""
    if size and not least <= size <= _MOST_SIZE:
        limits = f"{f'{least >> 20} MiB' if least >> 20 else f'{least >> 10} KiB'} and {_MOST_SIZE >> 40} TiB"
        raise InvalidInput(f"{size} bytes are not between {limits}", hint="0 is no limit")
    return size


def some(items: Sequence[str], most: int, between: str = ", ") -> str:
    """The first ``most`` items, and how many more there are: ``a, b and 3 more``."""
    more = len(items) - most
    return between.join(items[:most]) + (f" and {more} more" if more > 0 else "")


def counted(number: int, noun: str) -> str:
    """``number`` and ``noun``, in the plural unless ``number`` is 1."""
    if number == 1:
        return f"1 {noun}"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{number} {noun[:-1]}ies"
    return f"{number} {noun}{'es' if noun.endswith('s') else 's'}"
