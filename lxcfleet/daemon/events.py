"""Events about volumes and apps on the bus (runtime.bus)."""

from __future__ import annotations

from dataclasses import dataclass

from lxcfleet.runtime.bus import Event, Told


@dataclass(frozen=True)
class VolumeCreated(Event):
    """A volume was created."""

    name: str

    def told(self) -> Told:
        return Told("volume", None, f"created {self.name}")


@dataclass(frozen=True)
class VolumeChanged(Event):
    """A volume got another size or other labels."""

    name: str
    what: str

    def told(self) -> Told:
        return Told("volume", None, f"changed {self.name}: {self.what}")


@dataclass(frozen=True)
class VolumeRemoved(Event):
    """A volume, and all files on it, were removed."""

    name: str

    def told(self) -> Told:
        return Told("volume", None, f"removed {self.name}")


@dataclass(frozen=True)
class AppRemoved(Event):
    """A release of an app was removed."""

    release: str

    def told(self) -> Told:
        return Told("app", None, f"removed {self.release}")
