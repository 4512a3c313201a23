"""The paths of one snapshot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lxcfleet.paths.container import snapshot_name


@dataclass(frozen=True)
class SnapshotPaths:
    """Where one snapshot's files are."""

    directory: Path
    """Only root can enter it: users of the host must not reach files that a container's root wrote."""

    @property
    def record(self) -> Path:
        """The record of the snapshot; see data.snapshots."""
        return self.directory / "snapshot.json"

    @property
    def delta(self) -> Path:
        """The delta that the container had then."""
        return self.directory / "delta"

    @property
    def base_record(self) -> Path:
        """The record of the base as of the container's last start before it; see ContainerPaths."""
        return self.directory / "base.json"

    def base_snapshot(self, name: str) -> Path:
        """See ContainerPaths."""
        return self.directory / snapshot_name(name)
