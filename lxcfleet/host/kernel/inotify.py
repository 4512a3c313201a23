"""Tells of files that appear in a directory or leave it, and of files that change; inotify(7)."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

_IN_MODIFY = 0x2
_IN_MOVED_TO = 0x80
_IN_DELETE = 0x200
_IN_MOVE_SELF = 0x800
_IN_Q_OVERFLOW = 0x4000
_IN_IGNORED = 0x8000
_BUFFER = 1 << 16
_EVENT = struct.Struct("=iIII")
"""struct inotify_event: watch, mask, cookie, length of the name that follows."""


class DirectoryWatch:
    """Calls ``changed`` when a file was renamed into the directory, or removed from it. Raises OSError."""

    def __init__(self, directory: Path, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._descriptor = _instance()
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


class FileWatches:
    """Calls a function when a file changes; any number of files with one instance. Raises OSError."""

    def __init__(self) -> None:
        self._descriptor = _instance()
        self._changed: dict[int, Callable[[], None]] = {}
        asyncio.get_running_loop().add_reader(self._descriptor, self._read)

    def watch(self, file: Path, changed: Callable[[], None]) -> int:
        """Begin to watch; gives the number of the watch. A file that is gone is not watched any more. Raises OSError."""
        number: int = _libc.inotify_add_watch(self._descriptor, os.fsencode(file), _IN_MODIFY)
        if number < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(file))
        self._changed[number] = changed
        return number

    def forget(self, number: int) -> None:
        """Do not watch any more; fine if the file is gone."""
        if self._changed.pop(number, None) is not None:
            _libc.inotify_rm_watch(self._descriptor, number)

    def close(self) -> None:
        """Watch nothing any more."""
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._changed.clear()

    def _read(self) -> None:
        """Call each function once for all that was read together."""
        changed: dict[int, None] = {}
        try:
            while events := os.read(self._descriptor, _BUFFER):
                for number, mask in parse(events):
                    if mask & _IN_IGNORED:
                        self._changed.pop(number, None)
                    else:
                        changed[number] = None
        except BlockingIOError:
            pass
        for number in changed:
            if number in self._changed:
                self._changed[number]()


def parse(events: bytes) -> list[tuple[int, int]]:
    """The watch and the mask of each event."""
    found, position = [], 0
    while position + _EVENT.size <= len(events):
        number, mask, _, length = _EVENT.unpack_from(events, position)
        found.append((number, mask))
        position += _EVENT.size + length
    return found


def _instance() -> int:
    descriptor: int = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "inotify")
    return descriptor


class RenamedWatches:
    """Tells which of many files were written to or renamed. There is no event loop: the caller polls ``descriptor``.
    Raises OSError."""

    OVERFLOW = -1
    """Instead of a watch: some events were dropped, so any of the files may have changed."""

    def __init__(self) -> None:
        self.descriptor = _instance()

    def add(self, descriptor: int) -> int:
        """Watch the file that is open as ``descriptor``; returns the watch. Raises OSError."""
        path = f"/proc/self/fd/{descriptor}"
        watch: int = _libc.inotify_add_watch(self.descriptor, os.fsencode(path), _IN_MODIFY | _IN_MOVE_SELF)
        if watch < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
        return watch

    def remove(self, watch: int) -> None:
        """Watch that file no longer."""
        _libc.inotify_rm_watch(self.descriptor, watch)

    def changed(self) -> Iterator[int]:
        """The watches of files that changed since the last call."""
        while True:
            try:
                events = os.read(self.descriptor, _BUFFER)
            except BlockingIOError:
                return
            for watch, mask in parse(events):
                if mask & _IN_Q_OVERFLOW:
                    yield self.OVERFLOW
                elif not mask & _IN_IGNORED:
                    yield watch
