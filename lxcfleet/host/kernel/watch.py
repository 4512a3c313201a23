"""Noticing what changes on a whole file system, by the kernel's word instead of by looking at every file.

This uses fanotify(7) with file handles (Linux 5.1). No process is told of changes while they happen: the kernel keeps a
queue, which is read to learn whether something changed. An overflow of the queue is noticed, too.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path

from lxcfleet.host.kernel import syscalls

_libc = ctypes.CDLL(None, use_errno=True)

_FAN_CLOEXEC = 0x1
_FAN_NONBLOCK = 0x2
_FAN_REPORT_FID = 0x200
_FAN_MARK_ADD = 0x1
_FAN_MARK_FILESYSTEM = 0x100
_FAN_ATTRIB = 0x4
_FAN_MOVED_TO = 0x80
_FAN_CREATE = 0x100
_FAN_ONDIR = 0x40000000
_FAN_Q_OVERFLOW = 0x4000
_AT_FDCWD = -100
_EVENT = struct.Struct("=IBBHQii")
"""struct fanotify_event_metadata: length, version, reserved, length of itself, mask, descriptor, pid."""
_HANDLE = 12
"""Bytes of an information record before its file handle: struct fanotify_event_info_fid."""
_HANDLE_HEAD = 8
"""Bytes of struct file_handle before the handle itself. The record of a handle that the kernel could not make is shorter."""
_BUFFER = 1 << 16
_UNKNOWN = ""
"""Instead of a path: the kernel does not tell it, or not all of them."""
_DELETED = " (deleted)"
"""The kernel tells a removed name with this at its end. So may a name end that somebody gave."""


class Watch:
    """Tells whether owners, modes or directories on one file system changed since the last question."""

    def __init__(self, descriptor: int, top: int, path: Path, doubtful: Callable[[str, float | None], bool]) -> None:
        self._descriptor = descriptor
        self._top = top
        self._doubtful = doubtful
        self._prefix = os.fspath(path).rstrip("/")

    @classmethod
    def on(cls, path: Path, doubtful: Callable[[str, float | None], bool] = lambda *_: True) -> Watch | None:
        """A watch on the file system that is mounted at ``path``; None if this kernel or file system does not support it.
        ``doubtful``: tells of one path of a file and of its birth (None: not known) whether another name of it may matter.

        The watch does not keep that file system from being unmounted.
        """
        descriptor = _libc.fanotify_init(_FAN_CLOEXEC | _FAN_NONBLOCK | _FAN_REPORT_FID, os.O_RDONLY)
        if descriptor < 0:
            return None
        wanted = ctypes.c_uint64(_FAN_ATTRIB | _FAN_CREATE | _FAN_MOVED_TO | _FAN_ONDIR)
        flags = _FAN_MARK_ADD | _FAN_MARK_FILESYSTEM
        try:
            if _libc.fanotify_mark(descriptor, flags, wanted, _AT_FDCWD, os.fsencode(path)) == 0:
                return cls(descriptor, syscalls.open_apart(path), path, doubtful)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def close(self) -> None:
        """Stop watching."""
        os.close(self._descriptor)
        os.close(self._top)

    def changed(self, matters: Callable[[str, bool, bool], bool]) -> bool:
        """Whether any change since the last call ``matters``. That is called with a path, with whether an entry of the
        directory ``path`` changed, rather than the owner or mode of ``path`` itself, and with whether what changed is a
        directory.

        Takes some µs for each event, of which the kernel keeps 16,384. A file that has gone again does not count. One that
        other users can't read and that has several names does, as its other names are not known.
        """
        found = False
        while True:
            try:
                events = os.read(self._descriptor, _BUFFER)
            except BlockingIOError:
                return found
            except OSError:  # events may be lost
                return True
            # Only of what was read at once: the file may have changed again after it was asked for an event read before.
            seen: set[tuple[bytes, int]] = set()
            position = 0
            while position < len(events) and not found:
                length, _, _, own, mask, _, _ = _EVENT.unpack_from(events, position)
                handle = events[position + own + _HANDLE : position + length]
                if mask & _FAN_Q_OVERFLOW:
                    found = True
                elif (handle, mask) not in seen:
                    seen.add((handle, mask))
                    path = self._path(handle)
                    # One event may report both kinds of change.
                    inside, itself = mask & (_FAN_CREATE | _FAN_MOVED_TO), mask & _FAN_ATTRIB
                    folder = bool(mask & _FAN_ONDIR)  # the kernel keeps events of directories apart from those of files
                    found = path == _UNKNOWN or (
                        path is not None
                        and bool((inside and matters(path, True, folder)) or (itself and matters(path, False, folder)))
                    )
                position += length

    def _path(self, handle: bytes) -> str | None:
        """The present path of a file; open_by_handle_at(2). None: it is gone, or not below the top. ``_UNKNOWN``: other users
        can't read it, and it has names that are not told; or the kernel has forgotten where it is, and tells only that it is
        a file; or it can't be asked now.

        Any user can make directories whose path is longer than the kernel tells; then this is the path of the nearest
        directory above that is short enough, or for another file ``_UNKNOWN``.
        """
        if len(handle) < _HANDLE_HEAD:
            return _UNKNOWN
        buffer = ctypes.create_string_buffer(handle, len(handle))
        descriptor = _libc.open_by_handle_at(self._top, buffer, os.O_PATH | os.O_CLOEXEC)
        if descriptor < 0:
            # Another failure, as a lack of descriptors or memory, does not tell that the file is gone.
            return None if ctypes.get_errno() in (errno.ESTALE, errno.ENOENT) else _UNKNOWN
        try:
            status = os.fstat(descriptor)
            while (told := _told(descriptor)) == _UNKNOWN:
                above = os.open("..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = above
            return self._place(descriptor, told, status)
        except OSError:
            return _UNKNOWN
        finally:
            os.close(descriptor)

    def _place(self, descriptor: int, told: str, status: os.stat_result) -> str | None:
        """The result of ``_path`` for a file of that status, for which the kernel told the path of what is open."""
        if told == "/" and not stat.S_ISDIR(status.st_mode):
            return _UNKNOWN
        path, names = told, status.st_nlink
        if told.endswith(_DELETED):
            present = os.fstat(descriptor)
            if not self._is_at(told, present):
                if present.st_nlink == 0:
                    return None
                if stat.S_ISDIR(present.st_mode):
                    return _UNKNOWN
                # A name that is open stays known after its removal, and may be told though the file has another one.
                path, names = told.removesuffix(_DELETED), names + 1
        several = stat.S_ISREG(status.st_mode) and names > 1 and not status.st_mode & stat.S_IROTH
        if several and self._doubtful(self._prefix + path, syscalls.born(descriptor)):
            return _UNKNOWN
        return self._prefix + path if not self._prefix or self._is_at(path, os.fstat(descriptor)) else None

    def _is_at(self, path: str, status: os.stat_result) -> bool:
        """Whether the file of that status is at that path below the top. For a bind mount, the kernel watches all of its file
        system."""
        try:
            found = os.stat(path.lstrip("/") or ".", dir_fd=self._top, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return os.path.samestat(found, status)


def _told(descriptor: int) -> str:
    """The path that the kernel tells for a descriptor; ``_UNKNOWN`` if it is too long."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return _UNKNOWN
