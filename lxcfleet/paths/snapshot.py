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
        """What it is a snapshot of; see data.snapshots."""
        return self.directory / "snapshot.json"

    @property
    def delta(self) -> Path:
        """What the container's delta was."""
        return self.directory / "delta"

    @property
    def base_record(self) -> Path:
        """What the base was like at the container's last start before it; see ContainerPaths."""
        return self.directory / "base.json"

    def base_snapshot(self, name: str) -> Path:
        """See ContainerPaths."""
        return self.directory / snapshot_name(name)
