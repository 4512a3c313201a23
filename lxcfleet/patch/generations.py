"""Generations as the API has them: frozen, listed, looked at, removed; and the way of containers back to one.

A rollback is a rollout that changes specs: same waves, same gates, and `rollout undo` is its way back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date

from lxcfleet.api.generations import (
    CheckedRecord,
    FreezeRecord,
    FreezeRequest,
    GenerationRecord,
    GenerationsRemoved,
    RemoveGenerationsRequest,
    RollbackRecord,
    RollbackRequest,
)
from lxcfleet.base.generations import packages, store
from lxcfleet.containers.common import Common
from lxcfleet.containers.container import Container
from lxcfleet.containers.events import LeftoverRemoved
from lxcfleet.containers.masks import MaskKeeper
from lxcfleet.containers.requests.changing import Changing
from lxcfleet.containers.requests.fitting import unfit
from lxcfleet.errors import Broken, Busy, FleetError, NotFound, WrongState, from_body
from lxcfleet.host.packages import database
from lxcfleet.launcher.items.base import FreezeItem
from lxcfleet.launcher.operations import CHECK_GENERATION, FREEZE_BASE, REMOVE_GENERATION, TIDY_GENERATIONS
from lxcfleet.patch import behind
from lxcfleet.patch.events import Frozen, GenerationRemoved
from lxcfleet.patch.holding import check_until
from lxcfleet.patch.holds import Hold, Holds, today
from lxcfleet.patch.rejections import Rejection, Rejections
from lxcfleet.patch.rollout.claims import refuse_claimed
from lxcfleet.patch.rollout.orders import NOT_BAKED, Orders
from lxcfleet.runtime.operations import result_record
from lxcfleet.spec.container.fields import askable
from lxcfleet.spec.container.spec import Spec
from lxcfleet.units import some

log = logging.getLogger(__name__)

BEFORE = "before a patch"
"""The reason of those that are frozen by themselves."""
_NAMED = 5
_LIST = "`lxcfleet generation list` shows those that there are"


Closed = Callable[[int], Awaitable[Mapping[str, Sequence[str]]]]


class Generations:
    """All frozen bases of this host."""

    def __init__(
        self,
        common: Common,
        mask: MaskKeeper,
        changing: Changing,
        orders: Orders,
        rejections: Rejections,
        holds: Holds,
        closed: Closed,
    ) -> None:
        """``closed``: tells the CVEs that the host's packages have closed and those of a generation have not, by package."""
        self._closed = closed
        self._paths, self._registry, self._launcher = common.paths, common.registry, common.launcher
        self._bus, self._mask, self._changing, self._orders = common.bus, mask, changing, orders
        self._rejections, self._holds = rejections, holds
        self._busy = False

    # -- reading ---------------------------------------------------------------------------------------------

    async def records(self) -> list[GenerationRecord]:
        """All of them, the newest first. Raises HostError."""
        present = await asyncio.to_thread(database.installed)
        return [await self._record(number, present) for number in sorted(store.numbers(self._paths), reverse=True)]

    async def check(self, number: int) -> CheckedRecord:
        """Look for files of a generation that were written in place since it was frozen. Raises FleetError."""
        store.load(self._paths, number)
        found = await self._launcher.ask_large(CHECK_GENERATION, number)
        return CheckedRecord(
            number=number, files=found["files"], written=found["written"], altered=found["altered"],
            missing=found["missing"], strange=found["strange"],
        )  # fmt: skip

    async def behind(self, container: Container, present: Mapping[str, str]) -> str:
        """The reason why a container that stands on a generation does not have all of the host's patches; empty: it has.

        ``present``: the host's packages.
        """
        spec = container.spec
        if spec is None or not spec.generation:
            return ""
        try:
            differs = await self._differs(spec.generation, present)
        except FleetError as error:
            return f"on generation {spec.generation}, of which nothing is known: {error.message}"
        hold = self._holds.of(container)
        held = "" if hold is None else hold.in_words(today())
        return behind.words(spec.generation, held, [*differs], await self._closed(spec.generation) if differs else {})

    async def _record(self, number: int, present: Mapping[str, str]) -> GenerationRecord:
        problem, found, differs, rejection = None, None, dict[str, list[str | None]](), None
        try:
            found = store.load(self._paths, number)
            differs = await self._differs(number, present)
            rejection = await self._rejected(number)
        except FleetError as error:
            problem = str(error)
        return {
            "number": number,
            "created": found.created if found else "",
            "why": found.why if found else "",
            "files": found.files if found else 0,
            "bytes": found.bytes if found else 0,
            "whole": found.whole if found else False,
            "containers": self._users(number),
            "held": [hold.record(name, today()) for name, hold in self._held(number)],
            "packages": differs,
            "rejected": None if rejection is None else rejection.in_words(),
            "problem": problem,
        }

    async def _differs(self, number: int, present: Mapping[str, str]) -> dict[str, list[str | None]]:
        """The packages of which a generation has another version than the host: its own, and the host's."""
        own = await asyncio.to_thread(packages.of, self._paths, number)
        names = sorted(name for name in {*own, *present} if own.get(name) != present.get(name))
        return {name: [own.get(name), present.get(name)] for name in names}

    async def _rejected(self, number: int) -> Rejection | None:
        """Why the packages of a generation were rejected, as those of a patch; None: they were not."""
        return self._rejections.of(await asyncio.to_thread(packages.of, self._paths, number))

    def _held(self, number: int) -> list[tuple[str, Hold]]:
        return [(name, hold) for name, hold in self._holds.among(self._registry).items() if hold.generation == number]

    def _users(self, number: int) -> list[str]:
        """The containers that stand on it: by their specs, or by the spec of their run."""
        return [each.name for each in self._registry if any(spec.generation == number for spec in _specs(each))]

    # -- freezing and removing -------------------------------------------------------------------------------

    async def freeze(self, ask: FreezeRequest, *, waiting: bool = False) -> FreezeRecord:
        """Freeze the host's root as it is now, unless the newest generation is the same. Raises FleetError.

        ``waiting``: an apt that holds its lock waits for it.
        """
        if self._busy:
            raise Busy("the base is being frozen", hint="wait until that is done, then try again")
        self._busy = True
        try:
            number = await self._launcher.ask_large(FREEZE_BASE, FreezeItem(why=ask.why, waiting=waiting))
        finally:
            self._busy = False
        present = await asyncio.to_thread(database.installed)
        changed = number > 0
        if changed:
            self._bus.publish(Frozen(number, ask.why))
        return {"changed": changed, "generation": await self._record(abs(number), present)}

    async def prepare(self, *, keep: int) -> FreezeRecord:
        """Freeze the host's root before a patch, for an apt that waits. Raises FleetError.

        Of those that were frozen so, the newest ``keep`` stay, and those that containers stand on. Those whose packages were
        rejected are counted apart: with them alone there would be no way back.
        """
        record = await self.freeze(FreezeRequest(BEFORE), waiting=True)
        left = {False: keep, True: keep}
        for number in sorted(store.numbers(self._paths), reverse=True):
            with contextlib.suppress(FleetError):
                if store.load(self._paths, number).why != BEFORE:
                    continue
                rejected = await self._rejected(number) is not None
                left[rejected] -= 1
                if left[rejected] < 0 and not self._users(number):
                    await self.remove(RemoveGenerationsRequest((number,)))
        return record

    async def remove(self, ask: RemoveGenerationsRequest) -> GenerationsRemoved:
        """Remove generations that no container stands on, all or none of them; the last good one only if that is asked for.
        Raises FleetError."""
        await self._registry.observe()
        there = store.numbers(self._paths)
        for number in ask.numbers:
            if number not in there:
                raise NotFound(f"there is no generation {number}", hint=_LIST)
            self._refuse_used(number)
        if not ask.last:
            await self._refuse_last(ask.numbers, [number for number in there if number not in ask.numbers])
        for number in ask.numbers:
            await self._mask.forget(number)
            answer = await self._launcher.ask(REMOVE_GENERATION, number)
            if answer["error"]:
                raise from_body(answer["error"])
            self._bus.publish(GenerationRemoved(number))
        return {"changed": True, "removed": list(ask.numbers)}

    def _refuse_used(self, number: int) -> None:
        users = self._users(number)
        broken = [each.name for each in self._registry if not _specs(each)]
        if users or broken:
            names = users or broken
            stand = "stand on it" if users else "have specs that can't be read, so they may stand on it"
            raise WrongState(
                f"generation {number} is in use", why=f"these containers {stand}: {some(names, _NAMED)}",
                hint="give them another base first: lxcfleet rollback NAME --to host" if users else "mend or destroy them",
            )  # fmt: skip
        refuse_claimed(self._paths, self._registry, f"generation {number}", lambda spec: spec.generation == number)

    async def _refuse_last(self, numbers: Sequence[int], others: Sequence[int]) -> None:
        """Refuse to remove ``numbers`` if a good one is among them, and none among those that stay."""
        good = [number for number in numbers if await self._is_good(number)]
        for number in others:
            if not good or await self._is_good(number):
                return
        if good:
            raise WrongState(
                f"generation {good[0]} is the last good one", why="without it there is no way back from a bad patch",
                hint=f"if that is meant: lxcfleet generation rm --last {' '.join(map(str, numbers))}",
            )  # fmt: skip

    async def _is_good(self, number: int) -> bool:
        """Whether a container could go back to it."""
        try:
            store.load(self._paths, number)
            return await self._rejected(number) is None
        except FleetError:
            return False

    async def clean_up(self) -> None:
        """Remove what a crash left."""
        if not self._paths.generations.exists():
            return
        try:
            answer = await self._launcher.ask(TIDY_GENERATIONS, None)
            if answer["error"]:
                raise from_body(answer["error"])
            for name in answer["notes"]:
                self._bus.publish(LeftoverRemoved(name))
        except FleetError as error:
            log.error("can't clean up: %s", error)

    # -- the way back ----------------------------------------------------------------------------------------

    async def rollback(self, ask: RollbackRequest) -> RollbackRecord:
        """Give the chosen containers another base: those that run in a rollout, the others at once. Raises FleetError."""
        day = None if ask.until is None else check_until(ask.until)
        await self._registry.observe()
        present = await asyncio.to_thread(database.installed)
        to = await self.goal(present) if ask.to is None else ask.to
        chosen = self._registry.choose(ask.selection)
        former = {each.name: spec for each in chosen if (spec := _changeable(each)).generation != to}
        wanted = {name: replace(spec, generation=to) for name, spec in former.items()}
        left = {} if ask.ignore_depends else await self.unfit(wanted, to)
        wanted = {name: spec for name, spec in wanted.items() if name not in left}
        chosen = [each for each in chosen if each.name not in left]
        moved = [each for each in chosen if each.name in wanted]
        planned = {each.container.name: each for each in await self._changing.check(moved, wanted, askable())}
        # A base on which nothing can start is found out before the first of them is stopped.
        await self._mask.refresh([to])
        running = {each.name: wanted[each.name] for each in moved if each.running is not None}
        stopped = [planned[each.name] for each in moved if each.running is None]
        if not ask.dry_run:
            if running:
                self._orders.refuse_second()  # before those that don't run have changed
            self._hold(chosen, wanted, to, day, ask.why)
        results = [] if ask.dry_run else await self._changing.carry_out(stopped)
        rollout = None
        if running and not ask.dry_run:
            policy = {**NOT_BAKED, **ask.policy} if to else ask.policy
            rollout = await self._orders.begin_change(running, policy)
        return {
            "changed": bool(wanted) or (day is not None and bool(chosen)),
            "dry_run": ask.dry_run,
            "to": to,
            "until": ask.until,
            "packages": await self._moves({former[name].generation for name in wanted}, to, present),
            "containers": [*wanted],
            "left": left,
            "results": [result_record(result) for result in results],
            "restarts": [*running],
            "rollout": rollout,
        }

    async def _moves(
        self, bases: Collection[int], to: int, present: Mapping[str, str]
    ) -> dict[str, list[str | None]]:
        """The packages that are other ones on ``to`` than on these bases, with both versions; the newest base counts that has
        another one than ``to``, and the host's root, 0, before all of them."""
        then, found = await self._versions(to, present), dict[str, list[str | None]]()
        for base in sorted(bases, key=lambda number: (number > 0, -number)):
            try:
                here = await self._versions(base, present)
            except FleetError as error:  # the way from a base that is lost is the more wanted
                log.warning("which packages generation %d has is not known: %s", base, error)
                continue
            for name in {*here, *then}:
                if here.get(name) != then.get(name):
                    found.setdefault(name, [here.get(name), then.get(name)])
        return dict(sorted(found.items()))

    async def _versions(self, number: int, present: Mapping[str, str]) -> Mapping[str, str]:
        """The packages of a base; ``present``: those of the host."""
        return await asyncio.to_thread(packages.of, self._paths, number) if number else present

    async def unfit(self, names: Iterable[str], to: int) -> dict[str, list[str]]:
        """Those of the containers whose own packages would break on the base ``to``, with the reasons. Raises FleetError."""
        return await unfit(self._launcher, names, to)

    def _hold(self, chosen: Sequence[Container], moved: Collection[str], to: int, day: date | None, why: str) -> None:
        """Note before they are moved until when they are held there: before that it is no hold yet. Raises HostError."""
        if day is None:
            self._holds.forget(moved)  # they may come back to a generation on which they were held once
        else:
            self._holds.hold({each.name: to for each in chosen}, day, why)

    async def goal(self, present: Mapping[str, str]) -> int:
        """The newest generation that has another version of some package than the host, and was not rejected.

        Raises NotFound, HostError.
        """
        numbers = sorted(store.numbers(self._paths), reverse=True)
        for number in numbers:
            if await self._differs(number, present) and await self._rejected(number) is None:
                return number
        why = "nothing was frozen yet"
        if numbers:
            why = "every generation has the packages that the host has now, or those of a patch that was rejected"
        raise NotFound(
            "there is nothing to go back to", why=why,
            hint="`lxcfleet generation freeze` before a patch makes the way back from it",
        )  # fmt: skip


def _specs(container: Container) -> list[Spec]:
    return [spec for spec in (container.spec, container.wanted) if spec is not None]


def _changeable(container: Container) -> Spec:
    if container.wanted is None:
        raise container.problem or Broken(f"{container.name} is broken")
    return container.wanted

