"""The mounts that a process of a container sees, and the places of its files in the layers. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from lxcfleet.base import layers
from lxcfleet.host.process.maps import ProcessMount

Places = Sequence[tuple[str, str | None]]
"""The result of ``places``."""


@dataclass(frozen=True)
class MountView:
    """The mounts that some processes of a container see."""

    devices: Collection[str]
    """The devices of files of the layers in ``maps``."""
    mounted: Places
    top: Collection[str]
    """The devices of the overlays that are mounted as the root."""
    homes: Mapping[str, str] = field(default_factory=dict)
    """The place of each overlay in the layers, by device."""

    @classmethod
    def of(cls, table: Sequence[ProcessMount], own: Collection[str], layers_devices: Collection[str]) -> Self:
        """The view of process 1. ``own``: the devices of what it maps; ``layers_devices``: those of the layers themselves."""
        overlays = {mount.device for mount in table if mount.kind == "overlay" and mount.source == layers.DEVICE}
        # The kernel version decides which device a mapping has, and process 1 shows it. If it is the layer's own device, a
        # volume may have the same.
        devices = overlays if overlays.intersection(own) else layers_devices
        top = {mount.device for mount in table if mount.point == mount.root == "/"} & overlays
        homes = homes_of(table, overlays)
        return cls(devices, places(table, homes), top, homes)

    def within(self, table: Sequence[ProcessMount], root: str) -> Self:
        """The view of a process with mounts of its own. ``root``: its root directory, as ``maps`` would name it."""
        moved = [mount._replace(point=root.rstrip("/") + mount.point) for mount in table]
        return type(self)(self.devices, places(moved, self.homes, whole=True), self.top, self.homes)

    def place(self, path: str) -> str | None:
        """The place of ``path`` in the layers; None if it is in a file system of another kind."""
        return place(path, self.mounted)


def homes_of(table: Iterable[ProcessMount], overlays: Collection[str]) -> dict[str, str]:
    """The place of each overlay in the layers: where process 1 has it mounted first. By device."""
    homes: dict[str, str] = {}
    for mount in table:
        if mount.device in overlays:
            homes.setdefault(mount.device, mount.point.rstrip("/"))
    return homes


def places(table: Iterable[ProcessMount], homes: Mapping[str, str], *, whole: bool = False) -> Places:
    """The mounts, for ``place``: each mount point with its place in the layers, or None. The deepest comes first.

    ``homes``: the overlays over the layers; each of them may be mounted more than once (bind mounts). ``whole``: what is
    mounted as the root counts, too.
    """
    found: dict[str, str | None] = {}
    for mount in table:
        if whole or mount.point != "/":
            home = homes.get(mount.device)
            found[mount.point.rstrip("/")] = None if home is None else (home + mount.root).rstrip("/")
    return sorted(found.items(), key=lambda item: len(item[0]), reverse=True)


def place(path: str, mounted: Places) -> str | None:
    """The place in the layers of a container's ``path``; None if that is in a file system of another kind."""
    for point, real in mounted:
        if path.startswith(point) and path[len(point) : len(point) + 1] in ("", "/"):
            return None if real is None else real + path[len(point) :]
    return path
