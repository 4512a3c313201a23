"""The handlers of calls about fleets as files."""

from __future__ import annotations

from lxcfleet.api import calls
from lxcfleet.api.fleets import (
    ApplyRecord,
    ExportRequest,
    FleetRecord,
    FleetRequest,
    PlanRecord,
    RemoveFleetRequest,
    ScaleRequest,
    TextRecord,
)
from lxcfleet.daemon.http.routes import Routes
from lxcfleet.fleets.service import Fleets


class OfFleets:
    """Handlers of calls about fleets as files."""

    def __init__(self, fleets: Fleets) -> None:
        self._fleets = fleets

    def bind(self, routes: Routes) -> None:
        """Have them answered."""
        routes.json(calls.FLEETS, self.fleets)
        routes.json(calls.FLEET_PLAN, self.plan, for_readers=self.plan_blindly)
        routes.json(calls.FLEET_APPLY, self.apply)
        routes.json(calls.SCALE, self.scale)
        routes.json(calls.FLEET_EXPORT, self.export)
        routes.json(calls.FLEET_REMOVE, self.remove)

    async def fleets(self, _: None) -> list[FleetRecord]:
        """See calls.FLEETS; likewise each handler the call of its name."""
        return await self._fleets.fleets()

    async def plan(self, ask: FleetRequest) -> PlanRecord:
        return await self._fleets.plan(ask)

    async def plan_blindly(self, ask: FleetRequest) -> PlanRecord:
        """The plan as who may only read may have it."""
        return await self._fleets.plan(ask, blind=True)

    async def apply(self, ask: FleetRequest) -> ApplyRecord:
        return await self._fleets.apply(ask)

    async def scale(self, ask: ScaleRequest) -> ApplyRecord:
        return await self._fleets.scale(ask)

    async def export(self, ask: ExportRequest) -> TextRecord:
        return await self._fleets.export(ask)

    async def remove(self, ask: RemoveFleetRequest) -> FleetRecord:
        return await self._fleets.remove(ask)
