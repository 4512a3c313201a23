"""A sheet is made: directories, links to the host's files, copies, whiteouts."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from lxcfleet.base.generations.changes import ChangedDirectory, Changes
from lxcfleet.base.generations.manifest import FileIdentity, Folder, Folders, Stamp
from lxcfleet.base.generations.scan import OPEN, VANISHED, attributes, elsewhere, working_directory_kept
from lxcfleet.base.mask import neutral
from lxcfleet.base.tree import join, parent
from lxcfleet.errors import HostError, NoCapacity

_TRIES = 3
"""A file that is written to while it is copied is copied so often at most."""
_PIECE = 1 << 20
_GROWN = 1 << 20
"""Bytes by which a file may have grown since it was decided to copy it."""
_UNLINKABLE = (errno.EPERM, errno.EMLINK)
"""The file is immutable (chattr(1), +i), or has as many names as its file system allows; link(2)."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_BLOCK = 512
"""Bytes; stat(2), st_blocks."""


class _Level(NamedTuple):
    path: str
    source: int
    target: int
    change: ChangedDirectory


class Writer:
    """Makes one sheet."""

    def __init__(self, root: str, directory: Path) -> None:
        """``root``: of the host; ``directory``: an empty one; the sheet is made in it, as ``tree``."""
        self._root = root
        self._tree = directory / "tree"
        self._whiteout = directory / "whiteout"
        self.folders: Folders = {}
        """The folders that the sheet has."""
        self.bytes = 0
        """Disk space that it took."""
        self._levels: list[_Level] = []

    def write(self, changes: Changes) -> None:
        """Make it. Raises FleetError, OSError."""
        with working_directory_kept():
            self._write(changes)

    def _write(self, changes: Changes) -> None:
        try:
            for path, change in changes.items():
                while self._levels and not _is_below(path, self._levels[-1].path):
                    self._leave()
                self._enter(path, change)
            while self._levels:
                self._leave()
        except OSError as error:
            if error.errno in _FULL:
                raise NoCapacity(
                    "the base can't be frozen: there is no room", why=f"{error.filename or self._tree}: {error.strerror}",
                    hint="what was made of it is removed; df and df -i of its file system show what is short",
                ) from error  # fmt: skip
            raise HostError.from_os_error("the base can't be frozen", error, path=self._tree) from error
        finally:
            for level in self._levels:
                os.close(level.source)
                os.close(level.target)
            self._whiteout.unlink(missing_ok=True)

    def _enter(self, path: str, change: ChangedDirectory) -> None:
        if path == "/":
            source = os.open(self._root, OPEN & ~os.O_NOFOLLOW)
            os.mkdir(self._tree, 0o700)
            target = os.open(self._tree, OPEN)
        else:
            above, name = self._levels[-1], path.rpartition("/")[2]
            if above.path != parent(path):
                return  # that one has vanished
            try:
                source = os.open(name, OPEN, dir_fd=above.source)
            except OSError as error:
                if error.errno not in VANISHED:
                    raise
                self._vanished(above, name)
                return
            try:
                os.mkdir(name, 0o700, dir_fd=above.target)
                target = os.open(name, OPEN, dir_fd=above.target)
            except BaseException:
                os.close(source)
                raise
        level = _Level(path, source, target, change)
        self._levels.append(level)
        self.folders[path] = Folder(change.status)
        for name in change.gone:
            self._hide(level, name)
        self._link(level, change.link)
        for name in list(change.copy):
            self._copy(level, name)

    def _leave(self) -> None:
        _, source, target, change = self._levels.pop()
        try:
            status = os.fstat(target)
            _own(target, status, change.status.uid, change.status.gid, change.status.mode)
            for name, value in change.status.attributes:
                os.setxattr(target, name, value)
            os.utime(target, ns=(change.mtime, change.mtime))
            self.bytes += status.st_blocks * _BLOCK
        finally:
            os.close(source)
            os.close(target)

    def _vanished(self, level: _Level, name: str) -> None:
        """The host's file is gone by now: so it is in the sheet."""
        if name in level.change.known:
            self._hide(level, name)

    def _hide(self, level: _Level, name: str) -> None:
        """Put a whiteout. They share an inode, as overlayfs's own do."""
        with contextlib.suppress(OSError):
            os.link(self._whiteout, name, dst_dir_fd=level.target)
            self.folders[level.path].gone.add(name)
            return
        self._whiteout.unlink(missing_ok=True)
        os.mknod(self._whiteout, stat.S_IFCHR, os.makedev(0, 0))
        os.link(self._whiteout, name, dst_dir_fd=level.target)
        self.folders[level.path].gone.add(name)

    def _link(self, level: _Level, names: Sequence[str]) -> None:
        """Link these. For a whole sheet these are 150,000 in all."""
        source, target, foreign, folder = level.source, level.target, level.change.foreign, self.folders[level.path]
        linked, stamps = folder.linked, folder.stamps
        if names:
            os.fchdir(target)
        for name in names:
            try:
                os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
            except OSError as error:
                self._not_linked(level, name, error)
                continue
            # Only now is it certain which file that is.
            status = os.stat(name, dir_fd=target, follow_symlinks=False)
            if stat.S_IFMT(status.st_mode) not in (stat.S_IFREG, stat.S_IFLNK):
                os.unlink(name, dir_fd=target)
                self._vanished(level, name)
                continue
            linked[name] = status.st_ino
            regular = stat.S_ISREG(status.st_mode)
            stamps[name] = Stamp.of(status, attributes(name) if regular else ())
            if name in foreign:
                folder.foreign[name] = status.st_size

    def _not_linked(self, level: _Level, name: str, error: OSError) -> None:
        if error.errno in VANISHED:
            self._vanished(level, name)
        elif error.errno in _UNLINKABLE:
            self._copy(level, name)
        elif error.errno == errno.EXDEV:
            raise elsewhere(join(level.path, name)) from error
        else:
            raise error

    def _copy(self, level: _Level, name: str) -> None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC
        try:
            source = os.open(name, flags, dir_fd=level.source)
        except OSError as error:
            if error.errno not in VANISHED:
                raise
            self._vanished(level, name)
            return
        try:
            status = os.fstat(source)
            if not stat.S_ISREG(status.st_mode):
                self._vanished(level, name)
                return
            planned = level.change.copy.pop(name, None)
            if planned is not None and status.st_size > planned.size + _GROWN:
                # It may belong to a user, and there may be no room for as much as he has made of it.
                level.change.foreign.add(name)
                self._link(level, [name])
                return
            path = join(level.path, name)
            target = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=level.target)
            try:
                content = neutral.public_part(path, source) if name in level.change.hollow else None
                status = _fill(source, target) if content is None else _put(target, content, status)
                _own(target, None, status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))
                for attribute, value in attributes(source):
                    os.setxattr(target, attribute, value)
                os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
                self.bytes += os.fstat(target).st_blocks * _BLOCK
            finally:
                os.close(target)
            folder = self.folders[level.path]
            folder.copied[name] = FileIdentity.of(status)
            if content is not None:
                folder.hollow.add(name)
        finally:
            os.close(source)


def _is_below(path: str, directory: str) -> bool:
    return path.startswith(f"{directory.rstrip('/')}/")


def _fill(source: int, target: int) -> os.stat_result:
    """Copy the content; returns the status that the source had then."""
    for _ in range(_TRIES):
        status = os.fstat(source)
        os.lseek(target, 0, os.SEEK_SET)
        os.ftruncate(target, 0)
        for piece in _pieces(source, status.st_size):
            _write(target, piece)
        if FileIdentity.of(os.fstat(source)) == FileIdentity.of(status):
            break
    return status


def _pieces(source: int, size: int) -> Iterator[bytes]:
    """The content, of at most ``size`` bytes: the file may grow as fast as it is read."""
    at = 0
    while at < size and (piece := os.pread(source, min(_PIECE, size - at), at)):
        at += len(piece)
        yield piece


def _put(target: int, content: bytes, status: os.stat_result) -> os.stat_result:
    _write(target, content)
    return status


def _write(target: int, content: bytes) -> None:
    with open(target, "wb", buffering=0, closefd=False) as file:
        while content:
            content = content[file.write(content) or 0 :]


def _own(target: int, now: os.stat_result | None, uid: int, gid: int, mode: int) -> None:
    now = now or os.fstat(target)
    if (now.st_uid, now.st_gid) != (uid, gid):
        os.fchown(target, uid, gid)
    os.fchmod(target, mode)  # after chown, which clears set-id bits
