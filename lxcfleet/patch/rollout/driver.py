"""Carries rollouts out: looks at the containers, has the planner decide, writes that down, and does it.

Every change of the rollout is on disk before anything follows from it; see ledger. So a daemon that is killed at any
instant leaves either a wave that has not begun, or members that are being restarted. The identities of their runs tell
the next daemon which of them were restarted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, repeat
from typing import Any

from lxcfleet.api.findings import EvidenceRecord
from lxcfleet.api.requests import read_selection
from lxcfleet.containers import exits
from lxcfleet.containers.container import Container
from lxcfleet.containers.ends import endings
from lxcfleet.containers.ends.endings import Endings
from lxcfleet.containers.order.ordering import BLOCKED
from lxcfleet.errors import Busy, FleetError, WrongState
from lxcfleet.host.process import proc
from lxcfleet.patch.rollout import baking, causes, halting, live, packages, planner
from lxcfleet.patch.rollout.baking import CanaryFinding
from lxcfleet.patch.rollout.change_sets import ChangeSets
from lxcfleet.patch.rollout.ledger import Ledger
from lxcfleet.patch.rollout.planner import LOOK_SECONDS, FindStale, Finish, Prove, RestartWave, Stop, Try, Wait
from lxcfleet.patch.rollout.sight import Fleet, Sight
from lxcfleet.patch.rollout.state import Halt, Member, MemberPhase, Rollout, RolloutKind, Status
from lxcfleet.paths import Paths
from lxcfleet.runtime.operations import Job, now
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.results import Result
from lxcfleet.spec.selection import Selection
from lxcfleet.spec.states import Action

log = logging.getLogger(__name__)

InPieces = Callable[[], str]
"""Tells what the package manager is in the middle of, so that nothing should be restarted; empty: nothing."""

RETRY_SECONDS = 1.0
"""After this long something that failed in the daemon itself is tried again."""
HOST_SECONDS = 1.0
"""For so long the host is taken to be in one piece; and after that long it is looked again whether it is."""


@dataclass(frozen=True)
class Outcomes:
    """The functions that take over when a rollout has halted, or is done."""

    undo: Callable[[], Awaitable[object]]
    """Begins the rollout that takes the last one's changes of specs back. Raises FleetError."""
    rescue: Callable[[Rollout], Awaitable[None]]
    """Gets each rollout that has halted."""
    went_well: Callable[[Rollout], None]
    """Gets each rollout that is done."""
    verify: Callable[[Selection], Awaitable[Sequence[EvidenceRecord]]]
    """Tells whether the chosen containers have what the host has."""


class Driver:
    """Does what follows from the rollout as it stands."""

    def __init__(
        self,
        paths: Paths,
        fleet: Fleet,
        ledger: Ledger,
        sight: Sight,
        in_pieces: InPieces,
        ends: Endings,
        change_sets: ChangeSets,
        outcomes: Outcomes,
    ) -> None:
        self._paths, self._fleet, self._ledger, self._sight = paths, fleet, ledger, sight
        self._change_sets, self._undo = change_sets, outcomes.undo
        self._rescue, self._went_well, self._verify = outcomes.rescue, outcomes.went_well, outcomes.verify
        self._in_pieces = in_pieces
        self._endings = ends
        self._one_piece: float | None = None
        """When the host was last seen in one piece, in seconds since it booted."""

    async def run(self) -> None:
        """Drive whatever rollout there is, for ever."""
        for step in chain([self._take_over], repeat(self._step)):
            try:
                await step()
            except FleetError as error:
                why = str(error).replace("\n", "; ")
                log.error("the rollout can't go on: %s", why)
                self._ledger.wait_for(f"an error to pass: {why}")
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:
                log.exception("the rollout can't go on")
                await asyncio.sleep(RETRY_SECONDS)

    async def _take_over(self) -> None:
        """A daemon that was killed just after a halt may not have come to what follows from it."""
        if self._ledger.active is not None and self._ledger.active.status is Status.HALTED:
            await self._go_back()

    async def _step(self) -> None:
        self._ledger.wake.clear()
        rollout = self._ledger.active
        if rollout is None or rollout.status is Status.HALTED:
            await self._ledger.wake.wait()
            return
        seen = self._sight.look(rollout)
        rollout = planner.settle(rollout, seen)
        decision = planner.decide(rollout, seen, self._ledger.blocked_for())
        self._ledger.keep(rollout)
        self._ledger.note_blocked(rollout, decision)
        match decision:
            case Wait(seconds, why):
                await self._wait(seconds, why)
            case Try(names):
                self._sight.try_out(names)
                await self._wait(LOOK_SECONDS, f"{names[0]}: its tests, before it is restarted")
            case FindStale():
                await self._scan(rollout)
            case Prove(names):
                await self._prove(names)
            case RestartWave() if rollout.patch and not self._host_is_well():
                await self._wait_for_host()
            case RestartWave(names):
                await self._restart(rollout, names)
            case Stop(container, why):
                await self._halt(container, why)
            case Finish():
                await self._finish(rollout)

    async def _finish(self, rollout: Rollout) -> None:
        """End it. All are well that got their specs in their turns, so those that were stopped before get theirs, too."""
        done = rollout
        if rollout.kind is RolloutKind.CHANGE:
            skipped = [m for m in rollout.by_phase(MemberPhase.SKIPPED) if m.wave is None and m.name in self._fleet.registry]
            for member in skipped:
                done = await self._give_late(done, member)
            if self._ledger.active != rollout:
                return  # what is to be done is decided anew
        self._ledger.keep(planner.end(done, Status.DONE, now()))
        self._ledger.say(_summary(done))
        self._went_well(done)

    async def _give_late(self, rollout: Rollout, member: Member) -> Rollout:
        """Give its spec to one whose turn did not come, as it was stopped; what can't have it is left out."""
        container = self._fleet.registry[member.name]
        error: FleetError | None = None
        try:
            if container.running is None:
                await self._change_sets.put(rollout.id, container)
        except FleetError as failure:
            error = failure
        if self._change_sets.has(rollout.id, container):
            runs = container.running is not None  # then somebody else gave it that
            return rollout if runs else rollout.update(planner.given(member, "it does not run, and stays so"))
        message, hint = f"{member.name} keeps its former spec", "give it the new one by the same command"
        if rollout.undoes:
            message, hint = f"{member.name} does not get its former spec back", "lxcfleet rollout undo"
        error = error or WrongState(message, why=member.note, hint=f"once it can be restarted: {hint}")
        return replace(rollout, left_out={**rollout.left_out, member.name: error.body()})

    async def _wait(self, seconds: float | None, why: str) -> None:
        self._ledger.wait_for(why)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ledger.wake.wait(), seconds)

    def _host_is_well(self) -> bool:
        return self._one_piece is not None and proc.uptime() - self._one_piece < HOST_SECONDS

    async def _wait_for_host(self) -> None:
        """See whether dpkg is at work again, or has left something half-way: no container should start on that.

        What is to be done is decided anew afterwards, as it takes a while.
        """
        why = await asyncio.to_thread(self._in_pieces)
        self._one_piece = None if why else proc.uptime()
        if why:
            self._ledger.wait_for(why)
            await asyncio.sleep(HOST_SECONDS)

    async def _scan(self, rollout: Rollout) -> None:
        chosen: dict[str, Container] = {}
        for each in rollout.selections:
            with contextlib.suppress(FleetError):  # a name that does not exist any more
                selection = read_selection(Fields(each, "selection"))
                chosen |= {container.name: container for container in self._fleet.registry.choose(selection)}
        try:
            found, unsure = await self._sight.stale(list(chosen.values()))
        except FleetError as error:
            await self._halt(None, f"what is stale can't be told: {error.message}: {error.why}")
            return
        if self._ledger.active is not None:
            # What can't be read now, but was stale before, is stale as far as anybody knows.
            waiting = self._ledger.active.by_phase(MemberPhase.WAITING)
            kept = {member.name: member for member in waiting if member.name in unsure}
            self._ledger.keep(planner.merge(self._ledger.active, {**kept, **found}, rollout.patch))

    async def _prove(self, names: Sequence[str]) -> None:
        """Look whether canaries run the new code. One on a generation has another base than the host, on purpose. What was
        changed without a restart has what it had."""
        registry, last = self._fleet.registry, self._ledger.last
        same = {each.name for each in last.members.values() if each.changed_at is not None} if last is not None else set()
        specs = {name: registry[name].spec for name in names if name in registry and name not in same}
        on_host = [name for name, spec in specs.items() if spec is None or not spec.generation]
        found = await self._verify(Selection(tuple(on_host))) if on_host else ()
        proofs = {**{name: CanaryFinding() for name in names}, **{each["name"]: baking.proof_of(each) for each in found}}
        if self._ledger.active is not None:
            self._ledger.keep(planner.note_proofs(self._ledger.active, proofs))

    async def _restart(self, rollout: Rollout, names: Sequence[str]) -> None:
        """One wave: all stop at once, and start as soon as they have."""
        restarted = [name for name in names if not rollout.members[name].live]
        bases = await asyncio.to_thread(packages.remember, self._paths, restarted, fresh=not rollout.wave)
        if self._ledger.active != rollout:
            return  # it was paused, aborted or changed meanwhile: what is to be done is decided anew
        self._ledger.keep(planner.begin_wave(rollout, names, bases))
        self._ledger.waits_for = ""
        self._ledger.say(f"wave {rollout.wave + 1}: {', '.join(names)}")
        if rollout.kind is RolloutKind.CHANGE:
            turn = [self._fleet.registry[name] for name in names if self._is_its_turn(rollout.members[name])]
            await self._change_sets.put_together(rollout.id, turn)
        jobs = [Job(name, partial(self._restart_one, rollout, rollout.members[name])) for name in names]
        results = await self._fleet.actions.run_jobs("rollout", jobs)
        if self._ledger.last is None or self._ledger.last.id != rollout.id:
            return
        failures = {r.name: _words(r.error) for r in results if r.error is not None}
        self._sight.leave_alone(self._ledger.last, failures)
        untouched = [r.name for r in results if r.error is None and not r.changed]
        after = planner.not_begun(planner.note_failures(self._ledger.last, failures), untouched)
        changed, seen = [r.name for r in results if r.changed], self._sight.look(self._ledger.last)
        after = live.note_changed(planner.note_starts(after, changed), changed, seen)
        self._ledger.keep(planner.settle(after, seen))

    def _is_its_turn(self, member: Member) -> bool:
        """Whether a member of the wave is as the rollout found it: in the same run, or down still."""
        if member.name not in self._fleet.registry:
            return False
        running = self._fleet.registry[member.name].running
        return member.fallen if running is None else running.identity == member.identity

    async def _restart_one(self, rollout: Rollout, member: Member) -> Result:
        if not self._is_its_turn(member):
            return Result(member.name, "unchanged", False)
        container = self._fleet.registry[member.name]
        fallen = member.fallen and container.running is None
        if rollout.kind is RolloutKind.CHANGE:
            try:
                await self._change_sets.put(rollout.id, container)
            except Busy:  # it is being started, say: its turn comes once that is over
                return Result(member.name, "unchanged", False)
        if fallen:
            done = await self._fleet.actions.act(container, Action.START, self._fleet.config.stop_timeout)
            # One that has to wait was not started: it is a member that waits still, and starts by itself or in its turn.
            return Result(member.name, done.status, False) if done.status == BLOCKED else done
        if member.live:
            self._sight.look_anew(container, rollout.times(member)[0])
            return Result(member.name, "changed", True)
        return await self._fleet.actions.act(container, Action.RESTART, None)

    async def _halt(self, container: str | None, why: str) -> None:
        text, changed = "", None
        member = self._ledger.last.members.get(container or "") if self._ledger.last is not None else None
        if container is not None:
            lines = await asyncio.to_thread(exits.last_lines, self._paths.container(container).console_log)
            text = "\n".join(lines)
        if member is not None and member.base:
            changed = await asyncio.to_thread(packages.changed, self._paths, member.base)
        if self._ledger.active is not None:
            halt = self._with_ending(Halt(container, why, text, changed))
            with self._ledger.reverting() if self._ledger.active.auto_revert else contextlib.nullcontext():
                await self._note_halt(planner.halt(self._ledger.active, halt), halt)

    async def _note_halt(self, rollout: Rollout, halt: Halt) -> None:
        """Have it on disk that it has halted, tell of it, and do what follows."""
        self._ledger.keep(rollout)
        where = f" at {halt.container}" if halt.container else ""
        about = f" ({rollout.about})" if rollout.about else ""
        self._ledger.say(f"halted{where}{about}: {halt.why}{causes.in_words(halt)}")
        command = self._fleet.config.rollout.on_halt
        if command:
            await halting.run(command, causes.environment(rollout, halt), self._ledger.say)
        await self._go_back()

    async def _go_back(self) -> None:
        """Have taken back what has halted, where that is asked for."""
        halted = self._ledger.active
        if halted is not None and halted.auto_revert:
            try:
                await self._undo()
            except FleetError as error:
                why = "; ".join(filter(None, (error.message, error.why)))
                self._ledger.say(f"is not taken back: {why}")
                if self._ledger.active == halted:
                    self._ledger.keep(replace(halted, not_reverted=why))
        elif halted is not None:
            await self._rescue(halted)

    def _with_ending(self, halt: Halt) -> Halt:
        """The halt with the end of its container."""
        if halt.container is None or halt.container not in self._fleet.registry:
            return halt
        container = self._fleet.registry[halt.container]
        ending = self._endings.of(container)
        status = None if ending is None else ending.exit_status
        return replace(halt, exit_status=status, ended=endings.words(container, ending))


def _summary(rollout: Rollout) -> str:
    members = rollout.members.values()
    counts = {
        "restarted": sum(member.wave is not None and not member.live for member in members),
        "changed without a restart": sum(member.wave is not None and member.live for member in members),
        "failed": len(rollout.by_phase(MemberPhase.FAILED)),
        "stale still": sum(member.stale for member in members),
    }
    return "done: " + (", ".join(f"{count} {word}" for word, count in counts.items() if count) or "nothing to do")


def _words(error: Any) -> str:
    return ": ".join(part for part in (error["message"], error["why"]) if part)
