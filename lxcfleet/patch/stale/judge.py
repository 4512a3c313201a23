"""Decides whether a process runs old code: compares its files with those of a fresh mount. Pure.

    stale: it maps or runs a file that is no longer the base's file at that path

If another layer than the base provides a path, the file is compared with the one in that layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lxcfleet.base.present import Found
from lxcfleet.host.process.maps import Identity

_XINO_BITS = 32
"""With xino the overlay puts a number of the layer above the bits of the inode number (fs/overlayfs/inode.c, ovl_map_ino)."""
_UNPACK_SECONDS = 3600.0
"""The most seconds between the writing of a package's file and its rename."""
_LINKED_SECONDS = 60.0
"""The same for a file that was linked later: the link moved its change time, so that the rename's is not known any more."""


class Why(StrEnum):
    """The reason why a file is old."""

    REPLACED = "replaced"
    """Another file is at its path now."""
    REMOVED = "removed"
    """Nothing is at its path any more."""
    SERVED = "served"
    """A process that opens it now gets the old file, whether or not a process has it open."""
    MONITOR = "monitor"
    """The container's monitor, a process of the host, maps it. A restart of the container renews the monitor."""
    CLIENT = "client"
    """The container's DHCP client, a process of the host, maps it. A restart of the container renews the client."""
    MODULES = "modules"
    """It is a module, and an interpreter that runs since before its replacement may have read it."""


@dataclass(frozen=True)
class Process:
    """A process that runs an old file."""

    pid: int
    """As the host numbers it."""
    command: str


@dataclass(frozen=True)
class OldFile:
    """A file that should be in use no longer."""

    path: str
    why: Why
    layer: str
    """The name of the layer that provides the path now, or that removed it."""
    processes: tuple[Process, ...]
    package: str = ""
    """The package that owns it, if that is known without asking dpkg."""


@dataclass(frozen=True)
class StaleScan:
    """The findings in one container."""

    name: str
    processes: int
    """The number of processes that were looked at."""
    mappings: int
    """The number of their executable mappings that were compared."""
    files: tuple[OldFile, ...] = ()
    problem: str = ""
    """The reason why parts of the container could not be looked at; the findings count all the same."""
    compared: int = 0
    """The number of packages' files that were compared with those it is served."""
    base: int = 0
    """The generation that it has for the time being, as dpkg was at work when it started; 0: none. A restart moves it."""

    @property
    def stale(self) -> bool:
        """Whether it runs old code, as far as could be seen."""
        return bool(self.files or self.base)

    @property
    def clean(self) -> bool:
        """Whether it is known to run no old code."""
        return not self.files and not self.problem and not self.base

    def to_json(self) -> dict[str, Any]:
        """For the answer of the process that looked."""
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
        """The findings that ``to_json`` wrote."""
        files = tuple(
            OldFile(path, Why(why), layer, tuple(Process(pid, command) for pid, command in processes), package)
            for path, why, layer, processes, package in data["files"]
        )
        return cls(data["name"], data["processes"], data["mappings"], files, data["problem"], data["compared"])


def judge_mapped(mapped: Identity, now: Found, *, deleted: bool) -> Why | None:
    """The reason why a mapped file is old; None if it is not.

    ``deleted``: the container itself removed or replaced the file. A file that it made, mapped and removed is its own code,
    and a restart would bring the same again: no reason to restart it.
    """
    if now.layer.image:
        return None  # the file is in the image; nothing changes it, and the container has another one from its next start on
    if now.identity is None:
        return None if deleted and not (now.hidden and not now.layer.read_only) else Why.REMOVED
    return None if same(mapped, now.identity, copied=now.copied) else Why.REPLACED


def same(mapped: Identity, now: Identity, *, copied: bool) -> bool:
    """Whether both are the same file; ``mapped`` is seen through an overlay.

    An inode number is not reused while a process maps the file, so it decides within a file system. Between file
    systems (a delta elsewhere), times and size decide. A file that the container changed keeps the number it had below.
    """
    if mapped[1:] != now[1:]:
        return False
    low = (1 << _XINO_BITS) - 1
    return copied or mapped.inode == now.inode or (mapped.inode > low and mapped.inode & low == now.inode)


def written_since(started: float, born: float | None, changed: float, links: int = 1) -> bool:
    """Whether a script was replaced after the process that reads it began. All in seconds since the epoch.

    The kernel does not tell which file an interpreter has read, but it can't have read one that was not there yet.
    ``born``: the birth time of the file at the path, None if its file system keeps none; ``changed``: its change time;
    ``links``: the names that it has.
    """
    return replaced_at(born, changed, links) > started


def replaced_at(born: float | None, changed: float, links: int) -> float:
    """When a file came to its path, as far as its times tell; see ``written_since``."""
    # A package's file is renamed to its place some time after it was written. A much later change is no rename but
    # a new owner, mode or link, and no new file. Each generation links the files that the patch before it brought.
    most = _UNPACK_SECONDS if links == 1 else _LINKED_SECONDS
    return changed if born is None or changed - born < most else born


def merge(found: Iterable[tuple[str, Why, str, Process]]) -> tuple[OldFile, ...]:
    """One entry for each file, sorted by path."""
    files: dict[tuple[str, Why, str], list[Process]] = {}
    for path, why, layer, process in found:
        files.setdefault((path, why, layer), []).append(process)
    return tuple(OldFile(*key, tuple(processes)) for key, processes in sorted(files.items()))
