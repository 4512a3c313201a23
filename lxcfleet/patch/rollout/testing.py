"""Runs the tests of containers for rollouts, in the background and a bounded number at once.

Nothing of it is kept on disk: a daemon that is killed runs the tests again that its rollout still waits for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from lxcfleet.containers.container import Container
from lxcfleet.errors import FleetError
from lxcfleet.host.process import proc
from lxcfleet.launcher.client import Launcher
from lxcfleet.launcher.items.containers import TrialItem
from lxcfleet.launcher.operations import TRY
from lxcfleet.patch.rollout import trial
from lxcfleet.patch.rollout.known import Known
from lxcfleet.patch.rollout.trial import Trial, Verdict
from lxcfleet.runtime.tasks import Tasks
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files.profiles import Profile, host_commands
from lxcfleet.spec.policies.rollout_tests import RolloutTest, WhereTested

AT_ONCE = 4
"""How many tests run at the same moment: each takes a process of the launcher."""
PAUSE_SECONDS = 1.0
"""Between two runs of the same test."""
FORGOTTEN_SECONDS = 5.0
"""Once nobody has asked for so long, tests are not run again."""


Run = Callable[[Container, RolloutTest], Awaitable[tuple[Verdict, str]]]


class Runner:
    """Runs one test of one container, once."""

    def __init__(self, launcher: Launcher, profiles: Callable[[], Mapping[str, Profile]]) -> None:
        """``profiles``: those of the settings, which alone may name commands of the host."""
        self._launcher, self._profiles = launcher, profiles
        self._places = asyncio.Semaphore(AT_ONCE)

    async def run(self, container: Container, test: RolloutTest, group: str | None = None) -> tuple[Verdict, str]:
        """The verdict, and the reason. Whatever keeps a test from being run makes that not known. ``group``: what the test is
        told instead of the container's own."""
        if test.where is WhereTested.HOST and test.run not in host_commands(self._profiles()):
            # A fleet file comes by the API, so it is no proof that root wrote the command.
            return Verdict.UNKNOWN, "no profile of the settings has this command of the host"
        item = _item(container, test, group)
        if item is None:
            return Verdict.UNKNOWN, "the container does not run"
        try:
            async with self._places:
                answer = await self._launcher.ask(TRY, item)
        except FleetError as error:
            return Verdict.UNKNOWN, trial.last_line(error.message)
        except OSError as error:  # as where the daemon has no file descriptor left
            return Verdict.UNKNOWN, f"it can't be run: {error.strerror}"
        if answer["error"]:
            return Verdict.UNKNOWN, trial.last_line(answer["error"]["message"])
        return trial.judge(answer["status"], answer["output"], test.timeout)


def group_of(spec: Spec) -> str:
    """The name by which tests know a container's group: that of its fleet's file, or else its profile."""
    return spec.group or spec.profile or ""


def _item(container: Container, test: RolloutTest, group: str | None) -> TrialItem | None:
    spec, running = container.spec, container.running
    if spec is None or running is None:
        return None
    inside = test.where is WhereTested.INSIDE
    facts = {
        "LXCFLEET_CONTAINER": container.name,
        "LXCFLEET_ADDRESS": str(container.addresses[0]) if container.addresses else "",
        "LXCFLEET_GENERATION": str(spec.generation),
        "LXCFLEET_APP": "" if spec.app is None else spec.app.release,
        "LXCFLEET_GROUP": group_of(spec) if group is None else group,
    }
    return {
        "name": container.name,
        "pid": running.pid,
        "command": list(test.run),
        "environment": {**(spec.environment if inside else {}), **facts},
        "timeout": test.timeout,
        "inside": inside,
    }


@dataclass
class _Course:
    """The tests of one run of a container."""

    identity: str
    tests: tuple[RolloutTest, ...]
    trials: dict[str, Trial]
    once: bool = True
    """Whether each is run only until there is a first result."""
    excused: frozenset[str] = frozenset()
    asked: float = 0.0
    """When somebody last asked for them, in seconds since the host booted."""
    every: float | None = None
    """Seconds after which all are run once more, though they were good."""
    ran: float = 0.0
    """When one was run last, on the same clock."""
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    def due(self) -> list[RolloutTest]:
        """The tests to run next."""
        if self.once:
            return [each for each in self.tests if self.trials[each.name].verdict is None]
        if self.every is not None and proc.uptime() - self.ran >= self.every:
            return [*self.tests]
        waits = {each.name for each in trial.awaited([*self.trials.values()], self.excused)}
        return [each for each in self.tests if each.name in waits or self.trials[each.name].verdict is None]


class Trials:
    """The tests of all containers that a rollout has in hand."""

    def __init__(self, run: Run, tasks: Tasks, done: Callable[[], None], known: Known) -> None:
        """``run``: see Runner; ``done`` is called after each test."""
        self._run, self._tasks, self._done, self.known = run, tasks, done, known
        self._courses: dict[str, _Course] = {}

    def of(self, container: Container, tests: Sequence[RolloutTest]) -> tuple[Trial, ...]:
        """How these tests went in the container's present run."""
        course = self._courses.get(container.name)
        if course is None or container.running is None or not _is_of(course, container, tests):
            return trial.begin(tests)
        return tuple(course.trials[each.name] for each in tests)

    def demand(
        self,
        container: Container,
        tests: Sequence[RolloutTest],
        excused: Collection[str] = (),
        *,
        once: bool = False,
        every: float | None = None,
    ) -> None:
        """Have them run until all are good often enough; ``once``: until there is a result of each; ``every``: and again
        after so many seconds. To be called again and again for as long as somebody waits for them."""
        running = container.running
        if running is None or not tests:
            return
        course = self._courses.get(container.name)
        if course is None or not _is_of(course, container, tests):
            if course is not None and course.task is not None:
                course.task.cancel()
            course = _Course(running.identity, tuple(tests), {each.name: each for each in trial.begin(tests)})
            self._courses[container.name] = course
        course.asked, course.once, course.excused, course.every = proc.uptime(), once, frozenset(excused), every
        if course.due() and (course.task is None or course.task.done()):
            found = course
            course.task = self._tasks.do("tests", lambda: self._work(container, found), subject=container.name)

    async def _work(self, container: Container, course: _Course) -> None:
        while due := course.due():
            await asyncio.gather(*(self._one(container, course, each) for each in due))
            if not course.due() or proc.uptime() - course.asked > FORGOTTEN_SECONDS + max(t.timeout for t in due):
                return
            await asyncio.sleep(PAUSE_SECONDS)
            if not _is_of(course, container, course.tests):
                return

    async def _one(self, container: Container, course: _Course, test: RolloutTest) -> None:
        verdict, reason = await self._run(container, test)
        if _is_of(course, container, course.tests):
            course.trials[test.name] = course.trials[test.name].after(verdict, reason)
            course.ran = proc.uptime()
            self._done()

    def forget(self, container: Container) -> None:
        """The container is gone."""
        self.known.forget(container.name)
        self.anew(container)

    def anew(self, container: Container) -> None:
        """Its run has changed: how its tests went says nothing any more."""
        course = self._courses.pop(container.name, None)
        if course is not None and course.task is not None:
            course.task.cancel()


def _is_of(course: _Course, container: Container, tests: Sequence[RolloutTest]) -> bool:
    running = container.running
    return running is not None and running.identity == course.identity and course.tests == tuple(tests)
