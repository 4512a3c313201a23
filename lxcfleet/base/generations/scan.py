"""A look at the host as it is now: the directories that belong in a generation, and what is in them."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from lxcfleet.base.generations.manifest import DirectoryStatus, FileIdentity, Folder
from lxcfleet.base.generations.scope import Manner, Scope, manner
from lxcfleet.base.tree import join, parent, parents
from lxcfleet.errors import HostError, Unsupported

DEEPEST = 200
"""Levels of directories. Each takes two descriptors, and nothing that is meant to be run is so deep."""
OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""The directory is gone, or is none any more."""
_OTHERS = stat.S_IROTH | stat.S_IXOTH
_LEFT_OUT = ("trusted.overlay.", "security.ima", "security.evm")
"""In a sheet the first would say something to overlayfs; the others sign one file, and nobody can set them on a copy."""


@dataclass
class LiveDirectory:
    """A directory of the host as it is now."""

    status: DirectoryStatus
    mtime: int
    """In nanoseconds."""
    folders: list[str] = field(default_factory=list)
    """The names of the directories in it that belong in a generation."""
    files: dict[str, int] = field(default_factory=dict)
    """Files and links that are linked unless nobody owns them, name to inode."""
    links: set[str] = field(default_factory=set)
    """Those of ``files`` that are symbolic links."""
    sources: dict[str, FileIdentity] = field(default_factory=dict)
    """Files that are copied, or were in the generation before."""
    hollow: set[str] = field(default_factory=set)
    """Those of ``sources`` whose content no container sees, so that a generation need not have it."""


class Scan:
    """One walk through the host. No link is followed: some of its directories belong to users."""

    def __init__(
        self, root: str, scope: Scope, before: Mapping[str, Folder], mounts: Collection[str] = (), parts: Collection[str] = ()
    ) -> None:
        """``root``: of the host; ``before``: the generation that it is compared with; ``mounts``: its mount points, of which
        containers see nothing; ``parts``: those of which they do."""
        self._root, self._scope, self._before, self._mounts, self._parts = root, scope, before, mounts, parts
        self._ways = scope.ways()
        self._inner = _by_directory(scope.exempt, above=True)
        self._left_out, self._mounted = _by_directory(scope.left_out), _by_directory(mounts)
        self.found: dict[str, LiveDirectory] = {}
        """The directories, each after the one that it is in, and before the next one in that."""

    def run(self) -> dict[str, LiveDirectory]:
        """The directories by path. Raises FleetError, OSError."""
        top = os.open(self._root, OPEN & ~os.O_NOFOLLOW)
        levels = [(top, "/", self._look(top, "/"))]
        try:
            while levels:
                directory, path, waiting = levels[-1]
                if not waiting:
                    os.close(directory)
                    levels.pop()
                    continue
                name = waiting.pop()
                below = join(path, name)
                if len(levels) >= DEEPEST:
                    raise Unsupported(
                        "the base can't be frozen", why=f"{below} is more than {DEEPEST} directories deep",
                        hint="move it out of what containers see, or have the mask's rules empty a directory above it",
                    )  # fmt: skip
                opened = self._open(directory, name)
                if opened is None:
                    continue
                levels.append((opened, below, []))
                crossed = os.fstat(opened).st_dev != os.fstat(directory).st_dev
                if crossed and below not in self._mounts and below not in self._parts:
                    raise elsewhere(below)
                levels[-1] = (opened, below, self._look(opened, below))
        finally:
            for directory, _, _ in levels:
                os.close(directory)
        return self.found

    def _open(self, directory: int, name: str) -> int | None:
        try:
            return os.open(name, OPEN, dir_fd=directory)
        except OSError as error:
            if error.errno in VANISHED:
                return None
            raise HostError.from_os_error("the base can't be frozen", error) from error

    def _look(self, directory: int, path: str) -> list[str]:
        """Note what is in the directory; returns the names of directories to be looked into."""
        status = os.fstat(directory)
        live = self.found[path] = LiveDirectory(status_of(directory, status), status.st_mtime_ns)
        only = self._only(path, status)
        if only is None or only:
            self._note(directory, path, live, only)
        return sorted(live.folders, reverse=True)

    def _only(self, path: str, status: os.stat_result) -> Collection[str] | None:
        """The names in the directory that belong in a generation; None: all of them."""
        if path in self._ways:
            return self._ways[path]
        if path in self._mounts:
            return ()
        public = status.st_mode & _OTHERS == _OTHERS or path in self._scope.exempt
        return None if public else self._inner.get(path, ())

    def _note(self, directory: int, path: str, live: LiveDirectory, only: Collection[str] | None) -> None:
        how = manner(path)
        copying = how in (Manner.COPIED, Manner.STATE)
        before = self._before.get(path)
        copied: Collection[str] = before.copied if before is not None else ()
        prefix = path.rstrip("/")
        left_out, mounted = self._left_out.get(path, ()), self._mounted.get(path, ())
        with os.scandir(directory) as entries:
            for entry in entries:
                name = entry.name
                if (only is not None and name not in only) or name in left_out:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    live.folders.append(name)
                elif entry.is_symlink():
                    live.files[name] = entry.inode()
                    live.links.add(name)
                elif entry.is_file(follow_symlinks=False) and name not in mounted:
                    if copying or name in copied:
                        self._note_source(entry, f"{prefix}/{name}", live, copying)
                    else:
                        live.files[name] = entry.inode()

    def _note_source(self, entry: os.DirEntry[str], path: str, live: LiveDirectory, copying: bool) -> None:
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return
        live.sources[entry.name] = FileIdentity.of(status)
        bare = path in self._scope.bare
        if bare or (copying and not status.st_mode & stat.S_IROTH and path not in self._scope.exempt):
            live.hollow.add(entry.name)


def _by_directory(paths: Collection[str], *, above: bool = False) -> dict[str, set[str]]:
    """The names of ``paths`` by the directory that they are in; ``above``: also those of the directories above them."""
    found: dict[str, set[str]] = {}
    for path in paths:
        for each in (*(parents(path)[1:] if above else ()), path):
            found.setdefault(parent(each), set()).add(each.rpartition("/")[2])
    return found


def status_of(directory: int, status: os.stat_result) -> DirectoryStatus:
    """Owner, mode and attributes of the directory that is open."""
    return DirectoryStatus(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, attributes(directory))


def attributes(file: int | str) -> tuple[tuple[str, bytes], ...]:
    """The extended attributes of what is open, or has that name: access lists, capabilities, labels; xattr(7)."""
    follow = isinstance(file, int)
    try:
        names = os.listxattr(file, follow_symlinks=follow)
    except OSError:  # its file system has none
        return ()
    if not names:  # as nearly all files
        return ()
    found = []
    for name in sorted(names):
        if not name.startswith(_LEFT_OUT):
            try:
                found.append((name, os.getxattr(file, name, follow_symlinks=follow)))
            except OSError as error:
                if error.errno != errno.ENODATA:
                    raise
    return tuple(found)


@contextlib.contextmanager
def working_directory_kept() -> Iterator[None]:
    """Come back to the present working directory afterwards. To ask for attributes by a name in it takes half the time that
    a path below /proc/self/fd takes, and there is a question for each of the host's files; before Linux 6.13 no call for
    that takes a directory's descriptor."""
    before = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield
    finally:
        os.fchdir(before)
        os.close(before)


def elsewhere(path: str) -> Unsupported:
    """The error for a part of the base that can't be linked."""
    return Unsupported(
        "the base can't be frozen", why=f"{path} is on a file system of its own, and is none that containers have as a part",
        hint="no hard link leads from one file system to another; containers go on with the live base",
    )  # fmt: skip
