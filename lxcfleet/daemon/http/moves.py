"""The handlers of calls about moves between hosts."""

from __future__ import annotations

from lxcfleet.api import calls
from lxcfleet.api.moves import (
    ArrivalRecord,
    ArrivalRequest,
    CheckArrivalRequest,
    ForgetMoveRequest,
    MoveRecord,
    OfferRecord,
    OfferRequest,
)
from lxcfleet.daemon.http.routes import Routes
from lxcfleet.daemon.uses.moves import Moves


class OfMoves:
    """Handlers of calls about moves."""

    def __init__(self, moves: Moves) -> None:
        self._moves = moves

    def bind(self, routes: Routes) -> None:
        """Have them answered."""
        routes.json(calls.MOVES, self.moves)
        routes.json(calls.OFFER_MOVE, self.offer)
        routes.json(calls.FORGET_MOVE, self.forget)
        routes.json(calls.CHECK_ARRIVAL, self.check)
        routes.json(calls.ARRIVAL, self.arrival)

    async def moves(self, _: None) -> list[MoveRecord]:
        """See calls.MOVES; likewise each handler the call of its name."""
        return self._moves.records()

    async def offer(self, ask: OfferRequest) -> OfferRecord:
        return await self._moves.offer(ask)

    async def forget(self, ask: ForgetMoveRequest) -> MoveRecord:
        return self._moves.forget(ask)

    async def check(self, ask: CheckArrivalRequest) -> ArrivalRecord:
        return await self._moves.check(ask)

    async def arrival(self, ask: ArrivalRequest) -> MoveRecord | None:
        return await self._moves.arrival(ask)
