"""How far a console was passed on, on disk beside it: a record that is written after each line, in one system call.

A process that is killed leaves the record as the kernel has it, and that is exact. After a loss of power it may be older
than the host's log is, by as much as the kernel had not written to the disk yet; then some lines come twice.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

_FORM = struct.Struct("<8sQQdQQ16x")
_MAGIC = b"lxcfpos1"


@dataclass
class Position:
    """A place in a console's file."""

    inode: int
    offset: int
    """Everything before it was passed on, or left out and counted."""
    at: float = 0.0
    """When all of the file had been read last, in seconds since the epoch."""
    lost: int = 0
    """Lines that were left out and of which nobody was told yet."""
    jumps: int = 0
    """The same for files that were overwritten before they were read."""

    def pack(self) -> bytes:
        """The record."""
        return _FORM.pack(_MAGIC, self.inode, self.offset, self.at, self.lost, self.jumps)

    @classmethod
    def unpack(cls, data: bytes) -> Position | None:
        """The record read back; None: it is none."""
        if len(data) != _FORM.size:
            return None
        magic, *values = _FORM.unpack(data)
        return cls(*values) if magic == _MAGIC else None


class PositionFile:
    """The file of one position. If the disk is full, or broken, the position is in memory only until that has changed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1

    def load(self) -> Position | None:
        """The position; None: there is none, or it can't be read."""
        try:
            self._open(0)
            return Position.unpack(os.pread(self._descriptor, _FORM.size + 1, 0))
        except OSError:
            return None

    def save(self, position: Position) -> bool:
        """Write it down; returns whether that was possible."""
        try:
            if self._descriptor < 0:
                self._open(os.O_CREAT)
            return os.pwrite(self._descriptor, position.pack(), 0) == _FORM.size
        except OSError:
            return False

    def close(self) -> None:
        """Nothing is written any more."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self, more: int) -> None:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | more, 0o600)
