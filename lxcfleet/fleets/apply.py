"""Carries a plan out by what containers and rollouts can do anyhow: create, change, restart in waves, start, stop, destroy.

The order: sources of secrets and volumes come first, then new containers, then what changes at once, then jobs that run once
more, with what waits for them: new containers, and the restarts as one rollout, in which each container gets its spec just
before its turn; starts; and last, once all of that went well, stops and destroys. What was carried out to the end is noted
only then. So whatever breaks it off, the next plan for the same file has the rest.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from lxcfleet.api import way_back
from lxcfleet.api.records import RolloutRecord
from lxcfleet.containers.container import Container
from lxcfleet.containers.measuring.delta_sizes import Looks
from lxcfleet.containers.registry import Registry
from lxcfleet.containers.requests.actions import Actions
from lxcfleet.containers.requests.changing import Changing, Planned
from lxcfleet.containers.requests.creation import Creation
from lxcfleet.errors import Blocked, FleetError, WrongState
from lxcfleet.fleets.applied import Applied
from lxcfleet.fleets.changes import Change, Kind
from lxcfleet.fleets.plan import FleetPlan
from lxcfleet.fleets.store import FleetStore
from lxcfleet.fleets.volumes import VolumeChange
from lxcfleet.patch.rollout.orders import Orders
from lxcfleet.patch.rollout.state import MemberPhase, RolloutKind
from lxcfleet.runtime.operations import Job, Operation, Operations
from lxcfleet.spec.container.fields import askable
from lxcfleet.spec.container.secrets import key_of
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.container.volumes import Volume
from lxcfleet.spec.files.fleet_apps import Present
from lxcfleet.spec.files.settings import Config
from lxcfleet.spec.results import Result
from lxcfleet.spec.states import Action, State

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.1
"""Seconds between two looks whether a job has ended."""


_Phase = Callable[[Operation, Sequence[Change]], Awaitable[None]]


class VolumeHands(Protocol):
    """The methods for volumes that fleets use; daemon.uses.volumes has them."""

    def present(self, names: Iterable[str]) -> dict[str, Volume | FleetError]:
        """Those that exist of these; an error for one that is broken."""

    async def check(self, changes: Sequence[VolumeChange]) -> None:
        """Raise FleetError if the host or a volume is in the way of a change."""

    async def bring(self, change: VolumeChange) -> Result:
        """Make or change a volume. Raises FleetError."""


class AppHands(Protocol):
    """The methods for apps that fleets use; daemon.uses.apps has them."""

    def present(self, names: Iterable[str]) -> Present:
        """The releases of each of these apps that the host has."""

    async def tidy(self, name: str) -> tuple[str, ...]:
        """Remove the old releases of an app of which no more are kept; tells of them."""


class SecretHands(Protocol):
    """The methods for secrets that fleets use; containers.secrets.keeper has them."""

    async def renew(self, keys: Collection[str]) -> dict[str, bool | FleetError]:
        """Ask the sources of these anew."""

    def have_others(self) -> None:
        """Other secrets are declared than before."""


class Core(Protocol):
    """The part of the daemon's use cases that fleets use; daemon.uses.service has it."""

    config: Config
    registry: Registry
    actions: Actions
    changing: Changing
    creation: Creation
    operations: Operations
    looks: Looks

    @property
    def volumes(self) -> VolumeHands:
        """The volumes of this host."""

    @property
    def secrets(self) -> SecretHands:
        """The secrets of this host."""


@dataclass(frozen=True)
class LiveChanges:
    """Changes of specs that need no restart."""

    at_once: Sequence[Planned]
    gated: Sequence[Planned]
    """These are made in waves."""


async def check(core: Core, orders: Orders, plan: FleetPlan, policy: Mapping[str, Any]) -> LiveChanges:
    """Raise FleetError if the host, a container or a rollout is in the way of any change of the plan. Gives the changes of
    specs that need no restart."""
    if plan.stuck:
        raise Blocked(
            "what the file restarts could not start again; nothing is changed", why="\n".join(plan.stuck),
            hint="run that job once more (`lxcfleet start NAME`); then apply the file again",
        )  # fmt: skip
    active = orders.ledger.active
    if plan.of(Kind.RESTART) or (active is not None and active.kind is RolloutKind.CHANGE):
        # The rollout of an earlier apply has not come to its end: what it is about is neither one nor the other.
        orders.refuse_second()
    new = {each.name: each.spec for each in plan.of(Kind.CREATE) if each.spec is not None}
    await core.volumes.check(plan.volumes)
    coming = frozenset(each.name for each in plan.volumes if each.new)
    if new:
        await core.creation.check_all(new, coming)
    planned = await _planned(core, plan.of(Kind.LIVE, Kind.RESTART, Kind.START), coming)
    await core.changing.refuse_unfit(planned, or_else="change that with `lxcfleet set --ignore-depends` first")
    names = {each.name for each in plan.of(Kind.LIVE)}
    live = [each for each in planned if each.container.name in names]
    gated = orders.gated(live, policy)
    if gated:
        orders.refuse_second()
    in_turn = {each.container.name for each in gated}
    return LiveChanges([each for each in live if each.container.name not in in_turn], gated)


async def _planned(core: Core, changes: Sequence[Change], coming: frozenset[str] = frozenset()) -> list[Planned]:
    specs = {each.name: each.spec for each in changes if each.spec is not None}
    chosen = [core.registry[each.name] for each in changes]
    return await core.changing.check(chosen, specs, askable(), coming) if chosen else []


class PlanInHand:
    """One plan, being carried out."""

    def __init__(
        self,
        core: Core,
        orders: Orders,
        store: FleetStore,
        plan: FleetPlan,
        live: LiveChanges,
        policy: Mapping[str, Any],
        apps: AppHands,
    ) -> None:
        """``live``: the changes of specs that need no restart, as ``check`` gave them."""
        self._apps = apps
        self._core, self._orders, self._store, self._plan, self._policy = core, orders, store, plan, policy
        self._live = live

    async def run(self, operation: Operation) -> None:
        """Carry it out; each container's result goes to ``operation``."""
        await self._declare_secrets(operation)
        await self._bring_volumes(operation)
        for changes, phase in self._phases():
            if operation.cancelled or any(result.error is not None for result in operation.results):
                break
            try:
                await phase(operation, changes)
            except FleetError as error:
                done = {result.name for result in operation.results}
                for each in changes:
                    if each.name not in done:
                        operation.add(Result(each.name, "failed", False, error.body()))
        done = {result.name for result in operation.results}
        for each in self._plan.changes:
            if each.name in done:
                continue
            if each.kind is Kind.DESTROY and each.name not in self._core.registry:
                operation.add(Result(each.name, "destroyed", False))  # it went meanwhile, as an action that was resumed
            else:
                why = "the operation was cancelled" if operation.cancelled else "an earlier step failed"
                missed = WrongState(f"{each.name}: {each.kind} was not begun", why=why, hint="the next apply has the rest")
                operation.add(Result(each.name, "not begun", False, missed.body()))
        if all(result.error is None for result in operation.results):
            self._note(operation)
        await self._keep_apps(operation)
        if self._plan.secrets:
            self._core.secrets.have_others()  # what its own rollout did not restart is to know new values now

    def _phases(self) -> list[tuple[list[Change], _Phase]]:
        """The changes in the order in which they are made, with those that are made together."""
        plan, gated = self._plan, {each.container.name for each in self._live.gated}
        at_once, late = plan.of(Kind.LIVE), plan.after_jobs
        starts, creates = plan.of(Kind.START), plan.of(Kind.CREATE)
        return [
            ([each for each in creates if each.name not in late], self._create),
            ([each for each in at_once if each.name not in gated], self._change),
            ([each for each in starts if each.job], self._run_jobs),
            ([each for each in creates if each.name in late], self._create),
            (plan.of(Kind.RESTART) + [each for each in at_once if each.name in gated], self._restart),
            ([each for each in starts if not each.job], self._start),
            (plan.of(Kind.STOP), self._stop),
            (plan.of(Kind.DESTROY), self._destroy),
        ]

    async def _keep_apps(self, operation: Operation) -> None:
        """Have as many releases of apps as the file says from now on. This comes last, as what is noted tells which ones."""
        done = all(result.error is None for result in operation.results)
        words = {"create": "declared", "live": "changed", "remove": "removed"}
        for each in self._plan.apps:
            if done:
                notes = await self._apps.tidy(each.name)
                operation.add(Result(f"app {each.name}", words[each.change], True, notes=notes))
            else:
                missed = WrongState(f"the app {each.name} was not begun", why="an earlier step failed")
                operation.add(Result(f"app {each.name}", "not begun", False, missed.body()))

    async def _declare_secrets(self, operation: Operation) -> None:
        """Note where values come from, before any container starts that has them. What is declared no more is kept until all
        else is carried out: containers that are not changed yet still have it."""
        if not self._plan.secrets:
            return
        plan = self._plan
        before = plan.before or Applied(plan.fleet, plan.after.where, plan.after.time)
        try:
            self._store.keep(replace(before, secrets={**before.secrets, **plan.after.secrets}))
        except FleetError as error:
            operation.add(Result(plan.fleet, "failed", False, error.body()))
            return
        self._core.secrets.have_others()
        words = {"create": "declared", "live": "changed", "remove": "removed"}
        others = {key_of(plan.fleet, each.name): each.name for each in plan.secrets if each.change == "live"}
        renewed = await self._core.secrets.renew(others)
        failed = {others[key]: error for key, error in renewed.items() if isinstance(error, FleetError)}
        for each in plan.secrets:
            notes = (f"it can't be fetched: {failed[each.name].message}",) if each.name in failed else ()
            operation.add(Result(f"secret {each.name}", words[each.change], True, notes=notes))

    async def _bring_volumes(self, operation: Operation) -> None:
        for each in self._plan.volumes:
            if operation.cancelled:
                missed = WrongState(f"the volume {each.name} was not begun", why="the operation was cancelled")
                operation.add(Result(f"volume {each.name}", "not begun", False, missed.body()))
                continue
            try:
                result = await self._core.volumes.bring(each)
            except FleetError as error:
                result = Result(each.name, "failed", False, error.body())
            operation.add(replace(result, name=f"volume {each.name}"))

    def _note(self, operation: Operation) -> None:
        try:
            self._store.keep(self._plan.after)
        except FleetError as error:
            operation.add(Result(self._plan.fleet, "failed", False, error.body()))

    async def _create(self, operation: Operation, changes: Sequence[Change]) -> None:
        if not changes:
            return
        made = await self._core.creation.make_all(_specs(changes))
        jobs = {each.name for each in changes if each.job}
        seen = 0
        async for _ in made.follow():
            for result in made.results[seen:]:
                if result.name not in jobs:
                    operation.add(result)
            seen = len(made.results)
            if operation.cancelled:
                made.cancel()
        # Those that wait for a job were waited for as long as that is on its way: the jobs' ends are known by now.
        for result in made.results:
            if result.name in jobs:
                operation.add(result if result.error is not None else self._not_completed(result) or result)

    async def _change(self, operation: Operation, changes: Sequence[Change]) -> None:
        if self._live.at_once:
            results = await self._core.changing.carry_out(self._live.at_once)
            started_again = {each.name for each in changes if each.starts}
            changed = [each.name for each in results if each.name in started_again and each.error is None]
            started = {each.name: each for each in await self._act(changed, Action.START, None)}
            jobs = {each.name for each in changes if each.job}
            for result in results:
                start = started.get(result.name)
                if start is not None and (start.changed or start.error is not None):
                    notes = (*result.notes, *start.notes)
                    result = replace(result, status=start.status, error=start.error, notes=notes)
                if start is not None and start.error is None and result.name in jobs:
                    result = await self._completed(result, operation)
                operation.add(result)

    async def _run_jobs(self, operation: Operation, changes: Sequence[Change]) -> None:
        if changes:
            await self._core.changing.carry_out(await _planned(self._core, changes))
            for result in await self._act([each.name for each in changes], Action.START, None):
                operation.add(result if result.error is not None else await self._completed(result, operation))

    async def _completed(self, result: Result, operation: Operation) -> Result:
        """The result of a job that was started, once it has ended: all that comes after it waits for that. ``result``: of its
        start."""
        registry, container = self._core.registry, self._core.registry[result.name]

        async def until_end() -> None:
            while registry.knows(container) and (container.running or container.busy or container.backs_off):
                await asyncio.sleep(_LOOK_SECONDS)

        await operation.until_cancelled(until_end())
        return result if operation.cancelled else self._not_completed(result) or result

    def _not_completed(self, result: Result) -> Result | None:
        """The result of a job that has ended otherwise than it should; None: it has not."""
        registry, name = self._core.registry, result.name
        found = registry[name] if name in registry else None  # noqa: SIM401  it is no mapping
        past = None if found is None else found.exit
        if found is None or past is None or found.running or found.busy or found.backs_off or found.lack is not None:
            return None
        if found.state is State.EXITED:
            return None
        error = WrongState(
            f"{found.name} has run, and is not completed: {past.words}",
            why=past.printed,
            hint="mend that, and apply the file again: it runs once more then, and the containers that wait for it come"
            " after that",
        )
        return replace(result, status="failed", error=error.body())

    async def _restart(self, operation: Operation, changes: Sequence[Change]) -> None:
        wanted = _specs(each for each in changes if each.kind is Kind.RESTART)
        wanted |= {each.container.name: each.spec for each in self._live.gated}
        if not wanted:
            return
        groups = {each.group for each in self._plan.changes if each.name in wanted}
        reverts = any(self._plan.after.groups[group].rollout.auto_revert for group in groups)
        resting = {each.container.name: (each.former, each.spec) for each in self._live.at_once if each.changed}
        begun = await self._orders.begin_change(wanted, self._policy, auto_revert=reverts, resting=resting)
        seen: list[RolloutRecord] = [begun]
        back: list[RolloutRecord] = []

        async def until_end() -> None:
            async for each in self._orders.ledger.follow():
                if begun["id"] not in (each["id"], each["undoes"]):
                    return
                (seen if each["id"] == begun["id"] else back).append(each)

        await operation.until_cancelled(until_end())
        # What has halted may be over, and another one that takes it back under way, before that was told here.
        former = self._orders.ledger.former(begun["id"])
        for result in _results(former or seen[-1], wanted, back[-1] if back else None, reverts=reverts):
            operation.add(result)

    async def _start(self, operation: Operation, changes: Sequence[Change]) -> None:
        if changes:
            await self._core.changing.carry_out(await _planned(self._core, changes))
        await self._do(operation, changes, Action.START, None)

    async def _stop(self, operation: Operation, changes: Sequence[Change]) -> None:
        await self._do(operation, changes, Action.STOP, None)

    async def _destroy(self, operation: Operation, changes: Sequence[Change]) -> None:
        await self._do(operation, changes, Action.DESTROY, 0.0)

    async def _do(self, operation: Operation, changes: Sequence[Change], action: Action, timeout: float | None) -> None:
        for result in await self._act([each.name for each in changes], action, timeout):
            operation.add(result)

    async def _act(self, names: Iterable[str], action: Action, timeout: float | None) -> list[Result]:
        found = [self._core.registry[name] for name in names if name in self._core.registry]

        def job(container: Container) -> Job:
            return Job(container.name, lambda: self._core.actions.act(container, action, timeout))

        jobs = self._core.actions.ordering.jobs(action, found, job) if found else []
        return await self._core.actions.run_jobs(action, jobs) if jobs else []


def _specs(changes: Iterable[Change]) -> dict[str, Spec]:
    return {each.name: each.spec for each in changes if each.spec is not None}


_HOW: Mapping[str, tuple[str, str]] = {
    MemberPhase.WAITING: ("it was not its turn", "not begun"), MemberPhase.FAILED: ("it is failed", "failed"),
    MemberPhase.DONE: ("it was well, and is taken back", "taken back"),
}  # fmt: skip
"""The words for members by their phase, and the status of the result."""


def _results(
    record: RolloutRecord, names: Mapping[str, object], back: RolloutRecord | None, *, reverts: bool
) -> list[Result]:
    """The results of the members of a rollout. ``back``: the one that takes it back by itself, as far as that is.
    ``reverts``: whether a halt is to be taken back."""
    phases = {each["name"]: (each["phase"], each["note"]) for each in record["containers"]}
    halted = record["halted"]
    where = f" at {halted['container']}" if halted and halted["container"] else ""
    why = f"the rollout {record['id']} is {record['status']}" + (f": {halted['why']}" if halted else "")
    hint = "`lxcfleet rollout status` has more; the next apply has the rest"
    if halted and not back:
        hint = "`lxcfleet rollout status` has more; mend it and `rollout resume`, or take it back: `lxcfleet rollout undo`"
    if halted and record["not_reverted"]:
        hint = f"it is not taken back (auto_revert): {record['not_reverted']}; `lxcfleet rollout status` has more"
    elif halted and reverts and not back:  # the operation was cancelled
        hint = "the former specs are about to be put back (auto_revert): `lxcfleet rollout status --follow`"
    if halted and back:
        why = f"the rollout {record['id']} halted{where}: {halted['why']}"
        hint = f"{way_back.in_words(back, 'the former specs')} (auto_revert); mend the file, and apply it again"
    found = []
    for name in names:
        phase, note = phases.get(name, (MemberPhase.WAITING, ""))
        lack = way_back.lack(back, name) if back else None
        if lack is not None:  # it may have what the rollout gave it
            found.append(Result(name, "failed", True, lack))
        elif phase == MemberPhase.DONE and not back:
            found.append(Result(name, "changed", True))
        else:
            how, status = _HOW.get(phase, (f"it is {phase}", "not begun"))
            error = WrongState(f"{name}: {note or how}", why=why, hint=hint)
            found.append(Result(name, status, False, error.body()))
    return found
