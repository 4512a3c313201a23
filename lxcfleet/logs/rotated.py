"""A log that is read while it is rotated: its file is renamed to ``.1``, in the place of the one before, and begun anew."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

BLOCK = 1 << 16
"""Bytes that are read at once."""
MISSED = b"lxcfleet: lines may be missing here, as the container prints faster than they are read"
"""The line that is shown where a whole file may have been renamed away unread."""


class Rotated:
    """The bytes of a log from some place on, each once, whatever is renamed meanwhile. It must be closed."""

    def __init__(self, path: Path, lines: int) -> None:
        """``lines``: begin so many lines before the end; 0: with the oldest."""
        self._path, self._before = path, Path(f"{path}.1")
        self._busy, self._closed = threading.Lock(), False
        """A client may leave while a thread reads for it: what that has opened is closed after it."""
        self._descriptor = -1
        self.inode, self.offset = 0, 0
        """Where the next byte is."""
        self.jumped, self._jumps = False, False
        """Whether a file may have come and gone unread before the bytes that were given last."""
        left = lines
        for each in (self._path, self._before):
            if self._use(_open(each)) and lines:
                self.offset, left = _back(self._descriptor, left)
                if not left:
                    break

    def close(self) -> None:
        """Read nothing any more."""
        with self._busy:
            self._closed = True
            self._leave()

    def block(self) -> bytes:
        """The next bytes; empty: there are none yet."""
        with self._busy:
            data = b"" if self._closed else self._block()
            if data:
                self.jumped, self._jumps = self._jumps, False
            return data

    def _block(self) -> bytes:
        if self._descriptor < 0 and not self._use(_open(self._path)):
            return b""
        for _ in range(3):
            renamed = _inode(self._path) != self.inode  # before the bytes are read, as some may come until it is renamed
            data = os.pread(self._descriptor, BLOCK, self.offset)
            self.offset += len(data)
            if data or not renamed or not self._go_on():
                break
        if not data:
            self.offset = min(self.offset, os.fstat(self._descriptor).st_size)
        return data

    def _go_on(self) -> bool:
        """Go on in the oldest file that was begun after this one; returns whether there is one already."""
        found = _open(self._path)
        # Only now: as long as this file is the one before, the one that was just opened follows it.
        if _inode(self._before) in (self.inode, None):
            return self._use(found)
        if found is not None:
            os.close(found)
        self._jumps = True
        return self._use(_open(self._before)) or self._use(_open(self._path))

    def _use(self, descriptor: int | None) -> bool:
        if descriptor is None:
            return False
        self._leave()
        self._descriptor, self.inode, self.offset = descriptor, os.fstat(descriptor).st_ino, 0
        return True

    def _leave(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _open(path: Path) -> int | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None


def _back(descriptor: int, lines: int) -> tuple[int, int]:
    """The place so many lines before the file's end, and how many more lines would have been wanted."""
    end = size = os.fstat(descriptor).st_size
    left = lines + 1  # the end of the line before, too
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        left -= 1
    while end > 0:
        begin = max(0, end - BLOCK)
        block = os.pread(descriptor, end - begin, begin)
        place = len(block)
        while (place := block.rfind(b"\n", 0, place)) >= 0:
            left -= 1
            if left == 0:
                return begin + place + 1, 0
        end = begin
    return 0, max(0, left - 1)


def _inode(path: Path) -> int | None:
    try:
        return path.lstat().st_ino
    except OSError:
        return None
