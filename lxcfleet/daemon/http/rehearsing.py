"""The handler of the call about rehearsals; the others are in handlers."""

from __future__ import annotations

from lxcfleet.api import calls
from lxcfleet.api.rehearsals import RehearsalRecord, RehearseRequest
from lxcfleet.daemon.http.routes import Routes
from lxcfleet.patch.rehearsal import Rehearsals


class OfRehearsals:
    """The handler of the call about rehearsals."""

    def __init__(self, rehearsals: Rehearsals) -> None:
        self._rehearsals = rehearsals

    def bind(self, routes: Routes) -> None:
        """Have it answered."""
        routes.json(calls.REHEARSE, self.rehearse)

    async def rehearse(self, ask: RehearseRequest) -> RehearsalRecord:
        """See calls.REHEARSE."""
        return await self._rehearsals.rehearse(ask)
