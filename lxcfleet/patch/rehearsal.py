"""Rehearsals: a throwaway clone of a container's spec on a base, asked for its health and its tests, and destroyed.

A note with the clone's name is on disk before the clone is made, and until it is destroyed. So whatever is killed, the next
daemon destroys what is left. A client that goes away changes nothing: the rehearsal comes to its end.
"""

from __future__ import annotations

import asyncio
import logging
import secrets as random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lxcfleet.api.rehearsals import CloneDelta, RehearsalRecord, RehearseRequest
from lxcfleet.base.generations import store
from lxcfleet.containers import exits
from lxcfleet.containers.common import Common
from lxcfleet.containers.container import Container
from lxcfleet.containers.events import LeftoverRemoved
from lxcfleet.containers.masks import MaskKeeper
from lxcfleet.containers.requests.actions import Actions
from lxcfleet.containers.requests.creation import Creation
from lxcfleet.errors import Broken, Busy, FleetError, HostError, NotFound, WrongState, from_body
from lxcfleet.health.prober import Prober
from lxcfleet.host.kernel import tree
from lxcfleet.patch.delta_copies import DeltaCopies
from lxcfleet.patch.events import Rehearsed
from lxcfleet.patch.rollout import testing, trial
from lxcfleet.patch.rollout.records import record_of_trial
from lxcfleet.patch.rollout.testing import Runner
from lxcfleet.patch.rollout.trial import Trial
from lxcfleet.spec.container.merging import NOT_YET
from lxcfleet.spec.container.restart import NEVER
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.container.volumes import MountKind
from lxcfleet.spec.policies.rollout_tests import RolloutTest, of_command
from lxcfleet.spec.reading.terms import NetworkMode
from lxcfleet.spec.states import Action, Health

log = logging.getLogger(__name__)

PREFIX = "rehearsal-"
AT_ONCE = 4
"""How many rehearsals there may be at the same moment."""
TRIES = 2
"""How often a test is run that is not good: a service may need a moment longer than its health says."""
LOOK_SECONDS = 0.25
_BUSY_SECONDS = 0.5


def clone_of(spec: Spec, ask: RehearseRequest) -> tuple[Spec, list[str]]:
    """The spec of the throwaway clone, without name, ids and address; and in what it differs, in words. Pure.

    It can be found neither by the container's names nor by its ports, and can change nothing that the container has.
    """
    copied = ask.delta is CloneDelta.COPY
    differs = ["its delta is a copy, with a machine-id of its own" if copied else "its delta is empty"]
    mounts = [replace(each, read_only=each.source is not MountKind.TMPFS) for each in spec.volumes]
    if tuple(mounts) != spec.volumes:
        differs.append("its volumes are read-only")
    uses = spec.secrets if ask.secrets else ()
    if uses != spec.secrets:
        differs.append("it has no secrets")
    if spec.labels or spec.ports or spec.publish:
        differs.append("it has no labels and no ports")
    if spec.aliases:
        differs.append("it has no aliases")
    if spec.depends_on:
        differs.append("it waits for nothing before it starts")
    made = replace(
        spec, name="", labels={}, ports=(), publish=(), aliases=(), volumes=tuple(mounts), secrets=uses, depends_on={},
        restart=NEVER, autostart=False, drain=0.0, generation=ask.on, first_id=None if spec.privileged else NOT_YET,
        address=None, address6=None, static_addresses=(), hardware=None, created="", group=None,
        fleet=spec.fleet if uses else None,  # secrets may be declared by the fleet's file
    )  # fmt: skip
    return made, differs


def _in_a_line(error: FleetError, clone: str) -> str:
    """The error of ``clone``. A hint about the clone is left out, as that is destroyed."""
    hint = "" if clone in error.hint else error.hint
    lines = "\n".join(part for part in (error.message, error.why, hint) if part).splitlines()
    return ": ".join(line.removesuffix(":") for line in lines)


@dataclass(frozen=True)
class Judging:
    """How a clone is judged: by its health and by tests."""

    prober: Prober
    runner: Runner
    tests_of: Callable[[str], Sequence[RolloutTest]]
    """The tests of a container."""
    deadline: Callable[[], float]
    """The seconds in which a clone has to be healthy."""


class Rehearsals:
    """Makes rehearsals."""

    def __init__(
        self,
        common: Common,
        creation: Creation,
        actions: Actions,
        mask: MaskKeeper,
        judging: Judging,
        copies: DeltaCopies,
    ) -> None:
        self._paths, self._registry, self._bus, self._tasks = common.paths, common.registry, common.bus, common.tasks
        self._creation, self._actions, self._mask, self._copies = creation, actions, mask, copies
        self._prober, self._runner = judging.prober, judging.runner
        self._tests_of, self._deadline = judging.tests_of, judging.deadline
        self._under_way = 0
        """How many rehearsals there are, with those whose clone is not made yet."""
        self._going: set[str] = set()
        """The names of the clones of this daemon's rehearsals."""

    async def rehearse(self, ask: RehearseRequest) -> RehearsalRecord:
        """Make a rehearsal, to its end even if the caller is cancelled. Raises FleetError if it can't be made."""
        await self._registry.observe()
        if ask.name not in self._registry:
            raise NotFound(f"no container named {ask.name}", hint="`lxcfleet list` shows the ones that exist")
        container = self._registry[ask.name]
        if container.wanted is None:
            raise container.problem or Broken(f"{ask.name} is broken")
        if container.wanted.network is NetworkMode.HOST:
            raise WrongState(
                f"{ask.name} can't be rehearsed", why="it is on the host's network, and so its clone would take its ports",
                hint="rehearse one with a network of its own",
            )  # fmt: skip
        if container.wanted.on_uplink and container.wanted.uplink.addresses:
            raise WrongState(
                f"{ask.name} can't be rehearsed", why="its clone would have its address on the host's uplink, too",
                hint="rehearse one that has its address from a DHCP server, or is on the bridge",
            )  # fmt: skip
        if self._under_way >= AT_ONCE:
            raise Busy(f"there are {AT_ONCE} rehearsals already", hint="wait until one is over, then try again")
        done: asyncio.Future[RehearsalRecord] = asyncio.get_running_loop().create_future()
        spec = container.wanted

        async def work() -> None:
            try:
                record = await self._rehearse(ask, spec)
            except FleetError as error:
                done.set_exception(error)
            except Exception as error:
                log.exception("the rehearsal of %s failed", ask.name)
                done.set_exception(HostError(f"the rehearsal of {ask.name} failed", why=f"{type(error).__name__}: {error}"))
            else:
                done.set_result(record)
            finally:
                self._under_way -= 1

        self._under_way += 1
        try:
            if ask.delta is CloneDelta.COPY:
                await self._copies.check(container, yes=ask.yes)
        except BaseException:
            self._under_way -= 1
            raise
        self._tasks.do("rehearsal", work, subject=ask.name)
        return await asyncio.shield(done)

    async def _rehearse(self, ask: RehearseRequest, spec: Spec) -> RehearsalRecord:
        began = time.monotonic()
        clone = PREFIX + random.token_hex(4)
        if ask.on:
            store.load(self._paths, ask.on)
        await self._mask.refresh([ask.on])
        made, differs = clone_of(spec, ask)
        await self._creation.check_all({clone: made})
        self._going.add(clone)
        kept = False
        try:
            self._note(clone)
            tests = [*self._tests_of(ask.name), *(of_command(*each) for each in enumerate(ask.tests, 1))]
            notes: list[str] = []
            source = ask.name if ask.delta is CloneDelta.COPY else ""
            healthy, why, trials = await self._try(clone, made, tests, testing.group_of(spec), source, notes)
            lines: Sequence[str] = ()
            if why:
                lines = await asyncio.to_thread(exits.last_lines, self._paths.container(clone).console_log)
            kept = ask.keep and clone in self._registry
            if kept:
                self._file(clone).unlink(missing_ok=True)
        finally:
            if not kept:
                await self._destroy(clone)
            self._going.discard(clone)
        self._bus.publish(Rehearsed(ask.name, ask.on, why))
        return {
            "changed": kept,
            "name": ask.name,
            "clone": clone,
            "generation": ask.on,
            "passed": not why,
            "healthy": healthy,
            "why": why,
            "tests": [record_of_trial(each) for each in trials],
            "differs": differs,
            "notes": notes,
            "log": "\n".join(lines),
            "seconds": round(time.monotonic() - began, 3),
        }

    # -- the clone -------------------------------------------------------------------------------------------

    async def _try(
        self, clone: str, spec: Spec, tests: Sequence[RolloutTest], group: str, source: str, notes: list[str]
    ) -> tuple[bool, str, tuple[Trial, ...]]:
        """Whether it became healthy, what was not good, and how its tests went. ``source``: the container whose delta is
        copied; empty: none. ``notes`` gets what is to be told of that. Raises FleetError if it can't be copied."""
        operation = await self._creation.make_all({clone: spec}, start=not source)
        async for _ in operation.follow():
            pass
        (result,) = operation.results
        trials = trial.begin(tests)
        if result.error is not None:
            return False, _in_a_line(from_body(result.error), clone), trials
        container = self._registry[clone]
        if source:
            notes += await self._copies.copy(source, container)
            try:
                await self._actions.act(container, Action.START, 0.0)
            except FleetError as error:
                return False, _in_a_line(error, clone), trials
        why = await self._until_healthy(container)
        if why:
            return False, why, trials
        pairs = zip(tests, trials, strict=True)
        trials = tuple(await asyncio.gather(*(self._test(container, *each, group) for each in pairs)))
        bad = [each for each in trials if each.required and not each.done]
        return True, "" if not bad else f"its test {bad[0].name} is {bad[0].verdict}: {bad[0].reason}", trials

    async def _until_healthy(self, container: Container) -> str:
        """Wait until it is healthy; gives why it is not."""
        deadline = time.monotonic() + self._deadline()
        while container.running is not None and time.monotonic() < deadline:
            self._prober.demand(container, 0.0)
            if self._prober.of(container) is Health.HEALTHY:
                return ""
            await self._prober.changed(min(LOOK_SECONDS, self._prober.matures(container) or LOOK_SECONDS))
        if container.running is None:
            return f"it ended: {container.exit.words}" if container.exit is not None else "it ended"
        reason = self._prober.reason(container)
        return f"it was not healthy {self._deadline():.0f} s after its start{': ' if reason else ''}{reason}"

    async def _test(self, container: Container, test: RolloutTest, course: Trial, group: str) -> Trial:
        """Run a test until it was good often enough, or not good as often as it may be tried."""
        failures = 0
        while True:
            course = course.after(*await self._runner.run(container, test, group))
            failures += course.passed == 0
            if course.done or failures >= TRIES:
                return course
            await asyncio.sleep(testing.PAUSE_SECONDS)

    # -- what is left ----------------------------------------------------------------------------------------

    def _file(self, clone: str) -> Path:
        return self._paths.rehearsals / clone

    def _note(self, clone: str) -> None:
        try:
            self._paths.rehearsals.mkdir(mode=0o700, parents=True, exist_ok=True)
            tree.write(self._file(clone), "", sync=True)
        except OSError as error:
            raise HostError.from_os_error("the rehearsal can't be noted, and so is not begun", error) from error

    async def _destroy(self, clone: str) -> None:
        """Destroy it, and then its note. If that fails, the next daemon does it."""
        try:
            while clone in self._registry:
                try:
                    await self._actions.act(self._registry[clone], Action.DESTROY, 0.0)
                except Busy:
                    await asyncio.sleep(_BUSY_SECONDS)
            self._file(clone).unlink(missing_ok=True)
        except (FleetError, OSError) as error:
            log.error("%s, a clone of a rehearsal, is not destroyed: %s", clone, str(error).replace("\n", "; "))

    async def clean_up(self) -> None:
        """Destroy what a crash left of rehearsals."""
        if not self._paths.rehearsals.is_dir():
            return
        for clone in sorted(file.name for file in self._paths.rehearsals.iterdir()):
            if not clone.startswith(PREFIX) or clone in self._going:
                continue
            there = clone in self._registry
            await self._destroy(clone)
            if there and clone not in self._registry:
                self._bus.publish(LeftoverRemoved(clone))
