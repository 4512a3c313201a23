"""The handlers of calls about snapshots, and about drains of this host."""

from __future__ import annotations

from lxcfleet.api import calls
from lxcfleet.api.drain import DrainRecord, DrainRequest, EndDrainRequest
from lxcfleet.api.records import OperationRecord
from lxcfleet.api.snapshots import (
    CreateSnapshotsRequest,
    RemoveSnapshotsRequest,
    RestoreSnapshotRequest,
    SnapshotRecord,
)
from lxcfleet.daemon.http.routes import Routes
from lxcfleet.daemon.uses.service import Fleet
from lxcfleet.daemon.uses.snapshots import Snapshots
from lxcfleet.spec.selection import Selection


class OfDrains:
    """Handlers of calls about drains of this host."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet, self._draining = fleet, fleet.draining

    def bind(self, routes: Routes) -> None:
        """Have them answered."""
        routes.json(calls.DRAIN, self.drain)
        routes.json(calls.BEGIN_DRAIN, self.begin)
        routes.json(calls.END_DRAIN, self.end)

    async def drain(self, _: None) -> DrainRecord | None:
        """See calls.DRAIN; likewise each handler the call of its name."""
        return self._draining.record()

    async def begin(self, ask: DrainRequest) -> OperationRecord:
        return (await self._draining.begin(ask, self._fleet.config.stop_timeout)).record()

    async def end(self, ask: EndDrainRequest) -> OperationRecord:
        return (await self._draining.end(ask, self._fleet.config.stop_timeout)).record()


class OfSnapshots:
    """Handlers of calls about snapshots."""

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots

    def bind(self, routes: Routes) -> None:
        """Have them answered."""
        routes.json(calls.SNAPSHOTS, self.snapshots)
        routes.json(calls.CREATE_SNAPSHOTS, self.create)
        routes.json(calls.RESTORE_SNAPSHOT, self.restore)
        routes.json(calls.REMOVE_SNAPSHOTS, self.remove)

    async def snapshots(self, chosen: Selection) -> list[SnapshotRecord]:
        """See calls.SNAPSHOTS; likewise each handler the call of its name."""
        return await self._snapshots.records(chosen)

    async def create(self, ask: CreateSnapshotsRequest) -> OperationRecord:
        return (await self._snapshots.create(ask)).record()

    async def restore(self, ask: RestoreSnapshotRequest) -> OperationRecord:
        return (await self._snapshots.restore(ask)).record()

    async def remove(self, ask: RemoveSnapshotsRequest) -> OperationRecord:
        return (await self._snapshots.remove(ask)).record()
