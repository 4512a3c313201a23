"""Whether a process runs old code: its files held against what a fresh mount would give. Pure.

    stale: it maps or runs a file that is no longer the base's file at that path

A path that another layer than the base provides is compared with the file that is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lxcfleet.base.present import Found
from lxcfleet.host.process.maps import Identity

_XINO_BITS = 32
"""With xino the overlay puts a number of the layer above the inode's own bits (fs/overlayfs/inode.c, ovl_map_ino)."""
_UNPACK_SECONDS = 3600.0
"""The most that may lie between a package's file being written and being renamed to its place."""


class Why(StrEnum):
    """Why a file is old."""

    REPLACED = "replaced"
    """Another file is at its path now."""
    REMOVED = "removed"
    """Nothing is at its path any more."""
    SERVED = "served"
    """Who opens it now gets the old one, whether or not a process has it."""
    MONITOR = "monitor"
    """The container's monitor, a process of the host's, maps it. A restart of the container renews that."""
    MODULES = "modules"
    """It is a module of an interpreter that has run since before it was replaced, and may have read it."""


@dataclass(frozen=True)
class Process:
    """A process that runs an old file."""

    pid: int
    """As the host numbers it."""
    command: str


@dataclass(frozen=True)
class OldFile:
    """A file that should not run any more."""

    path: str
    why: Why
    layer: str
    """The name of the layer that provides the path now, or that removed it."""
    processes: tuple[Process, ...]
    package: str = ""
    """Whose file it is, where that is known without asking dpkg."""


@dataclass(frozen=True)
class StaleScan:
    """What was found in one container."""

    name: str
    processes: int
    """How many were looked at."""
    mappings: int
    """How many executable mappings of theirs were compared."""
    files: tuple[OldFile, ...] = ()
    problem: str = ""
    """Why not all of it could be looked at; what was found counts all the same."""
    compared: int = 0
    """How many files of packages were compared that it may be served in their old version."""

    @property
    def stale(self) -> bool:
        """Whether it runs old code, as far as could be seen."""
        return bool(self.files)

    @property
    def clean(self) -> bool:
        """Whether it is known to run none."""
        return not self.files and not self.problem

    def to_json(self) -> dict[str, Any]:
        """For the way from the process that looked."""
        return {
            "name": self.name,
            "processes": self.processes,
            "mappings": self.mappings,
            "files": [
                [f.path, f.why, f.layer, [[p.pid, p.command] for p in f.processes], f.package] for f in self.files
            ],
            "problem": self.problem,
            "compared": self.compared,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StaleScan:
        """What ``to_json`` made."""
        files = tuple(
            OldFile(path, Why(why), layer, tuple(Process(pid, command) for pid, command in processes), package)
            for path, why, layer, processes, package in data["files"]
        )
        return cls(data["name"], data["processes"], data["mappings"], files, data["problem"], data["compared"])


def judge_mapped(mapped: Identity, now: Found, *, deleted: bool) -> Why | None:
    """Why a mapped file is old; None if it is not.

    ``deleted``: the container itself removed or replaced it. What it made, mapped and removed is nobody's code but its
    own, and it would do so again: no reason to restart it.
    """
    if now.identity is None:
        return None if deleted and not (now.hidden and not now.layer.read_only) else Why.REMOVED
    return None if same(mapped, now.identity, copied=now.copied) else Why.REPLACED


def same(mapped: Identity, now: Identity, *, copied: bool) -> bool:
    """Whether both are the same file, the first one as an overlay shows it.

    An inode number is not used again while a process maps the file, so within a file system it decides. Between file
    systems (a delta elsewhere) the times and the size do. What the container changed keeps the number that it had below.
    """
    if mapped[1:] != now[1:]:
        return False
    low = (1 << _XINO_BITS) - 1
    return copied or mapped.inode == now.inode or (mapped.inode > low and mapped.inode & low == now.inode)


def written_since(started: float, born: float | None, changed: float) -> bool:
    """Whether a script was replaced after a process began that reads it. All in seconds since the epoch.

    Nothing tells which file an interpreter has read, but it can't have read one that was not there yet. ``born``: when
    the file at the path was made, None where the file system doesn't say; ``changed``: its change time.
    """
    if born is None:
        return changed > started
    # A package's file is renamed to its place some time after it was written. A change much later is no rename but
    # another owner, mode or link, and no new file.
    return (changed if changed - born < _UNPACK_SECONDS else born) > started


def merge(found: Iterable[tuple[str, Why, str, Process]]) -> tuple[OldFile, ...]:
    """One entry for each file, sorted by path."""
    files: dict[tuple[str, Why, str], list[Process]] = {}
    for path, why, layer, process in found:
        files.setdefault((path, why, layer), []).append(process)
    return tuple(OldFile(*key, tuple(processes)) for key, processes in sorted(files.items()))
