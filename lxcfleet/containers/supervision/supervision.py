"""Keeps how runs of containers ended, and starts those again whose restart policy says so, or whose start failed.

While a container runs, its file ``runs`` says of which boot of the host. A daemon that finds the file and no run knows that
the container ended while nobody looked. What somebody wanted comes first: an end that was asked for clears the course.
"""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from lxcfleet.containers import exits, foreground, restarts
from lxcfleet.containers.container import Container, Running
from lxcfleet.containers.desired import Intent
from lxcfleet.containers.ends.endings import Endings
from lxcfleet.containers.events import BackedOff, GaveUp, StoppedByItself
from lxcfleet.containers.exits import Exit, KnownPast
from lxcfleet.containers.registry import Registry
from lxcfleet.containers.requests.actions import Actions
from lxcfleet.containers.restarts import FRESH, RestartCourse, RunEnd
from lxcfleet.errors import Blocked, FleetError
from lxcfleet.host.kernel import tree
from lxcfleet.host.lxc import stopping
from lxcfleet.host.process import proc
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.runtime.tasks import Tasks
from lxcfleet.spec.container.restart import NEVER, Restart, RestartPolicy
from lxcfleet.spec.reading import ondisk
from lxcfleet.spec.states import Action, Health

log = logging.getLogger(__name__)

OWNED_SECONDS = 1.0
"""A container that is due, and in the hands of a rollout or of an action, is looked at again after so long."""
_ASKS = (Action.STOP, Action.DESTROY)
"""Actions that end a container because somebody wants that."""


class Supervision:
    """The ends of all containers, and what follows from them."""

    def __init__(
        self,
        paths: Paths,
        registry: Registry,
        endings: Endings,
        actions: Actions,
        bus: Bus,
        tasks: Tasks,
        owned: Callable[[str], bool],
    ) -> None:
        """``owned``: whether a rollout has a container in hand at the moment: it decides then."""
        self._paths = paths
        self._registry = registry
        self._endings = endings
        self._actions = actions
        self._bus = bus
        self._tasks = tasks
        self._owned = owned
        self._boot = proc.boot_id()
        self._timers: dict[str, asyncio.Task[None]] = {}
        self._own: set[str] = set()
        """Containers on which an action of a policy is under way."""
        self._unsaved: set[str] = set()
        """Containers whose end is written down in a moment, with what follows from it."""

    def load(self) -> None:
        """Read what an earlier daemon kept."""
        for container in self._registry:
            own = self._paths.container(container.name)
            past = exits.load(own)
            if not own.runs.exists() and not self._is_overtaken(container):
                own.stopping.unlink(missing_ok=True)  # the end to which it belongs was noted, and the daemon killed then
            if past.boot == self._boot:
                container.exit, container.course = past.exit, past.course
            else:
                container.exit = None if past.exit is None else replace(past.exit, followed=True)
                container.course = restarts.after_boot(past.course)
            container.foreground = foreground.read(self._paths, container.name)

    def begin(self) -> None:
        """Go on where an earlier daemon stopped; what runs is known by now, and nothing that is owed was begun yet."""
        for container in self._registry:
            if container.running is not None or container.unseen:
                continue
            boot = self._ran(container.name)
            if self._is_overtaken(container):
                boot = self._boot
                self._actions.forget_wish(container)
            if boot == self._boot:
                self._note(container, Exit(time.time(), asked=self._is_asked(container, None, None)))
                if self._registry.noted(container) is None and container.exit is not None:  # else what is owed is told
                    how = f"{container.exit.words}{', as somebody wanted' if container.exit.asked else ''}"
                    self._bus.publish(StoppedByItself(container.name, how))
                self._follow(container)
            elif boot:  # it ended with the host; what was before is not how it ended last
                container.exit = None
                self._save(container)
            elif container.exit is not None and not container.exit.followed:  # the daemon was killed before that
                self._follow(container)
            if self._is_owed(container):  # it is started in a moment; if that fails, ``start_failed`` hears of it
                container.course = replace(container.course, due=None)
            self._wait(container)

    # -- events ----------------------------------------------------------------------------------------------

    def began(self, container: Container) -> None:
        """A container began to run, or was found running."""
        self._cancel(container.name)
        had = container.course
        if had != FRESH:
            # liblxc may report a start as done and give it up then: it failed for the same row, unless nothing is noted any
            # more.
            same_row = _policy(container).policy is not RestartPolicy.NO or self._is_noted(container)
            container.course = RestartCourse(had.row, had.tries) if same_row and not had.gave_up else FRESH
            if had.gave_up or had.cause:
                self._save(container)
        try:
            # With its name, as a copy of its directory never ran. An empty file says as little as none.
            tree.write_first(self._paths.container(container.name).runs, f"{self._boot} {container.name}\n")
        except OSError as error:
            log.warning("%s: that it runs can't be noted: %s", container.name, error)

    def ended(self, container: Container, running: Running | None) -> None:
        """A container has ended: keep how. What follows is decided once no action is under way on it: mostly in a moment, as
        ``follow`` hears of the same end, and then both are written down at once."""
        if not self._registry.knows(container) or container.busy == Action.DESTROY:
            return
        if container.busy is None and _policy(container).policy is RestartPolicy.NO:
            container.course = FRESH  # it did run
        heard = self._endings.of(container)
        past = Exit(
            at=self._endings.heard_at(container.name),
            status=None if heard is None else heard.status,
            out_of_memory=heard is not None and bool(heard.memory),
            memory="" if heard is None else heard.memory,
            asked=self._is_asked(container, running, None if heard is None else heard.status),
            seconds=None if running is None else running.age,
            lines=exits.last_lines(self._paths.container(container.name).console_log, container.console),
        )
        self._note(container, past, soon=container.busy is None)

    def starts_at_once(self, container: Container, *, failed: bool) -> bool:
        """Whether a container that ends at this moment will be started again without a pause, if nobody wants otherwise.
        ``failed``: whether it ended with another exit status than 0."""
        policy, running = _policy(container), container.running
        if policy.policy is RestartPolicy.NO or running is None or container.busy is not None or self._owned(container.name):
            return False
        now = proc.uptime()
        due = restarts.after(policy, container.course, RunEnd(failed=failed, seconds=running.age), now).due
        return due is not None and due <= now

    def follow(self, container: Container) -> None:
        """It has ended, and no action is under way on it: see what its policy says."""
        try:
            if container.running is None and container.busy is None and self._registry.knows(container):
                self._follow(container)
        finally:
            if container.name in self._unsaved:
                self._save(container)

    def wished(self, container: Container, action: Action) -> None:
        """Somebody acted on a container: that comes before what its policy says."""
        if action not in (Action.START, Action.STOP, Action.RESTART):
            return
        self._cancel(container.name)
        asked = action is Action.STOP and container.exit is not None and container.running is None
        if container.course != FRESH or (asked and container.exit is not None and not container.exit.asked):
            container.course = FRESH
            if asked and container.exit is not None:
                container.exit = replace(container.exit, asked=True)
            self._save(container)

    def start_failed(self, container: Container, why: str) -> None:
        """A start that is owed to a container has failed, whoever asked for it: it is tried again after a pause."""
        if not self._is_owed(container):  # somebody wants something else by now
            return
        if container.course.gave_up:  # somebody tried it since, or the daemon did as it began
            container.course = FRESH
        self._decide(container, RunEnd(failed=True, cause=why))
        self._save(container)
        self._wait(container)

    def judged(self, container: Container, health: Health) -> None:
        """A running container has another health than before."""
        running = container.running
        if running is None or not _policy(container).on_unhealthy:
            return
        if health is not Health.UNHEALTHY:
            self._cancel(container.name)
            container.course = replace(container.course, due=None)
            return
        self._decide(container, RunEnd(failed=True, seconds=running.age))
        if container.course.due is not None:
            self._start_timer(container, partial(self._restart_unhealthy, container, running))

    def gone(self, container: Container) -> None:
        """The container does not exist any more."""
        self._cancel(container.name)

    # -- what is kept ----------------------------------------------------------------------------------------

    def _is_asked(self, container: Container, running: Running | None, status: int | None) -> bool:
        """Whether somebody wanted the end. In a container, reboot(2) ends process 1 by SIGINT and SIGHUP.

        ``running``: the run that ended; None: it was over before anybody saw it.
        """
        if container.busy in _ASKS or self._endings.asked(container.name):
            return True
        if status is not None and status in (signal.SIGINT, signal.SIGHUP):
            return True
        noted = self._registry.noted(container)
        # Before the note it ended by itself. So did a run that nobody saw: it is the new one, as the former was known.
        if container.busy == Action.RESTART and noted is Intent.RUN and running is not None:
            return True
        return noted in (Intent.STOPPED, Intent.GONE) or _is_stopped_by_lxc(self._paths, container.name)

    def _is_overtaken(self, container: Container) -> bool:
        """Whether lxc-stop ended a run since it was noted that it is to run: the daemon was killed before it could note that
        the start was done. The hook of a reboot, also one that lxc-stop asks for, notes that after the hook of lxc-stop."""
        own = self._paths.container(container.name)
        try:
            if own.stopping.stat().st_mtime_ns <= own.pending.stat().st_mtime_ns:
                return False
        except OSError:
            return False
        return self._is_noted(container) and _is_stopped_by_lxc(self._paths, container.name)

    def _ran(self, name: str) -> str:
        """The boot of the host in which it ran as of the last word about it; empty: it did not run."""
        try:
            text = ondisk.text(self._paths.container(name).runs, "ascii", "replace", ondisk.SMALL)
        except OSError:
            return ""
        boot, _, whose = text.strip().partition(" ")
        return boot if whose == name else ""

    def _note(self, container: Container, past: Exit, *, soon: bool = False) -> None:
        """``soon``: ``follow`` writes it down."""
        container.exit = past
        if past.asked and container.name not in self._own:
            container.course = FRESH
        if soon:
            self._unsaved.add(container.name)
        else:
            self._save(container)

    def _save(self, container: Container) -> None:
        """Write the past down; then that it does not run.

        On a full disk files can be removed still. What somebody stopped must not look as if it had died, or were to be
        started; without a record, a daemon knows no more than that it does not run.
        """
        self._unsaved.discard(container.name)
        own = self._paths.container(container.name)
        stays = container.exit is not None and container.exit.asked and container.course == FRESH
        try:
            try:
                exits.save(own, KnownPast(container.exit, container.course, self._boot))
            except OSError:
                if not stays:
                    raise
                own.exit.unlink(missing_ok=True)
                self._forget_run(container)
                raise
            self._forget_run(container)
        except OSError as error:
            log.warning("%s: how it ended can't be noted: %s", container.name, error)

    def _forget_run(self, container: Container) -> None:
        """Note that it does not run, if so. Raises OSError."""
        if container.running is None:
            own = self._paths.container(container.name)
            own.runs.unlink(missing_ok=True)
            own.stopping.unlink(missing_ok=True)

    # -- what follows ----------------------------------------------------------------------------------------

    def _follow(self, container: Container) -> None:
        if container.exit is None or self._registry.noted(container) is not None:
            return  # what was wanted is owed to it; containers.requests.actions sees to that
        self._decide(container, container.exit.end)
        container.exit = replace(container.exit, followed=True)
        self._save(container)
        self._wait(container)

    def _decide(self, container: Container, end: RunEnd) -> None:
        now, policy = proc.uptime(), self._policy_now(container)
        course = restarts.after(policy, container.course, end, now, random.random())
        container.course = course
        if course.gave_up:
            self._bus.publish(GaveUp(container.name, policy.attempts, course.cause, self._is_owed(container)))
        elif course.due is not None and course.due > now:
            self._bus.publish(BackedOff(container.name, course.due - now, course.row, course.cause))

    def _is_owed(self, container: Container) -> bool:
        """Whether it is noted that it is to run, and does not. What `lxcfleet run` runs, its caller starts."""
        return self._is_noted(container) and container.running is None and container.foreground is None

    def _is_noted(self, container: Container) -> bool:
        return self._registry.noted(container) is Intent.RUN

    def _policy_now(self, container: Container) -> Restart:
        return restarts.policy_for(_policy(container), owed=self._is_owed(container))

    def _wait(self, container: Container) -> None:
        if container.course.due is not None:
            self._start_timer(container, partial(self._start_again, container))

    def _start_timer(self, container: Container, work: Callable[[], Awaitable[None]]) -> None:
        self._cancel(container.name)
        self._timers[container.name] = self._tasks.do("restart-policy", work, subject=container.name)

    def _cancel(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None and name not in self._own:
            timer.cancel()

    @contextmanager
    def _in_hand(self, name: str) -> Iterator[None]:
        """Mark that the action on a container is the policy's own."""
        self._own.add(name)
        try:
            yield
        finally:
            self._own.discard(name)

    def _left(self, container: Container) -> float:
        """Seconds until it is due, and nobody else has it in hand."""
        left = (container.course.due or 0.0) - proc.uptime()
        in_hand = container.busy is not None or container.unseen or self._owned(container.name)
        return OWNED_SECONDS if left <= 0 and in_hand else left

    async def _start_again(self, container: Container) -> None:
        """Start it when it is due; a start that fails counts as a failure of its own."""
        while self._may_start(container):
            if (left := self._left(container)) > 0:
                await asyncio.sleep(left)
                continue
            try:
                with self._in_hand(container.name):
                    await self._actions.again(container, Action.START, self._reason(container))
                if container.lack is not None:  # that it is to run is noted now: it starts once nothing is lacking
                    container.course = replace(container.course, due=None)
                    self._save(container)
                return
            except FleetError as error:
                why = str(error).replace("\n", "; ")
                log.error("%s is not started again: %s", container.name, why)
            if container.running is not None or not self._registry.knows(container) or self._is_owed(container):
                return  # for a start that is owed, ``start_failed`` hears of the failure
            self._decide(container, RunEnd(failed=True, cause=why))
            self._save(container)

    def _may_start(self, container: Container) -> bool:
        stays = container.running is not None or container.resting or container.course.due is None
        if stays or not self._registry.knows(container):
            return False
        if container.busy is None and self._policy_now(container).policy is RestartPolicy.NO:  # it was changed meanwhile
            container.course = FRESH
            self._save(container)
            return False
        return True

    async def _restart_unhealthy(self, container: Container, running: Running) -> None:
        while container.running is running and container.course.due is not None and _policy(container).on_unhealthy:
            if (left := self._left(container)) > 0:
                await asyncio.sleep(left)
                continue
            try:
                with self._in_hand(container.name):
                    await self._actions.again(container, Action.RESTART, "restart policy: its check calls it unhealthy")
            except Blocked:  # it could not start again: it goes on as it is, and may get well with what it depends on
                await asyncio.sleep(OWNED_SECONDS)
            except FleetError as error:
                log.error("%s is not restarted: %s", container.name, str(error).replace("\n", "; "))
                if not self._is_owed(container):  # else ``start_failed`` hears of it
                    self._decide(container, RunEnd(failed=True))

    def _reason(self, container: Container) -> str:
        past = container.exit
        row = container.course.row
        if container.course.cause:
            return f"its start had failed {'once' if row == 1 else f'{row} times in a row'}"
        times = f", failure {row} in a row" if row > 1 else ""
        return f"restart policy {_policy(container).policy}: {past.words if past is not None else ''}{times}"


def _policy(container: Container) -> Restart:
    """Its policy; none for what `lxcfleet run` runs, as the caller of that decides."""
    own = container.wanted
    return NEVER if own is None or container.foreground is not None else own.restart


def _is_stopped_by_lxc(paths: Paths, name: str) -> bool:
    """Whether its hook saw an lxc-stop that waited for its end."""
    try:
        return stopping.noted(ondisk.content(paths.container(name).stopping, ondisk.SMALL), name, str(paths.lxc))
    except OSError:
        return False
