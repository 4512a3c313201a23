"""The handlers of calls about frozen bases."""

from __future__ import annotations

from lxcfleet.api import calls
from lxcfleet.api.generations import (
    CheckedRecord,
    FreezeRecord,
    FreezeRequest,
    GenerationRecord,
    GenerationsRemoved,
    HoldRequest,
    HoldsRecord,
    ReleasedRecord,
    ReleaseRequest,
    RemoveGenerationsRequest,
    RollbackRecord,
    RollbackRequest,
)
from lxcfleet.daemon.http.routes import Routes
from lxcfleet.errors import InvalidInput
from lxcfleet.patch.generations import Generations
from lxcfleet.patch.holding import Holding
from lxcfleet.patch.rescue import Rescue


class OfGenerations:
    """Handlers of calls about frozen bases."""

    def __init__(self, generations: Generations, rescue: Rescue, holding: Holding) -> None:
        self._generations, self._rescue, self._holding = generations, rescue, holding

    def bind(self, routes: Routes) -> None:
        """Have them answered."""
        routes.json(calls.GENERATIONS, self.generations)
        routes.json(calls.FREEZE_BASE, self.freeze)
        routes.json(calls.CHECK_GENERATION, self.check)
        routes.json(calls.REMOVE_GENERATIONS, self.remove)
        routes.json(calls.ROLLBACK, self.rollback)
        routes.json(calls.PREPARE, self.prepare)
        routes.json(calls.HOLD, self.hold)
        routes.json(calls.RELEASE, self.release)

    async def generations(self, _: None) -> list[GenerationRecord]:
        """See calls.GENERATIONS; likewise each handler the call of its name."""
        return await self._generations.records()

    async def freeze(self, ask: FreezeRequest) -> FreezeRecord:
        return await self._generations.freeze(ask)

    async def remove(self, ask: RemoveGenerationsRequest) -> GenerationsRemoved:
        return await self._generations.remove(ask)

    async def rollback(self, ask: RollbackRequest) -> RollbackRecord:
        return await self._generations.rollback(ask)

    async def hold(self, ask: HoldRequest) -> HoldsRecord:
        return await self._holding.hold(ask)

    async def release(self, ask: ReleaseRequest) -> ReleasedRecord:
        return await self._holding.release(ask)

    async def prepare(self, _: None) -> FreezeRecord | None:
        return await self._rescue.prepare()

    async def check(self, number: str) -> CheckedRecord:
        if not number.isdecimal() or len(number) > 7:
            raise InvalidInput(f"{number!r} is no generation's number")
        return await self._generations.check(int(number))
