"""Events about patches of the host on the bus (runtime.bus)."""

from __future__ import annotations

from dataclasses import dataclass

from lxcfleet.runtime.bus import Event, Told
from lxcfleet.units import counted

_NAMED = 20
"""A message names at most so many containers."""


@dataclass(frozen=True)
class PatchWaits(Event):
    """The host was patched, and nothing was done about it yet."""

    why: str

    def told(self) -> Told:
        return Told("patch-waits", None, self.why)


@dataclass(frozen=True)
class Patched(Event):
    """The host was patched, and its containers were checked for old code."""

    stale: tuple[str, ...]
    """The names of the containers that run old code."""

    def told(self) -> Told:
        if not self.stale:
            return Told("patched", None, "the host was patched; no container runs old code")
        many = counted(len(self.stale), "container")
        names = ", ".join(self.stale[:_NAMED]) + (", …" if len(self.stale) > _NAMED else "")
        return Told("patched", None, f"the host was patched; old code runs in {many}: {names}")


@dataclass(frozen=True)
class HostReboots(Event):
    """The daemon is about to stop the fleet and to reboot the host."""

    packages: tuple[str, ...]

    def told(self) -> Told:
        return Told("reboot", None, f"the host is rebooted for {', '.join(self.packages)}; its containers stop before")


@dataclass(frozen=True)
class RebootFailed(Event):
    """The host does not go down; its containers are started again."""

    why: str

    def told(self) -> Told:
        return Told("reboot-failed", None, f"the host was not rebooted, and its containers are started again: {self.why}")


@dataclass(frozen=True)
class NotReadable(Event):
    """It could not be found out whether a container runs old code."""

    name: str
    problem: str

    def told(self) -> Told:
        return Told("unread", self.name, self.problem)


@dataclass(frozen=True)
class PartRenewed(Event):
    """One of lxcfleet's own parts ran old code and was renewed."""

    name: str

    def told(self) -> Told:
        return Told("renewed", None, f"{self.name} ran old code and was renewed")


@dataclass(frozen=True)
class RolloutMoved(Event):
    """A rollout began, came to another wave, halted or ended."""

    text: str
    """The status of the rollout."""

    def told(self) -> Told:
        return Told("rollout", None, self.text)


@dataclass(frozen=True)
class Rehearsed(Event):
    """A throwaway clone of a container was tested on a base, and destroyed."""

    name: str
    generation: int
    """0: the host's root."""
    why: str
    """Why it did not pass; empty: it passed."""

    def told(self) -> Told:
        base = f"generation {self.generation}" if self.generation else "the host's root"
        return Told("rehearsal", self.name, f"on {base}: {f'failed: {self.why}' if self.why else 'passed'}")


@dataclass(frozen=True)
class Frozen(Event):
    """The host's root was frozen."""

    number: int
    why: str

    def told(self) -> Told:
        return Told("generation", None, f"froze generation {self.number}: {self.why}")


@dataclass(frozen=True)
class GenerationRemoved(Event):
    """A generation was removed."""

    number: int

    def told(self) -> Told:
        return Told("generation", None, f"removed generation {self.number}")


@dataclass(frozen=True)
class HoldPast(Event):
    """The date is past until which a container was to be held on a generation."""

    name: str
    generation: int
    until: str

    def told(self) -> Told:
        what = f"held on generation {self.generation} until {self.until}, that is past"
        return Told("hold", self.name, f"{what}: it goes along with the next patch that goes well")


@dataclass(frozen=True)
class PatchRejected(Event):
    """The rollout of a patch failed its gate, so this patch is not chosen again by itself."""

    why: str

    def told(self) -> Told:
        return Told("rejected", None, f"the patch is rejected, and not chosen again by itself: {self.why}")


@dataclass(frozen=True)
class PatchPassedOver(Event):
    """The host has packages that were rejected before."""

    why: str

    def told(self) -> Told:
        return Told("rejected", None, f"nothing is restarted, as the host has the packages that were rejected: {self.why}")


@dataclass(frozen=True)
class PatchAccepted(Event):
    """A patch that was rejected went well, as somebody had it applied all the same."""

    why: str

    def told(self) -> Told:
        return Told("rejected", None, f"the patch went well, and is rejected no longer; it was because of {self.why}")


@dataclass(frozen=True)
class NotRescued(Event):
    """Containers that failed after a patch could not get their former base back."""

    names: tuple[str, ...]
    why: str

    def told(self) -> Told:
        return Told("rescue", None, f"{', '.join(self.names)} can't get the base from before the patch: {self.why}")


@dataclass(frozen=True)
class NotReleased(Event):
    """A container that was given its former base stays on it, though a later patch went well."""

    name: str
    why: str

    def told(self) -> Told:
        return Told("rescue", self.name, f"stays on the base from before an earlier patch: {self.why}")
