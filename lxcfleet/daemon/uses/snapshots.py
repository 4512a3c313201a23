"""Snapshots as the API has them: made, listed, restored and removed; and made by a schedule."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from lxcfleet.api.snapshots import (
    CreateSnapshotsRequest,
    RemoveSnapshotsRequest,
    RestoreSnapshotRequest,
    SnapshotRecord,
)
from lxcfleet.containers.container import Container
from lxcfleet.containers.copies.copy_cost import CopyCost, in_words
from lxcfleet.containers.copies.snapshot_files import SnapshotFiles
from lxcfleet.containers.copies.stillness import Stillness
from lxcfleet.containers.registry import Registry
from lxcfleet.containers.requests.actions import Actions
from lxcfleet.daemon.uses.events import SnapshotMade, SnapshotRemoved, SnapshotRestored
from lxcfleet.data import snapshots
from lxcfleet.data.snapshots import ASKED, RESTORE, Snapshot
from lxcfleet.errors import Broken, Busy, NotFound, WrongState
from lxcfleet.host.kernel import quota
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.runtime.operations import Job, Operation, Operations, now
from lxcfleet.spec.container.snapshots import name_at
from lxcfleet.spec.results import Result
from lxcfleet.spec.selection import Selection
from lxcfleet.spec.states import Action

log = logging.getLogger(__name__)

AT_ONCE = 2
_PRESENT = "/present"
"""Stands for the present delta where deltas are added up; no container has such a name."""


class Snapshots:
    """All snapshots of this host's containers."""

    def __init__(
        self,
        files: SnapshotFiles,
        cost: CopyCost,
        registry: Registry,
        actions: Actions,
        stillness: Stillness,
        operations: Operations,
        bus: Bus,
    ) -> None:
        self._files, self._cost = files, cost
        self._paths: Paths = files.paths
        self._registry = registry
        self._actions = actions
        self._stillness = stillness
        self._operations = operations
        self._bus = bus
        self._busy: set[str] = set()

    # -- reading ---------------------------------------------------------------------------------------------

    async def records(self, chosen: Selection) -> list[SnapshotRecord]:
        """The snapshots of the chosen containers, or all, also of containers that no longer exist. Raises FleetError."""
        there = await asyncio.to_thread(snapshots.containers, self._paths)
        if chosen.narrow:
            known: dict[str, dict[str, str]] = {name: {} for name in there}
            known.update((container.name, container.labels) for container in self._registry)
            there = [name for name in chosen.choose(known) if name in there]
        return await asyncio.to_thread(lambda: [record for name in there for record in self._records(name)])

    def _records(self, container: str) -> list[SnapshotRecord]:
        found = snapshots.all_of(self._paths, container)
        return [self._record(container, name, each) for name, each in found]

    def _record(self, container: str, name: str, found: Snapshot | Broken) -> SnapshotRecord:
        known = found if isinstance(found, Snapshot) else Snapshot(container, name, "", "", "", 0, "", 0, False, None)
        return {
            "container": container,
            "name": name,
            "created": known.created,
            "why": known.why,
            "made_by": known.made_by,
            "bytes": known.bytes,
            "shared": known.shared,
            "frozen_ms": known.frozen_ms,
            "exists": container in self._registry,
            "path": str(self._paths.snapshot(container, name).delta),
            "problem": str(found) if isinstance(found, Broken) else None,
        }

    # -- making ----------------------------------------------------------------------------------------------

    async def create(self, ask: CreateSnapshotsRequest) -> Operation:
        """Begin to make a snapshot of each chosen container. Raises FleetError."""
        await self._registry.observe()
        chosen = self._registry.choose(ask.selection)
        name = ask.name or name_at(datetime.now(UTC))
        for container in chosen:
            _refuse_broken(container)
            if name in snapshots.names(self._paths, container.name):
                raise snapshots.exists(container.name, name)
        targets = [(each.name, self._delta(each.name)) for each in chosen]
        cost = await self._cost.of(targets, yes=ask.yes or ask.dry_run)
        if ask.dry_run:
            lines = [f"{each.name}: snapshot {name}: {cost.words[each.name]}" for each in chosen]
            return self._operations.dry("snapshot", [Result(each.name, "planned", True) for each in chosen], lines)

        def job(container: Container) -> Callable[[], Awaitable[Result]]:
            async def run() -> Result:
                made, notes = await self.make(container, name, ask.why, ASKED, cost.sizes[container.name], shares=cost.shares)
                return Result(container.name, "snapshot made", True, notes=(_told(made), *notes))

            return run

        return self._operations.begin("snapshot", [Job(each.name, job(each)) for each in chosen], AT_ONCE)

    async def price(self, container: Container) -> tuple[int, bool]:
        """The bytes of a container's delta, and whether a snapshot shares them. Raises NoCapacity."""
        cost = await self._cost.of([(container.name, self._delta(container.name))], yes=True)
        return cost.sizes[container.name], cost.shares

    async def make(
        self, container: Container, name: str, why: str, made_by: str, size: int, *, shares: bool, unasked: bool = False
    ) -> tuple[Snapshot, list[str]]:
        """Make one snapshot; gives it, and what its caller should be told. ``size``: see Snapshot.bytes; ``unasked``: nobody
        waits for it. Raises FleetError; then there is none."""
        with self._in_hand(container.name):
            if name in snapshots.names(self._paths, container.name):
                raise snapshots.exists(container.name, name)
            _refuse_broken(container)
            taken = False
            try:
                async with self._stillness.hold(container, "snapshot", unasked=unasked) as still:
                    created = now()
                    await self._files.take(container.name, name)
                    taken = True
                made = self._of(container, name, created, why, made_by, size, shared=shares, frozen_ms=still.frozen_ms)
                await self._files.seal(made)
            except BaseException:
                if taken:
                    await self._files.drop(container.name, name)
                raise
        self._bus.publish(SnapshotMade(container.name, name, still.frozen_ms))
        return made, still.notes

    def _of(
        self, container: Container, name: str, created: str, why: str, made_by: str, size: int, *, shared: bool,
        frozen_ms: int | None,
    ) -> Snapshot:  # fmt: skip
        spec = container.wanted
        assert spec is not None, "that is refused"
        return Snapshot(
            container.name, name, created, why, made_by, spec.first_id or 0, spec.created, size, shared, frozen_ms
        )

    def _delta(self, container: str) -> str:
        return str(self._paths.container(container).delta)

    # -- restoring -------------------------------------------------------------------------------------------

    async def restore(self, ask: RestoreSnapshotRequest) -> Operation:
        """Begin to give a container the delta of one of its snapshots. Raises FleetError."""
        await self._registry.observe()
        if ask.container not in self._registry:
            raise NotFound(f"no container named {ask.container}", hint="`lxcfleet list` shows the ones that exist")
        container = self._registry[ask.container]
        self._refuse(container, ask)
        source = str(self._paths.snapshot(ask.container, ask.name).delta)
        twice = not ask.discard_present and self._is_counted(ask.container)
        targets = [(ask.container, source), *([(_PRESENT, self._delta(ask.container))] if twice else [])]
        cost = await self._cost.of(targets, yes=ask.yes or ask.dry_run)
        if ask.dry_run:
            size = cost.words[ask.container]
            lines = [*(["stop it"] if container.running else []), f"copy the snapshot {ask.name}: {size}"]
            lines.append("remove its present delta" if ask.discard_present else "keep its present delta as a snapshot")
            lines += ["start it again"] if container.running else []
            planned = [Result(ask.container, "planned", True)]
            return self._operations.dry("restore", planned, [f"{ask.container}: {line}" for line in lines])

        async def job() -> Result:
            return await self._restore(container, ask, cost.sizes, shares=cost.shares)

        return self._operations.begin("restore", [Job(ask.container, job)], 1)

    def _refuse(self, container: Container, ask: RestoreSnapshotRequest) -> None:
        found = snapshots.get(self._paths, ask.container, ask.name)
        _refuse_broken(container)
        spec = container.wanted
        if spec is not None and (found.first_id, found.born) != (spec.first_id or 0, spec.created):
            raise WrongState(
                f"the snapshot {ask.name} is not one of this {ask.container}",
                why="it is of a container of the same name that was destroyed: its files have other owners",
                hint=f"its files are in {self._paths.snapshot(ask.container, ask.name).delta}",
            )
        if container.running is not None and not ask.stop:
            raise WrongState(
                f"{ask.container} is running", why="the delta of a container that runs can't be exchanged",
                hint=f"stop it first, or have it stopped and started again: lxcfleet snapshot restore --stop {ask.container}"
                f" {ask.name}",
            )  # fmt: skip

    def _is_counted(self, container: str) -> bool:
        """Whether the kernel counts its delta for a disk limit: it would go on to count it as a snapshot."""
        return bool(quota.own_project(self._paths.container(container).delta))

    async def _restore(
        self, container: Container, ask: RestoreSnapshotRequest, sizes: dict[str, int], *, shares: bool
    ) -> Result:
        again = container.running is not None
        if again:
            await self._actions.check(container)
            await self._actions.act(container, Action.STOP, None)
        try:
            kept = None if ask.discard_present else f"before-{ask.name}"[:40].rstrip("._-") + f"-{name_at(datetime.now(UTC))}"
            why = f"before the snapshot {ask.name} was restored"
            counted = kept is not None and self._is_counted(container.name)
            if kept is not None and counted:
                await self.make(container, kept, why, RESTORE, sizes.get(_PRESENT, 0), shares=shares)
            with self._in_hand(container.name):
                async with self._stillness.hold(container, "restore"):
                    if container.running is not None:
                        raise WrongState(f"{container.name} was started meanwhile", hint="try again")
                    record = None
                    if kept is not None and not counted:
                        size = (await self._cost.weigh([(_PRESENT, self._delta(container.name))]))[0][_PRESENT]
                        record = self._of(container, kept, now(), why, RESTORE, size, shared=False, frozen_ms=None)
                    await self._files.restore(container.name, ask.name, record)
        finally:
            if again:
                await self._actions.act(container, Action.START, None)
        self._bus.publish(SnapshotRestored(container.name, ask.name, kept))
        note = f"its former delta is its snapshot {kept}" if kept else "its former delta is removed"
        return Result(container.name, "restored", True, notes=(note,))

    # -- removing --------------------------------------------------------------------------------------------

    async def remove(self, ask: RemoveSnapshotsRequest) -> Operation:
        """Begin to remove snapshots, all or none of them. Raises FleetError."""
        there = snapshots.names(self._paths, ask.container)
        for name in ask.names:
            if name not in there:
                snapshots.get(self._paths, ask.container, name)
        if ask.dry_run:
            lines = [f"{ask.container}: remove the snapshot {name}" for name in ask.names]
            return self._operations.dry("remove snapshot", [Result(name, "planned", True) for name in ask.names], lines)

        def job(name: str) -> Callable[[], Awaitable[Result]]:
            async def run() -> Result:
                await self.remove_one(ask.container, name)
                return Result(name, "removed", True)

            return run

        return self._operations.begin("remove snapshot", [Job(name, job(name)) for name in ask.names], 1)

    async def remove_one(self, container: str, name: str) -> None:
        """Remove a snapshot. Raises FleetError."""
        with self._in_hand(container):
            await self._files.remove(container, name)
        self._bus.publish(SnapshotRemoved(container, name))

    @contextmanager
    def _in_hand(self, container: str) -> Iterator[None]:
        if container in self._busy:
            raise Busy(f"the snapshots of {container} are busy", hint="wait until that is done, then try again")
        self._busy.add(container)
        try:
            yield
        finally:
            self._busy.discard(container)


def _refuse_broken(container: Container) -> None:
    if container.wanted is None or container.problem is not None:
        raise container.problem or WrongState(f"{container.name} is broken")


def _told(made: Snapshot) -> str:
    frozen = "" if made.frozen_ms is None else f"; it was frozen for {made.frozen_ms} ms"
    return f"snapshot {made.name}: {in_words(made.bytes, shares=made.shared)}{frozen}"
