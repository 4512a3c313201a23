"""What travels between client and daemon about checks: stale, verify, audit. Values only."""

from __future__ import annotations

from typing import TypedDict


class ProcessRecord(TypedDict):
    """A process in a container. ``pid``: as the host numbers it."""

    pid: int
    command: str


class OldFileRecord(TypedDict):
    """A file that is old. ``layer``: who has the path now. ``why``: replaced or removed, and a process runs it; served: the
    container gets the old one when it opens it; monitor: its monitor maps it; modules: an interpreter may have read it."""

    path: str
    why: str
    layer: str
    package: str | None
    """Whose file it is on the host."""
    version: str | None
    """Which version of that the host has."""
    processes: list[ProcessRecord]


class FallRecord(TypedDict):
    """A container that a patch took down, and that does not run. ``since``: when that was noted."""

    name: str
    since: str
    why: str


class NoticeRecord(TypedDict):
    """How far a change of the host's packages is: see patch.notice."""

    phase: str
    policy: str
    why: str
    until: str | None
    """When the maintenance window begins that it is waited for."""
    down: list[FallRecord]
    reboot: list[str]
    """Packages that a reboot of the host is due for."""


class StaleRecord(TypedDict):
    """What ``stale`` found in one container."""

    name: str
    state: str
    stale: bool
    processes: int
    """How many were looked at."""
    mappings: int
    """How many executable mappings of theirs were compared."""
    files: list[OldFileRecord]
    problem: str | None
    """Why not all could be looked at."""


class ShadowRecord(TypedDict):
    """A file in a delta that hides a package's file of the host."""

    path: str
    kind: str
    """file, removed, or directory."""
    age: str
    """The delta's beside the host's: newer, older or same; empty where there is nothing to compare."""
    same: bool
    """It has the same content, as yet."""
    package: str
    version: str
    """Which the host has."""


class DivergedRecord(TypedDict):
    """How a container's packages differ from the host's."""

    added: dict[str, str]
    removed: list[str]
    changed: dict[str, list[str]]
    """The container's version, and the host's."""


class ShadowsRecord(TypedDict):
    """What ``audit shadow`` found in one container."""

    name: str
    state: str
    shadows: list[ShadowRecord]
    diverged: DivergedRecord | None
    """None: it has the host's packages."""
    problem: str | None


class EvidenceRecord(TypedDict):
    """What ``verify`` found out about one container."""

    name: str
    state: str
    proven: bool
    reasons: list[str]
    """Why it is not proven."""
    restarted: str | None
    """When its process 1 began; None: it does not run, and starts on a fresh mount."""
    processes: int
    mappings: int
    """How many executable mappings were compared with the files of the base."""
    compared: int
    """How many files of packages were compared with what the container is served."""
    not_compared: list[str]
    """What the proof does not rest on, in words."""
    old: list[OldFileRecord]
    """Files that run and should not; proven only if there are none."""
    shadows: list[ShadowRecord]


class ProofRecord(TypedDict):
    """The evidence after a patch, to be filed."""

    time: str
    host: str
    system: str
    kernel: str
    base: str
    """A fingerprint of the host's packages and their versions, which is what the containers were compared with."""
    packages: dict[str, str]
    """Those asked for, with the version on the host; none: all count."""
    reboot: list[str]
    """Packages that a reboot of the host is due for: what the containers run of these is not what is installed. They count
    against the proof only where they were asked for."""
    proven: bool
    containers: list[EvidenceRecord]


class ExposedRecord(TypedDict):
    """A file of the host's that a container can read and should not; ``rule``: the one that hides it."""

    path: str
    why: str
    rule: str


class ExposureRecord(TypedDict):
    """What ``audit exposure`` found in one container."""

    name: str
    state: str
    exposed: list[ExposedRecord]
    problem: str | None
    """Why it could not be looked at."""
