"""How containers are, as the planner of rollouts sees them."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from lxcfleet.containers.container import Container
from lxcfleet.containers.desired import Intent
from lxcfleet.containers.order.dependencies import Dependencies
from lxcfleet.containers.reconciling.prerequisites import Prerequisites
from lxcfleet.containers.registry import Registry
from lxcfleet.containers.requests.actions import Actions
from lxcfleet.health.prober import Prober
from lxcfleet.host.process import proc
from lxcfleet.patch.before import Before
from lxcfleet.patch.fallen import Fallen
from lxcfleet.patch.rollout import baking, planner
from lxcfleet.patch.rollout.change_sets import ChangeSets
from lxcfleet.patch.rollout.state import LiveState, Member, MemberPhase, Rollout, RolloutKind
from lxcfleet.patch.rollout.testing import Trials
from lxcfleet.patch.stale import judge
from lxcfleet.runtime.bus import Bus
from lxcfleet.runtime.operations import Operations
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files.settings import Config
from lxcfleet.spec.policies import rollout as policies
from lxcfleet.spec.policies.rollout_tests import RolloutTest
from lxcfleet.spec.states import Health, State

Find = Callable[[Sequence[Container]], Awaitable[Mapping[str, judge.StaleScan]]]
"""Tells what each of these containers runs that is old, by name. Raises FleetError."""

PAUSE_SECONDS = 10.0
"""A container that could not be restarted is tried again after so long, and after twice as long the next time."""


class Fleet(Protocol):
    """The parts of the fleet that rollouts use; daemon.uses.service has them."""

    config: Config
    registry: Registry
    actions: Actions
    operations: Operations
    bus: Bus
    prober: Prober
    dependencies: Dependencies
    prerequisites: Prerequisites


class Groups(Protocol):
    """How the groups of fleet files take part in rollouts; fleets.store has it."""

    def rollout_of(self, fleet: str, group: str) -> policies.ProfileRollout | None:
        """The rollout settings that the group's file has; None: the group is in no file that was applied."""

    def rollouts(self) -> Mapping[str, policies.ProfileRollout]:
        """The same for all groups, as FLEET/GROUP."""


class Sight:
    """Looks at containers for rollouts, and knows which of them are left alone for a while."""

    def __init__(
        self, fleet: Fleet, find: Find, fallen: Fallen, before: Before, groups: Groups, trials: Trials,
        change_sets: ChangeSets,
    ) -> None:  # fmt: skip
        self._fleet, self._find, self._groups, self._trials, self._sets = fleet, find, groups, trials, change_sets
        self._fallen, self._before = fallen, before
        self._pauses: dict[str, float] = {}
        """By container, until when it is not tried again, in seconds since the host booted."""

    def look(self, rollout: Rollout | None) -> dict[str, LiveState]:
        """How all containers are. Those that a gate waits for are asked for as long as it takes."""
        if rollout is not None:
            for member in rollout.by_phase(MemberPhase.GATED):
                if member.name in self._fleet.registry:
                    self._fleet.prober.demand(self._fleet.registry[member.name], rollout.times(member)[0])
        waiting = {member.name for member in rollout.by_phase(MemberPhase.WAITING)} if rollout else set()
        seen = {container.name: self._see(container, container.name in waiting) for container in self._fleet.registry}
        seen |= self._with_needs(seen, waiting)
        if rollout is None:
            return seen
        seen |= {name: replace(seen[name], lacks_spec=True) for name in self._without_spec(rollout)}
        return {**seen, **self._with_trials(rollout, seen)}

    def _without_spec(self, rollout: Rollout) -> list[str]:
        """Those whose turn has come, and that run without what they get by it: their start was under way already, say."""
        if rollout.kind is not RolloutKind.CHANGE:
            return []
        registry, turn = self._fleet.registry, rollout.by_phase(MemberPhase.RESTARTING, MemberPhase.FAILED)
        return [m.name for m in turn if m.name in registry and self._sets.lacks(rollout.id, registry[m.name])]

    def _with_trials(self, rollout: Rollout, seen: Mapping[str, LiveState]) -> dict[str, LiveState]:
        """Those that have tests, with how these went. A gate begins with them once its container is healthy."""
        found = {}
        for member in rollout.by_phase(MemberPhase.WAITING, MemberPhase.RESTARTING, MemberPhase.GATED):
            if not member.expected or member.name not in seen or not (tests := self.tests_of(member.name)):
                continue
            container, now = self._fleet.registry[member.name], seen[member.name]
            if member.phase is MemberPhase.GATED and now.healthy:
                every = None if member.baked_from is None else baking.seconds_between_tests(rollout, member)
                self._trials.demand(container, tests, member.excused or (), every=every)
            bad = self._trials.known.bad(member.name)
            found[member.name] = replace(now, trials=self._trials.of(container, tests), bad_before=bad)
        return found

    def try_out(self, names: Iterable[str]) -> None:
        """Have the tests of these run once, as they are."""
        for name in names:
            self._trials.demand(self._fleet.registry[name], self.tests_of(name), once=True)

    def look_anew(self, container: Container, seconds: float) -> None:
        """It has changed without a restart: it has to prove once more that it is well, for so many seconds."""
        self._trials.anew(container)
        self._fleet.prober.respecified(container, seconds)

    def look_soon(self, rollout: Rollout | None) -> None:
        """A rollout goes on after a halt, so what halted it may be mended: those that its gates wait for are asked soon."""
        if rollout is None:
            return
        for member in rollout.by_phase(MemberPhase.GATED):
            if member.name in self._fleet.registry:
                self._fleet.prober.demand(self._fleet.registry[member.name], rollout.times(member)[0], mended=True)

    def own(self, spec: Spec | None) -> policies.ProfileRollout:
        """The rollout settings that its group or profile has for a container."""
        return self._policy_of(spec)[1]

    def crew(self, spec: Spec | None) -> str | None:
        """The group or profile whose canaries a container is among; None: those that are in no crew."""
        name, own = self._policy_of(spec)
        return name if own.canaries is not None else None

    def tests_of(self, name: str) -> tuple[RolloutTest, ...]:
        """The tests of a container, as its group or its profile has them."""
        return self._policy_of(self._fleet.registry[name].spec)[1].tests or ()

    def _with_needs(self, seen: Mapping[str, LiveState], names: Iterable[str]) -> dict[str, LiveState]:
        """Those of these that may lack something before they start again, with what that is."""
        registry, found = self._fleet.registry, {}
        graph, known = None, dict[tuple[str, ...], frozenset[str]]()
        for name in names:
            spec = registry[name].wanted if name in registry else None
            lack = self._fleet.prerequisites.lack(spec)
            depends = () if spec is None else tuple(spec.depends_on)
            if depends and depends not in known:
                graph = graph or self._fleet.dependencies.graph()
                known[depends] = graph.awaited(depends)
            if depends or lack is not None:
                reason = "" if lack is None else lack.reason
                found[name] = replace(seen[name], lack=reason, awaited=known.get(depends, frozenset()))
        return found

    def _see(self, container: Container, waits: bool) -> LiveState:
        running, prober = container.running, self._fleet.prober
        if running is None:
            busy = container.busy or self._owed(container) or self._pausing(container)
            failed = container.state in (State.FAILED, State.BACKOFF)
            return LiveState(None, container.labels, failed=failed, busy=busy, down_for=_down_for(container))
        health = prober.of(container)
        return LiveState(
            identity=running.identity,
            labels=container.labels,
            healthy=health is Health.HEALTHY,
            unhealthy=health is Health.UNHEALTHY,
            matures=None if health is Health.HEALTHY else prober.matures(container),
            healthy_for=prober.healthy_seconds(container),
            running_for=running.age,
            frozen=waits and running.payload.frozen,
            busy=container.busy or self._pausing(container),
            problem=container.problem.message if container.problem else "",
            reason=prober.reason(container) or ("" if health is Health.HEALTHY else str(health)),
        )

    def _pausing(self, container: Container) -> str | None:
        until = self._pauses.get(container.name)
        return "it is tried again in a moment" if until is not None and until > proc.uptime() else None

    def _owed(self, container: Container) -> str | None:
        """Whether it will be started in a moment: after a kill of the daemon, or a reboot from inside."""
        if not self._fleet.operations.any("resume"):
            return None
        return "start" if self._fleet.registry.noted(container) is Intent.RUN else None

    async def stale(self, containers: Sequence[Container]) -> tuple[dict[str, Member], set[str]]:
        """Members for the stale ones of these containers and for those that a patch took down; and those of which nobody
        can say whether they are stale."""
        # One that is restarted while we look has another identity then, and a mount that is newer than the patch.
        moving = [c for c in containers if c.wanted is None or not c.wanted.generation]
        """A container on a generation stays as it is, whatever happens to the host."""
        before = {c.name: self.member(c) for c in moving if c.running is not None}
        fallen = {c.name: self.member(c) for c in moving if c.busy is None and self._fallen.down(c) is not None}
        found = await self._find([c for c in moving if c.running is not None])
        stale_ones = {name: before[name] for name in before if found[name].stale}
        return {**stale_ones, **fallen}, {name for name in before if not (found[name].stale or found[name].clean)}

    def member(self, container: Container) -> Member:
        """A container as a new member of a rollout."""
        spec = container.spec
        pool, own = self._policy_of(spec)
        boot_order = spec.boot_order if spec else 0
        return Member(
            name=container.name,
            identity="" if container.running is None else container.running.identity,
            priority=boot_order if own.priority is None else own.priority,
            pool=pool if own.max_unavailable is not None else None,
            crew=self.crew(spec),
            bake=own.bake,
            min_healthy_time=own.min_healthy_time,
            healthy_deadline=own.healthy_deadline,
            expected=self._fleet.prober.of(container) is not Health.UNHEALTHY or self._before.was_well(container),
            fallen=container.running is None,
        )

    def _policy_of(self, spec: Spec | None) -> tuple[str | None, policies.ProfileRollout]:
        """How a container takes part in rollouts, and the name of the group or profile that says so."""
        if spec is not None and spec.fleet and spec.group:
            own = self._groups.rollout_of(spec.fleet, spec.group)
            if own is not None:
                return f"{spec.fleet}/{spec.group}", own
        profile = self._fleet.config.profiles.get((spec.profile if spec else None) or "")
        return (spec.profile if spec else None), profile.rollout if profile else policies.ProfileRollout()

    def pools(self) -> dict[str, policies.Share]:
        """How many containers of a profile or of a fleet's group may be down, where that is limited."""
        return {name: own.max_unavailable for name, own in self._every().items() if own.max_unavailable is not None}

    def crews(self) -> dict[str, policies.Share]:
        """How many containers of a profile or of a fleet's group go first, where it says so."""
        return {name: own.canaries for name, own in self._every().items() if own.canaries is not None}

    def _every(self) -> Mapping[str, policies.ProfileRollout]:
        """The rollout settings of all profiles and groups, by name."""
        return {**{name: each.rollout for name, each in self._fleet.config.profiles.items()}, **self._groups.rollouts()}

    def leave_alone(self, rollout: Rollout, failures: Iterable[str]) -> None:
        """Leave those alone for a while that could not be restarted: the disk is full, say, and somebody is mending that."""
        for name in failures:
            member = rollout.members[name]
            if member.attempts + 1 < planner.ATTEMPTS:
                pause = min(PAUSE_SECONDS * (member.attempts + 1), rollout.times(member)[1] / 4)
                self._pauses[name] = proc.uptime() + pause


def _down_for(container: Container) -> float | None:
    if container.foreground is None:
        return None
    return 0.0 if container.exit is None else max(0.0, time.time() - container.exit.at)
