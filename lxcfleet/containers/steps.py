"""The steps that change a container. Each says what it is, does it, and takes it back where that can be.

A step may be broken off anywhere: the daemon, its launcher or the machine may die between any two steps, or in the
middle of one. What is then on disk and running is an Observed, from which containers.plan knows how to go on. If a step
fails and the daemon lives, the steps before it are undone, the last one first, until the point of no return.
"""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from lxcfleet.containers.changes import different
from lxcfleet.containers.container import Container
from lxcfleet.containers.desired import NOTHING, Intent, Observed
from lxcfleet.errors import FleetError
from lxcfleet.spec.spec import Spec

log = logging.getLogger(__name__)


class Hands(Protocol):
    """What steps are done with; containers.lifecycle has it. All raise FleetError."""

    async def prepare(self, container: Container, *, make: bool, mount: bool) -> int | None:
        """Make its files, or check them, and mount its layers. Gives a descriptor of the mount namespace, if ``mount``."""

    async def unmake(self, container: Container) -> None:
        """Remove a container whose creation failed."""

    def note(self, name: str, intent: Intent | None, *, must: bool) -> None:
        """Write down what is to become of it; None: nothing else than it is. ``must``: raise if that can't be written."""

    async def freeze(self, container: Container) -> None:
        """Freeze its processes."""

    async def thaw(self, container: Container) -> None:
        """Unfreeze its processes."""

    async def leave(self, container: Container, drain: float | None) -> None:
        """Withdraw it from names and ports, and wait."""

    def come_back(self, container: Container) -> None:
        """Let one that was withdrawn be found again, if it runs."""

    async def halt(self, container: Container, timeout: float) -> None:
        """End it."""

    async def boot(self, container: Container, namespace: int) -> None:
        """Start its init in a mount namespace that ``prepare`` gave."""

    def retire(self, name: str) -> None:
        """Take its name away."""

    async def remove_leftovers(self, name: str) -> None:
        """Remove the directories that were its."""


class SpecHands(Protocol):
    """What steps change specs with; containers.specs has it."""

    def write(self, container: Container, spec: Spec) -> None:
        """Have another spec on disk, and keep the former one beside it. Raises HostError."""

    def put_back(self, container: Container, former: Spec) -> None:
        """Have the former spec on disk again. Raises OSError."""

    async def put_in_force(self, container: Container, spec: Spec) -> None:
        """Have a run go on with another spec. Raises FleetError."""


@dataclass
class Work:
    """One container in the middle of its steps."""

    hands: Hands
    specs: SpecHands
    container: Container
    timeout: float = 10.0
    """Seconds until a halt becomes a kill."""
    drain: float | None = None
    """Seconds from leaving names and ports to the halt; None: as its spec says."""
    namespace: int | None = None
    """A descriptor of the mount namespace that its layers are mounted in."""
    done: list[Step] = field(default_factory=list)
    """The steps that would be undone now, in the order in which they were done."""

    def no_way_back(self) -> None:
        """From here on nothing is undone: what fails is gone on with from what is on disk."""
        self.done.clear()

    async def carry_out(self, steps: Iterable[Step], observers: Sequence[Observer] = ()) -> None:
        """Do ``steps`` in order; undo what can be undone if one of them fails. Raises FleetError."""
        try:
            for step in steps:
                await self.take(step, observers)
        except BaseException:
            await self.undo()
            raise
        finally:
            if self.namespace is not None:
                os.close(self.namespace)

    async def take(self, step: Step, observers: Sequence[Observer] = ()) -> None:
        """Do one step. Raises FleetError."""
        for observer in observers:
            observer(self.container.name, step)
        await step.do(self)
        self.done.append(step)

    async def undo(self) -> None:
        """Undo what was done. What can't be undone is in the log."""
        while self.done:
            step = self.done.pop()
            try:
                await step.undo(self)
            except (FleetError, OSError) as error:
                log.warning("%s: can't undo “%s”: %s", self.container.name, step.describe(), error)


@dataclass(frozen=True)
class Step(ABC):
    """One step."""

    @property
    def name(self) -> str:
        """The word for it in logs and tests."""
        return type(self).__name__.lower()

    @abstractmethod
    def describe(self) -> str:
        """What it does, in words, as ``--dry-run`` prints it."""

    @abstractmethod
    async def do(self, work: Work) -> None:
        """Do it. Raises FleetError. One that fails half-way undoes its own half."""

    async def undo(self, work: Work) -> None:
        """Have things as they were before; nothing, where that can't be or need not be. Raises FleetError, OSError."""
        log.debug("%s: nothing to undo of “%s”", work.container.name, self.describe())

    @abstractmethod
    def after(self, now: Observed) -> Observed:
        """What there is once it was done to what there is now."""


Observer = Callable[[str, Step], None]
"""Told which step is about to be done to the container of that name."""


@dataclass(frozen=True)
class Make(Step):
    """A container under construction has another name until it is whole; then it gets its own in one system call."""

    start: bool
    """Whether it is to be started: that is noted in it from the beginning, and its layers are mounted on the same way."""

    def describe(self) -> str:
        """In words."""
        return "make its directory, spec, configuration and empty delta"

    async def do(self, work: Work) -> None:
        """Do it. It may have been done though the answer got lost: then it is taken back as well."""
        try:
            work.namespace = await work.hands.prepare(work.container, make=True, mount=self.start)
        except BaseException:
            await self.undo(work)
            raise

    async def undo(self, work: Work) -> None:
        """Its init never ran, so its delta is empty."""
        try:
            await work.hands.unmake(work.container)
        except (FleetError, OSError) as error:
            log.warning("%s: what its creation left can't be removed: %s", work.container.name, error)

    def after(self, now: Observed) -> Observed:
        """It is there."""
        return replace(now, exists=True, half_made=False, noted=Intent.RUN if self.start else None)


@dataclass(frozen=True)
class Want(Step):
    """The intent goes on disk before anything is done for it."""

    intent: Intent
    must: bool = True
    """Whether nothing may be done if that can't be written, as on a disk that is full."""
    former: Intent | None = None
    """What was noted before."""

    def describe(self) -> str:
        """In words."""
        return {
            Intent.RUN: "note that it is to run",
            Intent.STOPPED: "note that it is to be stopped",
            Intent.GONE: "note that it is to be destroyed",
        }[self.intent]

    async def do(self, work: Work) -> None:
        """Do it."""
        work.hands.note(work.container.name, self.intent, must=self.must)

    async def undo(self, work: Work) -> None:
        """What was wanted before is wanted again."""
        work.hands.note(work.container.name, self.former, must=True)

    def after(self, now: Observed) -> Observed:
        """It is noted."""
        return replace(now, noted=self.intent)


@dataclass(frozen=True)
class Settle(Step):
    """What is wanted and what there is are the same."""

    def describe(self) -> str:
        """In words."""
        return "note that this is done"

    async def do(self, work: Work) -> None:
        """Do it."""
        work.no_way_back()
        work.hands.note(work.container.name, None, must=True)

    def after(self, now: Observed) -> Observed:
        """Nothing is noted any more."""
        return replace(now, noted=None)


@dataclass(frozen=True)
class Write(Step):
    """What is wanted is on disk before anything of it is put in force."""

    spec: Spec
    former: Spec

    def describe(self) -> str:
        """In words."""
        return f"write its spec: {', '.join(different(self.former, self.spec))}"

    async def do(self, work: Work) -> None:
        """Do it."""
        try:
            work.specs.write(work.container, self.spec)
        except BaseException:
            await self.undo(work)
            raise

    async def undo(self, work: Work) -> None:
        """The former one is wanted again."""
        work.specs.put_back(work.container, self.former)

    def after(self, now: Observed) -> Observed:
        """It is on disk; a run has the former one still."""
        return replace(now, spec=self.spec, in_force=now.in_force if now.running else self.spec)


@dataclass(frozen=True)
class PutInForce(Step):
    """What can change while a container runs does."""

    spec: Spec
    """What the run is to have; what of the wanted spec takes a restart is not in it."""
    former: Spec

    def describe(self) -> str:
        """In words."""
        return f"change while it runs: {', '.join(different(self.former, self.spec))}"

    async def do(self, work: Work) -> None:
        """Do it."""
        await work.specs.put_in_force(work.container, self.spec)

    async def undo(self, work: Work) -> None:
        """The run goes on as before."""
        await work.specs.put_in_force(work.container, self.former)

    def after(self, now: Observed) -> Observed:
        """It has them."""
        return replace(now, in_force=self.spec)


@dataclass(frozen=True)
class Thaw(Step):
    """Frozen processes can't end, and answer nobody."""

    def describe(self) -> str:
        """In words."""
        return "unfreeze its processes"

    async def do(self, work: Work) -> None:
        """Do it."""
        await work.hands.thaw(work.container)

    async def undo(self, work: Work) -> None:
        """Freeze them again."""
        if work.container.running is not None:
            await work.hands.freeze(work.container)

    def after(self, now: Observed) -> Observed:
        """They run."""
        return replace(now, frozen=False)


@dataclass(frozen=True)
class Freeze(Step):
    """It keeps its memory and uses no processor."""

    def describe(self) -> str:
        """In words."""
        return "freeze its processes"

    async def do(self, work: Work) -> None:
        """Do it."""
        await work.hands.freeze(work.container)

    async def undo(self, work: Work) -> None:
        """Unfreeze them again."""
        if work.container.running is not None:
            await work.hands.thaw(work.container)

    def after(self, now: Observed) -> Observed:
        """They are frozen."""
        return replace(now, frozen=True)


@dataclass(frozen=True)
class Leave(Step):
    """Clients of its service go elsewhere before it ends."""

    def describe(self) -> str:
        """In words."""
        return "withdraw it from names and ports, and wait for its drain time"

    async def do(self, work: Work) -> None:
        """Do it."""
        try:
            await work.hands.leave(work.container, work.drain)
        except BaseException:
            await self.undo(work)
            raise

    async def undo(self, work: Work) -> None:
        """It runs on, so it is found again."""
        work.hands.come_back(work.container)

    def after(self, now: Observed) -> Observed:
        """A daemon that starts lets all be found that run."""
        return now


@dataclass(frozen=True)
class Halt(Step):
    """The point of no return of a stop: init was asked to end, and will."""

    def describe(self) -> str:
        """In words."""
        return "ask its init to end, and wait; kill it when the time is up"

    async def do(self, work: Work) -> None:
        """Do it."""
        work.no_way_back()
        await work.hands.halt(work.container, work.timeout)

    def after(self, now: Observed) -> Observed:
        """It has ended; what was wanted for the next run holds."""
        return replace(now, running=False, frozen=False, in_force=now.spec)


@dataclass(frozen=True)
class Mount(Step):
    """Its layers, fresh: no process outside sees the mount, and it is gone with the last process inside."""

    def describe(self) -> str:
        """In words."""
        return "mount base, mask and delta in a mount namespace of its own"

    async def do(self, work: Work) -> None:
        """Do it, unless it was done in the same go as the making."""
        if work.namespace is None:
            work.namespace = await work.hands.prepare(work.container, make=False, mount=True)

    def after(self, now: Observed) -> Observed:
        """A mount is gone with the process that made it."""
        return now


@dataclass(frozen=True)
class Boot(Step):
    """The point of no return of a start: what init writes to the delta must not be lost."""

    def describe(self) -> str:
        """In words."""
        return "start its init"

    async def do(self, work: Work) -> None:
        """Do it."""
        assert work.namespace is not None
        await work.hands.boot(work.container, work.namespace)
        work.no_way_back()

    def after(self, now: Observed) -> Observed:
        """It runs."""
        return replace(now, running=True)


@dataclass(frozen=True)
class Retire(Step):
    """The point of no return of a destroy: one rename, after which there is no container of that name."""

    def describe(self) -> str:
        """In words."""
        return "take its name away"

    async def do(self, work: Work) -> None:
        """Do it."""
        work.hands.retire(work.container.name)
        work.no_way_back()

    def after(self, now: Observed) -> Observed:
        """What was it has no name any more."""
        return replace(NOTHING, half_made=now.half_made, half_removed=True)


@dataclass(frozen=True)
class Remove(Step):
    """All that was it goes."""

    def describe(self) -> str:
        """In words."""
        return "remove its delta and its directory"

    async def do(self, work: Work) -> None:
        """Do it."""
        work.no_way_back()
        await work.hands.remove_leftovers(work.container.name)

    def after(self, now: Observed) -> Observed:
        """Nothing is left."""
        return replace(now, half_made=False, half_removed=False)


def describe(name: str, steps: Sequence[Step]) -> list[str]:
    """The steps in words."""
    return [f"{name}: {step.describe()}" for step in steps] or [f"{name}: nothing to do"]
