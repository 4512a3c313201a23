"""The launcher's work with snapshots: arguments and answers."""

from __future__ import annotations

from typing import TypedDict

from lxcfleet.errors import ErrorBody


class SnapshotPlace(TypedDict):
    """The file system that snapshots lie on."""

    error: ErrorBody | None
    shares: bool
    """Whether a copy there shares the blocks with what it is a copy of."""
    free: int
    """Bytes that are free."""


class SnapshotItem(TypedDict):
    """A snapshot, by its name or by that of its directory."""

    container: str
    name: str


class DoubleItem(TypedDict):
    """A container that has never run, and gets a copy of another one's delta."""

    container: str
    """The container whose delta it is."""
    first_id: int
    """The first of the ids that its files have; 0: the container is privileged."""
    to: str
    to_first_id: int


class SealItem(TypedDict):
    """A snapshot that was taken, and gets its name."""

    container: str
    record: str
    """The text of its record; see data.snapshots."""


class RestoreItem(TypedDict):
    """A container that gets the delta of a snapshot."""

    container: str
    name: str
    kept: str | None
    """The record of the snapshot that its present delta becomes; None: that is removed."""
