"""What a container that is mounted now finds at a path: delta over mask over base, as the overlay would merge them.

A running overlay goes on showing what was there when it was mounted, so this is looked up in the layers themselves.
Paths are the container's, without links in them: what the kernel says a process has mapped.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum, StrEnum, auto
from pathlib import Path

from lxcfleet.base.tree import follow
from lxcfleet.host.kernel import syscalls
from lxcfleet.host.kernel.mounts import OPAQUE
from lxcfleet.host.process.maps import Identity

ORIGIN = "trusted.overlay.origin"
"""What the kernel marks a file with that it copied up; its inode number stays that of the file below."""


class Layer(StrEnum):
    """Who provides a path."""

    DELTA = "delta"
    MASK = "mask"
    BASE = "base"


@dataclass(frozen=True)
class Found:
    """What is at a path."""

    layer: Layer
    """The layer that provides it, or says that nothing is there."""
    status: os.stat_result | None
    """None: nothing is there."""
    copied: bool = False
    """The container changed a file of the base's: through the overlay it keeps its inode number."""
    hidden: bool = False
    """With nothing there: this layer took away what a lower one had there."""

    @property
    def identity(self) -> Identity | None:
        """Which file it is."""
        return None if self.status is None else Identity.of(self.status)


class _Kind(Enum):
    """A directory in an upper layer."""

    MERGED = auto()
    """It is there, and the layers below show through."""
    OPAQUE = auto()
    """It is there, and they don't."""
    ABSENT = auto()
    """It is not there; the layers below show."""
    HIDDEN = auto()
    """A whiteout is there, or a file: what is below it in the lower layers doesn't show."""
    NOWHERE = auto()
    """It is not there, and an opaque directory above hides the lower layers'."""


class Upper:
    """A layer that lies over others: a delta, or the mask.

    Its content may be a container's, and may change while we look: nothing leads us out of it.
    """

    def __init__(self, layer: Layer, directory: Path) -> None:
        self._layer = layer
        self._handle = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._directories = {"": _Kind.MERGED}

    def close(self) -> None:
        """Let go of it."""
        os.close(self._handle)

    def find(self, path: str) -> Found | None:
        """What this layer says of ``path``; None: nothing, so that the next one counts."""
        above = self._directory(path.rpartition("/")[0])
        if above is _Kind.HIDDEN:
            return Found(self._layer, None, hidden=True)
        if above in (_Kind.MERGED, _Kind.OPAQUE):
            with self.opened(path) as handle:
                if handle is not None:
                    status = os.fstat(handle)
                    if is_whiteout(status):
                        return Found(self._layer, None, hidden=True)
                    return Found(self._layer, status, has(handle, ORIGIN))
        return Found(self._layer, None) if above in (_Kind.OPAQUE, _Kind.NOWHERE) else None

    def merges(self, path: str) -> bool:
        """Whether this layer has a directory at ``path`` through which the lower layers show."""
        return self._directory(path) is _Kind.MERGED

    def names(self, directory: str) -> list[str]:
        """What this layer has in ``directory``, which is one of its own; none if it is gone."""
        with self.opened(directory) as handle:
            if handle is None:
                return []
            # Listing takes a descriptor that was opened for it.
            return os.listdir(f"/proc/self/fd/{handle}")

    def link(self, path: str) -> str:
        """Where the symbolic link at ``path`` leads; readlinkat(2) with an empty path."""
        with self.opened(path) as handle:
            return "" if handle is None else os.readlink("", dir_fd=handle)

    def _directory(self, path: str) -> _Kind:
        """Without recursion: a container may have made directories deeper than Python's stack."""
        unknown = []
        while (kind := self._directories.get(path)) is None:
            unknown.append(path)
            path = path.rpartition("/")[0]
        for below in reversed(unknown):
            kind = self._directories[below] = self._look(below, kind)
        return kind

    def _look(self, path: str, above: _Kind) -> _Kind:
        if above in (_Kind.ABSENT, _Kind.HIDDEN, _Kind.NOWHERE):
            return above
        with self.opened(path) as handle:
            if handle is None:
                return _Kind.NOWHERE if above is _Kind.OPAQUE else _Kind.ABSENT
            if not stat.S_ISDIR(os.fstat(handle).st_mode):
                return _Kind.HIDDEN
            return _Kind.OPAQUE if above is _Kind.OPAQUE or has(handle, OPAQUE) else _Kind.MERGED

    @contextlib.contextmanager
    def opened(self, path: str) -> Iterator[int | None]:
        """A descriptor that stands for what this layer has at ``path``, itself; None: nothing."""
        try:
            handle = syscalls.look_beneath(self._handle, path.lstrip("/") or ".")
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            yield None
            return
        try:
            yield handle
        finally:
            os.close(handle)


class Base:
    """The bottom layer, which many containers share: what was looked up once is remembered."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._prefix = os.fspath(root).rstrip("/")
        self._known: dict[str, Found] = {}

    def find(self, path: str) -> Found:
        """What the base has at ``path``."""
        found = self._known.get(path)
        if found is None:
            found = self._known[path] = Found(Layer.BASE, self._lstat(path))
        return found

    def forget(self, path: str) -> None:
        """Look again the next time: it may have changed meanwhile."""
        self._known.pop(path, None)

    def outside(self, path: str) -> str:
        """The path by which this host knows the base's ``path``."""
        return self._prefix + path

    def _lstat(self, path: str) -> os.stat_result | None:
        try:
            return os.lstat(self._prefix + path)
        except (FileNotFoundError, NotADirectoryError):
            return None


class Present:
    """The layers of one container."""

    def __init__(self, delta: Upper, mask: Upper, base: Base) -> None:
        self._delta, self._mask, self.base = delta, mask, base

    def find(self, path: str) -> Found:
        """Who provides ``path``, and what."""
        found = self._delta.find(path)
        if found is None:
            return self.below(path)
        if found.status is None and not found.hidden and self.below(path).status is not None:
            # New directories are opaque, too: only this tells whether they hide something.
            return replace(found, hidden=True)
        return found

    def below(self, path: str) -> Found:
        """What mask and base have at ``path``, whether or not the delta hides it; a directory of both is the base's."""
        if self._mask.merges(path):
            return self.base.find(path)
        return self._mask.find(path) or self.base.find(path)

    def resolve(self, path: str) -> str:
        """``path`` without links, ``.`` and ``..``, as the container follows them; as far as that leads."""
        return follow(path, lambda here, _: self._link(here))

    def _link(self, path: str) -> str:
        found = self.find(path)
        if found.status is None or not stat.S_ISLNK(found.status.st_mode):
            return ""
        with contextlib.suppress(OSError):
            match found.layer:
                case Layer.DELTA:
                    return self._delta.link(path)
                case Layer.MASK:
                    return self._mask.link(path)
                case Layer.BASE:
                    return os.readlink(self.base.outside(path))
        return ""


def is_whiteout(status: os.stat_result) -> bool:
    """Whether it hides what lower layers have at its path; Documentation/filesystems/overlayfs.rst."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def has(handle: int, attribute: str) -> bool:
    """Whether the file has the extended attribute; through /proc, as the handle is not opened for use."""
    try:
        return bool(os.getxattr(f"/proc/self/fd/{handle}", attribute))
    except OSError:
        return False
