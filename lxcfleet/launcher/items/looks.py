"""The launcher's looks at containers: arguments and answers."""

from __future__ import annotations

from typing import Any, TypedDict


class ScanItem(TypedDict):
    """A running container to look at; see patch.stale.scan.Target."""

    name: str
    pid: int
    cgroup: str
    stack: Any
    since: float
    """The time of its start, in seconds since the epoch."""
    monitor: int | None
    """The process id of its monitor."""
    client: int | None
    """The process id of its DHCP client, if it has one."""


class StaleItem(TypedDict):
    """Containers to look at, and the files to look for."""

    wanted: Any
    """The served files that are compared; see patch.stale.served.ComparedFiles.to_json. None: none."""
    targets: list[ScanItem]


class UnshadowItem(TypedDict):
    """Files to remove from a delta, which is given by its directory."""

    name: str
    delta: str
    paths: list[str]
    records: dict[str, str]
    """Records of packages that its dpkg gets in place of its own, by NAME:ARCHITECTURE; see base.merge.records.packages."""


class ExposureItem(TypedDict):
    """A running container to look at from inside."""

    name: str
    pid: int
    stack: Any


class ExposedFile(TypedDict):
    """A file that a container can read and should not; ``rule``: the mask's rule that would hide it."""

    path: str
    why: str
    rule: str


class ExposedItem(TypedDict):
    """The files that one container can read and should not."""

    name: str
    exposed: list[ExposedFile]
    problem: str | None


class UsageItem(TypedDict):
    """Directories to add up: names and directories."""

    targets: list[tuple[str, str]]
    depth: int
    """Paths down to so many levels are told."""
    top: int
    """At most so many paths of each."""
    seconds: float
    """For each directory."""


class UsedPath(TypedDict):
    """A directory with all below it, or a file."""

    path: str
    disk_bytes: int
    apparent_bytes: int
    items: int


class Used(TypedDict):
    """The space that a directory takes on the disk."""

    name: str
    whole: UsedPath
    paths: list[UsedPath]
    cut: bool
    """Whether not all was looked at."""


class DiffItem(TypedDict):
    """A container whose delta is compared with the layers below it."""

    name: str
    stack: Any
    first_id: int | None
    path: str
    """Only this path; empty: everywhere."""
    most: int
    """At most so many changes are listed."""
    seconds: float


class Differing(TypedDict):
    """The changes that a container made."""

    changes: list[dict[str, Any]]
    """As base.changes.Changed.to_json writes them."""
    counts: dict[str, int]
    items: int
    cut: bool
