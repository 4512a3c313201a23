"""What has to be done to a container, as steps: pure, printable, and safe to break off anywhere.

A plan is a tuple of steps. The daemon, its launcher or the machine may die between any two of them, or in the
middle of one. What is then on disk and running is a Situation, from which ``recover`` knows how to go on:
the container ends as it was before, or as it was to become. Two marks make that possible. A container under
construction has another name until it is whole, and one being removed loses its name first; and while the
daemon owes a container an action, one word in its file ``pending`` says which.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from lxcfleet.spec.states import Action


class Step(StrEnum):
    """One step; the value is what ``--dry-run`` and the log say of it."""

    MAKE = "make its directory, spec, configuration and empty delta"
    OWE_START = "note that it is owed a start"
    OWE_DESTROY = "note that it is to be destroyed"
    THAW = "unfreeze its processes"
    LEAVE = "withdraw it from names and ports, and wait for its drain time"
    HALT = "ask its init to end, and wait; kill it when the time is up"
    MOUNT = "mount base, mask and delta in a mount namespace of its own"
    BOOT = "start its init"
    SETTLE = "note that nothing is owed any more"
    RETIRE = "take its name away"
    REMOVE = "remove its delta and its directory"
    FREEZE = "freeze its processes"


START = "start"
DESTROY = "destroy"
"""The words that ``pending`` may hold."""


@dataclass(frozen=True)
class Situation:
    """What there is of one container."""

    exists: bool
    """It has its directory under its own name."""
    running: bool = False
    frozen: bool = False
    pending: str | None = None
    half_made: bool = False
    """A directory that was to become it is there."""
    half_removed: bool = False
    """A directory that was it is there."""


NOTHING = Situation(exists=False)


def create(start: bool) -> tuple[Step, ...]:
    """A container that does not exist yet. It is made with a start owed, if it is to be started."""
    return (Step.MAKE, Step.MOUNT, Step.BOOT, Step.SETTLE) if start else (Step.MAKE,)


def plan(action: Action, now: Situation) -> tuple[Step, ...]:
    """The steps of ``action`` on a container that exists; none if it is as asked already."""
    thaw = (Step.THAW,) if now.frozen else ()
    halt = (*thaw, Step.LEAVE, Step.HALT) if now.running else ()
    settle = (Step.SETTLE,) if now.pending else ()
    match action:
        case Action.START:
            return (*thaw, *settle) if now.running else (Step.MOUNT, Step.BOOT, *settle)
        case Action.STOP:
            # A start that is owed would bring it back: settle first.
            return (*settle, *halt)
        case Action.RESTART:
            return (Step.OWE_START, *halt, Step.MOUNT, Step.BOOT, Step.SETTLE)
        case Action.FREEZE:
            return (Step.FREEZE,) if now.running and not now.frozen else ()
        case Action.UNFREEZE:
            return thaw
        case Action.DESTROY:
            return (Step.OWE_DESTROY, *halt, Step.RETIRE, Step.REMOVE)


def recover(now: Situation) -> tuple[Step, ...]:
    """The steps that end what a crash broke off."""
    leftovers = (Step.REMOVE,) if now.half_made or now.half_removed else ()
    if not now.exists or now.pending is None:
        return leftovers
    if now.pending == DESTROY:
        return (*leftovers, *plan(Action.DESTROY, now))
    # One that was frozen before stays so: what thaws it is the operator's word, or its restart.
    return (*leftovers, *plan(Action.START, replace(now, frozen=False)))


def undo_create(now: Situation) -> tuple[Step, ...]:
    """A new container whose first start failed before its init ran goes away again."""
    return (Step.RETIRE, Step.REMOVE) if now.exists else (Step.REMOVE,)


def after(step: Step, now: Situation, *, start: bool = True) -> Situation:
    """What there is once ``step`` was done; the model that the tests replay crashes on.

    ``start``: whether a container that is made is to be started.
    """
    match step:
        case Step.MAKE:
            return Situation(exists=True, pending=START if start else None)
        case Step.OWE_START:
            return replace(now, pending=START)
        case Step.OWE_DESTROY:
            return replace(now, pending=DESTROY)
        case Step.THAW:
            return replace(now, frozen=False)
        case Step.FREEZE:
            return replace(now, frozen=True)
        case Step.HALT:
            return replace(now, running=False)
        case Step.LEAVE:
            return now  # a container that runs on is found again
        case Step.MOUNT:
            return now  # a mount is gone with the process that made it
        case Step.BOOT:
            return replace(now, running=True)
        case Step.SETTLE:
            return replace(now, pending=None)
        case Step.RETIRE:
            return Situation(exists=False, half_removed=True)
        case Step.REMOVE:
            return replace(now, half_made=False, half_removed=False)


def describe(name: str, steps: tuple[Step, ...]) -> list[str]:
    """The plan in words."""
    return [f"{name}: {step}" for step in steps] or [f"{name}: nothing to do"]
