"""Snapshots that specs ask for by a schedule: made when they are due, and removed once there are newer ones."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from lxcfleet.containers.container import Container
from lxcfleet.containers.registry import Registry
from lxcfleet.daemon.uses.events import SnapshotFailed
from lxcfleet.daemon.uses.snapshots import Snapshots
from lxcfleet.data import snapshots
from lxcfleet.data.snapshots import SCHEDULE, Snapshot
from lxcfleet.errors import Busy, FleetError, HostError
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.runtime.operations import Job, Operations
from lxcfleet.spec.container.snapshots import SCHEDULED, Schedule, name_at
from lxcfleet.spec.results import Result

log = logging.getLogger(__name__)

LOOK_SECONDS = 30.0
"""The pause between two looks at what is due."""
AGAIN_SECONDS = 600.0
"""The pause after one that failed."""


@dataclass(frozen=True)
class SnapshotsTaken:
    """A container's scheduled snapshots, as far as they are known."""

    names: tuple[str, ...] = ()
    """The oldest first."""
    last: float | None = None
    """When the last one was made, in seconds since the epoch."""


def past(found: Iterable[Snapshot], now: float) -> SnapshotsTaken:
    """The snapshots in ``found`` that a schedule made.

    One of a later time than ``now`` was made while the clock was wrong: it says nothing of what is due, and goes first.
    """
    own = sorted((_seconds(each.created) <= now, each.created, each.name) for each in found if each.made_by == SCHEDULE)
    return SnapshotsTaken(tuple(name for _, _, name in own), _seconds(own[-1][1]) if own and own[-1][0] else None)


def is_due(schedule: Schedule, began: float, last: float | None, now: float) -> bool:
    """Whether one is to be made. The times at which they are due count from when the container was created, so they don't
    drift; of several that were missed, as the daemon was down, one is made."""
    if not schedule.every or now < began:
        return False
    turns = (now - began) // schedule.every
    return turns >= 1 if last is None else (last - began) // schedule.every < turns


def is_unchanged(*, runs: bool, ended: float | None, last: float | None) -> bool:
    """Whether a container can't have changed since its last snapshot: it has not run since. ``ended``: when it ran last."""
    return not runs and last is not None and (ended is None or ended <= last)


def expired(there: SnapshotsTaken, keep: int) -> tuple[str, ...]:
    """Those that are to be removed, so that ``keep`` are left."""
    return there.names[:-keep]


def _seconds(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


class Schedules:
    """The schedules of all containers."""

    def __init__(self, paths: Paths, registry: Registry, made: Snapshots, operations: Operations, bus: Bus) -> None:
        self._paths = paths
        self._registry = registry
        self._made = made
        self._operations = operations
        self._bus = bus
        self._not_before: dict[str, float] = {}
        """When those that failed are tried again, on the monotonic clock."""

    async def run(self) -> None:
        """Make what is due, for ever."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Make what is due now, one after the other."""
        asked = [each for each in self._registry if each.wanted is not None and each.wanted.snapshots.every]
        due = [each for each in asked if await asyncio.to_thread(self._is_due, each)]
        if not due:
            return
        operation = self._operations.begin("snapshot", [Job(each.name, self._job(each)) for each in due], 1)
        async for _ in operation.follow():
            pass  # so that the next look finds all of them done

    def _is_due(self, container: Container) -> bool:
        spec = container.wanted
        if spec is None or container.problem is not None or time.monotonic() < self._not_before.get(container.name, 0.0):
            return False
        last = self._past(container).last
        ended = None if container.exit is None else container.exit.at
        if is_unchanged(runs=container.running is not None, ended=ended, last=last):
            return False
        return is_due(spec.snapshots, _seconds(spec.created), last, time.time())

    def _past(self, container: Container) -> SnapshotsTaken:
        found = snapshots.all_of(self._paths, container.name)
        born = "" if container.wanted is None else container.wanted.created
        return past((each for _, each in found if isinstance(each, Snapshot) and each.born == born), time.time())

    def _job(self, container: Container) -> Callable[[], Awaitable[Result]]:
        async def run() -> Result:
            try:
                return await self._make(container)
            except FleetError as error:
                self._not_before[container.name] = time.monotonic() + AGAIN_SECONDS
                self._bus.publish(SnapshotFailed(container.name, error.message))
                raise

        return run

    async def _make(self, container: Container) -> Result:
        """Make one, and remove those that are too many. Raises FleetError."""
        spec = container.wanted
        if spec is None or not spec.snapshots.every:
            return Result(container.name, "unchanged", False)
        name = f"{SCHEDULED}{name_at(datetime.now(UTC))}"
        size, shares = await self._made.price(container)
        made, notes = await self._made.make(container, name, "", SCHEDULE, size, shares=shares, unasked=True)
        try:
            for old in expired(await asyncio.to_thread(self._past, container), spec.snapshots.keep):
                with contextlib.suppress(Busy):  # a backup program reads it: it goes with the next one
                    await self._made.remove_one(container.name, old)
        except OSError as error:
            raise HostError.from_os_error(f"{container.name}: old snapshots can't be removed", error) from error
        return Result(container.name, "snapshot made", True, notes=(f"snapshot {made.name}", *notes))
