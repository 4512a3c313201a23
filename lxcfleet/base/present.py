"""What a container that is mounted now finds at a path: the layers of its stack, merged as the overlay would merge them.

A running overlay goes on showing what was there when it was mounted, so this is looked up in the layers themselves.
Paths are the container's, without links in them: what the kernel says a process has mapped.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

from lxcfleet.base.stack import Layer, Stack
from lxcfleet.base.tree import follow
from lxcfleet.host.kernel import syscalls
from lxcfleet.host.process.maps import Identity

ORIGIN = "trusted.overlay.origin"
"""What the kernel marks a file with that it copied up; its inode number stays that of the file below."""


@dataclass(frozen=True)
class Found:
    """What is at a path."""

    layer: Layer
    """The layer that provides it, or says that nothing is there."""
    status: os.stat_result | None
    """None: nothing is there."""
    copied: bool = False
    """The container changed a file of a lower layer: through the overlay it keeps its inode number."""
    hidden: bool = False
    """With nothing there: this layer took away what a lower one had there."""

    @property
    def identity(self) -> Identity | None:
        """Which file it is."""
        return None if self.status is None else Identity.of(self.status)


class Shape(Enum):
    """A directory in a layer that lies over others."""

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
    """A layer that lies over others, opened.

    Its content may be a container's, and may change meanwhile: no link in it is followed, so nothing leads out of it.
    """

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.opaque = layer.opaque or ""
        """The extended attribute that marks a directory which hides what lower layers have below it."""
        self._handle = os.open(layer.source, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._directories = {"": Shape.MERGED}

    def close(self) -> None:
        """Close the layer's directory."""
        os.close(self._handle)

    def find(self, path: str) -> tuple[Found | None, bool]:
        """What this layer says of ``path``, None for nothing; and whether the next layer counts, too.

        It does where this layer says nothing, and where it has a directory through which the lower layers show.
        """
        above = self.shape(path.rpartition("/")[0])
        if above is Shape.HIDDEN:
            return Found(self.layer, None, hidden=True), False
        if above in (Shape.MERGED, Shape.OPAQUE):
            with self.opened(path) as handle:
                if handle is not None:
                    status = os.fstat(handle)
                    if is_whiteout(status):
                        return Found(self.layer, None, hidden=True), False
                    copied = not self.layer.read_only and has(handle, ORIGIN)
                    found = Found(self.layer, status, copied)
                    return found, _is_directory(found) and self.shape(path) is Shape.MERGED
        nothing = above in (Shape.OPAQUE, Shape.NOWHERE)
        return Found(self.layer, None) if nothing else None, not nothing

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

    def shape(self, path: str) -> Shape:
        """What this layer makes of the directory ``path``. What was found once is remembered."""
        # Without recursion: a container may have made directories deeper than Python's stack.
        unknown = []
        while (shape := self._directories.get(path)) is None:
            unknown.append(path)
            path = path.rpartition("/")[0]
        for below in reversed(unknown):
            shape = self._directories[below] = self._look(below, shape)
        return shape

    def _look(self, path: str, above: Shape) -> Shape:
        if above in (Shape.ABSENT, Shape.HIDDEN, Shape.NOWHERE):
            return above
        with self.opened(path) as handle:
            if handle is None:
                return Shape.NOWHERE if above is Shape.OPAQUE else Shape.ABSENT
            if not stat.S_ISDIR(os.fstat(handle).st_mode):
                return Shape.HIDDEN
            return Shape.OPAQUE if above is Shape.OPAQUE or has(handle, self.opaque) else Shape.MERGED

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


class Bottom:
    """The lowest layer, which many containers share: what was looked up once is remembered."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self._prefix = layer.outside("")
        self._known: dict[str, Found] = {}

    def find(self, path: str) -> Found:
        """What the lowest layer has at ``path``."""
        found = self._known.get(path)
        if found is None:
            found = self._known[path] = Found(self.layer, self._lstat(path))
        return found

    def forget(self, path: str) -> None:
        """Look again the next time: it may have changed meanwhile."""
        self._known.pop(path, None)

    def link(self, path: str) -> str:
        """Where the symbolic link at ``path`` leads."""
        return os.readlink(self._prefix + path)

    def _lstat(self, path: str) -> os.stat_result | None:
        try:
            return os.lstat(self._prefix + path)
        except (FileNotFoundError, NotADirectoryError):
            return None


class Present:
    """The layers of one container, opened."""

    def __init__(self, uppers: Sequence[Upper], bottom: Bottom) -> None:
        self.uppers, self.bottom = tuple(uppers), bottom

    def find(self, path: str) -> Found:
        """Which layer provides ``path``, and what is there."""
        found, _ = self.uppers[0].find(path)
        if found is None:
            return self.below(path)
        if found.status is None and not found.hidden and self.below(path).status is not None:
            # New directories are opaque, too: only this tells whether they hide something.
            return replace(found, hidden=True)
        return found

    def below(self, path: str, upper: int = 0) -> Found:
        """What the layers below ``uppers[upper]`` have at ``path``, whether or not it hides that.

        A directory of several of them is the lowest one's.
        """
        directory: Found | None = None
        for layer in self.uppers[upper + 1 :]:
            found, more = layer.find(path)
            if found is None:
                continue
            if not more:
                return found if directory is None or _is_directory(found) else directory
            directory = found
        found = self.bottom.find(path)
        return found if directory is None or _is_directory(found) else directory

    def resolve(self, path: str) -> str:
        """``path`` without links, ``.`` and ``..``, as the container follows them; as far as that leads."""
        return follow(path, lambda here, _: self._link(here))

    def _link(self, path: str) -> str:
        found = self.find(path)
        if found.status is None or not stat.S_ISLNK(found.status.st_mode):
            return ""
        with contextlib.suppress(OSError):
            return self.opened(found.layer).link(path)
        return ""

    def opened(self, layer: Layer) -> Upper | Bottom:
        """The layer, as it is opened here."""
        return next((upper for upper in self.uppers if upper.layer is layer), self.bottom)


class Shelf:
    """Layers that containers share, each opened once for all of them."""

    def __init__(self) -> None:
        self._uppers: dict[Layer, Upper] = {}
        self._bottoms: dict[Layer, Bottom] = {}

    @contextlib.contextmanager
    def present(self, stack: Stack) -> Iterator[Present]:
        """The layers of one container, the topmost one opened for as long as this lasts. Raises OSError."""
        *shared, bottom = stack.lower
        top = Upper(stack.top)
        try:
            if bottom not in self._bottoms:
                self._bottoms[bottom] = Bottom(bottom)
            yield Present([top, *map(self.upper, shared)], self._bottoms[bottom])
        finally:
            top.close()

    def upper(self, layer: Layer) -> Upper:
        """A layer that lies over others, and that containers share. Raises OSError."""
        if layer not in self._uppers:
            self._uppers[layer] = Upper(layer)
        return self._uppers[layer]

    def close(self) -> None:
        """Close them all."""
        for upper in self._uppers.values():
            upper.close()
        self._uppers.clear()


def _is_directory(found: Found) -> bool:
    return found.status is not None and stat.S_ISDIR(found.status.st_mode)


def is_whiteout(status: os.stat_result) -> bool:
    """Whether it hides what lower layers have at its path; Documentation/filesystems/overlayfs.rst."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def has(handle: int, attribute: str) -> bool:
    """Whether the file has the extended attribute; through /proc, as the handle is not opened for use."""
    try:
        return bool(os.getxattr(f"/proc/self/fd/{handle}", attribute))
    except OSError:
        return False


def part_layers(shelf: Shelf, stack: Stack, point: str) -> tuple[Layer, ...] | None:
    """The lower layers that have the directory ``point``, the topmost first; None where one of them takes it away.

    An overlay of ``point`` alone has these as its lower layers.
    """
    found = []
    for layer in stack.lower[:-1]:
        match shelf.upper(layer).shape(point):
            case Shape.MERGED:
                found.append(layer)
            case Shape.OPAQUE:
                return (*found, layer)
            case Shape.HIDDEN | Shape.NOWHERE:
                return None
    return (*found, stack.bottom)
