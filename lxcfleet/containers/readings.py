"""The fleet as numbers at one moment, for those who watch it: plain values, taken without a wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lxcfleet.containers.container import Container
from lxcfleet.containers.delta_sizes import DeltaSizes
from lxcfleet.containers.registry import Registry
from lxcfleet.runtime.bus import Bus
from lxcfleet.runtime.operations import Operations
from lxcfleet.runtime.tasks import TaskReading, Tasks
from lxcfleet.spec.states import Health, State


@dataclass(frozen=True)
class ContainerReading:
    """One container. What is None was not to be had: it does not run, or the host does not count it."""

    name: str
    state: State
    init: str = ""
    privileged: bool = False
    profile: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    restarts: int = 0
    """How often it began to run again since the daemon did."""
    started: float | None = None
    """When, in seconds since the epoch."""
    cpu_seconds: float | None = None
    memory_bytes: int | None = None
    processes: int | None = None
    io_bytes: tuple[int, int] | None = None
    """Read from block devices, and written."""
    delta_bytes: int | None = None
    health: Health | None = None
    stale: bool | None = None
    """Whether it ran old code at the last look."""
    shadows: int | None = None
    """How many files of its delta hid a package's file of the host at the last look."""


@dataclass(frozen=True)
class PatchReading:
    """What is known of patches."""

    stale: Mapping[str, bool] = field(default_factory=dict)
    """By container; one that was not looked at, or not all of it, is missing."""
    scanned: float | None = None
    """When it was looked at, in seconds since the epoch."""
    packages_changed: float | None = None
    """When the host's packages changed last, in seconds since the epoch."""
    rollout: str | None = None
    """How the rollout is that is under way, or was last."""
    rollout_phases: Mapping[str, int] = field(default_factory=dict)
    """How many of its containers are how far."""
    phase: str = ""
    """How far the last change of the host's packages is."""
    shadows: Mapping[str, int] = field(default_factory=dict)
    """How many files of each delta hide a package's file of the host; one that was not looked at is missing."""
    reboot: bool = False
    """Whether a reboot of the host is due."""


@dataclass(frozen=True)
class FleetReading:
    """All containers, and what the daemon is at."""

    containers: Sequence[ContainerReading]
    daemon_started: float
    operations_running: int
    patch: PatchReading = field(default_factory=PatchReading)
    tasks: Sequence[TaskReading] = ()
    """The daemon's background tasks."""
    event_failures: Mapping[str, int] = field(default_factory=dict)
    """By subscriber of the bus: how many events it could not deal with."""


class Readings:
    """Takes readings."""

    def __init__(
        self,
        registry: Registry,
        operations: Operations,
        sizes: DeltaSizes,
        health: Callable[[Container], Health | None],
        patch: Callable[[], PatchReading],
        tasks: Tasks,
        bus: Bus,
    ) -> None:
        self._registry = registry
        self._operations = operations
        self._sizes = sizes
        self._health = health
        self._patch = patch
        self._tasks = tasks
        self._bus = bus
        self._started = time.time()

    async def read(self) -> FleetReading:
        """How it is now. The cgroups of many containers are many files, so a thread reads them."""
        sizes, patch = self._sizes.read(), self._patch()
        known = [
            # A copy, as they change while the thread reads.
            (replace(c), sizes.get(c.name), self._health(c), patch.stale.get(c.name) if c.running else None)
            for c in self._registry
        ]
        containers = await asyncio.to_thread(
            lambda: [replace(_reading(*each), shadows=patch.shadows.get(each[0].name)) for each in known]
        )
        tasks, failures = self._tasks.readings(), dict(self._bus.failures)
        return FleetReading(containers, self._started, self._operations.running, patch, tasks, failures)


def _reading(
    container: Container, delta_bytes: int | None, health: Health | None, stale: bool | None
) -> ContainerReading:
    spec, running = container.spec, container.running
    return ContainerReading(
        name=container.name,
        state=container.state,
        init=spec.init if spec else "",
        privileged=spec is not None and spec.privileged,
        profile=(spec.profile or "") if spec else "",
        labels=container.labels,
        restarts=max(0, container.starts - 1),
        started=running.since if running else None,
        cpu_seconds=running.payload.cpu_seconds if running else None,
        memory_bytes=running.payload.memory if running else None,
        processes=running.payload.processes if running else None,
        io_bytes=running.payload.io_bytes if running else None,
        delta_bytes=delta_bytes,
        health=health,
        stale=stale,
    )
