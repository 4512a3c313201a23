"""The steps that change a container. Each describes itself, does its work, and undoes it if that is possible.

A step may be interrupted at any point: the daemon, its launcher or the machine may die between two steps, or in the
middle of one. The state on disk and of the processes is then an Observed, and the plan (containers.reconciling.plan) goes on
from it. If a step fails and the daemon lives, the steps before it are undone, the last one first, up to the point of no
return.
"""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from lxcfleet.containers.container import Container
from lxcfleet.containers.desired import NOTHING, Intent, Lack, Observed
from lxcfleet.containers.reconciling.changes import different
from lxcfleet.errors import FleetError, NotStarted
from lxcfleet.spec.container.spec import Spec

log = logging.getLogger(__name__)


class Hands(Protocol):
    """The acts that steps consist of; implemented in containers.reconciling.lifecycle. All raise FleetError."""

    async def prepare(self, container: Container, *, make: bool, mount: bool) -> int | None:
        """Make its files, or check them, and mount its layers. Gives a descriptor of the mount namespace, if ``mount``."""

    async def check(self, container: Container) -> None:
        """See that a container that runs could start again: the mask's rules, its spec and its files."""

    async def unmake(self, container: Container) -> None:
        """Remove a container whose creation failed."""

    def note(self, name: str, intent: Intent | None, *, must: bool) -> None:
        """Write down what is to become of it; None: it stays as it is. ``must``: raise if that can't be written."""

    def hold(self, container: Container, lack: Lack) -> None:
        """Have it wait until nothing is lacking."""

    async def freeze(self, container: Container) -> None:
        """Freeze its processes."""

    async def thaw(self, container: Container) -> None:
        """Unfreeze its processes."""

    async def leave(self, container: Container, drain: float | None) -> None:
        """Withdraw it from names and ports, and wait."""

    def come_back(self, container: Container) -> None:
        """Let a container be found, if it runs: one that has just begun, or was withdrawn."""

    async def halt(self, container: Container, timeout: float) -> None:
        """End it."""

    async def boot(self, container: Container, namespace: int) -> None:
        """Start its init in a mount namespace that ``prepare`` gave; this closes the descriptor."""

    def retire(self, name: str) -> None:
        """Take its name away."""

    async def remove_leftovers(self, name: str) -> None:
        """Remove all directories of the container, whatever their present name."""


class SpecHands(Protocol):
    """The acts that steps change specs with; implemented in containers.reconciling.specs."""

    def write(self, container: Container, spec: Spec) -> None:
        """Write another spec to disk, and keep the former one beside it. Raises HostError."""

    def put_back(self, container: Container, former: Spec) -> None:
        """Write the former spec back to disk, if that is possible."""

    async def put_in_force(self, container: Container, spec: Spec) -> None:
        """Give a run another spec. Raises FleetError."""


@dataclass
class Work:
    """One container in the middle of its steps."""

    hands: Hands
    specs: SpecHands
    container: Container
    timeout: float = 10.0
    """Seconds until a halt becomes a kill."""
    drain: float | None = None
    """Seconds from the withdrawal of names and ports to the halt; None: as its spec says."""
    turn: Callable[[], Awaitable[Lack | None]] | None = None
    """Waited for by ``AwaitTurn``; gives what it lacks then."""
    held: bool = False
    """Whether it turned out that it has to wait: no further step is taken."""
    namespace: int | None = None
    """A descriptor of the mount namespace that has its layers."""
    done: list[Step] = field(default_factory=list)
    """The steps that an undo would undo now, in the order in which they were done."""

    def no_way_back(self) -> None:
        """From here on nothing is undone: after a failure, recovery goes on from the state on disk."""
        self.done.clear()

    async def carry_out(self, steps: Iterable[Step], observers: Sequence[Observer] = ()) -> None:
        """Do ``steps`` in order; if one of them fails, undo those that can be undone. Raises FleetError."""
        try:
            for step in steps:
                if not self.held:
                    await self.take(step, observers)
        except BaseException as error:
            fresh = any(isinstance(each, Make) for each in self.done)
            await self.undo()
            if fresh and isinstance(error, NotStarted):  # its logs went with it
                name = self.container.name
                error.hint = f"make it with --no-start: a `lxcfleet start {name}` that fails leaves its logs"
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
        """Undo the steps that were done. Failures go to the log."""
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
        """The word for the step in logs and tests."""
        return type(self).__name__.lower()

    @abstractmethod
    def describe(self) -> str:
        """The effect of the step in words, as ``--dry-run`` prints it."""

    @abstractmethod
    async def do(self, work: Work) -> None:
        """Do the step. Raises FleetError. A step that fails half-way undoes its own half."""

    async def undo(self, work: Work) -> None:
        """Restore the state before the step, if that is possible and necessary. Raises FleetError, OSError."""
        log.debug("%s: nothing to undo of “%s”", work.container.name, self.describe())

    @abstractmethod
    def after(self, now: Observed) -> Observed:
        """The state after the step, if it is ``now`` before."""


Observer = Callable[[str, Step], None]
"""Called with the name of a container and the step that is about to be done to it."""


@dataclass(frozen=True)
class Make(Step):
    """Make a container's files under another name; once they are whole, they get their own name in one system call."""

    start: bool
    """Whether the container is to be started: then the intent is in its files from the beginning, and its layers are mounted
    in the same go."""

    def describe(self) -> str:
        """The step in words."""
        return "make its directory, spec, configuration and empty delta"

    async def do(self, work: Work) -> None:
        """Do the step. If the answer got lost, it may have been done all the same: then it is undone as well."""
        try:
            work.namespace = await work.hands.prepare(work.container, make=True, mount=self.start)
        except BaseException:
            await self.undo(work)
            raise

    async def undo(self, work: Work) -> None:
        """Remove the container. Its init never ran, so its delta is empty."""
        try:
            await work.hands.unmake(work.container)
        except (FleetError, OSError) as error:
            log.warning("%s: the remains of its creation can't be removed: %s", work.container.name, error)

    def after(self, now: Observed) -> Observed:
        """The container is there."""
        return replace(now, exists=True, half_made=False, noted=Intent.RUN if self.start else None)


@dataclass(frozen=True)
class Check(Step):
    """See that the container can start again, before it is stopped for that."""

    def describe(self) -> str:
        """The step in words."""
        return "see that it can start again"

    async def do(self, work: Work) -> None:
        """Do the check."""
        await work.hands.check(work.container)

    def after(self, now: Observed) -> Observed:
        """Nothing is changed."""
        return now


@dataclass(frozen=True)
class Want(Step):
    """Write the intent to disk, before anything is done for it."""

    intent: Intent
    must: bool = True
    """Whether nothing may be done if that can't be written, for instance because the disk is full."""
    former: Intent | None = None
    """The intent that was noted before."""

    def describe(self) -> str:
        """The step in words."""
        return {
            Intent.RUN: "note that it is to run",
            Intent.STOPPED: "note that it is to be stopped",
            Intent.GONE: "note that it is to be destroyed",
        }[self.intent]

    async def do(self, work: Work) -> None:
        """Note the intent."""
        work.hands.note(work.container.name, self.intent, must=self.must)

    async def undo(self, work: Work) -> None:
        """Note the former intent again."""
        work.hands.note(work.container.name, self.former, must=True)

    def after(self, now: Observed) -> Observed:
        """The intent is noted."""
        return replace(now, noted=self.intent)


@dataclass(frozen=True)
class Settle(Step):
    """Remove the noted intent: the container is in the desired state."""

    def describe(self) -> str:
        """The step in words."""
        return "note that this is done"

    async def do(self, work: Work) -> None:
        """Remove the note."""
        work.no_way_back()
        work.hands.note(work.container.name, None, must=True)

    def after(self, now: Observed) -> Observed:
        """No intent is noted any more."""
        return replace(now, noted=None)


@dataclass(frozen=True)
class Write(Step):
    """Write the wanted spec to disk, before anything of it is put in force."""

    spec: Spec
    former: Spec

    def describe(self) -> str:
        """The step in words."""
        return f"write its spec: {', '.join(different(self.former, self.spec))}"

    async def do(self, work: Work) -> None:
        """Write the spec."""
        try:
            work.specs.write(work.container, self.spec)
        except BaseException:
            await self.undo(work)
            raise

    async def undo(self, work: Work) -> None:
        """Write the former spec back."""
        work.specs.put_back(work.container, self.former)

    def after(self, now: Observed) -> Observed:
        """The spec is on disk; a run still has the former one."""
        return replace(now, spec=self.spec, in_force=now.in_force if now.running else self.spec)


@dataclass(frozen=True)
class PutInForce(Step):
    """Put in force those changes that need no restart."""

    spec: Spec
    """The new spec of the run; changes that need a restart are not in it."""
    former: Spec

    def describe(self) -> str:
        """The step in words."""
        return f"change while it runs: {', '.join(different(self.former, self.spec))}"

    async def do(self, work: Work) -> None:
        """Put the spec in force."""
        await work.specs.put_in_force(work.container, self.spec)

    async def undo(self, work: Work) -> None:
        """Put the former spec in force again."""
        await work.specs.put_in_force(work.container, self.former)

    def after(self, now: Observed) -> Observed:
        """The run has the new spec."""
        return replace(now, in_force=self.spec)


@dataclass(frozen=True)
class Thaw(Step):
    """Unfreeze the processes: frozen ones can't end, and answer nobody."""

    def describe(self) -> str:
        """The step in words."""
        return "unfreeze its processes"

    async def do(self, work: Work) -> None:
        """Unfreeze the processes."""
        await work.hands.thaw(work.container)

    async def undo(self, work: Work) -> None:
        """Freeze them again."""
        if work.container.running is not None:
            await work.hands.freeze(work.container)

    def after(self, now: Observed) -> Observed:
        """The processes run."""
        return replace(now, frozen=False)


@dataclass(frozen=True)
class Freeze(Step):
    """Freeze the processes: the container keeps its memory and uses no processor."""

    def describe(self) -> str:
        """The step in words."""
        return "freeze its processes"

    async def do(self, work: Work) -> None:
        """Freeze the processes."""
        await work.hands.freeze(work.container)

    async def undo(self, work: Work) -> None:
        """Unfreeze the processes again."""
        if work.container.running is not None:
            await work.hands.thaw(work.container)

    def after(self, now: Observed) -> Observed:
        """The processes are frozen."""
        return replace(now, frozen=True)


@dataclass(frozen=True)
class Leave(Step):
    """Withdraw the container from names and ports, so that clients of its service go elsewhere before it ends."""

    def describe(self) -> str:
        """The step in words."""
        return "withdraw it from names and ports once another one can serve there, and wait for its drain time"

    async def do(self, work: Work) -> None:
        """Withdraw the container, and wait."""
        try:
            await work.hands.leave(work.container, work.drain)
        except BaseException:
            await self.undo(work)
            raise

    async def undo(self, work: Work) -> None:
        """Let the container be found again, as it runs on."""
        work.hands.come_back(work.container)

    def after(self, now: Observed) -> Observed:
        """A withdrawal is not part of the state: a daemon that starts lets all running containers be found."""
        return now


@dataclass(frozen=True)
class Halt(Step):
    """End the container. This is the point of no return of a stop: init is asked to end, and will."""

    def describe(self) -> str:
        """The step in words."""
        return "ask its init to end, and wait; kill it when the time is up"

    async def do(self, work: Work) -> None:
        """End the container."""
        work.no_way_back()
        await work.hands.halt(work.container, work.timeout)

    def after(self, now: Observed) -> Observed:
        """The container has ended, and the spec for the next run holds."""
        return replace(now, running=False, frozen=False, in_force=now.spec)


@dataclass(frozen=True)
class Mount(Step):
    """Mount the layers anew: no process outside sees the mount, and it goes with the last process inside."""

    def describe(self) -> str:
        """The step in words."""
        return "mount base, mask and delta in a mount namespace of its own"

    async def do(self, work: Work) -> None:
        """Mount the layers, unless ``Make`` has done it already."""
        if work.namespace is None:
            work.namespace = await work.hands.prepare(work.container, make=False, mount=True)

    def after(self, now: Observed) -> Observed:
        """A mount is not part of the state: it goes with the process that made it."""
        return now


@dataclass(frozen=True)
class Boot(Step):
    """Start init. This is the point of no return of a start: what init writes to the delta must not be lost."""

    def describe(self) -> str:
        """The step in words."""
        return "start its init"

    async def do(self, work: Work) -> None:
        """Start init."""
        assert work.namespace is not None
        namespace, work.namespace = work.namespace, None
        await work.hands.boot(work.container, namespace)
        work.no_way_back()
        work.hands.come_back(work.container)

    def after(self, now: Observed) -> Observed:
        """The container runs."""
        return replace(now, running=True)


@dataclass(frozen=True)
class Retire(Step):
    """Rename the container away. This is the point of no return of a destroy: no container has that name afterwards."""

    def describe(self) -> str:
        """The step in words."""
        return "take its name away"

    async def do(self, work: Work) -> None:
        """Rename the container away."""
        work.hands.retire(work.container.name)
        work.no_way_back()

    def after(self, now: Observed) -> Observed:
        """The container's directory has a name that marks it as leftover."""
        return replace(NOTHING, half_made=now.half_made, half_removed=True)


@dataclass(frozen=True)
class Remove(Step):
    """Remove all directories of the container."""

    def describe(self) -> str:
        """The step in words."""
        return "remove its delta and its directory"

    async def do(self, work: Work) -> None:
        """Remove the directories."""
        work.no_way_back()
        await work.hands.remove_leftovers(work.container.name)

    def after(self, now: Observed) -> Observed:
        """Nothing is left of the container."""
        return replace(now, half_made=False, half_removed=False)


def describe(name: str, steps: Sequence[Step]) -> list[str]:
    """The steps in words."""
    return [f"{name}: {step.describe()}" for step in steps] or [f"{name}: nothing to do"]
