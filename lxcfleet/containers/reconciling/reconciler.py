"""The one way in which containers change: desired state, observed state, and the steps between them, carried out.

create, start, stop, restart, destroy, recovery from a crash, a reboot from inside and the start after the host's boot
all come here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import replace

from lxcfleet.containers.container import Container
from lxcfleet.containers.desired import Desired, Intent, Lack, Observed
from lxcfleet.containers.reconciling import plan
from lxcfleet.containers.reconciling.holding import Hold
from lxcfleet.containers.reconciling.lifecycle import Lifecycle
from lxcfleet.containers.reconciling.plan import Steps
from lxcfleet.containers.reconciling.prerequisites import Prerequisites
from lxcfleet.containers.reconciling.specs import Specs
from lxcfleet.containers.reconciling.steps import (
    Boot,
    Halt,
    Make,
    Mount,
    Observer,
    PutInForce,
    Remove,
    Settle,
    Step,
    Work,
    Write,
)
from lxcfleet.containers.registry import Registry
from lxcfleet.containers.room import Room
from lxcfleet.errors import Blocked, Broken, Busy, FleetError, HostError, NotFound
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.states import Action

log = logging.getLogger(__name__)

_WORDS = {Intent.RUN: Action.START, Intent.STOPPED: Action.STOP, Intent.GONE: Action.DESTROY}
"""The word for what is done to a container that gets what was wanted of it earlier."""


def _log_step(name: str, step: Step) -> None:
    if log.isEnabledFor(logging.DEBUG):
        log.debug("%s: %s", name, step.describe())


class Reconciler:
    """Brings containers to their desired state; one change at a time for each."""

    def __init__(
        self,
        registry: Registry,
        lifecycle: Lifecycle,
        specs: Specs,
        room: Room,
        stop_timeout: float,
        observers: Sequence[Observer] = (),
        prerequisites: Prerequisites | None = None,
    ) -> None:
        """``stop_timeout``: seconds until a stop that an earlier daemon began becomes a kill."""
        self._prerequisites = prerequisites or Prerequisites()
        self._registry = registry
        self._lifecycle = lifecycle
        self._specs = specs
        self._room = room
        self._stop_timeout = stop_timeout
        self._observers: Sequence[Observer] = (_log_step, *observers)
        self._unasked: dict[str, asyncio.Event] = {}
        """Containers that are changed at the moment and nobody asked for it; the event: that is over."""

    def take_over(self, stop_timeout: float) -> None:
        """Take over a new setting."""
        self._stop_timeout = stop_timeout

    def plan(self, container: Container, want: Desired, *, no_deps: bool = False) -> Steps:
        """The steps from the observed to the desired state of a container. ``no_deps``: see Prerequisite.waived.

        Raises Blocked for a restart of a container that could not start again.
        """
        now = self._observed(container, no_deps=no_deps)
        if want.anew and now.running and now.lack is not None:
            raise _could_not_start(container, now.lack)
        if container.resting and now.noted is Intent.RUN and want.intent is not Intent.STOPPED:
            # That note is from before it came to rest, and says nothing any more (patch.fallen): it takes a new one.
            now = replace(now, noted=None)
        return plan.plan(want, now)

    def _observed(self, container: Container, *, no_deps: bool = False) -> Observed:
        lack = self._prerequisites.lack(container.wanted, no_deps=no_deps)
        return replace(self._registry.observed(container), lack=lack)

    def owed(self, container: Container) -> Steps:
        """The steps to an earlier intent that is not fulfilled."""
        return plan.recover(self._observed(container))

    def noted(self, container: Container) -> Intent | None:
        """The earlier intent that is not fulfilled."""
        return self._registry.observed(container).noted

    def want(self, container: Container, intent: Intent, *, must: bool = True) -> None:
        """Note an intent for a container; ``go_on`` carries it out. Raises HostError if that can't be written and ``must`` is
        set; else this daemon knows it all the same."""
        self._lifecycle.note(container.name, intent, must=must)

    async def bring_unasked(self, container: Container, want: Desired, busy: str) -> None:
        """Bring a container to the desired state, though nobody asked for that now: a request waits meanwhile, and is not
        refused. Raises FleetError."""
        self._check_free(container)
        over = self._unasked[container.name] = asyncio.Event()
        try:
            await self._bring(container, want, busy)
        finally:
            del self._unasked[container.name]
            over.set()

    @asynccontextmanager
    async def kept(self, container: Container, busy: str, *, unasked: bool = False) -> AsyncIterator[None]:
        """Keep a container as it is meanwhile, with the word ``busy`` for why; ``unasked``: see ``bring_unasked``.

        Raises Busy, NotFound.
        """
        if not unasked:
            await self._unasked_is_over(container)
        self._check_free(container)
        over = asyncio.Event()
        if unasked:
            self._unasked[container.name] = over
        try:
            with self._registry.in_hand(container, busy):
                yield
        finally:
            if unasked:
                del self._unasked[container.name]
                over.set()

    async def _unasked_is_over(self, container: Container) -> None:
        while (over := self._unasked.get(container.name)) is not None:
            await over.wait()

    def forget_wish(self, container: Container) -> None:
        """Remove the note of an intent that nobody has any more; a failure is tried again later."""
        self._lifecycle.note(container.name, None, must=False)

    async def bring(
        self,
        container: Container,
        want: Desired,
        busy: str,
        timeout: float | None,
        drain: float | None = None,
        allowed: Callable[[Container], None] = lambda _: None,
        *,
        no_deps: bool = False,
        turn: Callable[[], Awaitable[Lack | None]] | None = None,
    ) -> Steps:
        """Bring a container to the desired state. Returns the steps that were taken. Raises FleetError.

        ``busy``: the word for the present action; ``timeout``: seconds until a halt becomes a kill, None: as its
        spec says; ``drain``: seconds from the withdrawal of names and ports to the halt, None: likewise; ``allowed``:
        raises FleetError if the container's present state forbids the action; ``no_deps``: see Prerequisite.waived;
        ``turn``: waited for between a stop and the start, gives what is lacking then.
        """
        await self._unasked_is_over(container)
        return await self._bring(container, want, busy, timeout, drain, allowed, no_deps=no_deps, turn=turn)

    async def _bring(
        self,
        container: Container,
        want: Desired,
        busy: str,
        timeout: float | None = None,
        drain: float | None = None,
        allowed: Callable[[Container], None] = lambda _: None,
        *,
        no_deps: bool = False,
        turn: Callable[[], Awaitable[Lack | None]] | None = None,
    ) -> Steps:
        self._check_free(container)
        with self._registry.in_hand(container, busy) as hold:
            allowed(container)
            if want.intent is Intent.RUN:
                await self._prerequisites.look(container.wanted)
            steps = self.plan(container, want, no_deps=no_deps)
            hold.ends_meant = _halts(steps)
            seconds = self._patience(container) if timeout is None else timeout
            steps = steps if turn is None else plan.in_turn(steps)
            await self._carry_out(Work(self._lifecycle, self._specs, container, seconds, drain, turn), steps)
        return steps

    async def check(self, container: Container) -> None:
        """See that a container that runs could start again, before it is stopped for something else. Raises FleetError."""
        await self._lifecycle.check(container)

    async def create(self, container: Container, *, start: bool) -> None:
        """Create a container that is marked as busy already. If that fails, nothing of it is left. Raises FleetError."""
        with self._registry.in_hand(container, "create"):
            if start:
                await self._prerequisites.look(container.wanted)
            steps = plan.create(start, self._prerequisites.lack(container.wanted))
            await self._carry_out(Work(self._lifecycle, self._specs, container), steps)

    async def go_on(self, container: Container) -> Steps:
        """Fulfil an earlier intent. Returns the steps that were taken. Raises FleetError."""
        try:
            self._check_free(container)
            await self._prerequisites.look(container.wanted)
            self._check_free(container)
        except FleetError as error:
            # Whoever has it in hand may know nothing of the start. A start that is under way tells of its own failure.
            if not container.in_start and container.course.due is None:
                self._registry.start_failed(container, error)
            raise
        now = self._observed(container)
        steps = plan.recover(now)
        if steps:
            busy = "set" if now.noted is None else _WORDS[now.noted]
            with self._registry.in_hand(container, busy) as hold:
                hold.ends_meant = _halts(steps)
                timeout = self._patience(container) if now.noted is Intent.STOPPED else 0.0
                await self._carry_out(Work(self._lifecycle, self._specs, container, timeout), steps)
        return steps

    def settle_again(self) -> None:
        """Remove notes of intents that are fulfilled where that failed before, as on a disk that gave errors for a while.
        Write those of owed starts for which the disk had no room.

        Left for good, such a note would be carried out once more after the container's next end.
        """
        for name in sorted(self._lifecycle.unsettled):
            if name not in self._registry:
                self._lifecycle.unsettled.discard(name)
            elif self._registry[name].busy is None and self.owed(self._registry[name]) == (Settle(),):
                with suppress(HostError):  # it was told when it failed first
                    self._lifecycle.note(name, None, must=True)
        for container in self._registry:
            # What rests must not look as if it were wanted anew.
            if container.owed and not container.resting and container.busy is None and container.running is None:
                self._lifecycle.note_owed(container)

    def _patience(self, container: Container) -> float:
        """Seconds until a stop becomes a kill, if the request does not say so: as its spec says, else as the settings say."""
        own = None if container.spec is None else container.spec.stop_timeout
        return self._stop_timeout if own is None else own

    def plan_change(self, container: Container, spec: Spec) -> Steps:
        """The steps that give a container another spec. Whether it is frozen, and what is noted of it, is read nowhere: that
        makes no difference to them."""
        running = container.running is not None
        return plan.change(spec, Observed(True, running, spec=container.wanted, in_force=container.spec))

    async def change(self, wanted: Sequence[tuple[Container, Spec]]) -> None:
        """Give containers other specs: all of them, or none if one can't have its spec. Raises FleetError.

        Each spec is on disk before the first of them is put in force.
        """
        with ExitStack() as in_hand:
            for container, _ in wanted:
                self._check_free(container)
                in_hand.enter_context(self._registry.in_hand(container, "set"))
            works = [(Work(self._lifecycle, self._specs, c), self.plan_change(c, spec)) for c, spec in wanted]
            many = len(works) > 1
            if many:
                staged = zip(wanted, works, strict=True)
                await self._specs.stage([(c, spec, _all_in_force(steps)) for (c, spec), (_, steps) in staged])
            try:
                for work, steps in works:
                    for step in steps[:1]:
                        await work.take(step, self._observers)
                if many:
                    await self._specs.have_on_disk(container for container, _ in wanted)
                rest = [work.take(step, self._observers) for work, steps in works for step in steps[1:]]
                for outcome in await asyncio.gather(*rest, return_exceptions=True):
                    if isinstance(outcome, BaseException):
                        raise outcome
            except BaseException:
                for work, _ in reversed(works):
                    await work.undo()
                await self._specs.have_put_back(container for container, _ in wanted)
                raise
            finally:
                self._specs.unstage(container for container, _ in wanted)
            await self._specs.forget_former(container for container, _ in wanted)

    async def _carry_out(self, work: Work, steps: Steps) -> None:
        container = work.container
        container.lack = None  # what is lacking now is in the steps
        try:
            await work.carry_out(steps, self._observers)
        except BaseException as failure:
            starts = any(isinstance(step, Mount | Boot) for step in steps)
            if isinstance(failure, Exception) and (starts or not container.course.wants_run):
                # If it was no start that failed, one that waits for its next start waits on as before.
                self._hint_at_next_try(container, failure)
                asyncio.get_running_loop().call_soon(self._registry.start_failed, container, failure)
            if any(isinstance(step, Make | Remove) for step in steps):
                if not self._lifecycle.remains(container):
                    await self._forget(container)
                elif self._lifecycle.has_lost_its_name(container.name):
                    container.problem = Broken(
                        f"{container.name} is removed by half", why="not all of its files could be removed",
                        hint=f"`lxcfleet destroy {container.name}` removes the rest, and so does the next start of lxcfleetd",
                    )  # fmt: skip
            raise
        if any(isinstance(step, Remove) for step in steps):
            await self._forget(container)

    def _hint_at_next_try(self, container: Container, failure: Exception) -> None:
        """Tell whoever asked if a start that failed is tried again, as the container was to run before."""
        if self._registry.owes_start(container) and isinstance(failure, FleetError):
            again = f"its start is tried again by itself, which `lxcfleet stop {container.name}` ends"
            failure.hint = "; ".join(filter(None, (failure.hint, again)))

    async def _forget(self, container: Container) -> None:
        """Release everything that a container held which no longer exists."""
        self._room.forget(container)
        await self._room.release_unused()

    def _check_free(self, container: Container) -> None:
        """Raise Busy, or NotFound. While an action waits for its turn, others may destroy the container and create another
        one by the same name, for which the action was not meant."""
        if container.busy is not None:
            hint = "wait until that is done, then try again"
            raise Busy(f"{container.name} is busy: {container.busy}", hint=hint)
        if not self._registry.knows(container):
            raise NotFound(f"{container.name} was destroyed meanwhile")
        refuse_unseen(container)


def refuse_unseen(container: Container) -> None:
    """Raise HostError if it can't be told whether the container runs: nothing must be done as if it did not."""
    if container.unseen:
        raise HostError(
            f"what {container.name} does is not known", why="its monitor runs, and its process 1 can't be told",
            hint="its disk may give errors: see `dmesg | tail` and the daemon's log",
        )  # fmt: skip


def _all_in_force(steps: Steps) -> bool:
    """Whether these steps give a run all of the spec that they write."""
    match steps:
        case (Write(written, _), PutInForce(put, _)):
            return written == put
    return False


def _could_not_start(container: Container, lack: Lack) -> Blocked:
    return Blocked(
        f"{container.name} is not stopped, as it could not start again", why=lack.reason,
        hint="`--no-deps` restarts it all the same, if that is a container that it depends on",
    )  # fmt: skip


def waits(steps: Steps) -> bool:
    """Whether these steps do nothing but have a container wait that waits already."""
    return bool(steps) and all(isinstance(step, Hold) for step in steps)


def _halts(steps: Steps) -> int:
    """How often these steps end the container."""
    return sum(isinstance(step, Halt) for step in steps)
