"""Files in a container's layers that hide the host's, so that patching the host does not reach the container.

Finding and removing is done by a child of the launcher, in whose mount namespace all layers are. No link of a container
is followed: its layers are looked at from outside, and only where the host has something, so what a container keeps for
itself costs nothing, however much it is.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lxcfleet.base.present import Present, Shelf, Upper, has, is_whiteout
from lxcfleet.base.stack import Layer, Stack
from lxcfleet.host.kernel import syscalls

STATUS = "/var/lib/dpkg/status"
_MAX_STATUS = 64 << 20
_MAX_COMPARED = 256 << 20
_CHUNK = 1 << 20


class ShadowKind(StrEnum):
    """How a file is hidden."""

    FILE = "file"
    """The layer has another file at its path."""
    REMOVED = "removed"
    """The layer says that nothing is there."""
    DIRECTORY = "directory"
    """The layer has a directory of its own, which shows nothing of the host's."""


@dataclass(frozen=True)
class Shadow:
    """What hides a file, or a directory, of the host's."""

    path: str
    kind: ShadowKind
    directory: bool
    """The host has a directory there: all below it is hidden."""
    modified: float
    """When the layer's was modified, in seconds since the epoch; of a package's file that is when it was built."""
    base_modified: float
    same: bool
    """The layer's has the same content, as yet."""
    layer: str
    """The name of the layer that hides it."""
    own: bool
    """Whether that is the container's own layer, so that the shadow can be removed from this container alone."""

    @property
    def age(self) -> str:
        """The layer's beside the host's: newer, older or same; empty where there is nothing to compare."""
        if self.kind is not ShadowKind.FILE or self.directory:
            return ""
        return "newer" if self.modified > self.base_modified else "older" if self.modified < self.base_modified else "same"

    def hides(self, path: str) -> bool:
        """Whether the host's ``path`` does not show because of it."""
        return path == self.path or (self.directory and path.startswith(f"{self.path}/"))

    def to_json(self) -> list[Any]:
        """For the way from the process that looked."""
        numbers = [self.directory, self.modified, self.base_modified, self.same]
        return [self.path, self.kind, *numbers, self.layer, self.own]

    @classmethod
    def from_json(cls, data: list[Any]) -> Shadow:
        """What ``to_json`` made."""
        path, kind, *rest = data
        return cls(path, ShadowKind(kind), *rest)


@dataclass(frozen=True)
class Delta:
    """What was found in one container's layers."""

    name: str
    shadows: tuple[Shadow, ...] = ()
    packages: Mapping[str, str] | None = None
    """The container's own packages with their versions; None: it has the host's."""
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """For the way from the process that looked."""
        shadows = [shadow.to_json() for shadow in self.shadows]
        return {"name": self.name, "shadows": shadows, "packages": self.packages, "problem": self.problem}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Delta:
        """What ``to_json`` made."""
        return cls(data["name"], tuple(map(Shadow.from_json, data["shadows"])), data["packages"], data["problem"])


def find(containers: Iterable[tuple[str, Stack]]) -> Iterator[Delta]:
    """What hides files of the host in each container, given by its name and its layers.

    A layer that only hides (the mask) does so on purpose, and what it hides is no shadow.
    """
    shelf, shared = Shelf(), _Shared()
    try:
        for name, stack in containers:
            try:
                with shelf.present(stack) as present:
                    yield Delta(name, (*_shadows(present, 0), *shared.shadows(present)), _packages(present))
            except OSError as error:
                yield Delta(name, problem=f"{error.filename}: {error.strerror}")
    finally:
        shelf.close()


class _Shared:
    """The shadows in layers that containers share, looked for once."""

    def __init__(self) -> None:
        self._found: dict[tuple[Layer, ...], list[Shadow]] = {}

    def shadows(self, present: Present) -> list[Shadow]:
        """Those in all layers of the container but its own."""
        lower = tuple(upper.layer for upper in present.uppers[1:])
        if lower not in self._found:
            numbers = [number for number, layer in enumerate(lower, 1) if not layer.neutral]
            self._found[lower] = [shadow for number in numbers for shadow in _shadows(present, number)]
        return self._found[lower]


def _shadows(present: Present, number: int) -> Iterator[Shadow]:
    """What hides the host's files in ``present.uppers[number]``, directory by directory."""
    upper = present.uppers[number]
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
    """What the layer has at ``path``, where the host has ``hidden``; and whether to look below it.

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
    if stat.S_ISLNK(status.st_mode):
        return os.readlink("", dir_fd=handle) == os.readlink(outside)
    if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_COMPARED:
        return False
    with _reading(handle) as one, open(outside, "rb") as other:
        while chunk := one.read(_CHUNK):
            if chunk != other.read(_CHUNK):
                return False
    return True


def _packages(present: Present) -> dict[str, str] | None:
    """The packages of a container that has dpkg records of its own, in whichever layer."""
    upper = present.opened(present.find(STATUS).layer)
    if not isinstance(upper, Upper) or upper.layer.neutral:
        return None
    with upper.opened(STATUS) as handle:
        if handle is None or not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        with _reading(handle) as file:
            return parse_status(file.read(_MAX_STATUS))


def _reading(handle: int) -> Any:
    """A file object for what an O_PATH descriptor stands for, which is a regular file: opening it has no effects."""
    return open(f"/proc/self/fd/{handle}", "rb")


def remove(directory: str, paths: Iterable[str]) -> None:
    """Take files, links and whiteouts out of a delta that nobody has mounted; raises OSError, for a directory too.

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


def parse_status(text: bytes) -> dict[str, str]:
    """The packages that are installed by dpkg's ``status`` file, NAME:ARCHITECTURE to version; deb-control(5)."""
    found = {}
    for paragraph in text.decode("utf-8", "replace").split("\n\n"):
        fields = {}
        for line in paragraph.split("\n"):
            key, colon, value = line.partition(":")
            if colon and not line.startswith((" ", "\t")):
                fields[key.lower()] = value.strip()
        if fields.get("package") and fields.get("status", "").endswith(" installed"):
            found[f"{fields['package']}:{fields.get('architecture', '')}"] = fields.get("version", "")
    return found


@dataclass(frozen=True)
class Diverged:
    """How a container's packages differ from the host's. Names are NAME:ARCHITECTURE."""

    added: Mapping[str, str]
    """Installed in the container only, with the version."""
    removed: tuple[str, ...]
    """Installed on the host only."""
    changed: Mapping[str, tuple[str, str]]
    """Of another version: the container's, and the host's."""

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


def compare(own: Mapping[str, str], host: Mapping[str, str]) -> Diverged:
    """A container's packages beside the host's."""
    return Diverged(
        {name: own[name] for name in sorted(own.keys() - host.keys())},
        tuple(sorted(host.keys() - own.keys())),
        {name: (own[name], host[name]) for name in sorted(own.keys() & host.keys()) if own[name] != host[name]},
    )
