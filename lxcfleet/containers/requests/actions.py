"""Actions on existing containers: those that were asked for, and those that the daemon still owes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from functools import partial

from lxcfleet.api.requests import ActionRequest
from lxcfleet.containers import foreground, moving
from lxcfleet.containers.common import Common
from lxcfleet.containers.container import Container
from lxcfleet.containers.copies.snapshot_files import SnapshotFiles
from lxcfleet.containers.desired import Intent
from lxcfleet.containers.drain import Drain
from lxcfleet.containers.ends.firsts import TIDY_SECONDS
from lxcfleet.containers.events import ActionDone, RebootsAgain, StartFailed, StoppedByItself, Wished
from lxcfleet.containers.foreground import Foreground
from lxcfleet.containers.masks import MaskKeeper
from lxcfleet.containers.order.ordering import Ordering, Turn, blocked
from lxcfleet.containers.order.turns import in_turns, turns
from lxcfleet.containers.reconciling import plan, steps
from lxcfleet.containers.reconciling.reconciler import Reconciler, refuse_unseen, waits
from lxcfleet.containers.requests.reboots import Reboots
from lxcfleet.containers.room import Room
from lxcfleet.errors import Busy, FleetError, HostError, WrongState
from lxcfleet.host.kernel import mounts
from lxcfleet.host.process import proc
from lxcfleet.runtime.operations import Job, Operation
from lxcfleet.spec.results import Result
from lxcfleet.spec.states import Action, State

log = logging.getLogger(__name__)

AT_ONCE = 16
"""At most so many containers are in the middle of a start at the same moment; the rest can still be cancelled."""
STOPS_AT_ONCE = 256
"""A stop mostly waits, so many stops may run at once."""

_REBOOTED = "rebooted from inside"
_FREE = "what it waited for is there"

_DONE = {
    Action.START: "started",
    Action.STOP: "stopped",
    Action.RESTART: "restarted",
    Action.FREEZE: "frozen",
    Action.UNFREEZE: "unfrozen",
    Action.DESTROY: "destroyed",
}


class Actions:
    """start, stop, restart, freeze, unfreeze and destroy of chosen containers; and finishing what was broken off."""

    def __init__(
        self,
        common: Common,
        reconciler: Reconciler,
        mask: MaskKeeper,
        room: Room,
        ordering: Ordering,
        snapshots: SnapshotFiles,
        drain: Drain,
    ) -> None:
        self._snapshots = snapshots
        self._drain = drain
        self._paths = common.paths
        self._registry = common.registry
        self._operations = common.operations
        self._bus = common.bus
        self._reconciler = reconciler
        self._mask = mask
        self._room = room
        self.ordering = ordering
        self._reboots = Reboots()

    async def begin(self, ask: ActionRequest, stop_timeout: float) -> Operation:
        """Begin an action on the chosen containers; ``stop_timeout``: the seconds that a stop until the next boot may take
        if ``ask`` names none."""
        self._mask.distrust()
        await self._registry.observe()
        chosen = self._registry.choose(ask.selection)
        if ask.action in (Action.START, Action.RESTART):
            self._permit(chosen, ask)
        if ask.dry_run:
            plans = [self._foresee(container, ask) for container in chosen]
            lines = [line for _, some in plans for line in some]
            return self._operations.dry(ask.action, [result for result, _ in plans], lines)
        timeout = 0.0 if ask.action is Action.DESTROY else ask.timeout  # the delta is removed anyway
        if ask.action is Action.START:
            await self._room.check_start([c for c in chosen if c.running is None])
        if ask.until_boot:
            rests = self._rests(chosen, stop_timeout if timeout is None else timeout)
            return self._operations.begin(ask.action, rests, STOPS_AT_ONCE)
        if ask.action is Action.RESTART:

            def restart(container: Container, turn: Turn) -> Awaitable[Result]:
                return self.act(container, ask.action, timeout, ask.drain, no_deps=True, turn=turn)

            jobs = self.ordering.restarts(
                chosen, lambda container: self._job(container, ask, timeout), restart, no_deps=ask.no_deps
            )
            # Those that wait for others must not keep these from their turn.
            return self._operations.begin(ask.action, jobs, max(STOPS_AT_ONCE, len(jobs)))
        jobs = self.ordering.jobs(ask.action, chosen, lambda container: self._job(container, ask, timeout))
        at_once = AT_ONCE if ask.action is Action.START else STOPS_AT_ONCE
        return self._operations.begin(ask.action, jobs, at_once)

    def _permit(self, chosen: Sequence[Container], ask: ActionRequest) -> None:
        """Refuse a start on a host that is drained, unless it is forced. Raises WrongState."""
        if not ask.force:
            self._drain.refuse("nothing is started; --force starts it all the same")
        elif not ask.dry_run and self._drain.now is not None:
            self._drain.forced.update(each.name for each in chosen)

    async def run_jobs(self, action: str, jobs: Sequence[Job]) -> list[Result]:
        """Run jobs that stop and start containers as one operation, to its end."""
        self._mask.distrust()
        operation = self._operations.begin(action, jobs, STOPS_AT_ONCE)
        async for _ in operation.follow():
            pass
        return operation.results

    def _foresee(self, container: Container, ask: ActionRequest) -> tuple[Result, list[str]]:
        if ask.action is Action.DESTROY:
            try:
                self._refuse_destroy(container.name, with_snapshots=ask.with_snapshots)
            except FleetError as error:
                return Result(container.name, "failed", False, error.body()), str(error).splitlines()
        return self.foresee(
            container, ask.action, force=ask.force, no_deps=ask.no_deps, lasting=not ask.until_boot
        )

    def foresee(
        self, container: Container, action: Action, *, force: bool = True, no_deps: bool = False, lasting: bool = True
    ) -> tuple[Result, list[str]]:
        """The result that the action would have, and its steps in words."""
        try:
            _check_force(container, action, force=force)
            _check_state(container, action)
            wanted = self._reconciler.plan(container, plan.WANTED[action], no_deps=no_deps)
        except FleetError as error:
            return Result(container.name, "failed", False, error.body()), str(error).splitlines()
        if not wanted and (other := _other_for(container, action, lasting=lasting)):
            return Result(container.name, "planned", True), [f"{container.name}: {other}"]
        changes = bool(wanted) and not waits(wanted)
        return Result(container.name, "planned" if changes else "unchanged", changes), steps.describe(container.name, wanted)

    def _rests(self, chosen: Sequence[Container], seconds: float) -> list[Job]:
        """Stop them until the next boot: in turns, which share the time that all of it may take."""
        groups = turns(chosen, self.ordering.graph(), last_first=True)
        deadline = time.monotonic() + seconds

        def rest(container: Container, turns_left: int) -> Job:
            async def job() -> Result:
                owed = self._registry.noted(container) is Intent.RUN  # its turn after the boot has not come yet
                again = container.running is not None or container.resting or owed or container.course.wants_run
                left = max(0.0, deadline - time.monotonic())
                # All of them end, so there is no other container that clients could be drained to.
                result = await self.act(container, Action.STOP, left / turns_left, 0, lasting=False)
                container.resting = again and container.foreground is None
                return result

            return Job(container.name, job)

        async def ready(_: int) -> None:
            pass  # containers that are stopped by now stay stopped

        return in_turns([[rest(c, len(groups) - n) for c in group] for n, group in enumerate(groups)], ready)

    def _job(self, container: Container, ask: ActionRequest, timeout: float | None) -> Job:
        async def job() -> Result:
            _check_force(container, ask.action, force=ask.force)
            return await self.act(
                container, ask.action, timeout, ask.drain, no_deps=ask.no_deps, with_snapshots=ask.with_snapshots
            )

        start = ask.action in (Action.START, Action.RESTART)
        return Job(container.name, job, after=partial(self.ordering.settled, container) if start else None)

    async def make_ready(self, container: Container) -> None:
        """Refuse a start for which the host has no room. Raises FleetError."""
        self._mask.distrust()
        await self._room.check_start([container])

    async def act(
        self,
        container: Container,
        action: Action,
        timeout: float | None,
        drain: float | None = None,
        *,
        lasting: bool = True,
        note: Foreground | None = None,
        no_deps: bool = False,
        turn: Turn | None = None,
        with_snapshots: bool = False,
    ) -> Result:
        """Do ``action`` to one container. Raises FleetError.

        ``timeout``: seconds until a stop becomes a kill, None: as the settings say; ``drain``: seconds from the withdrawal of
        names and ports to the stop, None: as its spec says; ``lasting``: whether a stop holds after the host's next boot;
        ``note``: how `lxcfleet run` runs the container that is started, if that does; ``no_deps``: whether it starts whatever
        the containers do that it depends on. One that can't start yet is blocked then, which is no failure: that it is to
        run is noted, and done as soon as it can be; ``turn``: see Reconciler.bring; ``with_snapshots``: whether one that has
        snapshots is destroyed, and they with it.
        """
        name = container.name
        if action is Action.DESTROY:
            self._refuse_destroy(name, with_snapshots=with_snapshots)
        if action is Action.RESTART and container.foreground is not None:
            return await self._renew(container, container.foreground, timeout, drain)
        want = replace(plan.WANTED[action], lasting=lasting)
        if action is Action.START:
            await _see_it_end(container)

        def allowed(now: Container) -> None:
            _check_state(now, action)
            if action is Action.START:
                if note is not None:
                    self.ordering.refuse_blocked(now)
                self._hand_over(now, note)

        taken = await self._reconciler.bring(container, want, action, timeout, drain, allowed, no_deps=no_deps, turn=turn)
        changed = (bool(taken) and not waits(taken)) or bool(_other_for(container, action, lasting=lasting))
        container.resting = False
        if with_snapshots:
            await self._snapshots.remove_all(name)
        if lasting:
            self._bus.publish(Wished(container, action))
        if container.lack is not None:
            return blocked(container, changed=changed)
        if not changed:
            return Result(name, "unchanged", False)
        self._bus.publish(ActionDone(name, _DONE[action]))
        return Result(name, _DONE[action], True)

    def _refuse_destroy(self, name: str, *, with_snapshots: bool) -> None:
        """Refuse to destroy what may be needed, before the container is stopped for it. Raises FleetError."""
        moving.refuse_destroy(self._paths, name)
        self._snapshots.refuse(name, removed=with_snapshots)
        removed = [self._paths.container(name).directory, *([self._paths.snapshots_of(name)] if with_snapshots else [])]
        mounts.refuse_removal(name, removed)

    async def check(self, container: Container) -> None:
        """See that a container that runs could start again, before it is stopped for something else. Raises FleetError."""
        await self._reconciler.check(container)

    def _hand_over(self, container: Container, note: Foreground | None) -> None:
        """Note who starts it: `lxcfleet run`, or this daemon. Raises FleetError."""
        if note is not None and container.running is not None:
            raise WrongState(
                f"{container.name} is running", why="`lxcfleet run` runs what does not run yet",
                hint=f"stop it first: lxcfleet stop {container.name}",
            )  # fmt: skip
        if container.running is not None or note == container.foreground:
            return
        try:
            foreground.write(self._paths, container.name, note)
        except OSError as error:
            raise HostError.from_os_error(f"{container.name}: the user who runs it can't be noted", error) from error
        container.foreground = note

    async def _renew(
        self, container: Container, note: Foreground, timeout: float | None, drain: float | None
    ) -> Result:
        """End what `lxcfleet run` runs, for its caller to begin it anew: this daemon does not start it. Raises FleetError."""
        if container.running is None:
            return Result(container.name, "unchanged", False)
        try:
            container.foreground = foreground.renewed(self._paths, container.name, note)
        except OSError as error:
            raise HostError.from_os_error(f"{container.name}: its restart can't be noted", error) from error
        allowed = partial(_check_state, action=Action.STOP)
        await self._reconciler.bring(container, plan.WANTED[Action.STOP], Action.STOP, timeout, drain, allowed)
        self._bus.publish(ActionDone(container.name, _DONE[Action.STOP], "for `lxcfleet run` to be begun anew"))
        return Result(container.name, _DONE[Action.STOP], True)

    # -- what happens by itself ------------------------------------------------------------------------------

    def exited(self, container: Container) -> None:
        """A container has ended. If an action is under way on it, ``ended_in_hand`` is called once that action is over."""
        if container.busy is None and self._registry.knows(container):
            self._bus.publish(StoppedByItself(container.name, _how(container)))
            self._follow(container)

    def ended_in_hand(self, container: Container, *, succeeded: bool) -> None:
        """A container ended during an action that was not meant to end it, and the action is over now.

        If the action failed, nothing more is tried: a start that fails would be tried for ever.
        """
        if container.running is None and self._registry.knows(container):
            self._bus.publish(StoppedByItself(container.name, _how(container)))
            if succeeded and container.busy is None:
                self._follow(container)

    def _follow(self, container: Container) -> None:
        """Give a container that asked for a reboot a start with a fresh mount. If it took longer to end than its stop or
        destroy waited, stop or destroy it now."""
        match self._registry.noted(container):
            case Intent.RUN if container.foreground is not None:
                self.forget_wish(container)  # `lxcfleet run` ends with the status that asks for a new run
            case Intent.RUN:
                self._reboot(container)
            case Intent.STOPPED:
                self.resume(container, "it was to be stopped, and has ended at last")
            case Intent.GONE:
                self.resume(container, "it was to be destroyed, and has ended at last")

    def _reboot(self, container: Container) -> None:
        """Start a container that asked for a reboot: at once, or later if it does that all the time."""
        seconds = self._reboots.wait(container.name, time.monotonic())
        if not seconds:
            self.resume(container, _REBOOTED)
            return
        self._bus.publish(RebootsAgain(container.name, seconds))
        asyncio.get_running_loop().call_later(seconds, self._reboot_now, container)

    def _reboot_now(self, container: Container) -> None:
        """Start it, if nothing else was done to it meanwhile."""
        down = self._registry.knows(container) and not container.in_start and container.running is None
        if down and self._registry.noted(container) is Intent.RUN:  # if it is busy, it is tried again after that
            self.resume(container, _REBOOTED)

    async def again(self, container: Container, action: Action, reason: str) -> None:
        """Start or restart a container, as its restart policy says, or as its start failed. Raises FleetError."""
        await self._reconciler.bring_unasked(container, plan.WANTED[action], action)
        if container.lack is None:
            self._bus.publish(ActionDone(container.name, "restarted", reason))

    def forget_wish(self, container: Container) -> None:
        """Somebody wants something else by now than what is noted for a container."""
        self._reconciler.forget_wish(container)

    def resume(self, container: Container, reason: str) -> None:
        """Finish what was wanted of a container earlier. A start that is under way finishes it, and tells of its failure: a
        restart policy may have begun one in the first moments of the daemon."""
        owed = self._reconciler.owed(container)
        if not owed or container.in_start:
            return
        if not waits(owed):
            self._bus.publish(ActionDone(container.name, "resumed", reason))
        self._operations.begin("resume", [self._resumption(container, reason)], 1)

    def _resumption(self, container: Container, reason: str) -> Job:
        async def job() -> Result:
            try:
                await self._reconciler.go_on(container)
            except FleetError as error:
                if container.running is None and self._registry.knows(container):
                    log.error("%s: not done, though it is owed: %s", container.name, error)
                    self._bus.publish(StartFailed(container.name, f"{reason}: {error.message}"))
                raise
            finally:
                container.freed = False
            return Result(container.name, "resumed", True)

        return Job(container.name, job)

    def start_blocked(self, containers: Sequence[Container]) -> None:
        """Start containers that were blocked, and lack nothing any more."""
        for container in containers:
            container.freed = True
            self._bus.publish(ActionDone(container.name, "resumed", _FREE))
        self._operations.begin("resume", [self._resumption(container, _FREE) for container in containers], AT_ONCE)


async def _see_it_end(container: Container) -> None:
    """Wait for the end of a run whose process 1 has ended: to start it then is something to do. Raises Busy.

    Its monitor may still tidy up when lxc-stop, which waits for process 1, says that it is done.
    """
    running = container.running
    if running is None or not proc.has_ended(running.pid, running.monitor):
        return
    try:
        async with asyncio.timeout(TIDY_SECONDS):
            await running.gone.wait()
    except TimeoutError:
        raise Busy(f"{container.name} ends at this moment", hint="wait until that is done, then try again") from None


def _how(container: Container) -> str:
    """How it ended, with the time that the run took."""
    past = container.exit
    if past is None:
        return ""
    return f"{past.words}{f', after {past.seconds:.1f} s' if past.seconds is not None else ''}"


def _other_for(container: Container, action: Action, *, lasting: bool) -> str:
    """The difference that an action, which has nothing to end, makes for a container that is down: in words; empty: none.
    A stop may have it stay down that would start by itself, and makes one that has ended by itself a stopped one.

    ``lasting``: whether the stop holds after the host's next boot.
    """
    if action is not Action.STOP or container.running is not None:
        return ""
    if container.resting:  # what it would start by is put off until the boot already
        return "stay down, also after the host's next boot" if lasting else ""
    if container.course.wants_run:
        return "stay down, also after the host's next boot" if lasting else "stay down until the host's next boot"
    if lasting and container.state in (State.EXITED, State.FAILED):  # a job has not completed then
        return "count as stopped, not as ended by itself"
    return ""


def _check_force(container: Container, action: Action, *, force: bool) -> None:
    if action is Action.DESTROY and container.running is not None and not force:
        raise WrongState(
            f"{container.name} is running and was not destroyed",
            hint=f"stop it first, or use --force: lxcfleet destroy --force {container.name}",
        )


def _check_state(container: Container, action: Action) -> None:
    refuse_unseen(container)
    if container.broken and action in (Action.START, Action.RESTART):
        raise container.problem or WrongState(f"{container.name} is broken")
    if container.running is None and action in (Action.FREEZE, Action.UNFREEZE):
        raise WrongState(f"{container.name} is not running", hint=f"start it: lxcfleet start {container.name}")
