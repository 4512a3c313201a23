"""What happens about patches of the host, as events on the bus (runtime.bus)."""

from __future__ import annotations

from dataclasses import dataclass

from lxcfleet.runtime.bus import Event, Told

_NAMED = 20
"""How many containers are named to the user."""


@dataclass(frozen=True)
class PatchWaits(Event):
    """The host was patched, and nothing is done about it yet."""

    why: str

    def told(self) -> Told:
        return Told("patch-waits", None, self.why)


@dataclass(frozen=True)
class Patched(Event):
    """The host was patched, and it was looked at what runs old code since."""

    stale: tuple[str, ...]
    """The names of the containers that do."""

    def told(self) -> Told:
        if not self.stale:
            return Told("patched", None, "the host was patched; no container runs old code")
        names = ", ".join(self.stale[:_NAMED]) + (", …" if len(self.stale) > _NAMED else "")
        return Told("patched", None, f"the host was patched; {len(self.stale)} containers run old code: {names}")


@dataclass(frozen=True)
class NotReadable(Event):
    """Of a container it could not be told whether it runs old code."""

    name: str
    problem: str

    def told(self) -> Told:
        return Told("unread", self.name, self.problem)


@dataclass(frozen=True)
class RolloutMoved(Event):
    """A rollout began, came to another wave, halted or ended."""

    text: str
    """How far it is."""

    def told(self) -> Told:
        return Told("rollout", None, self.text)
