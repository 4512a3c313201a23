"""The requests about rollouts: to begin, to take up a patch, to pause, to go on, to end."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from lxcfleet.api.records import RolloutRecord
from lxcfleet.api.requests import RolloutRequest, selection_to_json
from lxcfleet.containers.container import Container
from lxcfleet.containers.reconciling.changes import await_restart
from lxcfleet.containers.requests.changing import Planned
from lxcfleet.errors import Busy, HostError, WrongState
from lxcfleet.patch.fallen import Fallen
from lxcfleet.patch.rollout import gating, live, planner
from lxcfleet.patch.rollout.change_sets import ChangeSet, ChangeSets, applied, changing_values
from lxcfleet.patch.rollout.ledger import Ledger
from lxcfleet.patch.rollout.records import record_of
from lxcfleet.patch.rollout.sight import Fleet, Sight
from lxcfleet.patch.rollout.state import Member, MemberPhase, Rollout, RolloutKind, Status
from lxcfleet.patch.rollout.undoing import FOLLOW, RESUME, Undoing, names
from lxcfleet.runtime.operations import now
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.policies import rollout as policies
from lxcfleet.spec.selection import Selection
from lxcfleet.spec.states import Action
from lxcfleet.units import counted

log = logging.getLogger(__name__)

NOT_BAKED: Mapping[str, Any] = {"bake": "0"}
"""The policy of what goes back: the others don't wait for minutes to have back what they had before."""


class Orders:
    """Changes the rollout as it is asked to. The driver does what follows."""

    def __init__(self, fleet: Fleet, ledger: Ledger, sight: Sight, fallen: Fallen, change_sets: ChangeSets) -> None:
        self._fleet, self.ledger, self._sight, self._fallen = fleet, ledger, sight, fallen
        self._change_sets, self._undoing = change_sets, Undoing(fleet, ledger, change_sets)

    async def begin(self, ask: RolloutRequest) -> RolloutRecord:
        """Begin a rollout, or have a patch taken up by the one that is under way. Raises FleetError."""
        await self._fleet.registry.observe()
        if ask.kind == RolloutKind.RESTART:
            return await self._begin_restart(ask)
        return await self._begin_patch(ask)

    async def take_up(self, found: Collection[str]) -> None:
        """The host was patched, and these are stale. Returns once that is written down. Raises FleetError.

        A rollout that is under way looks again in any case: what it stopped for may be mended.
        """
        if found or self.ledger.active is not None or any(map(self._fallen.down, self._fleet.registry)):
            await self.begin(RolloutRequest(RolloutKind.PATCH, Selection(everything=True)))

    def refuse_second(self) -> None:
        """Raise Busy if one is under way: a restart that the operator asks for waits until that has ended."""
        active = self.ledger.active
        if active is not None:
            next_step = FOLLOW if active.status == Status.RUNNING else RESUME
            record, back = record_of(active), f", which takes {active.undoes} back," if active.undoes else ""
            failed = sum(each["phase"] == "failed" for each in record["containers"])
            through = f"{record['done']} of {record['total']} are through{f', {failed} of them failed' if failed else ''}"
            raise Busy(
                "a rollout is under way",
                why=f"{active.id}{back} is {active.status} in wave {active.wave}: {through}",
                hint=f"{next_step}, or end it with `lxcfleet rollout abort`",
            )  # fmt: skip

    async def _begin_restart(self, ask: RolloutRequest) -> RolloutRecord:
        if not ask.dry_run:
            self.refuse_second()
        chosen = self._fleet.registry.choose(ask.selection)
        members = {c.name: self._sight.member(c) for c in chosen if c.running is not None}
        rollout = self._new(RolloutKind.RESTART, ask.policy, members)
        return await self._start(rollout, dry_run=ask.dry_run)

    async def _begin_patch(self, ask: RolloutRequest) -> RolloutRecord:
        said = ask.selection
        everything = not (said.patterns or said.labels)
        selection = Selection(everything=True) if everything else said
        asked = selection_to_json(selection)
        if self.ledger.active is not None and not ask.dry_run:
            return self._take_up(asked, ask)
        found, _ = await self._sight.stale(self._fleet.registry.choose(selection))
        if self.ledger.active is not None and not ask.dry_run:  # meanwhile another one began
            return self._take_up(asked, ask)
        rollout = planner.patched(self._new(RolloutKind.PATCH, ask.policy, {}), asked)
        return await self._start(planner.merge(rollout, found, rollout.patch), dry_run=ask.dry_run)

    def _take_up(self, asked: Mapping[str, object], ask: RolloutRequest) -> RolloutRecord:
        assert self.ledger.last is not None
        rollout = planner.patched(self.ledger.last, asked)
        rollout = replace(rollout, policy=policies.overridden(rollout.policy, ask.policy))
        halted = rollout.status is Status.HALTED
        self.ledger.keep(planner.supersede(rollout, self._sight.look(self.ledger.last)))
        self._sight.look_soon(self.ledger.last)
        self.ledger.say(f"takes up patch {rollout.patch}{', and goes on after its halt' if halted else ''}")
        return record_of(self.ledger.last)

    async def begin_change(
        self, wanted: Mapping[str, Spec], policy: Mapping[str, Any], *, auto_revert: bool = False,
        resting: Mapping[str, tuple[Spec, Spec]] = {}, rejected: str = "", later: bool = False,
    ) -> RolloutRecord:
        """Begin to give running containers other specs, each in its turn, in which it is restarted if that takes a restart.
        Raises FleetError.

        ``resting``: specs that the caller gives others at once, the former and the new ones: to undo the rollout takes these
        back, too. ``rejected``: why the patch was rejected that this takes back. ``later``: what takes a restart is left to
        the next one.
        """
        self.refuse_second()
        registry = self._fleet.registry
        members, specs = {}, {}
        for name, spec in wanted.items():
            former = registry[name].wanted
            if former is not None:
                members[name] = self._member(registry[name], spec, later=later)
                specs[name] = changing_values(former, spec)
        if policy.get("bake") == NOT_BAKED["bake"]:
            members = {name: replace(member, bake=0.0) for name, member in members.items()}
        rollout = replace(self._new(RolloutKind.CHANGE, policy, members), auto_revert=auto_revert, rejected=rejected)
        specs |= {name: changing_values(former, spec) for name, (former, spec) in resting.items()}
        # One that only gets what its spec has for a while, as by `set --no-restart`, has nothing that could be taken back.
        changes = ChangeSet(rollout.id, {name: each for name, each in specs.items() if each.wanted})
        self._change_sets.keep(changes)
        rollout = replace(rollout, about=changes.about)
        return await self._start(rollout, dry_run=False)

    def _member(self, container: Container, spec: Spec, *, later: bool = False) -> Member:
        """A container that gets that spec, as a member."""
        fresh = not later and bool(await_restart(container.spec, spec))
        return replace(self._sight.member(container), live=container.running is not None and not fresh)

    def gated(self, planned: Sequence[Planned], policy: Mapping[str, Any]) -> list[Planned]:
        """Those of these changes without a restart that are made in waves."""
        settings = policies.overridden(self._fleet.config.rollout, policy)
        return gating.choose(planned, settings, self._sight.own, self._sight.crew)

    def reverts(self, names: Iterable[str]) -> bool:
        """Whether the group or profile of any of these containers says that what halts is taken back."""
        return any(self._sight.own(self._fleet.registry[name].spec).auto_revert for name in names)

    async def rescue(self, wanted: Mapping[str, Spec]) -> RolloutRecord:
        """End the halted rollout, and give what failed in it other specs, in a rollout of its own. Raises FleetError."""
        halted = self.ledger.active
        if halted is not None:
            self.ledger.keep(planner.end(halted, Status.ABORTED, now()))
            self.ledger.say(f"gives up, and gives {', '.join(wanted)} the base from before the patch")
        return await self.begin_change(wanted, NOT_BAKED, rejected="" if halted is None else halted.rejected)

    def reject(self, why: str) -> None:
        """Note with the halted rollout that its patch was rejected. Raises HostError."""
        if self.ledger.active is not None:
            self.ledger.keep(replace(self.ledger.active, rejected=why))

    async def undo(self, *, by_itself: bool = False, redo: bool = False) -> RolloutRecord:
        """Put the specs back that the last rollout replaced, in a rollout of its own, which ends the former one. Raises
        FleetError. ``by_itself``: nobody asked for that.

        If the last one was such an undo itself, the rest of the first one is put back. ``redo``: what it undid is done again.
        """
        last, changed = await self._way_back(redo=redo)
        changes = self._change_sets.of(last.id)
        registry = self._fleet.registry
        if not last.status.ended:
            self.ledger.keep(planner.end(last, Status.ABORTED, now()))
        members = {}
        rollout = replace(self._new(RolloutKind.CHANGE, {}, {}), policy=replace(last.policy, bake=0.0))
        back = changes.reversed(rollout.id)
        self._change_sets.keep(back)
        rollout = replace(
            rollout, undoes=back.undoes, by_itself=by_itself, left_out=self._undoing.left_out(last),
            about=_with_cause(back.about, last),
        )  # fmt: skip
        for name in changed:
            container, before = registry[name], last.members.get(name)
            if container.running is None and (before is None or before.phase in (MemberPhase.DONE, MemberPhase.SKIPPED)):
                await self._change_sets.put(rollout.id, container)  # somebody stopped it since, and it stays so
                members[name] = planner.given(self._sight.member(container), "it does not run, and stays so")
            else:
                expected = before is None or before.expected
                spec = applied(container.wanted, back.members[name].wanted) if container.wanted is not None else None
                member = self._sight.member(container) if spec is None else self._member(container, spec)
                if before is None and member.live:  # it got that at once, and can have it back so
                    await self._change_sets.put(rollout.id, container)
                    members[name] = planner.given(member, "at once, without a restart")
                else:
                    # One that gets its restart at this moment has to have another one: its new spec may come with that.
                    begun = before is not None and before.phase is MemberPhase.RESTARTING and not before.live
                    members[name] = replace(member, expected=expected, bake=0.0, live=member.live and not begun)
        self.refuse_second()  # another one may have begun meanwhile
        left = f"; not of {names(rollout.left_out)}, see `lxcfleet rollout status`" if rollout.left_out else ""
        what = "does again what was undone" if redo else "puts the former specs back"
        self.ledger.say(f"{what}: it undoes {last.id}{_more(rollout)}{left}")
        return await self._start(replace(rollout, members=members), dry_run=False)

    async def _way_back(self, *, redo: bool) -> tuple[Rollout, list[str]]:
        """The rollout that is undone, as it is in this moment, and whom it changed. All of these can have back what they had.
        Raises FleetError.

        It goes on while that is looked at, and may change others meanwhile: these are looked at, too.
        """
        first, checked = self._undoing.find(redo=redo), set[str]()
        while True:
            last = self._undoing.find(redo=redo)
            if last.id != first.id:
                raise WrongState(
                    "nothing is undone", why=f"another rollout, {last.id}, has begun meanwhile",
                    hint="`lxcfleet rollout status` shows it; if it is the one to be undone, ask once more",
                )  # fmt: skip
            changed = self._undoing.changed(last)
            fresh = [name for name in changed if name not in checked]
            if not fresh:
                return last, changed
            await self._change_sets.check_way_back(last.id, [self._fleet.registry[name] for name in fresh])
            checked.update(fresh)

    def _new(self, kind: RolloutKind, policy: Mapping[str, Any], members: Mapping[str, Member]) -> Rollout:
        settings = policies.overridden(self._fleet.config.rollout, policy)
        pools, crews = self._sight.pools(), self._sight.crews()
        return Rollout(secrets.token_hex(6), kind, settings, now(), members, pools, crews)

    async def _start(self, rollout: Rollout, *, dry_run: bool) -> RolloutRecord:
        if dry_run:
            waves = await asyncio.to_thread(planner.preview, rollout, self._sight.look(rollout))
            return record_of(rollout, waves)
        if all(member.phase is MemberPhase.DONE for member in rollout.members.values()):
            ended = planner.end(rollout, Status.DONE, now())
            # `rollout status` is to tell of these, and who follows the halt is, too
            if ended.members or ended.left_out or ended.by_itself:
                self.ledger.keep(ended)
            return record_of(ended)
        self.ledger.keep(rollout)
        stale = "stale " if rollout.kind is RolloutKind.PATCH else ""
        self.ledger.say(f"begins: {counted(len(rollout.members), f'{stale}container')}{_more(rollout)}")
        return record_of(rollout)

    def pause(self) -> RolloutRecord:
        """Begin no further wave. Raises WrongState."""
        return self._change(planner.pause, "paused")

    def resume(self, *, accept: bool) -> RolloutRecord:
        """Go on. ``accept``: leave what failed as it is. Raises WrongState."""
        return self._change(partial(planner.resume, seen=self._sight.look(self.ledger.last), accept=accept), "goes on")

    def abort(self) -> RolloutRecord:
        """End it as it is: what is being restarted comes up, the rest stays as it is. Raises WrongState."""
        return self._change(lambda rollout: planner.end(rollout, Status.ABORTED, now()), "aborted")

    def _change(self, change: Callable[[Rollout], Rollout], word: str) -> RolloutRecord:
        before = self.ledger.active
        if before is None:
            raise WrongState("no rollout is under way", hint="`lxcfleet rollout status` shows the last one")
        self.ledger.unblock()
        after = change(before)
        self.ledger.keep(after)
        if before.status is Status.HALTED:
            self._sight.look_soon(after)
        if after.status is not before.status:
            self.ledger.say(word)
        return record_of(after)

    def has_in_hand(self, name: str) -> bool:
        """Whether a rollout that goes on has restarted a container, and waits for it to be healthy."""
        rollout = self.ledger.active
        member = rollout.members.get(name) if rollout is not None and rollout.status is not Status.HALTED else None
        return member is not None and member.phase in (MemberPhase.RESTARTING, MemberPhase.GATED)

    def wake(self) -> None:
        """A container began to run, has ended, or has another health: what is to be done may be something else now."""
        self.ledger.wake.set()

    def note_kill(self, name: str) -> None:
        """The stop of a container became a kill."""
        member = self.ledger.active.members.get(name) if self.ledger.active is not None else None
        if self.ledger.active is not None and member is not None and member.phase is MemberPhase.RESTARTING:
            self._note(self.ledger.active.update(replace(member, killed=True)))

    def note_wish(self, container: Container, action: Action) -> None:
        """Somebody acted on a container: one that was stopped is not started by any rollout."""
        if action not in (Action.START, Action.STOP, Action.RESTART):
            return
        try:
            self._fallen.mark(container, now() if action is Action.STOP else "")
        except OSError as error:
            log.error("%s: a later patch may not know of this %s, as it can't be noted: %s", container.name, action, error)
        if action is Action.STOP and self.ledger.active is not None:
            self._note(planner.leave_stopped(self.ledger.active, container.name))
        elif self.ledger.active is not None:
            self._note(live.restarted(self.ledger.active, container.name))

    def _note(self, rollout: Rollout) -> None:
        """Keep what was heard, if it can be written down. The rollout goes on by what it sees in any case."""
        try:
            self.ledger.keep(rollout)
        except HostError as error:
            log.error("%s", error)


def _more(rollout: Rollout) -> str:
    return f": {rollout.about}" if rollout.about else ""


def _with_cause(about: str, halted: Rollout) -> str:
    """The changes of an undo, with the reason if the rollout that it undoes had halted."""
    halt = halted.halted
    if not about or halt is None:
        return about
    return f"{about}, as {halt.container}: {halt.why}" if halt.container else f"{about}, as {halt.why}"
