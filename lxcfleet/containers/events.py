"""Events about containers on the bus (runtime.bus)."""

from __future__ import annotations

from dataclasses import dataclass

from lxcfleet.containers.container import Container, Running
from lxcfleet.runtime.bus import Event, Told
from lxcfleet.spec.states import Action
from lxcfleet.units import counted


@dataclass(frozen=True)
class Booting(Event):
    """The host has booted, and these containers are about to be started."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class StartAnnounced(Event):
    """A container is about to be started by somebody else, as by plain lxc-start."""

    container: Container


@dataclass(frozen=True)
class Began(Event):
    """A container began to run, or was found running."""

    container: Container


@dataclass(frozen=True)
class Ends(Event):
    """Process 1 of a container has ended by itself. Its monitor tidies up, and ``Exited`` follows once it has ended, too."""

    container: Container
    failed: bool
    """Whether it ended with another exit status than 0."""


@dataclass(frozen=True)
class Exited(Event):
    """A container's monitor has ended, and so has the container.

    The registry may have another container of that name by now, or none: ``Registry.knows`` tells.
    """

    container: Container
    running: Running | None = None
    """The run that ended; None: it had ended before anybody looked."""


@dataclass(frozen=True)
class Gone(Event):
    """A container no longer exists: it was destroyed, or its creation failed. The registry does not know it any longer."""

    container: Container


@dataclass(frozen=True)
class EndedInHand(Event):
    """A container ended during an action that was not meant to end it. The action is over, and the container does not run."""

    container: Container
    succeeded: bool
    """Whether the action succeeded."""


@dataclass(frozen=True)
class StartOwed(Event):
    """A container is to run, and does not: a start or a restart has failed, and that it is to run stays noted."""

    container: Container
    why: str
    """Why it failed, in words."""


@dataclass(frozen=True)
class SpecChanged(Event):
    """A running container goes on with another spec."""

    container: Container
    keys: tuple[str, ...]
    """The changed keys."""


@dataclass(frozen=True)
class ConflictNoted(Event):
    """A start left something for the operator to decide, as the host's records and the container's own differ."""

    name: str
    note: str

    def told(self) -> Told:
        return Told("conflict", self.name, self.note)


@dataclass(frozen=True)
class ActionDone(Event):
    """An action on a container is over: it was created, started, restarted, destroyed and so on."""

    name: str
    word: str
    """The word for the action, as `lxcfleet events` shows it."""
    reason: str = ""
    """The reason, if nobody asked for the action; or what should be known of it."""

    def told(self) -> Told:
        return Told(self.word, self.name, self.reason)


@dataclass(frozen=True)
class Wished(Event):
    """An action on a container is over, whether or not there was something to do, and holds after the host's next boot."""

    container: Container
    action: Action


@dataclass(frozen=True)
class Killed(Event):
    """A container that was asked to end did not, and was killed."""

    name: str
    seconds: float
    """Seconds that the container was given to end."""

    def told(self) -> Told:
        return Told("killed", self.name, f"it did not end within {self.seconds:g} s")


@dataclass(frozen=True)
class KilledForMemory(Event):
    """The kernel killed processes of a container because memory ran out."""

    name: str
    how: str
    """The kills, in words."""

    def told(self) -> Told:
        return Told("oom", self.name, self.how)


@dataclass(frozen=True)
class HookFailed(Event):
    """A hook of a container failed, and what it belonged to went on."""

    name: str
    hook: str
    why: str

    def told(self) -> Told:
        return Told("hook", self.name, f"{self.hook} failed: {self.why}")


@dataclass(frozen=True)
class StartFailed(Event):
    """A start failed that no client waits for."""

    name: str
    reason: str

    def told(self) -> Told:
        return Told("failed", self.name, self.reason)


@dataclass(frozen=True)
class RebootsAgain(Event):
    """A container has rebooted from inside too often, and is started later."""

    name: str
    seconds: float

    def told(self) -> Told:
        return Told("waits", self.name, f"it reboots again and again: it is started in {self.seconds:g} s")


@dataclass(frozen=True)
class StoppedByItself(Event):
    """A container ended although nobody had asked lxcfleet for that."""

    name: str
    how: str = ""
    """How it ended, in words."""

    def told(self) -> Told:
        return Told("stopped", self.name, self.how)


@dataclass(frozen=True)
class Held(Event):
    """A container that is to run is blocked, or is blocked by something else than before."""

    name: str
    words: str

    def told(self) -> Told:
        return Told("blocked", self.name, self.words)


@dataclass(frozen=True)
class BackedOff(Event):
    """A container ended, or its start failed, and it is started again after a pause."""

    name: str
    seconds: float
    row: int
    """Failures in a row; 0: it ended well."""
    cause: str = ""
    """Why its start failed; empty: it ran, and ended."""

    def told(self) -> Told:
        if self.cause:
            number = f", failure {self.row} in a row" if self.row > 1 else ""
            return Told("backoff", self.name, f"{self.cause}: its start is tried again in {self.seconds:.1f} s{number}")
        why = f"failure {self.row} in a row" if self.row else "it ended soon after its start"
        return Told("backoff", self.name, f"{why}: it is started in {self.seconds:.1f} s")


@dataclass(frozen=True)
class GaveUp(Event):
    """A container failed too often: it is started no more by itself."""

    name: str
    attempts: int
    cause: str = ""
    """Why its start failed; empty: it ran, and ended."""
    owed: bool = False
    """Whether it is noted that it is to run: then the next daemon tries it anew."""

    def told(self) -> Told:
        hint = "it stays down until somebody starts it"
        if self.cause:
            times = f"its start was tried {counted(self.attempts, 'time')} again in vain"
            anew = ", or lxcfleetd begins anew" if self.owed else ""
            return Told("failed", self.name, f"{self.cause}: {times}: {hint}{anew}")
        return Told("failed", self.name, f"started {counted(self.attempts, 'time')} by its restart policy in vain: {hint}")


@dataclass(frozen=True)
class LeftoverRemoved(Event):
    """A directory that a crash had left was removed."""

    directory: str

    def told(self) -> Told:
        return Told("cleaned", None, f"removed {self.directory}, left by a crash")


@dataclass(frozen=True)
class SecretChanged(Event):
    """A secret has another value, and the containers that have it have that."""

    key: str
    count: int
    """How many containers run with it."""

    def told(self) -> Told:
        return Told("secret", None, f"{self.key} has another value, in {counted(self.count, 'running container')}")


@dataclass(frozen=True)
class SecretsDeclared(Event):
    """Other secrets are declared than before."""


@dataclass(frozen=True)
class SecretFailed(Event):
    """The value of a secret could not be fetched."""

    key: str
    why: str
    stays: bool
    """Whether there is a former value, which holds."""

    def told(self) -> Told:
        what = "the former value stays" if self.stays else "containers that have it don't start"
        return Told("secret", None, f"{self.key} can't be fetched: {self.why}: {what}")


@dataclass(frozen=True)
class SecretTold(Event):
    """A container's program was told that secrets have other values."""

    name: str
    what: str

    def told(self) -> Told:
        return Told("secret", self.name, f"told of {self.what}")


@dataclass(frozen=True)
class SecretHalted(Event):
    """Containers are not told of their secrets, as one of those before them is not well since."""

    why: str
    left: int

    def told(self) -> Told:
        return Told("secret", None, f"{self.why}: and {self.left} more; `lxcfleet secret refresh` goes on")
