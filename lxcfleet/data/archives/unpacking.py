"""Puts the entries of an archive into new directories.

A directory is opened by its name in the one above, and no link is ever followed. Whatever is there already ends the work: all
that is below the top was made from earlier entries of the same archive. So a name can be made once, and never be replaced by
something that leads elsewhere. The caller confines this process to the new mount besides, and removes all after a failure.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping

from lxcfleet.data.archives.entries import ACLS, ArchiveEntry, EntryKind, Reader, refused, shown, with_own_ids
from lxcfleet.errors import InvalidInput

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DEFAULT = ACLS[1]


def find(tops: Mapping[tuple[bytes, ...], int], path: tuple[bytes, ...]) -> tuple[tuple[bytes, ...], int]:
    """The top that a path is below, or is itself. Raises InvalidInput if it is below none."""
    for top, handle in tops.items():
        if path[: len(top)] == top:
            return top, handle
    raise refused(f"{shown(b'/'.join(path))} is not what an archive of this kind has")


class Directories:
    """Descriptors of the directories on the way to the last one that was asked for: tar's entries come in such an order."""

    def __init__(self, top: int) -> None:
        self._held: list[tuple[bytes, int]] = [(b"", top)]

    def open(self, path: tuple[bytes, ...]) -> int:
        """A descriptor of the directory, which this object closes. Raises OSError."""
        known = 0
        while known < min(len(path), len(self._held) - 1) and self._held[known + 1][0] == path[known]:
            known += 1
        self._drop(known + 1)
        for name in path[known:]:
            self._held.append((name, os.open(name, _DIRECTORY, dir_fd=self._held[-1][1])))
        return self._held[-1][1]

    def close(self) -> None:
        """Close all but the top."""
        self._drop(1)

    def _drop(self, kept: int) -> None:
        for _, handle in self._held[kept:]:
            os.close(handle)
        del self._held[kept:]


class Unpacking:
    """The entries of one archive, on their way into new directories."""

    def __init__(self, tops: Mapping[tuple[bytes, ...], int], told: Callable[[int], None] = lambda _: None) -> None:
        """``tops``: descriptors of the new, empty directories, by their paths in the archive. ``told``: called with the bytes
        written so far."""
        self._tops = tops
        self._told = told
        self._directories = {top: Directories(handle) for top, handle in tops.items()}
        self._last: list[tuple[tuple[bytes, ...], ArchiveEntry]] = []
        self._there: set[tuple[bytes, ...]] = set()
        self.bytes = 0

    def take(self, reader: Reader, entry: ArchiveEntry) -> None:
        """Make one entry. Raises InvalidInput, OSError."""
        top, handle = find(self._tops, entry.path)
        path = entry.path[len(top) :]
        if not path:
            if entry.kind is not EntryKind.DIRECTORY or top in self._there:
                raise refused(f"{entry.shown} is not what an archive of this kind has")
            self._there.add(top)
            self._last.append((entry.path, entry))
            _dress(handle, b".", entry)
            return
        try:
            self._make(reader, entry, top, path)
        except (FileExistsError, NotADirectoryError, FileNotFoundError, IsADirectoryError) as error:
            raise refused(f"{entry.shown} can't be made: {error.strerror}") from error

    def _make(self, reader: Reader, entry: ArchiveEntry, top: tuple[bytes, ...], path: tuple[bytes, ...]) -> None:
        above, name = self._directories[top].open(path[:-1]), path[-1]
        match entry.kind:
            case EntryKind.DIRECTORY:
                os.mkdir(name, 0o700, dir_fd=above)
                self._last.append((entry.path, entry))
            case EntryKind.SYMLINK:
                os.symlink(entry.target, name, dir_fd=above)
            case EntryKind.LINK:
                self._link(entry, top, path)
                return
            case EntryKind.WHITEOUT:
                os.mknod(name, stat.S_IFCHR | 0o600, os.makedev(0, 0), dir_fd=above)
            case EntryKind.FIFO:
                os.mkfifo(name, 0o600, dir_fd=above)
            case EntryKind.FILE:
                self._fill(reader, entry, os.open(name, _NEW, 0o600, dir_fd=above))
        _dress(above, name, entry)
        if entry.kind is not EntryKind.DIRECTORY:
            _set_time(above, name, entry)

    def _fill(self, reader: Reader, entry: ArchiveEntry, handle: int) -> None:
        with open(handle, "wb", buffering=0) as file:
            for offset, data in reader.pieces(entry):
                done = 0
                while done < len(data):
                    done += os.pwrite(file.fileno(), data[done:], offset + done)
                self.bytes += len(data)
                self._told(self.bytes)
            if entry.size and (not entry.pieces or sum(entry.pieces[-1]) != entry.size):
                os.ftruncate(file.fileno(), entry.size)

    def _link(self, entry: ArchiveEntry, top: tuple[bytes, ...], path: tuple[bytes, ...]) -> None:
        target = tuple(entry.target.split(b"/"))
        if target[: len(top)] != top or len(target) == len(top):
            raise refused(f"{entry.shown} is another name of something outside")
        directories = Directories(self._tops[top])
        try:
            there = directories.open(target[len(top) : -1])
            above = self._directories[top].open(path[:-1])
            os.link(target[-1], path[-1], src_dir_fd=there, dst_dir_fd=above, follow_symlinks=False)
        except PermissionError as error:  # of a directory
            raise refused(f"{entry.shown} is another name of {shown(entry.target)}, which can't be") from error
        finally:
            directories.close()

    def finish(self) -> None:
        """Give directories what would have changed while they were filled. Raises InvalidInput, OSError."""
        missing = [shown(b"/".join(top)) for top in self._tops if top not in self._there]
        if missing:
            raise refused(f"it has no {missing[0]}")
        for path, entry in reversed(self._last):
            top, handle = find(self._tops, path)
            rest = path[len(top) :]
            above = self._directories[top].open(rest[:-1]) if rest else handle
            name = rest[-1] if rest else b"."
            if _DEFAULT in entry.attributes:
                _set_attributes(above, name, {_DEFAULT: entry.attributes[_DEFAULT]}, entry)
            _set_time(above, name, entry)
        self.close()

    def close(self) -> None:
        """Close all descriptors but the tops."""
        for each in self._directories.values():
            each.close()


def _dress(above: int, name: bytes, entry: ArchiveEntry) -> None:
    """Owner, mode and attributes. A change of owner takes set-id bits and capabilities away, so it comes first."""
    os.chown(name, entry.uid, entry.gid, dir_fd=above, follow_symlinks=False)
    if entry.kind is not EntryKind.SYMLINK:
        os.chmod(name, entry.mode, dir_fd=above)  # the name is of what was just made
    # Entries made in a directory inherit its list for new ones, which therefore comes last.
    given = {key: value for key, value in entry.attributes.items() if key != _DEFAULT}
    if given:
        _set_attributes(above, name, given, entry)


def _set_attributes(above: int, name: bytes, attributes: Mapping[bytes, bytes], entry: ArchiveEntry) -> None:
    handle = _open(above, name)
    try:
        for key, value in attributes.items():
            os.setxattr(handle, key, value)
    except ValueError as error:
        raise refused(f"{entry.shown} has an attribute that makes no sense: {error}") from error
    finally:
        os.close(handle)


def _open(above: int, name: bytes) -> int:
    """A descriptor of a file, a directory or a pipe; not of links and whiteouts, which have no attributes."""
    return os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)


def _set_time(above: int, name: bytes, entry: ArchiveEntry) -> None:
    os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=above, follow_symlinks=False)


# -- a directory that is held against an archive ------------------------------------------------------------------

_OPENED = (EntryKind.FILE, EntryKind.DIRECTORY, EntryKind.FIFO)


class Comparing:
    """The entries of an archive, held one by one against what is below directories."""

    def __init__(
        self, tops: Mapping[tuple[bytes, ...], int], most: int = 20,
        first_ids: Mapping[tuple[bytes, ...], int | None] | None = None,
    ) -> None:
        """``most``: so many differences are told, the rest is counted. ``first_ids``: of the ranges of ids that the files
        have on disk, by top; missing or None: they have their own."""
        self._tops = tops
        self._first_ids = first_ids or {}
        self._directories = {top: Directories(handle) for top, handle in tops.items()}
        self._most = most
        self._names: dict[tuple[bytes, ...], int] = {}
        """The inode of each path that has been seen."""
        self.differences: list[str] = []
        self.count = 0

    def take(self, reader: Reader, entry: ArchiveEntry) -> None:
        """Hold one entry against what is there. Raises InvalidInput, OSError."""
        top, handle = find(self._tops, entry.path)
        path = entry.path[len(top) :]
        try:
            above = self._directories[top].open(path[:-1]) if path else handle
            name = path[-1] if path else b"."
            found = os.stat(name, dir_fd=above, follow_symlinks=False)
            self._names[entry.path] = found.st_ino
            for what in self._differing(reader, entry, above, name, found, self._first_ids.get(top)):
                self._note(f"{entry.shown}: {what}")
        except (FileNotFoundError, NotADirectoryError, InvalidInput) as error:
            self._note(f"{entry.shown}: {error}")

    def _differing(
        self, reader: Reader, entry: ArchiveEntry, above: int, name: bytes, found: os.stat_result, first_id: int | None
    ) -> Iterable[str]:
        if entry.kind is EntryKind.LINK:
            if self._names.get(tuple(entry.target.split(b"/"))) != found.st_ino:
                yield f"is not another name of {shown(entry.target)}"
            return
        if stat.S_IFMT(found.st_mode) != _FORMATS[entry.kind]:
            yield "is of another kind"
            return
        if (found.st_uid, found.st_gid) != (entry.uid, entry.gid):
            yield f"belongs to {found.st_uid}:{found.st_gid}, and to {entry.uid}:{entry.gid} in the archive"
        if entry.kind is not EntryKind.SYMLINK and stat.S_IMODE(found.st_mode) != entry.mode:
            yield f"has the mode {stat.S_IMODE(found.st_mode):o}, and {entry.mode:o} in the archive"
        if found.st_mtime_ns != entry.mtime_ns:
            yield "has another time"
        if entry.kind is EntryKind.WHITEOUT and found.st_rdev:
            yield "is a device"
        if entry.kind is EntryKind.SYMLINK and os.readlink(name, dir_fd=above) != entry.target:
            yield "leads elsewhere"
        if entry.kind in _OPENED and _attributes_of(above, name, first_id) != entry.attributes:
            yield "has other attributes"
        if entry.kind is EntryKind.FILE:
            handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
            try:
                if found.st_size != entry.size or not _is_content(reader, entry, handle):
                    yield "has another content"
            finally:
                os.close(handle)

    def finish(self) -> None:
        """Look for what the archive does not have. Raises OSError."""
        for top, handle in self._tops.items():
            todo: list[tuple[bytes, ...]] = [()]
            directories = Directories(handle)
            while todo:
                path = todo.pop()
                with os.scandir(directories.open(path)) as entries:
                    for each in entries:
                        below = (*path, os.fsencode(each.name))
                        if (*top, *below) not in self._names:
                            self._note(f"{shown(b'/'.join((*top, *below)))}: is not in the archive")
                        elif each.is_dir(follow_symlinks=False):
                            todo.append(below)
            directories.close()
        self.close()

    def close(self) -> None:
        """Close all descriptors but the tops."""
        for each in self._directories.values():
            each.close()

    def _note(self, difference: str) -> None:
        self.count += 1
        if len(self.differences) < self._most:
            self.differences.append(difference)


_FORMATS = {
    EntryKind.FILE: stat.S_IFREG, EntryKind.SYMLINK: stat.S_IFLNK,
    EntryKind.WHITEOUT: stat.S_IFCHR, EntryKind.DIRECTORY: stat.S_IFDIR,
    EntryKind.FIFO: stat.S_IFIFO,
}  # fmt: skip


def _attributes_of(above: int, name: bytes, first_id: int | None) -> dict[bytes, bytes]:
    handle = _open(above, name)
    try:
        found = {os.fsencode(key): os.getxattr(handle, key) for key in os.listxattr(handle)}
        return {key: with_own_ids(value, first_id) if key in ACLS else value for key, value in found.items()}
    finally:
        os.close(handle)


def _is_content(reader: Reader, entry: ArchiveEntry, handle: int) -> bool:
    """Whether a file has the entry's data, and zeros everywhere else."""
    at, same = 0, True
    for offset, data in reader.pieces(entry):
        same = same and _is_empty(handle, at, offset) and _read(handle, offset, len(data)) == data
        at = offset + len(data)
    return same and _is_empty(handle, at, entry.size)


def _read(handle: int, offset: int, count: int) -> bytes:
    found = b""
    while len(found) < count and (piece := os.pread(handle, count - len(found), offset + len(found))):
        found += piece
    return found


def _is_empty(handle: int, start: int, end: int) -> bool:
    """Whether there are only zeros from ``start`` to ``end``. Holes are skipped; lseek(2), SEEK_DATA."""
    while start < end:
        try:
            start = max(start, os.lseek(handle, start, os.SEEK_DATA))
        except OSError:  # ENXIO: nothing but a hole
            return True
        if start < end:
            piece = os.pread(handle, min(1 << 20, end - start), start)
            if not piece or piece.strip(b"\0"):
                return False
            start += len(piece)
    return True
