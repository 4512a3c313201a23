"""The fleet as numbers at one moment, for monitoring: plain values, taken without waiting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lxcfleet.containers.common import Common
from lxcfleet.containers.container import Container
from lxcfleet.containers.measuring.delta_sizes import DeltaSizes
from lxcfleet.host.net import interfaces
from lxcfleet.host.net.interfaces import Traffic
from lxcfleet.runtime import pulse
from lxcfleet.runtime.pulse import PulseReading
from lxcfleet.runtime.tasks import TaskReading
from lxcfleet.spec.states import Health, State


@dataclass(frozen=True)
class ContainerReading:
    """One container. A value is None if it is not available: the container does not run, or the host does not count it."""

    name: str
    state: State
    init: str = ""
    privileged: bool = False
    profile: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    restarts: int = 0
    """How often it was restarted since the daemon started."""
    started: float | None = None
    """The start of its run, in seconds since the epoch."""
    cpu_seconds: float | None = None
    throttled_seconds: float | None = None
    """For how long its limit kept it from processors."""
    pressure: Mapping[str, float] = field(default_factory=dict)
    """Seconds in which some of its processes waited, by what for."""
    memory_bytes: int | None = None
    processes: int | None = None
    io_bytes: tuple[int, int] | None = None
    """Bytes read from block devices, and written to them."""
    traffic: Traffic | None = None
    """The traffic that its port of the bridge has counted."""
    delta_bytes: int | None = None
    health: Health | None = None
    stale: bool | None = None
    """Whether it ran old code at the last look."""
    exit_status: int | None = None
    """How its last run ended, as a shell shows it."""
    ended: float | None = None
    """When its last run ended, in seconds since the epoch."""
    out_of_memory: bool | None = None
    """Whether its last run ended as memory ran out."""
    memory_kills: int = 0
    """How many processes of it the kernel killed for memory since the daemon started."""
    shadows: int | None = None
    """How many files of its delta hid a package's file of the host at the last look."""
    generation: int | None = None
    """The generation that it stands on; 0: the host's root."""
    held_until: float | None = None
    """When the last day ends on which it is held there, in seconds since the epoch; None: it is not held."""


@dataclass(frozen=True)
class PatchReading:
    """The known facts about patches."""

    stale: Mapping[str, bool] = field(default_factory=dict)
    """Whether each container is stale; without those that were not looked at, or not entirely."""
    scanned: float | None = None
    """The time of the last look, in seconds since the epoch."""
    packages_changed: float | None = None
    """The time of the last change of the host's packages, in seconds since the epoch."""
    rollout: str | None = None
    """The status of the present or last rollout."""
    rollout_phases: Mapping[str, int] = field(default_factory=dict)
    """The number of its containers in each phase."""
    phase: str = ""
    """The phase of the last change of the host's packages."""
    shadows: Mapping[str, int] = field(default_factory=dict)
    """How many files of each delta hide a package's file of the host; without deltas that were not looked at."""
    reboot: bool = False
    """Whether a reboot of the host is due."""
    parts: Mapping[str, bool] = field(default_factory=dict)
    """Whether each of lxcfleet's own parts runs old code, as of the last look."""
    cves: Mapping[str, int] = field(default_factory=dict)
    """How many CVEs have each state in some container, as of the last look; empty: there was none."""


@dataclass(frozen=True)
class FleetReading:
    """All containers, and the daemon's own work."""

    containers: Sequence[ContainerReading]
    daemon_started: float
    operations_running: int
    patch: PatchReading = field(default_factory=PatchReading)
    tasks: Sequence[TaskReading] = ()
    """The daemon's background tasks."""
    names_work: bool | None = None
    """Whether containers can look up names; None: not known."""
    event_failures: Mapping[str, int] = field(default_factory=dict)
    """By subscriber of the bus: how many events it failed to handle."""
    pulse: Mapping[str, PulseReading] = field(default_factory=dict)
    """How long the daemon answered nobody, by clock; see runtime.pulse."""


class Readings:
    """Takes readings."""

    def __init__(
        self,
        common: Common,
        sizes: DeltaSizes,
        health: Callable[[Container], Health | None],
        patch: Callable[[], PatchReading],
        names_work: Callable[[], bool | None],
        held_until: Callable[[], Mapping[str, float]],
    ) -> None:
        self._registry = common.registry
        self._operations = common.operations
        self._tasks = common.tasks
        self._bus = common.bus
        self._sizes = sizes
        self._health = health
        self._patch = patch
        self._names_work = names_work
        self._held_until = held_until
        self._started = time.time()

    async def read(self) -> FleetReading:
        """The present reading. The cgroups of many containers are many files, so a thread reads them."""
        sizes, patch, held = self._sizes.read(), self._patch(), self._held_until()
        known = [
            # A copy, as the containers change while the thread reads.
            (replace(c), sizes.get(c.name), self._health(c), patch.stale.get(c.name) if c.running else None)
            for c in self._registry
        ]

        def read() -> list[ContainerReading]:
            traffic = interfaces.traffic() if any(c.running and c.spec and c.spec.port for c, *_ in known) else {}
            return [
                replace(_reading(*each, traffic), shadows=patch.shadows.get(name), held_until=held.get(name))
                for each in known
                for name in [each[0].name]
            ]

        containers = await asyncio.to_thread(read)
        tasks, failures = self._tasks.readings(), dict(self._bus.failures)
        return FleetReading(
            containers, self._started, self._operations.running, patch, tasks, self._names_work(), failures,
            pulse.of_running_loop(),
        )  # fmt: skip


def _reading(
    container: Container, delta_bytes: int | None, health: Health | None, stale: bool | None, traffic: Mapping[str, Traffic],
) -> ContainerReading:  # fmt: skip
    spec, running = container.spec, container.running
    return ContainerReading(
        name=container.name,
        state=container.state,
        init=spec.init if spec else "",
        privileged=spec is not None and spec.privileged,
        profile=(spec.profile or "") if spec else "",
        labels=container.labels,
        memory_kills=container.memory_kills,
        restarts=max(0, container.starts - 1),
        started=running.since if running else None,
        cpu_seconds=running.payload.cpu_seconds if running else None,
        throttled_seconds=running.payload.throttled_seconds if running else None,
        pressure=running.payload.pressure if running else {},
        memory_bytes=running.payload.memory if running else None,
        processes=running.payload.processes if running else None,
        io_bytes=running.payload.io_bytes if running else None,
        traffic=traffic.get(spec.port) if spec and running else None,
        delta_bytes=delta_bytes,
        generation=spec.generation if spec else None,
        health=health,
        stale=stale,
        exit_status=container.exit.exit_status if container.exit else None,
        ended=container.exit.at if container.exit else None,
        out_of_memory=container.exit.out_of_memory if container.exit else None,
    )
