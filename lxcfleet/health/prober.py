"""Asks containers how they are, where that takes asking, and knows what they said.

A container with a check has a task that does the check at its interval. A system container without one has a task
that asks its systemd until that is up and well, and then ends. Nothing is ever done for an app container without a
check: its health follows from its age, so that a thousand of them cost nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from lxcfleet.containers.container import Container, Running
from lxcfleet.errors import FleetError
from lxcfleet.health import judge
from lxcfleet.health.judge import CheckResult, Course
from lxcfleet.host.kernel import tree
from lxcfleet.host.net import reach
from lxcfleet.host.process import proc
from lxcfleet.launcher.client import Launcher
from lxcfleet.paths import Paths
from lxcfleet.runtime.events import Events
from lxcfleet.spec.health import CheckKind, HealthCheck
from lxcfleet.spec.states import Health
from lxcfleet.spec.terms import Init

log = logging.getLogger(__name__)

ENTERED_AT_ONCE = 8
"""So many commands run inside containers at the same moment: each takes a process of the launcher."""
CONNECTED_AT_ONCE = 128
SAVE_SECONDS = 0.2
"""Changes of so long are written down together."""
_SYSTEMD_SECONDS = 10.0
"""How long one question to a systemd that is not up yet waits for it."""
_STATE = ("systemctl", "is-system-running", "--wait")
_FAILED = ("systemctl", "list-units", "--failed", "--plain", "--no-legend", "--no-pager")
_LONGEST_REASON = 200
_PROCESSORS = len(os.sched_getaffinity(0))


@dataclass
class _Watch:
    """One run of a container whose health is asked for."""

    identity: str
    course: Course
    since: float
    """When its health last changed, in seconds since the machine booted."""
    boots: bool = False
    """Whether that begins with the boot of a systemd."""
    task: asyncio.Task[None] | None = None


class Prober:
    """The health of all containers."""

    def __init__(
        self,
        paths: Paths,
        launcher: Launcher,
        events: Events,
        alive_time: float,
        on_change: Callable[[Container, bool], None],
    ) -> None:
        """``on_change``: told at each change whether the container may stand for its groups."""
        self._paths = paths
        self._launcher = launcher
        self._events = events
        self.alive_time = alive_time
        self._on_change = on_change
        self._watches: dict[str, _Watch] = {}
        self._entered = asyncio.Semaphore(ENTERED_AT_ONCE)
        self._connected = asyncio.Semaphore(CONNECTED_AT_ONCE)
        self._changed = asyncio.Event()
        self.listeners: list[Callable[[], None]] = []
        """Called whenever the health of a container may have changed for another reason than its age."""
        self._saving: asyncio.TimerHandle | None = None
        self._remembered = self._load()

    # -- what is known ---------------------------------------------------------------------------------------

    def of(self, container: Container) -> Health | None:
        """How the container is; None if it does not run."""
        running = container.running
        if running is None:
            return None
        if container.waits_for_address:
            return judge.without_address(running.age)
        watch = self._watches.get(container.name)
        if watch is not None and watch.identity == running.identity:
            return watch.course.health
        if judge.needs_checks(container.spec):
            return Health.STARTING
        return judge.of_age(running.age, self.alive_time)

    def reason(self, container: Container) -> str:
        """What the last check that failed said; empty while all is well."""
        if container.running is not None and container.waits_for_address:
            return "no DHCP server has given it an address"
        watch = self._watches.get(container.name)
        return watch.course.reason if watch is not None and container.running is not None else ""

    def look_again(self) -> None:
        """A container has an address now, or none any more."""
        self._wake()

    def healthy_seconds(self, container: Container) -> float:
        """For how long it has been healthy without a break; 0 if it is not."""
        if self.of(container) is not Health.HEALTHY or container.running is None:
            return 0.0
        watch = self._watches.get(container.name)
        return container.running.age - self.alive_time if watch is None else proc.uptime() - watch.since

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
        watch = self._remembered.pop(container.name, None)
        if watch is None or watch.identity != running.identity:
            watch = _Watch(running.identity, Course(), proc.uptime())
        self._watches[container.name] = watch
        watch.boots = container.spec is not None and container.spec.init is Init.SYSTEM
        self._tell(container, watch)
        watch.task = asyncio.get_running_loop().create_task(self._look_after(container, running, watch))
        self._wake()

    def repeat(self, containers: Iterable[Container]) -> None:
        """Tell of all once more who may stand for their groups."""
        for container in containers:
            watch = self._watches.get(container.name)
            if watch is not None:
                self._tell(container, watch)

    def end(self, container: Container) -> None:
        """The container has ended."""
        watch = self._watches.pop(container.name, None)
        if watch is not None and watch.task is not None:
            watch.task.cancel()
        self._wake()

    def close(self) -> None:
        """The daemon ends; containers, and what is known of them, stay."""
        self._save()
        for watch in self._watches.values():
            if watch.task is not None:
                watch.task.cancel()

    async def _look_after(self, container: Container, running: Running, watch: _Watch) -> None:
        spec = container.spec
        assert spec is not None
        try:
            if spec.health is not None:
                await self._check_for_ever(container, running, watch, spec.health)
            else:
                await self._ask_systemd(container, running, watch)
        except Exception:
            log.exception("%s: its health is not looked after any more", container.name)

    async def _check_for_ever(
        self, container: Container, running: Running, watch: _Watch, check: HealthCheck
    ) -> None:
        if watch.course.checks and watch.course.health is not Health.STARTING:  # an earlier daemon looked after it
            await asyncio.sleep(random.uniform(0, check.interval))
        while container.running is running:
            verdict = await self._verdict(container, running, check)
            if container.running is not running:
                return
            self._note(container, watch, judge.judge(check, watch.course, verdict, running.age))
            # Containers that started together need not be checked together for ever.
            spread = 1.0 if watch.course.health is Health.STARTING else random.uniform(0.9, 1.1)
            await asyncio.sleep(judge.pause(check, watch.course) * spread)

    async def _ask_systemd(self, container: Container, running: Running, watch: _Watch) -> None:
        while container.running is running and (seconds := judge.pause_systemd(watch.course)) is not None:
            await asyncio.sleep(seconds)
            while not watch.course.checks and (left := judge.let_boot(running.age, self._booting(), _PROCESSORS)) > 0:
                await asyncio.sleep(left)
            if container.running is not running or running.payload.frozen:
                continue
            word = await self._said(container, _STATE)
            # While a hundred boot each question slows the others: the second only where it has an answer.
            units = await self._said(container, _FAILED) if word == "degraded" else ""
            failed = [line.split()[0] for line in units.splitlines() if line.strip()]
            if container.running is running:
                self._note(container, watch, judge.judge_systemd(watch.course, word, ", ".join(failed)))

    def _booting(self) -> int:
        """How many system containers are not known to be up."""
        return sum(watch.boots and watch.course.health is Health.STARTING for watch in self._watches.values())

    async def _said(self, container: Container, command: tuple[str, ...]) -> str:
        """What a program in it printed; empty if it could not be run there."""
        try:
            return str((await self._enter(container, command, _SYSTEMD_SECONDS))["output"])
        except FleetError:
            return ""

    async def _verdict(self, container: Container, running: Running, check: HealthCheck) -> CheckResult:
        if running.payload.frozen:
            return CheckResult(False, "it is frozen")
        if check.kind is CheckKind.EXEC:
            return await self._run(container, check)
        if not container.addresses:
            return CheckResult(False, "it has no address")
        address = str(container.addresses[0])
        async with self._connected:
            if check.kind is CheckKind.TCP:
                problem = await reach.tcp(address, check.port, check.timeout)
            else:
                host = check.host or container.name
                problem = await reach.http(address, check.port, host, check.path, check.timeout)
        return CheckResult(not problem, problem)

    async def _run(self, container: Container, check: HealthCheck) -> CheckResult:
        try:
            answer = await self._enter(container, check.command, check.timeout)
        except FleetError as error:
            return CheckResult(False, error.message)
        if answer["status"] == 0:
            return CheckResult(True)
        problem = f"not done after {check.timeout:g} s"
        if answer["status"] is not None:
            problem = f"exit status {answer['status']}"
        last = (str(answer["output"]).splitlines() or [""])[-1]
        return CheckResult(False, f"{check.command[0]}: {problem}{': ' if last else ''}{last}"[:_LONGEST_REASON])

    async def _enter(self, container: Container, command: tuple[str, ...], timeout: float) -> Any:
        assert container.spec is not None
        item = {
            "name": container.name,
            "command": list(command),
            "environment": dict(container.spec.environment),
            "timeout": timeout,
        }
        async with self._entered:
            answer = await self._launcher.ask("check", item)
        if answer["error"]:
            raise FleetError(answer["error"]["message"])
        return answer

    # -- what follows ----------------------------------------------------------------------------------------

    def _note(self, container: Container, watch: _Watch, course: Course) -> None:
        before, watch.course = watch.course, course
        if course.health is not before.health:
            watch.since = proc.uptime()
            self._events.add(course.health, container.name, course.reason)
            self._tell(container, watch)
            self._wake()
        if replace(course, checks=0) != replace(before, checks=0) or not before.checks:
            self._save_soon()

    def _tell(self, container: Container, watch: _Watch) -> None:
        try:
            self._on_change(container, judge.serves(container.spec, watch.course.health))
        except OSError as error:
            log.error("%s: who answers for its groups can't be changed: %s", container.name, error)

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        for listener in self.listeners:
            listener()

    # -- over a restart of the daemon ------------------------------------------------------------------------

    def _save_soon(self) -> None:
        if self._saving is None:
            self._saving = asyncio.get_running_loop().call_later(SAVE_SECONDS, self._save)

    def _save(self) -> None:
        if self._saving is not None:
            self._saving.cancel()
            self._saving = None
        data = {
            name: [watch.identity, watch.course.health, watch.course.failures, watch.course.reason, watch.since]
            for name, watch in self._watches.items()
        }
        try:
            tree.write(self._paths.health, json.dumps(data))
        except OSError as error:
            log.warning("the containers' health can't be written down: %s", error)

    def _load(self) -> dict[str, _Watch]:
        """What an earlier daemon knew; of a container that was started anew since it says nothing."""
        try:
            data = json.loads(self._paths.health.read_text(encoding="utf-8"))
            return {
                name: _Watch(identity, Course(Health(word), 1, failures, reason), since)
                for name, (identity, word, failures, reason, since) in data.items()
            }
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            log.warning("what an earlier daemon knew of the containers' health is lost: %s", error)
            return {}
