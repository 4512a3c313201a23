"""Files in a container's layers that hide the host's, so that patching the host does not reach the container.

A child of the launcher finds and removes them, as all layers are in its mount namespace. It follows no link of a container.
It looks at the layers from outside, and only at paths that the host has, so a container's own files cost
nothing, however many they are.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lxcfleet.base.present import Present, Shelf, Upper, has
from lxcfleet.base.stack import Layer, Stack
from lxcfleet.host.kernel import syscalls
from lxcfleet.host.kernel.entries import is_whiteout
from lxcfleet.host.packages import database

STATUS = "/var/lib/dpkg/status"
_MAX_STATUS = 16 << 20
_MAX_PACKAGES = 20_000
"""The most bytes and packages read of a container's own dpkg records. Debian's status has 1 MiB for each 1,000 packages."""
_MAX_FIELD = 200
"""Characters of a package's name and of its version."""
_MAX_SHADOWS = 4 << 20
"""Characters of the paths of a container's shadows, and 64 for each."""
_MAX_COMPARED = 256 << 20
_CHUNK = 1 << 20


class ShadowKind(StrEnum):
    """The way in which a file is hidden."""

    FILE = "file"
    """The layer has another file at its path."""
    REMOVED = "removed"
    """The layer has a whiteout at its path."""
    DIRECTORY = "directory"
    """The layer has an opaque directory, which shows nothing of the host's."""


@dataclass(frozen=True)
class Shadow:
    """Hides a file, or a directory, of the host."""

    path: str
    kind: ShadowKind
    directory: bool
    """Whether the host has a directory there: if so, everything below it is hidden."""
    modified: float
    """When the layer's file was modified, in seconds since the epoch; for a package's file, when it was built."""
    base_modified: float
    same: bool
    """Whether the layer's file has the same content, so far."""
    layer: str
    """The name of the layer that hides it."""
    own: bool
    """Whether that is the container's own layer: then the shadow can be removed from this container alone."""

    @property
    def age(self) -> str:
        """The layer's file compared with the host's: newer, older or same; empty if they can't be compared."""
        if self.kind is not ShadowKind.FILE or self.directory:
            return ""
        return "newer" if self.modified > self.base_modified else "older" if self.modified < self.base_modified else "same"

    def hides(self, path: str) -> bool:
        """Whether this shadow hides the host's ``path``."""
        return path == self.path or (self.directory and path.startswith(f"{self.path}/"))

    def to_json(self) -> list[Any]:
        """For the answer of the process that looked."""
        numbers = [self.directory, self.modified, self.base_modified, self.same]
        return [self.path, self.kind, *numbers, self.layer, self.own]

    @classmethod
    def from_json(cls, data: list[Any]) -> Shadow:
        """The shadow that ``to_json`` wrote."""
        path, kind, *rest = data
        return cls(path, ShadowKind(kind), *rest)


@dataclass(frozen=True)
class ShadowFindings:
    """The findings in one container's layers."""

    name: str
    shadows: tuple[Shadow, ...] = ()
    packages: Mapping[str, str] | None = None
    """The container's own packages with their versions; None: it uses the host's."""
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """For the answer of the process that looked."""
        shadows = [shadow.to_json() for shadow in self.shadows]
        return {"name": self.name, "shadows": shadows, "packages": self.packages, "problem": self.problem}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ShadowFindings:
        """The findings that ``to_json`` wrote."""
        return cls(data["name"], tuple(map(Shadow.from_json, data["shadows"])), data["packages"], data["problem"])


def find(containers: Iterable[tuple[str, Stack]]) -> Iterator[ShadowFindings]:
    """The shadows in each container, given by its name and its layers.

    A layer that only hides (the mask) does so on purpose, so it has no shadows.
    """
    shelf, shared = Shelf(), _Shared()
    try:
        for name, stack in containers:
            try:
                with shelf.present(stack) as present:
                    own, more = _fitting(_shadows(present, 0))
                    packages, problem = _packages(present)
                    yield ShadowFindings(name, (*own, *shared.shadows(present)), packages, more or problem)
            except OSError as error:
                yield ShadowFindings(name, problem=f"{error.filename}: {error.strerror}")
    finally:
        shelf.close()


def _fitting(shadows: Iterator[Shadow]) -> tuple[list[Shadow], str]:
    """Those for which there is room in the answer, and in words that there are more."""
    found: list[Shadow] = []
    room = _MAX_SHADOWS
    for shadow in shadows:
        room -= 64 + len(shadow.path)
        if room < 0:
            return found, f"it hides more of the host's files than are listed ({len(found)})"
        found.append(shadow)
    return found, ""


class _Shared:
    """Remembers the shadows in layers that containers share."""

    def __init__(self) -> None:
        self._found: dict[tuple[Layer, ...], list[Shadow]] = {}

    def shadows(self, present: Present) -> list[Shadow]:
        """The shadows in all layers of the container but its own."""
        lower = tuple(upper.layer for upper in present.uppers[1:])
        if lower not in self._found:
            numbers = [number for number, layer in enumerate(lower, 1) if not layer.neutral]
            self._found[lower] = [shadow for number in numbers for shadow in _shadows(present, number)]
        return self._found[lower]


def _shadows(present: Present, number: int) -> Iterator[Shadow]:
    """The shadows in ``present.uppers[number]``, directory by directory."""
    upper = present.uppers[number]
    assert isinstance(upper, Upper)
    waiting = [""]
    while waiting:
        directory = waiting.pop()
        below = []
        for name in sorted(upper.names(directory)):
            path = f"{directory}/{name}"
            found = present.below(path, number)
            if not found.layer.hosts or found.status is None:
                continue
            shadow, descend = _judge(upper, path, found.status, found.layer.outside(path))
            if shadow is not None:
                yield shadow
            if descend:
                below.append(path)
        waiting += reversed(below)


def _judge(upper: Upper, path: str, hidden: os.stat_result, outside: str) -> tuple[Shadow | None, bool]:
    """The shadow at ``path``, where the host has ``hidden``, if there is one; and whether to look below it.

    ``outside``: the path of the host's file.
    """
    with upper.opened(path) as handle:
        if handle is None:
            return None, False
        status = os.fstat(handle)
        directory, host_directory = stat.S_ISDIR(status.st_mode), stat.S_ISDIR(hidden.st_mode)
        if directory and host_directory and not has(handle, upper.opaque):
            return None, True
        kind = ShadowKind.REMOVED if is_whiteout(status) else ShadowKind.DIRECTORY if directory else ShadowKind.FILE
        same = kind is ShadowKind.FILE and _same(handle, status, outside, hidden)
        layer, own = upper.layer.name, not upper.layer.read_only
        return Shadow(path, kind, host_directory, status.st_mtime, hidden.st_mtime, same, layer, own), False


def _same(handle: int, status: os.stat_result, outside: str, hidden: os.stat_result) -> bool:
    mine, theirs = stat.S_IFMT(status.st_mode), stat.S_IFMT(hidden.st_mode)
    if mine != theirs or status.st_size != hidden.st_size:
        return False
    try:
        if stat.S_ISLNK(status.st_mode):
            return os.readlink("", dir_fd=handle) == os.readlink(outside)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_COMPARED:
            return False
        with _reading(handle) as one, open(outside, "rb") as other:
            while chunk := one.read(_CHUNK):
                if chunk != other.read(_CHUNK):
                    return False
        return True
    except FileNotFoundError:  # a package of the host lost it at this moment, and that is no trouble of the container's
        return False


def _packages(present: Present) -> tuple[dict[str, str] | None, str]:
    """The packages of a container that has dpkg records of its own, in any layer; None: it has none.

    If they are more than is read, it is told that in words.
    """
    upper = present.opened(present.find(STATUS).layer)
    if not isinstance(upper, Upper) or upper.layer.neutral:
        return None, ""
    with upper.opened(STATUS) as handle:
        if handle is None or not stat.S_ISREG(os.fstat(handle).st_mode):
            return None, ""
        with _reading(handle) as file:
            text = file.read(_MAX_STATUS + 1)
    found = {} if len(text) > _MAX_STATUS else parse_status(text, _MAX_PACKAGES + 1)
    if len(text) <= _MAX_STATUS and len(found) <= _MAX_PACKAGES:
        return found, ""
    most = f"{_MAX_STATUS >> 20} MiB or {_MAX_PACKAGES} packages"
    return None, f"{STATUS} has more than {most}, and its packages are not compared"


def _reading(handle: int) -> Any:
    """A file object for the regular file of an O_PATH descriptor. (Opening other kinds of files may have effects.)"""
    return open(f"/proc/self/fd/{handle}", "rb")


def in_layer(layer: Layer, paths: Iterable[str]) -> tuple[str, ...]:
    """Those of ``paths`` at which a container's layer has something else than a directory; none if it can't be read."""
    try:
        upper = Upper(layer)
    except OSError:
        return ()
    try:
        return tuple(path for path in paths if any(_is_file(upper, name) for name in database.names_of(path)))
    except OSError:
        return ()
    finally:
        upper.close()


def _is_file(upper: Upper, path: str) -> bool:
    found, _ = upper.find(path)
    return found is not None and found.status is not None and not stat.S_ISDIR(found.status.st_mode)


def remove(directory: str, paths: Iterable[str]) -> None:
    """Remove files, links and whiteouts from a delta that is not mounted; raises OSError, also for a directory.

    No link of the container's is followed (openat2(2)).
    """
    top = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for path in paths:
            parent, _, name = path.rpartition("/")
            handle = syscalls.look_beneath(top, parent.lstrip("/") or ".")
            try:
                os.unlink(name, dir_fd=handle)
            finally:
                os.close(handle)
    finally:
        os.close(top)


def parse_status(text: bytes, most: int | None = None) -> dict[str, str]:
    """The packages that are installed according to dpkg's ``status`` file, NAME:ARCHITECTURE to version; deb-control(5).

    ``most``: so many packages are enough.
    """
    found = {}
    for paragraph in text.decode("utf-8", "replace").split("\n\n"):
        fields = {}
        for line in paragraph.split("\n"):
            key, colon, value = line.partition(":")
            if colon and not line.startswith((" ", "\t")):
                fields[key.lower()] = value.strip()[:_MAX_FIELD]
        if fields.get("package") and fields.get("status", "").endswith(" installed"):
            found[f"{fields['package']}:{fields.get('architecture', '')}"] = fields.get("version", "")
            if most is not None and len(found) >= most:
                break
    return found


@dataclass(frozen=True)
class Diverged:
    """The differences between a container's packages and the host's. Names are NAME:ARCHITECTURE."""

    added: Mapping[str, str]
    """Packages that only the container has, with the version."""
    removed: tuple[str, ...]
    """Packages that only the host has."""
    changed: Mapping[str, tuple[str, str]]
    """Packages of another version: the container's, and the host's."""

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


def compare(own: Mapping[str, str], host: Mapping[str, str]) -> Diverged:
    """Compare a container's packages with the host's."""
    return Diverged(
        {name: own[name] for name in sorted(own.keys() - host.keys())},
        tuple(sorted(host.keys() - own.keys())),
        {name: (own[name], host[name]) for name in sorted(own.keys() & host.keys()) if own[name] != host[name]},
    )
