"""The file that a mounted container finds at a path: the layers of its stack, merged as the overlay would merge them.

A running overlay goes on showing the files that were there when it was mounted, so they are looked up in the layers.
Paths are the container's, without links in them, as the kernel gives them for mapped files.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass, replace
from enum import Enum, auto

from lxcfleet.base.stack import Layer, Stack
from lxcfleet.base.tree import follow
from lxcfleet.host.kernel import syscalls
from lxcfleet.host.kernel.entries import Copy, Directory, Symlink, Whiteout, is_whiteout
from lxcfleet.host.process.maps import Identity

ORIGIN = "trusted.overlay.origin"
"""The kernel marks a copied-up file with this attribute; the inode number of such a file stays that of the file below."""


@dataclass(frozen=True)
class Found:
    """The result of looking up a path."""

    layer: Layer
    """The layer that provides the file, or that says nothing is there."""
    status: os.stat_result | None
    """None: no file is there."""
    copied: bool = False
    """The container changed a file of a lower layer. Seen through the overlay, the file keeps its inode number."""
    hidden: bool = False
    """No file is there because this layer removed the one of a lower layer."""

    @property
    def identity(self) -> Identity | None:
        """The identity of the file."""
        return None if self.status is None else Identity.of(self.status)


class Shape(Enum):
    """A directory in a layer that lies over others."""

    MERGED = auto()
    """The directory is there, and the layers below show through."""
    OPAQUE = auto()
    """The directory is there, and the layers below do not show through."""
    ABSENT = auto()
    """The directory is not there; the layers below show."""
    HIDDEN = auto()
    """A whiteout or a file is there: the lower layers' entries below this path do not show."""
    NOWHERE = auto()
    """The directory is not there, and an opaque directory above it hides the lower layers."""


_MOST_REMEMBERED, _LONGEST = 300_000, 512
"""Results, and characters of a path; a container chooses the paths that are asked for."""


def worth_remembering(path: str, known: Sized) -> bool:
    """Whether there is room for what was found at ``path``."""
    return len(path) <= _LONGEST and len(known) < _MOST_REMEMBERED


class Upper:
    """A layer that lies over others, opened.

    The layer may belong to a container and may change meanwhile: no link in it is followed, so nothing leads out of it.
    """

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.opaque = layer.opaque or ""
        """The extended attribute that marks a directory which hides what lower layers have below it."""
        self._handle = os.open(layer.source, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._directories = {"": Shape.MERGED}
        self._known: dict[str, tuple[Found | None, bool]] = {}
        """The findings by path, unless a container can change them."""

    def close(self) -> None:
        """Close the layer's directory."""
        os.close(self._handle)

    def find(self, path: str) -> tuple[Found | None, bool]:
        """This layer's entry for ``path`` (None: it has none), and whether the next layer counts, too.

        The next layer counts if this one has no entry, or has a directory through which the lower layers show.
        """
        known = self._known.get(path)
        if known is None:
            known = self._find(path)
            if self.layer.read_only and worth_remembering(path, self._known):
                self._known[path] = known
        return known

    def _find(self, path: str) -> tuple[Found | None, bool]:
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
        """The names that this layer has in ``directory``, one of its own; none if the directory is gone."""
        with self.opened(directory) as handle:
            if handle is None:
                return []
            # Listing needs a descriptor that was opened for reading, unlike ours.
            return os.listdir(f"/proc/self/fd/{handle}")

    def link(self, path: str) -> str:
        """Where the symbolic link at ``path`` leads; readlinkat(2) with an empty path."""
        with self.opened(path) as handle:
            return "" if handle is None else os.readlink("", dir_fd=handle)

    def shape(self, path: str) -> Shape:
        """The shape of the directory ``path`` in this layer. Results are remembered."""
        # Without recursion: a container may have made directories deeper than Python's stack.
        unknown = []
        while (shape := self._directories.get(path)) is None:
            unknown.append(path)
            path = path.rpartition("/")[0]
        for below in reversed(unknown):
            shape = self._look(below, shape)
            if worth_remembering(below, self._directories):
                self._directories[below] = shape
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
        """A descriptor for this layer's entry at ``path`` (a link itself, not its target); None: it has none."""
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


class Made:
    """The layer of services, which is nowhere but in its container: known by what it would be made of now.

    A copy of a file of the host's counts as that file, and the directories above it as the host's: whoever looks for the
    provider of such a path is told of the base.
    """

    def __init__(self, layer: Layer, bottom: Bottom) -> None:
        assert layer.services is not None
        self.layer = layer
        self._bottom = bottom
        self._tree = bottom.layer.tree()
        # Few containers have such a layer.
        from lxcfleet.base.services import layer as services  # noqa: PLC0415

        self._entries = services.entries(self._tree, layer.services, whole=False)

    def close(self) -> None:
        """Nothing is open."""

    def find(self, path: str) -> tuple[Found | None, bool]:
        """See Upper."""
        match self._entries.get(path):
            case None:
                return None, True
            case Directory():
                found = self._bottom.find(path)
                return (found, False) if _is_directory(found) else (None, True)
            case Copy(source):
                return self._bottom.find(source), False
            case Symlink(target) if self._tree.is_link(path) and self._tree.link(path) == target:
                return self._bottom.find(path), False
            case Whiteout():
                return Found(self.layer, None, hidden=True), False
        return Found(self.layer, None), False

    def names(self, directory: str) -> list[str]:
        """See Upper."""
        prefix = f"{directory}/"
        return [path.removeprefix(prefix) for path in self._entries if path.rpartition("/")[0] == directory]

    def link(self, path: str) -> str:
        """See Upper."""
        entry = self._entries.get(path)
        return entry.target if isinstance(entry, Symlink) else ""

    def shape(self, path: str) -> Shape:
        """See Upper."""
        return Shape.MERGED if isinstance(self._entries.get(path), Directory) else Shape.ABSENT

    @contextlib.contextmanager
    def opened(self, path: str) -> Iterator[int | None]:  # noqa: ARG002
        """There is nothing that could be opened."""
        yield None


class Bottom:
    """The lowest layer, which many containers share, so results are remembered."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self._known: dict[str, Found] = {}

    def find(self, path: str) -> Found:
        """The lowest layer's entry at ``path``."""
        found = self._known.get(path)
        if found is None:
            found = Found(self.layer, self._lstat(path))
            if worth_remembering(path, self._known):
                self._known[path] = found
        return found

    def forget(self, path: str) -> None:
        """Look up ``path`` again the next time, as it may have changed meanwhile."""
        self._known.pop(path, None)

    def link(self, path: str) -> str:
        """Where the symbolic link at ``path`` leads."""
        return os.readlink(self.layer.outside(path))

    def _lstat(self, path: str) -> os.stat_result | None:
        try:
            return os.lstat(self.layer.outside(path))
        except (FileNotFoundError, NotADirectoryError):
            return None


class Present:
    """The layers of one container, opened."""

    def __init__(self, uppers: Sequence[Upper | Made], bottom: Bottom) -> None:
        self.uppers, self.bottom = tuple(uppers), bottom

    def find(self, path: str) -> Found:
        """The layer that provides ``path``, and the file there."""
        found, _ = self.uppers[0].find(path)
        if found is None:
            return self.below(path)
        if found.status is None and not found.hidden and self.below(path).status is not None:
            # New directories are opaque, too. Only a look below tells whether this one hides something.
            return replace(found, hidden=True)
        return found

    def mode(self, path: str) -> int | None:
        """The mode of what is at ``path``, a link not followed; None: nothing is there."""
        status = self.find(path).status
        return None if status is None else status.st_mode

    def below(self, path: str, upper: int = 0) -> Found:
        """The entry that the layers below ``uppers[upper]`` have at ``path``, even if that layer hides it.

        If several of them have the directory, it is that of the lowest one.
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
        return follow(path, lambda here, _: self.link(here))

    def link(self, path: str) -> str:
        """Where the symbolic link at ``path`` leads; empty: there is none."""
        found = self.find(path)
        if found.status is None or not stat.S_ISLNK(found.status.st_mode):
            return ""
        with contextlib.suppress(OSError):
            return self.opened(found.layer).link(path)
        return ""

    def opened(self, layer: Layer) -> Upper | Made | Bottom:
        """The opened layer."""
        return next((upper for upper in self.uppers if upper.layer is layer), self.bottom)


class Shelf:
    """Layers that containers share, each opened once for all containers."""

    def __init__(self) -> None:
        self._uppers: dict[Layer, Upper | Made] = {}
        self._bottoms: dict[Layer, Bottom] = {}

    @contextlib.contextmanager
    def present(self, stack: Stack) -> Iterator[Present]:
        """The layers of one container, the topmost one opened for as long as this lasts. Raises OSError."""
        *shared, bottom = stack.lower
        top = Upper(stack.top)
        try:
            lowest = self._bottom(bottom)
            yield Present([top, *(self.upper(layer, bottom) for layer in shared)], lowest)
        finally:
            top.close()

    def upper(self, layer: Layer, bottom: Layer) -> Upper | Made:
        """A layer that lies over others, and that containers share. Raises OSError."""
        if layer not in self._uppers:
            self._uppers[layer] = Upper(layer) if layer.services is None else Made(layer, self._bottom(bottom))
        return self._uppers[layer]

    def _bottom(self, layer: Layer) -> Bottom:
        if layer not in self._bottoms:
            self._bottoms[layer] = Bottom(layer)
        return self._bottoms[layer]

    def close(self) -> None:
        """Close them all."""
        for upper in self._uppers.values():
            upper.close()
        self._uppers.clear()


def _is_directory(found: Found) -> bool:
    return found.status is not None and stat.S_ISDIR(found.status.st_mode)


def has(handle: int, attribute: str) -> bool:
    """Whether the file has the extended attribute; through /proc, as the handle is not opened for use."""
    try:
        return bool(os.getxattr(f"/proc/self/fd/{handle}", attribute))
    except OSError:
        return False


def part_layers(shelf: Shelf, stack: Stack, point: str) -> tuple[Layer, ...] | None:
    """The lower layers that have the directory ``point``, the topmost first; None if one of them removes it.

    An overlay of ``point`` alone has these as its lower layers.
    """
    found = []
    for layer in stack.lower[:-1]:
        match shelf.upper(layer, stack.bottom).shape(point):
            case Shape.MERGED:
                found.append(layer)
            case Shape.OPAQUE:
                return (*found, layer)
            case Shape.HIDDEN | Shape.NOWHERE:
                return None
    return (*found, stack.bottom)
