"""The handlers of calls about patches, their proof, and rollouts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from lxcfleet.api import calls
from lxcfleet.api.findings import (
    CvesRecord,
    ExposureRecord,
    NoticeRecord,
    PartRecord,
    ProofRecord,
    ShadowsRecord,
    StaleRecord,
)
from lxcfleet.api.queries import VerifyRequest
from lxcfleet.api.records import (
    ResultRecord,
    RolloutRecord,
)
from lxcfleet.api.rehearsals import RehearsalRecord, RehearseRequest
from lxcfleet.api.requests import (
    FixShadowsRequest,
    ResumeRequest,
    RolloutRequest,
)
from lxcfleet.containers.secrets.new_values import SecretChanges
from lxcfleet.containers.secrets.telling import Telling
from lxcfleet.daemon.http.routes import Routes
from lxcfleet.patch.cve.service import Cves
from lxcfleet.patch.exposure import Audit
from lxcfleet.patch.own import OwnParts
from lxcfleet.patch.rehearsal import Rehearsals
from lxcfleet.patch.rescue import Rescue
from lxcfleet.patch.rollout.ledger import FOLLOW_SECONDS
from lxcfleet.patch.rollout.orders import Orders
from lxcfleet.patch.service import Patch
from lxcfleet.patch.verify.prover import Prover
from lxcfleet.spec.selection import Selection


class OfPatches:
    """Handlers of calls about old code that containers run, shadows in their deltas, and host files that they can read."""

    def __init__(self, patch: Patch, prover: Prover, cves: Cves, audit: Audit, own: OwnParts) -> None:
        self._patch, self._prover, self._cves, self._audit, self._own = patch, prover, cves, audit, own

    def bind(self, routes: Routes) -> None:
        """Have them answered."""
        routes.json(calls.STALE, self.stale)
        routes.json(calls.PARTS, self.parts)
        routes.json(calls.VERIFY, self.verify)
        routes.json(calls.CVES, self.cves)
        routes.json(calls.SHADOWS, self.shadows)
        routes.json(calls.FIX_SHADOWS, self.fix_shadows)
        routes.json(calls.EXPOSURE, self.exposure)
        routes.json(calls.NOTICE, self.notice)
        routes.json(calls.NOTIFY, self.notify)

    async def stale(self, chosen: Selection) -> list[StaleRecord]:
        """See calls.STALE; likewise each handler the call of its name."""
        return await self._patch.stale(chosen)

    async def parts(self, _: None) -> list[PartRecord]:
        return await self._own.records()

    async def verify(self, ask: VerifyRequest) -> ProofRecord:
        if ask.cves:
            return await self._cves.verify(ask)
        return await self._prover.verify(ask.selection, ask.packages, deep=ask.deep)

    async def cves(self, chosen: Selection) -> CvesRecord:
        return await self._cves.find(chosen)

    async def shadows(self, chosen: Selection) -> list[ShadowsRecord]:
        return await self._prover.shadows(chosen)

    async def fix_shadows(self, ask: FixShadowsRequest) -> list[ResultRecord]:
        return await self._prover.fix(ask.selection, ask.paths, ask.packages, dry_run=ask.dry_run)

    async def exposure(self, chosen: Selection) -> list[ExposureRecord]:
        return await self._audit.exposure(chosen)

    async def notice(self, _: None) -> NoticeRecord:
        return await self._patch.notice()

    async def notify(self, _: None) -> NoticeRecord:
        return await self._patch.notify()


class OfRollouts:
    """Handlers of calls about the rollout."""

    def __init__(self, rollouts: Orders, rescue: Rescue, secrets: SecretChanges) -> None:
        self._rollouts, self._rescue, self._secrets = rollouts, rescue, secrets

    def bind(self, routes: Routes) -> None:
        """Have them answered."""
        routes.json(calls.ROLLOUT, self.rollout)
        routes.json(calls.ROLL, self.roll)
        routes.lines(calls.ROLLOUT_FOLLOW, self.follow)
        routes.json(calls.ROLLOUT_PAUSE, self.pause)
        routes.json(calls.ROLLOUT_RESUME, self.resume)
        routes.json(calls.ROLLOUT_ABORT, self.abort)
        routes.json(calls.ROLLOUT_UNDO, self.undo)

    async def rollout(self, _: None) -> RolloutRecord | None:
        """See calls.ROLLOUT; likewise each handler the call of its name."""
        told = self._telling()
        return self._rollouts.ledger.record() if told is None else told.record()

    def _telling(self) -> Telling | None:
        """The waves that tell containers of their secrets, if no rollout is under way, and none came after them."""
        told, last = self._secrets.telling, self._rollouts.ledger.last
        newer = told is not None and (last is None or (self._rollouts.ledger.active is None and told.created >= last.created))
        return told if newer else None

    async def roll(self, ask: RolloutRequest) -> RolloutRecord:
        return await self._rescue.begin(ask)

    async def follow(self, _: None) -> AsyncIterator[Sequence[RolloutRecord]]:
        if (told := self._telling()) is not None:
            while told is not None and (now := self._secrets.telling) is not None and now.id == told.id:
                yield [now.record()]
                if now.over:
                    return
                await asyncio.sleep(FOLLOW_SECONDS)
            return
        async for record in self._rollouts.ledger.follow():
            yield [record]

    async def pause(self, _: None) -> RolloutRecord:
        return self._rollouts.pause()

    async def resume(self, ask: ResumeRequest) -> RolloutRecord:
        return self._rollouts.resume(accept=ask.accept)

    async def abort(self, _: None) -> RolloutRecord:
        return self._rollouts.abort()

    async def undo(self, redo: bool) -> RolloutRecord:
        return await self._rollouts.undo(redo=redo)


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
