"""Files in deltas that hide the base's, so that patching the base does not reach the container.

Finding and removing is done by a child of the launcher, which sees the mask. Nothing of a container is followed: its
delta is looked at from outside, and only where the base has something, so what a container keeps for itself costs
nothing, however much it is.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from lxcfleet.base.present import Base, Layer, Present, Upper, has, is_whiteout
from lxcfleet.host.kernel import syscalls
from lxcfleet.host.kernel.mounts import OPAQUE

STATUS = "/var/lib/dpkg/status"
_MAX_STATUS = 64 << 20
_MAX_COMPARED = 256 << 20
_CHUNK = 1 << 20


class ShadowKind(StrEnum):
    """How a file is hidden."""

    FILE = "file"
    """The delta has another file at its path."""
    REMOVED = "removed"
    """The delta says that nothing is there."""
    DIRECTORY = "directory"
    """The delta has a directory of its own, which shows nothing of the base's."""


@dataclass(frozen=True)
class Shadow:
    """What hides a file, or a directory, of the base's."""

    path: str
    kind: ShadowKind
    directory: bool
    """The base has a directory there: all below it is hidden."""
    modified: float
    """When the delta's was modified, in seconds since the epoch; of a package's file that is when it was built."""
    base_modified: float
    same: bool
    """The delta's has the same content, as yet."""

    @property
    def age(self) -> str:
        """The delta's beside the base's: newer, older or same; empty where there is nothing to compare."""
        if self.kind is not ShadowKind.FILE or self.directory:
            return ""
        return "newer" if self.modified > self.base_modified else "older" if self.modified < self.base_modified else "same"

    def hides(self, path: str) -> bool:
        """Whether the base's ``path`` does not show because of it."""
        return path == self.path or (self.directory and path.startswith(f"{self.path}/"))

    def to_json(self) -> list[Any]:
        """For the way from the process that looked."""
        return [self.path, self.kind, self.directory, self.modified, self.base_modified, self.same]

    @classmethod
    def from_json(cls, data: list[Any]) -> Shadow:
        """What ``to_json`` made."""
        path, kind, *rest = data
        return cls(path, ShadowKind(kind), *rest)


@dataclass(frozen=True)
class Delta:
    """What was found in one delta."""

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


def find(deltas: Iterable[tuple[str, str]], mask: Path, root: Path = Path("/")) -> Iterator[Delta]:
    """What hides files of the base below ``root`` in each delta, given by name and directory. Raises OSError for the mask."""
    base, upper = Base(root), Upper(Layer.MASK, mask)
    try:
        for name, directory in deltas:
            try:
                delta = Upper(Layer.DELTA, Path(directory))
            except OSError as error:
                yield Delta(name, problem=f"{error.filename}: {error.strerror}")
                continue
            try:
                search = _Search(delta, Present(delta, upper, base))
                yield Delta(name, tuple(search.shadows()), search.packages())
            except OSError as error:
                yield Delta(name, problem=f"{error.filename}: {error.strerror}")
            finally:
                delta.close()
    finally:
        upper.close()


class _Search:
    def __init__(self, delta: Upper, present: Present) -> None:
        self._delta, self._present = delta, present

    def shadows(self) -> Iterator[Shadow]:
        """All of them, sorted by path."""
        waiting = [""]
        while waiting:
            directory = waiting.pop()
            below = []
            for name in sorted(self._delta.names(directory)):
                path = f"{directory}/{name}"
                found = self._present.below(path)
                if found.layer is not Layer.BASE or found.status is None:
                    continue
                shadow, descend = self._judge(path, found.status)
                if shadow is not None:
                    yield shadow
                if descend:
                    below.append(path)
            waiting += reversed(below)

    def _judge(self, path: str, hidden: os.stat_result) -> tuple[Shadow | None, bool]:
        """What the delta has at ``path``, where the base has ``hidden``; and whether to look below it."""
        with self._delta.opened(path) as handle:
            if handle is None:
                return None, False
            status = os.fstat(handle)
            directory, base_directory = stat.S_ISDIR(status.st_mode), stat.S_ISDIR(hidden.st_mode)
            if directory and base_directory and not has(handle, OPAQUE):
                return None, True
            kind = ShadowKind.REMOVED if is_whiteout(status) else ShadowKind.DIRECTORY if directory else ShadowKind.FILE
            same = kind is ShadowKind.FILE and self._same(handle, path, status, hidden)
            return Shadow(path, kind, base_directory, status.st_mtime, hidden.st_mtime, same), False

    def _same(self, handle: int, path: str, status: os.stat_result, hidden: os.stat_result) -> bool:
        mine, theirs = stat.S_IFMT(status.st_mode), stat.S_IFMT(hidden.st_mode)
        outside = self._present.base.outside(path)
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

    def packages(self) -> dict[str, str] | None:
        """The packages of a container that has dpkg records of its own."""
        with self._delta.opened(STATUS) as handle:
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
