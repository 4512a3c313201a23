"""Every path that the product uses: a fleet's (``roots``, ``run``, ``kept``), a container's, a snapshot's, a volume's, an
app's."""

from __future__ import annotations

from dataclasses import dataclass

from lxcfleet.paths.container import ContainerPaths
from lxcfleet.paths.kept import KeptPaths
from lxcfleet.paths.release import ReleasePaths
from lxcfleet.paths.run import RunPaths
from lxcfleet.paths.snapshot import SnapshotPaths
from lxcfleet.paths.volume import VolumePaths

__all__ = ["ContainerPaths", "Paths", "ReleasePaths", "SnapshotPaths", "VolumePaths"]


@dataclass(frozen=True)
class Paths(RunPaths, KeptPaths):
    """Every path of the product. Tests give other roots; nothing else spells a path out."""
