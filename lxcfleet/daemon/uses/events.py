"""Events about volumes, apps and snapshots on the bus (runtime.bus)."""

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


@dataclass(frozen=True)
class SnapshotMade(Event):
    """A snapshot of a container was made."""

    container: str
    name: str
    frozen_ms: int | None
    """For how long the container was frozen; None: it was not."""

    def told(self) -> Told:
        frozen = "" if self.frozen_ms is None else f"; frozen for {self.frozen_ms} ms"
        return Told("snapshot", self.container, f"made {self.name}{frozen}")


@dataclass(frozen=True)
class SnapshotRestored(Event):
    """A container has got the delta of a snapshot."""

    container: str
    name: str
    kept: str | None
    """The snapshot that its former delta is now; None: that was removed."""

    def told(self) -> Told:
        former = f"the former delta is the snapshot {self.kept}" if self.kept else "the former delta is removed"
        return Told("snapshot", self.container, f"restored {self.name}: {former}")


@dataclass(frozen=True)
class SnapshotRemoved(Event):
    """A snapshot was removed."""

    container: str
    name: str

    def told(self) -> Told:
        return Told("snapshot", self.container, f"removed {self.name}")


@dataclass(frozen=True)
class SnapshotFailed(Event):
    """A snapshot that a schedule asks for could not be made."""

    container: str
    why: str

    def told(self) -> Told:
        return Told("snapshot", self.container, f"the scheduled one failed: {self.why}")


@dataclass(frozen=True)
class DrainBegan(Event):
    """This host is drained from now on."""

    why: str

    def told(self) -> Told:
        return Told("drain", None, f"this host is drained{': ' if self.why else ''}{self.why}")


@dataclass(frozen=True)
class DrainEnded(Event):
    """This host is drained no longer."""

    def told(self) -> Told:
        return Told("drain", None, "ended: the containers that ran are started")
