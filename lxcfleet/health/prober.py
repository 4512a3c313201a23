"""The health of all containers: has them checked, where that takes asking, and knows what came of it.

A container with a check has a background task that does the check at its interval. A system container without one has a
task that asks its systemd until that has been up and well for as long as a rollout demands, and then ends. Nothing is ever
done for an app container without a check: its health follows from its age, so that a thousand of them cost nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial

from lxcfleet.containers.container import Container, Running
from lxcfleet.health import judge, record
from lxcfleet.health.checks import Checks
from lxcfleet.health.events import HealthChanged, ServingJudged
from lxcfleet.health.judge import HealthCourse
from lxcfleet.health.record import HealthRecord
from lxcfleet.host.process import proc
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.runtime.tasks import Tasks
from lxcfleet.spec.container.health import HealthCheck
from lxcfleet.spec.reading.terms import Init
from lxcfleet.spec.states import Health

SAVE_SECONDS = 0.2
"""Changes within so long are written down together."""
STILL_SECONDS = 0.1
"""The pause after a check of a container that was frozen for a copy meanwhile."""
_SHORT = 0.1
"""So many seconds short of what is demanded, health is known until the question that is due is answered."""
_SLOW_FOR = 10
"""So many checks after one that took long."""
_PROCESSORS = len(os.sched_getaffinity(0))


@dataclass
class _Watch:
    """One run of a container whose health is asked for."""

    identity: str
    course: HealthCourse
    since: float
    """When its health last changed, in seconds since the machine booted."""
    asked: float
    """When it was last asked, on the same clock."""
    wanted: float
    """For how many seconds its systemd has to be well, as of the last question, until it is asked no more."""
    demanded: asyncio.Event = field(default_factory=asyncio.Event)
    """``wanted`` has another value, and so the next question another time."""
    inherited: bool = False
    """An earlier daemon looked after it, and this one has not checked it yet."""
    proves: bool = False
    """Whether a check of its own has to pass as well when it was well for ``wanted``."""
    boots: bool = False
    """Whether that begins with the boot of a systemd."""
    slow: int = 0
    """For so many more checks, its own take turns of their own: one that hangs now and then makes no other wait."""
    task: asyncio.Task[None] | None = None

    @property
    def proven(self) -> float:
        """Seconds for which it was healthy as of the last question."""
        return self.asked - self.since if self.course.health is Health.HEALTHY else 0.0


class Prober:
    """The health of all containers."""

    def __init__(
        self, paths: Paths, checks: Checks, bus: Bus, tasks: Tasks, alive_time: float, wanted: float = 0.0
    ) -> None:
        """``alive_time``: seconds that a container of which nothing is asked has to run until it is healthy. ``wanted``:
        seconds for which a systemd has to be well until it is asked no more."""
        self._paths = paths
        self._checks = checks
        self._bus = bus
        self._tasks = tasks
        self._alive_time = alive_time
        self._wanted = wanted
        self._watches: dict[str, _Watch] = {}
        self._changed = asyncio.Event()
        self._saving: asyncio.TimerHandle | None = None
        self._remembered = record.load(paths.health)

    def take_over(self, alive_time: float, wanted: float) -> None:
        """The settings are others now. What already runs keeps the former ones."""
        self._alive_time = alive_time
        self._wanted = wanted

    # -- what is known ---------------------------------------------------------------------------------------

    def of(self, container: Container) -> Health | None:
        """How the container is; None if it does not run, and neither is blocked nor wanted up by its restart policy."""
        running = container.running
        if running is None:
            down = container.backs_off or container.course.gave_up or container.lack is not None
            return Health.UNHEALTHY if down else None
        if _frozen(container, running):
            return Health.UNHEALTHY
        if container.waits_for_address:
            return judge.without_address(running.age)
        watch = self._watches.get(container.name)
        if watch is not None and watch.identity == running.identity:
            return watch.course.health
        if judge.needs_checks(container.spec):
            return Health.STARTING
        return judge.of_age(running.age, self._alive_time)

    def matures(self, container: Container) -> float | None:
        """Seconds until it counts as healthy by its age alone, without an event; None: an event tells."""
        running = container.running
        if running is None or container.waits_for_address or judge.needs_checks(container.spec):
            return None
        left = self._alive_time - running.age
        return left if left > 0 else None

    def reason(self, container: Container) -> str:
        """The reason that the last check that failed gave, or that for which it does not run; empty while all is well."""
        if container.running is not None and _frozen(container, container.running):
            return "it is frozen"
        if container.running is not None and container.waits_for_address:
            return "no DHCP server has given it an address"
        if container.running is None and container.lack is not None:
            return f"blocked: {container.lack.reason}"
        if container.start_error:
            return f"its start failed: {container.start_error}"
        if container.running is None and self.of(container) is Health.UNHEALTHY:
            return f"it ended: {container.exit.words}" if container.exit is not None else "it ended"
        watch = self._watches.get(container.name)
        return watch.course.reason if watch is not None and container.running is not None else ""

    def healthy_seconds(self, container: Container) -> float:
        """For how long it has been healthy without a break; 0 if it is not."""
        if self.of(container) is not Health.HEALTHY or container.running is None:
            return 0.0
        watch = self._watches.get(container.name)
        if watch is None:
            return container.running.age - self._alive_time
        seconds = proc.uptime() - watch.since
        # A service may have failed since the last question. Only the next one can tell.
        return min(seconds, watch.wanted - _SHORT) if _owes_answer(container, watch) else seconds

    def demand(self, container: Container, seconds: float, *, mended: bool = False) -> None:
        """Have its systemd asked until it was well for so many seconds: a gate waits for that.

        ``mended``: it may be well now. It is asked as after a start: the pauses between questions have grown while it was
        ill, so the next one could come later than the gate waits for it."""
        watch = self._watches.get(container.name)
        if watch is None or container.running is None or not _is_asked(container):
            return
        if mended and watch.course.health is not Health.HEALTHY:
            watch.course = replace(watch.course, checks=min(watch.course.checks, 1))
            watch.demanded.set()
        if watch.wanted == seconds:
            return
        watch.wanted = seconds
        watch.demanded.set()
        if watch.task is None or watch.task.done():
            self._begin_task(container, container.running, watch)

    async def changed(self, seconds: float) -> None:
        """Return when the health of some container changed, or after so many seconds."""
        event = self._changed
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), seconds)

    # -- what is done ----------------------------------------------------------------------------------------

    def begin(self, container: Container) -> None:
        """The container began to run, or was found running."""
        running = container.running
        if running is None or not judge.needs_checks(container.spec):
            return
        known = self._remembered.pop(container.name, None)
        if known is not None and known.identity == running.identity:
            watch = _Watch(known.identity, known.course, known.since, known.asked, self._wanted, inherited=True)
        else:
            watch = self._new_watch(running, HealthCourse())
        self._look_after_run(container, running, watch)

    def _new_watch(self, running: Running, course: HealthCourse) -> _Watch:
        now = proc.uptime()
        return _Watch(running.identity, course, now, now, self._wanted)

    def _look_after_run(self, container: Container, running: Running, watch: _Watch) -> None:
        self._watches[container.name] = watch
        watch.boots = container.spec is not None and container.spec.init is Init.SYSTEM
        self._tell(container, watch)
        self._begin_task(container, running, watch)
        self.wake()

    def _begin_task(self, container: Container, running: Running, watch: _Watch) -> None:
        look_after = partial(self._look_after, container, running, watch)
        watch.task = self._tasks.do("health", look_after, subject=container.name)

    def repeat(self, containers: Iterable[Container]) -> None:
        """Tell of all once more whether they may stand for their groups."""
        for container in containers:
            watch = self._watches.get(container.name)
            if watch is not None:
                self._tell(container, watch)

    def end(self, container: Container) -> None:
        """The container has ended."""
        watch = self._watches.pop(container.name, None)
        if watch is not None and watch.task is not None:
            watch.task.cancel()
        self.wake()

    def respecified(self, container: Container, prove: float | None = None) -> None:
        """A container that runs has another check. What is known of its health holds until that says something else.

        ``prove``: it has to be well for so many seconds from now on, with a check that passes at the end of them as well.
        """
        running, health, reason = container.running, self.of(container), self.reason(container)
        watch = self._watches.pop(container.name, None)
        if watch is not None and watch.task is not None:
            watch.task.cancel()
        if running is not None and judge.needs_checks(container.spec):
            # One that was ill may be well with what it has now.
            course = HealthCourse(health or Health.STARTING, reason=reason)
            course = HealthCourse() if prove is not None and course.health is not Health.HEALTHY else course
            watch = self._new_watch(running, course)
            watch.wanted, watch.proves = (watch.wanted, False) if prove is None else (prove, True)
            self._look_after_run(container, running, watch)
        else:
            self._bus.publish(ServingJudged(container, judge.serves(container.spec, health)))
        self.wake()

    def wake(self) -> None:
        """The health of some container may be another one, as where it got or lost its address."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def close(self) -> None:
        """The daemon ends; containers, and what is known of them, stay."""
        self._save()
        for watch in self._watches.values():
            if watch.task is not None:
                watch.task.cancel()

    async def _look_after(self, container: Container, running: Running, watch: _Watch) -> None:
        """Check it as long as there is something to check. A defect in that is for the group of tasks to deal with;
        until the next check nobody may take the container for healthy, as it is not known how it is."""
        spec = container.spec
        assert spec is not None
        try:
            if spec.check is not None:
                await self._check_for_ever(container, running, watch, spec.check)
            else:
                await self._ask_systemd(container, running, watch)
        except Exception as error:
            if container.running is running:
                self._note(container, watch, judge.not_checked(watch.course, f"{type(error).__name__}: {error}"))
            raise

    async def _check_for_ever(
        self, container: Container, running: Running, watch: _Watch, check: HealthCheck
    ) -> None:
        if watch.inherited and watch.course.health is not Health.STARTING:
            await asyncio.sleep(random.uniform(0, check.interval))
        watch.inherited = False
        while container.running is running:
            asked, stills = proc.uptime(), container.stills
            result = await self._checks.check(container, running, check, slow=watch.slow > 0)
            watch.slow = _SLOW_FOR if result.slow else max(0, watch.slow - 1)
            if container.running is not running:
                return
            if not result.passed and (container.still or container.stills != stills):
                await asyncio.sleep(STILL_SECONDS)  # it is frozen for a copy, or was: that says nothing about its health
                continue
            if result.passed:
                watch.asked = asked
            self._note(container, watch, judge.judge(check, watch.course, result, running.age))
            # Containers that started together need not be checked together for ever.
            spread = 1.0 if watch.course.health is Health.STARTING else random.uniform(0.9, 1.1)
            pause = judge.pause(check, watch.course) * spread
            if watch.proves and watch.course.failures == 0 and watch.proven < watch.wanted:
                pause = min(pause, max(0.0, watch.since + watch.wanted - proc.uptime()))
            await asyncio.sleep(pause)

    async def _ask_systemd(self, container: Container, running: Running, watch: _Watch) -> None:
        while (
            container.running is running
            and (seconds := judge.pause_systemd(watch.course, watch.proven, watch.wanted)) is not None
        ):
            watch.demanded.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(watch.demanded.wait(), seconds)
                continue
            while not watch.course.checks and (left := judge.let_boot(running.age, self._booting(), _PROCESSORS)) > 0:
                await asyncio.sleep(left)
            if container.running is not running or running.payload.frozen:
                continue
            asked, stills = proc.uptime(), container.stills
            said = await self._checks.systemd(container, watch.course)
            if container.running is running and container.stills == stills:
                watch.asked = asked
                ignored = container.spec.health.units if container.spec and container.spec.health else ()
                self._note(container, watch, judge.judge_systemd(watch.course, said, ignored))
                self._save_soon()

    def _booting(self) -> int:
        """How many system containers are not known to be up."""
        return sum(watch.boots and watch.course.health is Health.STARTING for watch in self._watches.values())

    # -- what follows ----------------------------------------------------------------------------------------

    def _note(self, container: Container, watch: _Watch, course: HealthCourse) -> None:
        before, watch.course = watch.course, course
        if course.health is not before.health:
            watch.since = watch.asked = proc.uptime()
            self._bus.publish(HealthChanged(container, course.health, course.reason))
            self._tell(container, watch)
            self.wake()
        if replace(course, checks=0, restarts=None) != replace(before, checks=0, restarts=None) or not before.checks:
            self._save_soon()

    def _tell(self, container: Container, watch: _Watch) -> None:
        self._bus.publish(ServingJudged(container, judge.serves(container.spec, watch.course.health)))

    def _save_soon(self) -> None:
        if self._saving is None:
            self._saving = asyncio.get_running_loop().call_later(SAVE_SECONDS, self._save)

    def _save(self) -> None:
        if self._saving is not None:
            self._saving.cancel()
            self._saving = None
        known = {
            name: HealthRecord(each.identity, each.course, each.since, each.asked) for name, each in self._watches.items()
        }
        record.save(self._paths.health, known)


def _is_asked(container: Container) -> bool:
    """Whether its systemd is asked, and not a check of its own."""
    spec = container.spec
    return spec is not None and spec.check is None and spec.init is Init.SYSTEM


def _owes_answer(container: Container, watch: _Watch) -> bool:
    if watch.proves and (not watch.course.checks or watch.course.failures):
        return True
    return (watch.proves or _is_asked(container)) and watch.proven < watch.wanted


def _frozen(container: Container, running: Running) -> bool:
    """Whether nothing in it goes on, whatever its checks said. A copy holds it still for moments: its health is as before."""
    return not container.still and running.payload.frozen
