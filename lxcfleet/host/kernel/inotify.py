"""Tells of files that appear in a directory or leave it; inotify(7)."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

_IN_MOVED_TO = 0x80
_IN_DELETE = 0x200
_BUFFER = 1 << 16


class DirectoryWatch:
    """Calls ``changed`` when a file was renamed into the directory, or removed from it. Raises OSError."""

    def __init__(self, directory: Path, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._descriptor = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "inotify")
        if _libc.inotify_add_watch(self._descriptor, os.fsencode(directory), _IN_MOVED_TO | _IN_DELETE) < 0:
            number = ctypes.get_errno()
            os.close(self._descriptor)
            raise OSError(number, os.strerror(number), str(directory))
        asyncio.get_running_loop().add_reader(self._descriptor, self._read)

    def close(self) -> None:
        """Stop watching."""
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _read(self) -> None:
        try:
            while os.read(self._descriptor, _BUFFER):
                pass
        except BlockingIOError:
            self._changed()
