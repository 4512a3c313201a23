"""The base is frozen before each patch; what fails after it gets that base back, and keeps it until another patch went well.
The patch itself is rejected: nothing but the operator's word or a newer patch begins another rollout.

Only where the settings say so (`patch: {freeze: true}`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial

from lxcfleet.api.generations import FreezeRecord
from lxcfleet.api.records import RolloutRecord
from lxcfleet.api.requests import RolloutRequest
from lxcfleet.containers.common import Common
from lxcfleet.containers.reconciling.bases import Bases
from lxcfleet.errors import FleetError, WrongState
from lxcfleet.host.packages import database
from lxcfleet.patch.events import NotReleased, NotRescued, PatchPassedOver
from lxcfleet.patch.generations import Generations
from lxcfleet.patch.holds import Holds, today
from lxcfleet.patch.rejections import Rejection, Rejections
from lxcfleet.patch.rescued import Rescued
from lxcfleet.patch.rollout.orders import Orders
from lxcfleet.patch.rollout.state import MemberPhase, Rollout, RolloutKind
from lxcfleet.patch.verify.evidence import fingerprint
from lxcfleet.runtime.operations import now
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.policies.windows import PatchSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KeptBack:
    """The records of what is kept from a patch: patches that failed, and containers that stay on a former base."""

    rejections: Rejections
    holds: Holds
    rescued: Rescued


class Rescue:
    """Gives containers that a patch broke the base from before it, and takes them along with the next good patch."""

    def __init__(
        self,
        common: Common,
        settings: Callable[[], PatchSettings],
        generations: Generations,
        orders: Orders,
        kept: KeptBack,
        bases: Bases,
        pending: Callable[[], bool],
    ) -> None:
        """``pending``: whether a change of the host's packages was not dealt with yet."""
        self._paths, self._settings, self._registry = common.paths, settings, common.registry
        self._generations, self._orders, self._pending = generations, orders, pending
        self._rejections, self._holds, self._rescued = kept.rejections, kept.holds, kept.rescued
        self._bases, self._bus, self._tasks = bases, common.bus, common.tasks

    def take_over(self) -> None:
        """Have the package manager's hook know whether the base is frozen before patches."""
        try:
            if self._settings().freeze:
                self._paths.freezes.touch(mode=0o644)
            else:
                self._paths.freezes.unlink(missing_ok=True)
        except OSError as error:
            log.error("patches don't freeze the base: %s", error)

    async def prepare(self) -> FreezeRecord | None:
        """A patch is about to come: freeze the base, if the settings say so. None: they do not, or another part of the same
        patch came already. Raises FleetError."""
        settings = self._settings()
        if not settings.freeze or self._pending():
            return None
        self._bases.note(None)
        record = await self._generations.prepare(keep=settings.keep)
        self._bases.note(record["generation"]["number"])
        return record

    # -- after a patch ---------------------------------------------------------------------------------------

    async def rejected(self) -> Rejection | None:
        """Why the host's packages as they are now are not brought into containers; None: they are. Raises HostError."""
        return await self._rejections.of_host() if self._settings().freeze else None

    async def take_up(self, found: Collection[str]) -> None:
        """The host was patched, and these are stale: have them restarted, unless the patch was rejected.

        Raises FleetError.
        """
        rejection = await self.rejected()
        if rejection is None:
            await self._orders.take_up(found)
        elif found:
            self._bus.publish(PatchPassedOver(rejection.in_words()))

    async def begin(self, ask: RolloutRequest) -> RolloutRecord:
        """Begin a rollout that somebody asks for. Raises FleetError; WrongState for a patch that was rejected."""
        if ask.kind == RolloutKind.PATCH and not ask.force and (rejection := await self.rejected()) is not None:
            raise WrongState(
                "the host's packages were rejected as they are now", why=rejection.in_words(),
                hint="install a mended version, which is taken up by itself; or: lxcfleet patch apply --force",
            )  # fmt: skip
        return await self._orders.begin(ask)

    async def halted(self, rollout: Rollout) -> None:
        """A rollout of a patch has halted: reject the patch, and give what failed in it the base from before the patch."""
        failed = [member.name for member in rollout.by_phase(MemberPhase.FAILED) if member.name in self._registry]
        if rollout.kind is not RolloutKind.PATCH or not self._settings().freeze or not failed:
            return
        try:
            present = await asyncio.to_thread(database.installed)
            self._reject(rollout, fingerprint(present))
            to = await self._generations.goal(present)
            left = await self._generations.unfit(failed, to)
            for name, reasons in left.items():
                self._bus.publish(NotRescued((name,), "; ".join(reasons)))
            failed = [name for name in failed if name not in left]
            if failed:
                self._rescued.keep({**self._rescued.all(), **dict.fromkeys(failed, to)})
                self._holds.forget(failed)
                await self._orders.rescue(self._moved(failed, to))
        except (FleetError, OSError) as error:
            self._bus.publish(NotRescued(tuple(failed), str(error).replace("\n", "; ")))

    def _reject(self, rollout: Rollout, patch: str) -> None:
        """Note that the patch is not to be chosen again. It is noted first, so no daemon that is killed forgets it."""
        halted = rollout.halted
        if halted is None or halted.container is None:
            return
        rejection = Rejection(patch, now(), halted.container, halted.why, halted.packages or {})
        self._rejections.note(rejection)
        self._orders.reject(rejection.in_words())

    def went_well(self, rollout: Rollout | None) -> None:
        """A patch is everywhere, but for what was rescued from an earlier one. ``rollout``: None if nothing was stale."""
        good = rollout is None or (rollout.kind is RolloutKind.PATCH and not rollout.by_phase(MemberPhase.FAILED))
        if good and (self._rejections.any() or self._rescued.all() or self._holds.among(self._registry)):
            self._tasks.do("release", partial(self._release, proven=rollout is not None))

    async def _release(self, *, proven: bool) -> None:
        """Put what was rescued, and what was held until a day that is past, on the host's root again.

        What fails there gets its base back: the rollout reverts itself. The note stays for as long as a container stands
        where it was put, so the good patch after that is tried as well.
        ``proven``: containers were restarted for the patch, and are well.
        """
        if self._orders.ledger.active is not None:
            return
        try:
            if proven:
                await self._rejections.accept()
            elif await self.rejected() is not None:
                return  # nothing is stale, as those that would be stand on a generation
            standing = {name: number for name, number in self._rescued.all().items() if self._stands(name) == number}
            self._rescued.keep(standing)
            holds = self._holds.among(self._registry)
            held = {name for name, hold in holds.items() if not hold.past(today())}
            due = [name for name in dict.fromkeys([*standing, *holds]) if name not in held]
            left = await self._generations.unfit(due, 0)
            for name, reasons in left.items():
                self._bus.publish(NotReleased(name, "; ".join(reasons)))
            if going := [name for name in due if name not in left]:
                await self._orders.begin_change(self._moved(going, 0), {}, auto_revert=True)
        except (FleetError, OSError) as error:
            log.error("what was rescued stays on its generation: %s", str(error).replace("\n", "; "))

    def _moved(self, names: Sequence[str], to: int) -> dict[str, Spec]:
        specs = {name: self._registry[name].wanted for name in names}
        return {name: replace(spec, generation=to) for name, spec in specs.items() if spec is not None}

    def _stands(self, name: str) -> int | None:
        wanted = self._registry[name].wanted if name in self._registry else None
        return None if wanted is None else wanted.generation
