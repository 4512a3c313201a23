"""Carries rollouts out: looks at the containers, has the planner decide, writes that down, and does it.

There is one rollout at a time, in one file. Every change of it is on disk before anything follows from it, so a daemon
that is killed at any instant leaves either a wave that has not begun, or members that are being restarted; which of
those were, and which were not, the identities of their runs tell the next daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from lxcfleet.api.records import RolloutRecord
from lxcfleet.api.requests import RolloutRequest, read_selection, selection_to_json
from lxcfleet.containers import store
from lxcfleet.containers.actions import Actions
from lxcfleet.containers.container import Container
from lxcfleet.containers.desired import Intent
from lxcfleet.containers.registry import Registry
from lxcfleet.errors import Busy, FleetError, HostError, WrongState
from lxcfleet.health.prober import Prober
from lxcfleet.host.kernel import tree
from lxcfleet.host.process import proc
from lxcfleet.patch.before import Before
from lxcfleet.patch.events import RolloutMoved
from lxcfleet.patch.fallen import Fallen
from lxcfleet.patch.rollout import causes, halting, packages, planner, state
from lxcfleet.patch.rollout.planner import FindStale, Finish, Restart, Stop, Wait
from lxcfleet.patch.rollout.records import record_of
from lxcfleet.patch.rollout.state import Halt, LiveState, Member, MemberPhase, Rollout, RolloutKind, Status
from lxcfleet.patch.stale import judge
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.runtime.operations import Job, Operations, now
from lxcfleet.spec import rollout as policies
from lxcfleet.spec.reader import Fields
from lxcfleet.spec.results import Result
from lxcfleet.spec.selection import Selection
from lxcfleet.spec.settings import Config
from lxcfleet.spec.states import Action, Health

log = logging.getLogger(__name__)

Find = Callable[[Sequence[Container]], Awaitable[Mapping[str, judge.StaleScan]]]
"""Tells what each of these containers runs that is old, by name. Raises FleetError."""

InPieces = Callable[[], str]
"""Tells what the package manager is in the middle of, so that nothing should be restarted; empty: nothing."""

PAUSE_SECONDS = 10.0
"""What could not be restarted is tried again after so long, and after twice as long the next time."""
RETRY_SECONDS = 1.0
"""After this long something that failed in the daemon itself is tried again."""
HOST_SECONDS = 1.0
"""For so long the host is taken to be in one piece; and after that long it is looked again whether it is."""
FOLLOW_SECONDS = 0.1
"""Changes of so long are told together."""

_FOLLOW, _RESUME = "wait for it (`lxcfleet rollout status --follow`)", "go on with it (`lxcfleet rollout resume`)"


class Fleet(Protocol):
    """What rollouts use of the fleet; daemon.service has it."""

    config: Config
    registry: Registry
    actions: Actions
    operations: Operations
    bus: Bus
    prober: Prober


class Driver:
    """The rollout that is under way, or was last."""

    def __init__(
        self, paths: Paths, fleet: Fleet, find: Find, in_pieces: InPieces, fallen: Fallen, before: Before
    ) -> None:
        self._paths = paths
        self._fallen, self._before = fallen, before
        self._fleet = fleet
        self._find = find
        self._in_pieces = in_pieces
        self._one_piece: float | None = None
        """When the host was last seen in one piece, in seconds since it booted."""
        self._rollout = self._load()
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()
        self._blocked_since: float | None = None
        self._waits_for = ""
        self._pauses: dict[str, float] = {}
        """By container, until when it is not tried again, in seconds since the host booted."""

    # -- what is asked ---------------------------------------------------------------------------------------

    @property
    def last(self) -> Rollout | None:
        """The rollout that is under way, or was last."""
        return self._rollout

    @property
    def active(self) -> Rollout | None:
        """The rollout that has not ended."""
        rollout = self._rollout
        return None if rollout is None or rollout.status.ended else rollout

    def record(self) -> RolloutRecord | None:
        """The rollout as the API shows it; None if there never was one."""
        return None if self._rollout is None else record_of(self._rollout, waits_for=self._waits_for)

    async def follow(self) -> AsyncIterator[RolloutRecord]:
        """The rollout now and at each change, until it has ended or is halted."""
        while True:
            changed = self._changed
            rollout = self._rollout
            if rollout is None:
                return
            yield record_of(rollout, waits_for=self._waits_for)
            if rollout.status.ended or rollout.status is Status.HALTED:
                return
            await changed.wait()
            await asyncio.sleep(FOLLOW_SECONDS)

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
        if found or self.active is not None or any(map(self._fallen.of, self._fleet.registry)):
            await self.begin(RolloutRequest(RolloutKind.PATCH, Selection(everything=True)))

    def refuse_second(self) -> None:
        """Raise Busy if one is under way: a restart that the operator asks for waits until that has ended."""
        if self.active is not None:
            next_step = _FOLLOW if self.active.status == Status.RUNNING else _RESUME
            raise Busy(
                "a rollout is under way", why=f"it is {self.active.status} in wave {self.active.wave}",
                hint=f"{next_step}, or end it with `lxcfleet rollout abort`",
            )  # fmt: skip

    async def _begin_restart(self, ask: RolloutRequest) -> RolloutRecord:
        if not ask.dry_run:
            self.refuse_second()
        chosen = self._fleet.registry.choose(ask.selection)
        rollout = self._new(RolloutKind.RESTART, ask, {c.name: self._member(c) for c in chosen if c.running is not None})
        return await self._start(rollout, dry_run=ask.dry_run)

    async def _begin_patch(self, ask: RolloutRequest) -> RolloutRecord:
        said = ask.selection
        everything = not (said.patterns or said.labels)
        selection = Selection(everything=True) if everything else said
        asked = selection_to_json(selection)
        if self.active is not None and not ask.dry_run:
            return self._take_up(asked, ask)
        found, _ = await self._stale(self._fleet.registry.choose(selection))
        if self.active is not None and not ask.dry_run:  # meanwhile another one began
            return self._take_up(asked, ask)
        rollout = planner.patched(self._new(RolloutKind.PATCH, ask, {}), asked)
        return await self._start(planner.merge(rollout, found, rollout.patch), dry_run=ask.dry_run)

    def _take_up(self, asked: Mapping[str, object], ask: RolloutRequest) -> RolloutRecord:
        assert self._rollout is not None
        rollout = planner.patched(self._rollout, asked)
        rollout = replace(rollout, policy=policies.overridden(rollout.policy, ask.policy))
        halted = rollout.status is Status.HALTED
        self._keep(planner.supersede(rollout, self._look()))
        self._say(f"takes up patch {rollout.patch}{', and goes on after its halt' if halted else ''}")
        return record_of(self._rollout)

    def _new(self, kind: RolloutKind, ask: RolloutRequest, members: Mapping[str, Member]) -> Rollout:
        profiles = self._fleet.config.profiles
        pools = {
            name: profile.rollout.max_unavailable
            for name, profile in profiles.items()
            if profile.rollout.max_unavailable is not None
        }
        settings = policies.overridden(self._fleet.config.rollout, ask.policy)
        return Rollout(secrets.token_hex(6), kind, settings, now(), members, pools)

    async def _start(self, rollout: Rollout, *, dry_run: bool) -> RolloutRecord:
        if dry_run:
            waves = await asyncio.to_thread(planner.preview, rollout, self._look(rollout))
            return record_of(rollout, waves)
        if not rollout.members:
            return record_of(planner.end(rollout, Status.DONE, now()))
        self._keep(rollout)
        self._say(f"begins: {len(rollout.members)} {'stale ' if rollout.kind is RolloutKind.PATCH else ''}containers")
        return record_of(rollout)

    def pause(self) -> RolloutRecord:
        """Begin no further wave. Raises WrongState."""
        return self._change(planner.pause, "paused")

    def resume(self, *, accept: bool) -> RolloutRecord:
        """Go on. ``accept``: leave what failed as it is. Raises WrongState."""
        return self._change(partial(planner.resume, seen=self._look(), accept=accept), "goes on")

    def abort(self) -> RolloutRecord:
        """End it as it is: what is being restarted comes up, the rest stays as it is. Raises WrongState."""
        return self._change(lambda rollout: planner.end(rollout, Status.ABORTED, now()), "aborted")

    def _change(self, change: Callable[[Rollout], Rollout], word: str) -> RolloutRecord:
        before = self.active
        if before is None:
            raise WrongState("no rollout is under way", hint="`lxcfleet rollout status` shows the last one")
        self._blocked_since = None
        after = change(before)
        self._keep(after)
        if after.status is not before.status:
            self._say(word)
        return record_of(after)

    def wake(self) -> None:
        """A container began to run, has ended, or has another health: what is to be done may be something else now."""
        self._wake.set()

    # -- what is done ----------------------------------------------------------------------------------------

    def note_kill(self, name: str) -> None:
        """The stop of a container became a kill. Raises HostError."""
        member = self.active.members.get(name) if self.active is not None else None
        if self.active is not None and member is not None and member.phase is MemberPhase.RESTARTING:
            self._keep(self.active.update(replace(member, killed=True)))

    async def run(self) -> None:
        """Drive whatever rollout there is, for ever."""
        while True:
            try:
                await self._step()
            except FleetError as error:
                log.error("the rollout can't go on: %s", str(error).replace("\n", "; "))
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:
                log.exception("the rollout can't go on")
                await asyncio.sleep(RETRY_SECONDS)

    async def _step(self) -> None:
        self._wake.clear()
        rollout = self.active
        if rollout is None or rollout.status is Status.HALTED:
            await self._wake.wait()
            return
        seen = self._look(rollout)
        rollout = planner.settle(rollout, seen)
        decision = planner.decide(rollout, seen, self._blocked_for())
        self._keep(rollout)
        self._note_blocked(rollout, decision)
        match decision:
            case Wait(seconds, why):
                self._wait_for(why)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), seconds)
            case FindStale():
                await self._scan(rollout)
            case Restart() if rollout.patch and not self._host_is_well():
                await self._wait_for_host()
            case Restart(names):
                await self._restart(rollout, names)
            case Stop(container, why):
                await self._halt(container, why)
            case Finish():
                self._keep(planner.end(rollout, Status.DONE, now()))
                self._say(_summary(rollout))

    def _host_is_well(self) -> bool:
        return self._one_piece is not None and proc.uptime() - self._one_piece < HOST_SECONDS

    async def _wait_for_host(self) -> None:
        """See whether dpkg is at work again, or has left something half-way: no container should start on that.

        What is to be done is decided anew afterwards, as it takes a while.
        """
        why = await asyncio.to_thread(self._in_pieces)
        self._one_piece = None if why else proc.uptime()
        if why:
            self._wait_for(why)
            await asyncio.sleep(HOST_SECONDS)

    def _wait_for(self, why: str) -> None:
        if why != self._waits_for:
            self._waits_for = why
            self._tell()

    def _blocked_for(self) -> float:
        return 0.0 if self._blocked_since is None else proc.uptime() - self._blocked_since

    def _note_blocked(self, rollout: Rollout, decision: planner.Decision) -> None:
        """Since when nothing could be begun, although nothing is under way."""
        flying = rollout.by_phase(MemberPhase.RESTARTING, MemberPhase.GATED)
        blocked = isinstance(decision, Wait) and decision.seconds is not None and not flying
        if not blocked:
            self._blocked_since = None
        elif self._blocked_since is None:
            self._blocked_since = proc.uptime()

    async def _scan(self, rollout: Rollout) -> None:
        chosen: dict[str, Container] = {}
        for each in rollout.selections:
            with contextlib.suppress(FleetError):  # a name that does not exist any more
                selection = read_selection(Fields(each, "selection"))
                chosen |= {container.name: container for container in self._fleet.registry.choose(selection)}
        try:
            found, unsure = await self._stale(list(chosen.values()))
        except FleetError as error:
            await self._halt(None, f"what is stale can't be told: {error.message}: {error.why}")
            return
        if self.active is not None:
            # What can't be read now, but was stale before, is stale as far as anybody knows.
            kept = {member.name: member for member in self.active.by_phase(MemberPhase.WAITING) if member.name in unsure}
            self._keep(planner.merge(self.active, {**kept, **found}, rollout.patch))

    async def _stale(self, containers: Sequence[Container]) -> tuple[dict[str, Member], set[str]]:
        """Members for the stale ones of these containers and for those that a patch took down; and those of which nobody
        can say whether they are stale."""
        # One that is restarted while we look has another identity then, and a mount that is newer than the patch.
        before = {c.name: self._member(c) for c in containers if c.running is not None}
        fallen = {c.name: self._member(c) for c in containers if c.busy is None and self._fallen.of(c) is not None}
        found = await self._find([c for c in containers if c.running is not None])
        stale_ones = {name: before[name] for name in before if found[name].stale}
        return {**stale_ones, **fallen}, {name for name in before if not (found[name].stale or found[name].clean)}

    def _member(self, container: Container) -> Member:
        spec = container.spec
        profile = self._fleet.config.profiles.get((spec.profile if spec else None) or "")
        own = profile.rollout if profile else policies.ProfileRollout()
        boot_order = spec.boot_order if spec else 0
        return Member(
            name=container.name,
            identity="" if container.running is None else container.running.identity,
            priority=boot_order if own.priority is None else own.priority,
            pool=spec.profile if spec and own.max_unavailable is not None else None,
            min_healthy_time=own.min_healthy_time,
            healthy_deadline=own.healthy_deadline,
            expected=self._fleet.prober.of(container) is not Health.UNHEALTHY or self._before.was_well(container),
            fallen=container.running is None,
        )

    async def _restart(self, rollout: Rollout, names: Sequence[str]) -> None:
        """One wave: all stop at once, and start as soon as they have."""
        bases = await asyncio.to_thread(packages.remember, self._paths, names, fresh=not rollout.wave)
        self._keep(planner.begin_wave(rollout, names, bases))
        self._waits_for = ""
        self._say(f"wave {rollout.wave + 1}: {', '.join(names)}")
        jobs = [Job(name, partial(self._restart_one, rollout.members[name])) for name in names]
        results = await self._fleet.actions.run_jobs("rollout", jobs)
        if self._rollout is None or self._rollout.id != rollout.id:
            return
        failures = {r.name: _words(r.error) for r in results if r.error is not None}
        self._pause(failures)
        untouched = [r.name for r in results if r.error is None and not r.changed]
        after = planner.not_begun(planner.note_failures(self._rollout, failures), untouched)
        after = planner.note_starts(after, [r.name for r in results if r.changed])
        self._keep(planner.settle(after, self._look()))

    def _pause(self, failures: Iterable[str]) -> None:
        """What could not be restarted is left alone for a while: the disk is full, say, and somebody is mending that."""
        for name in failures:
            member = self._rollout.members[name] if self._rollout is not None else None
            if member is not None and member.attempts + 1 < planner.ATTEMPTS:
                pause = min(PAUSE_SECONDS * (member.attempts + 1), self._fleet.config.rollout.healthy_deadline / 4)
                self._pauses[name] = proc.uptime() + pause

    async def _restart_one(self, member: Member) -> Result:
        registry = self._fleet.registry
        if member.name not in registry:
            return Result(member.name, "unchanged", False)
        container = registry[member.name]
        if member.fallen and container.running is None:
            return await self._fleet.actions.act(container, Action.START, self._fleet.config.stop_timeout)
        if container.running is None or container.running.identity != member.identity:
            return Result(member.name, "unchanged", False)
        return await self._fleet.actions.act(container, Action.RESTART, None)

    async def _halt(self, container: str | None, why: str) -> None:
        text, changed = "", None
        member = self._rollout.members.get(container or "") if self._rollout is not None else None
        if container is not None:
            text = await asyncio.to_thread(halting.log_end, str(self._paths.container(container).console_log))
        if member is not None and member.base:
            changed = await asyncio.to_thread(packages.changed, self._paths, member.base)
        if self.active is not None:
            halt = Halt(container, why, text, changed)
            self._keep(planner.halt(self.active, halt))
            self._say(f"halted{f' at {container}' if container else ''}: {why}{causes.in_words(halt)}")
            command = self._fleet.config.rollout.on_halt
            if command:
                facts = causes.environment(self.active, halt)
                await halting.run(command, facts, self._say)

    def _look(self, rollout: Rollout | None = None) -> dict[str, LiveState]:
        """How all containers are."""
        rollout = rollout or self._rollout
        waiting = {member.name for member in rollout.by_phase(MemberPhase.WAITING)} if rollout else set()
        return {container.name: self._see(container, container.name in waiting) for container in self._fleet.registry}

    def _see(self, container: Container, waits: bool) -> LiveState:
        running, prober = container.running, self._fleet.prober
        busy = container.busy or self._owed(container) or self._pausing(container)
        if running is None:
            return LiveState(None, container.labels, busy=busy)
        health = prober.of(container)
        return LiveState(
            identity=running.identity,
            labels=container.labels,
            healthy=health is Health.HEALTHY,
            unhealthy=health is Health.UNHEALTHY,
            healthy_for=prober.healthy_seconds(container),
            running_for=running.age,
            frozen=waits and running.payload.frozen,
            busy=container.busy or self._pausing(container),
            problem=container.problem.message if container.problem else "",
            reason=prober.reason(container) or ("" if health is Health.HEALTHY else str(health)),
        )

    def _pausing(self, container: Container) -> str | None:
        return "it is tried again in a moment" if self._pauses.get(container.name, 0.0) > proc.uptime() else None

    def _owed(self, container: Container) -> str | None:
        """Whether it will be started in a moment: after a kill of the daemon, or a reboot from inside."""
        if not self._fleet.operations.any("resume"):
            return None
        return "start" if store.noted(self._paths, container.name) is Intent.RUN else None

    # -- what is remembered ----------------------------------------------------------------------------------

    def _keep(self, rollout: Rollout) -> None:
        """Have it on disk, and then in mind. Raises HostError."""
        if rollout == self._rollout:
            return
        try:
            self._note_fallen(rollout)
            tree.write(self._paths.rollout, state.to_json(rollout))
        except OSError as error:
            raise HostError.from_os_error("the rollout can't be written down, and so not gone on with", error) from error
        self._rollout = rollout
        self._wake.set()
        self._tell()

    def _note_fallen(self, rollout: Rollout) -> None:
        """Note beside the containers what a patch took down, and forget what came up again. Raises OSError."""
        before = self._rollout.members if self._rollout is not None else {}
        for member in rollout.members.values():
            known = before.get(member.name)
            if known is not None and known.phase is member.phase:
                continue
            if member.phase is MemberPhase.DONE and member.expected:
                self._fallen.forget(member.name)
            elif member.phase is MemberPhase.FAILED and rollout.patch and member.name in self._fleet.registry:
                container = self._fleet.registry[member.name]
                if container.running is None:
                    self._fallen.note(container, member.note, now())

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _say(self, text: str) -> None:
        self._fleet.bus.publish(RolloutMoved(text))

    def _load(self) -> Rollout | None:
        try:
            return state.from_json(self._paths.rollout.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.error("%s can't be read: %s. A rollout that was under way is not gone on with", self._paths.rollout, error)
            return None


def _summary(rollout: Rollout) -> str:
    members = rollout.members.values()
    counts = {
        "restarted": sum(member.wave is not None for member in members),
        "failed": len(rollout.by_phase(MemberPhase.FAILED)),
        "stale still": sum(member.stale for member in members),
    }
    return "done: " + (", ".join(f"{count} {word}" for word, count in counts.items() if count) or "nothing to restart")


def _words(error: Any) -> str:
    return ": ".join(part for part in (error["message"], error["why"]) if part)
