"""What happens to containers, as events on the bus (runtime.bus)."""

from __future__ import annotations

from dataclasses import dataclass

from lxcfleet.containers.container import Container
from lxcfleet.runtime.bus import Event, Told


@dataclass(frozen=True)
class StartAnnounced(Event):
    """Somebody else, as plain lxc-start does, is about to start a container."""

    container: Container


@dataclass(frozen=True)
class Began(Event):
    """A container began to run, or was found running."""

    container: Container


@dataclass(frozen=True)
class Exited(Event):
    """A container's monitor has ended, and so has the container.

    The registry may know another container of that name by now, or none: ``Registry.knows`` tells.
    """

    container: Container


@dataclass(frozen=True)
class Gone(Event):
    """A container is no more: it was destroyed, or its creation failed. The registry does not know it any longer."""

    container: Container


@dataclass(frozen=True)
class EndedInHand(Event):
    """A container ended while something was done to it that was not to end it. That is over now, and it does not run."""

    container: Container
    succeeded: bool
    """Whether what was done to it succeeded."""


@dataclass(frozen=True)
class SpecChanged(Event):
    """A container that runs goes on with another spec."""

    container: Container
    keys: tuple[str, ...]
    """What of it is not as before."""


@dataclass(frozen=True)
class ConflictNoted(Event):
    """A start left something for the operator to decide, as the host's records and the container's own differ."""

    name: str
    note: str

    def told(self) -> Told:
        return Told("conflict", self.name, self.note)


@dataclass(frozen=True)
class ActionDone(Event):
    """Something was done to a container: it was created, started, restarted, destroyed and so on."""

    name: str
    word: str
    """What was done, as `lxcfleet events` shows it."""
    reason: str = ""
    """Why, where nobody asked for it."""

    def told(self) -> Told:
        return Told(self.word, self.name, self.reason)


@dataclass(frozen=True)
class Killed(Event):
    """A container that was asked to end did not, and was killed."""

    name: str
    seconds: float
    """How long it had been given."""

    def told(self) -> Told:
        return Told("killed", self.name, f"it did not end within {self.seconds:g} s")


@dataclass(frozen=True)
class StartFailed(Event):
    """A start that nobody waits for failed."""

    name: str
    reason: str

    def told(self) -> Told:
        return Told("failed", self.name, self.reason)


@dataclass(frozen=True)
class StoppedByItself(Event):
    """A container has ended, and nobody had asked for that."""

    name: str

    def told(self) -> Told:
        return Told("stopped", self.name)


@dataclass(frozen=True)
class LeftoverRemoved(Event):
    """A directory that a crash had left was removed."""

    directory: str

    def told(self) -> Told:
        return Told("cleaned", None, f"removed {self.directory}, left by a crash")
