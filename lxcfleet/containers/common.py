"""The parts that nearly every room of the daemon works with."""

from __future__ import annotations

from dataclasses import dataclass, field

from lxcfleet.containers.registry import Registry
from lxcfleet.launcher.client import Launcher
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.runtime.operations import Operations
from lxcfleet.runtime.tasks import Tasks


@dataclass(frozen=True)
class Common:
    """The parts that nearly every room of the daemon works with. A daemon has one of each."""

    paths: Paths
    registry: Registry
    launcher: Launcher
    """Does whatever forks, blocks or mounts."""
    bus: Bus
    operations: Operations = field(default_factory=Operations)
    tasks: Tasks = field(default_factory=Tasks)
