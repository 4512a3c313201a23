"""The paths of one volume."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class VolumePaths:
    """Where one volume's files are."""

    directory: Path
    """Only root can enter it: users of the host must not reach files that a container's root wrote."""

    @property
    def record(self) -> Path:
        """The volume as it was asked for, and its ids; see data.volumes."""
        return self.directory / "volume.yaml"

    @property
    def data(self) -> Path:
        """The directory that containers mount."""
        return self.directory / "data"
