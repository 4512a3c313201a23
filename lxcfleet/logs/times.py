"""When what stands in a console's file was printed: a small file beside it, as the console itself tells no time.

Each record says from which place on the file was written at or after a time. The file has at most ``MOST`` of them: then
every second one is left out, so that times of long ago are known less exactly.
"""

from __future__ import annotations

import bisect
import os
import struct
from collections.abc import Sequence
from typing import NamedTuple

MOST = 4096
STEP_SECONDS = 0.1
"""Times are noted at most so often."""
_FORM = struct.Struct("<dQQ")


class TimedPlace(NamedTuple):
    """A place in the file: all after it was printed at or after that time."""

    at: float
    """Seconds since the epoch."""
    inode: int
    offset: int


class Times:
    """The file as its one writer has it. If it can't be written, times are not known; nothing else depends on them."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._last = 0.0
        self._count: int | None = None
        self._seen = (0, 0)

    def note(self, now: float, inode: int, offset: int, end: int) -> None:
        """The file has more by now: from ``offset`` to ``end``. What was noted once is not noted again."""
        known = self._seen[1] if self._seen[0] == inode else offset
        if end <= known and self._seen[0] == inode:
            return
        new = max(offset, known)
        self._seen = inode, end
        if now - self._last < STEP_SECONDS and self._last <= now:
            return
        self._last = now
        try:
            self._append(TimedPlace(now, inode, new))
        except OSError:
            self._count = None

    def _append(self, time: TimedPlace) -> None:
        if self._count is None:
            self._count = len(read(self._path))
        if self._count >= MOST:
            kept = read(self._path)[::2]
            new = f"{self._path}.new"
            with open(new, "wb") as file:
                file.write(b"".join(_FORM.pack(*each) for each in kept))
            os.rename(new, self._path)
            self._count = len(kept)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if os.write(descriptor, _FORM.pack(*time)) != _FORM.size:  # the disk is full: no half a record may stay
                os.ftruncate(descriptor, self._count * _FORM.size)
                return
        finally:
            os.close(descriptor)
        self._count += 1


def read(path: str) -> list[TimedPlace]:
    """All records, the oldest first; empty if there is no such file. Raises OSError."""
    try:
        with open(path, "rb") as file:
            data = file.read(2 * MOST * _FORM.size)
    except FileNotFoundError:
        return []
    return [TimedPlace(*each) for each in _FORM.iter_unpack(data[: len(data) // _FORM.size * _FORM.size])]


class Clock:
    """Tells when the parts of one file were printed. Pure."""

    def __init__(self, times: Sequence[TimedPlace], inode: int) -> None:
        own = [each for each in times if each.inode == inode]
        self._offsets = [each.offset for each in own]
        self._times = [each.at for each in own]

    def at(self, offset: int) -> float | None:
        """When the byte at ``offset`` was printed, in seconds since the epoch, or a moment later; None: not known."""
        index = bisect.bisect_right(self._offsets, offset) - 1
        return self._times[index] if index >= 0 else None
