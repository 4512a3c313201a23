"""Files that are kept, read so that whatever stands in their place costs no more than an error.

A disk, a restored backup or an operator may leave anything there. Opening a named pipe waits for ever. A file of 100 MB
takes the daemon's time and memory. Of one that is nested ten thousand levels deep Python tells by an error that is no
ValueError, and 1e999 comes out of a record as infinity, which is no time and no number of anything.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from typing import Any

MOST = 64 << 20
"""Bytes that a file may have. The largest, a rollout of the largest fleet, has some ten."""
SMALL = 1 << 20
"""The same for what is about a single container, volume or snapshot."""
LARGE = 1 << 30
"""The same for what grows with the specs of a fleet, or with the files of an app."""
_PIECE = 1 << 16
_DIGITS = 300
"""More of them make a number that no floating-point number comes near, and so no time."""
_TOLD = 20


def content(path: str | os.PathLike[str], most: int = MOST) -> bytes:
    """All of a plain file. Raises OSError, also if it is no plain file, or has more than ``most`` bytes."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            number, why = (errno.EISDIR, "Is a directory") if stat.S_ISDIR(mode) else (errno.EINVAL, "Not a plain file")
            raise OSError(number, why, os.fspath(path))
        found = os.read(descriptor, _PIECE)
        if len(found) < _PIECE:  # a plain file is read to its end at once
            return found
        pieces, size = [found], len(found)
        while piece := os.read(descriptor, _PIECE):
            pieces.append(piece)
            size += len(piece)
            if size > most:
                raise OSError(errno.EFBIG, f"Larger than {most} bytes", os.fspath(path))
        return b"".join(pieces)
    finally:
        os.close(descriptor)


def text(path: str | os.PathLike[str], encoding: str = "utf-8", errors: str = "strict", most: int = MOST) -> str:
    """The same as text. Raises OSError, or ValueError where it is no text in that encoding."""
    return content(path, most).decode(encoding, errors)


def record(path: str | os.PathLike[str], most: int = MOST) -> Any:
    """The JSON that a plain file has. Raises OSError, or ValueError where it is none."""
    return parse(content(path, most))


def parse(said: str | bytes) -> Any:
    """The JSON of a record. Raises ValueError where it is none, is nested too deeply, or has a number beyond all measure."""
    try:
        return json.loads(said, parse_constant=_no_number, parse_float=_finite, parse_int=_whole)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number")


def _finite(word: str) -> float:
    number = float(word)
    return number if abs(number) < float("inf") else _no_number(word[:_TOLD])


def _whole(word: str) -> int:
    if len(word) > _DIGITS:
        raise ValueError(f"{word[:_TOLD]}… is too large")
    return int(word)
