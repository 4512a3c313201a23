"""The events of the health of containers on the bus (runtime.bus)."""

from __future__ import annotations

from dataclasses import dataclass

from lxcfleet.containers.container import Container
from lxcfleet.runtime.bus import Event, Told
from lxcfleet.spec.states import Health


@dataclass(frozen=True)
class HealthChanged(Event):
    """A container's health is another one than before, by its checks. That it got older is not told."""

    container: Container
    health: Health
    reason: str
    """The reason that the last check that failed gave; empty while all is well."""

    def told(self) -> Told:
        return Told(self.health, self.container.name, self.reason)


@dataclass(frozen=True)
class ServingJudged(Event):
    """It was judged, perhaps as before, whether a container may stand for its groups and behind published ports."""

    container: Container
    serves: bool
