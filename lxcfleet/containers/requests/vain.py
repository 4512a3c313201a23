"""Limits that the host is too small to ever reach: they are kept, and do nothing. Mostly a slip, so it is told.

They are not refused: a file may be for hosts of several sizes, and a host may grow.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lxcfleet.host.facts import memory
from lxcfleet.paths import Paths
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files.settings import Config
from lxcfleet.units import as_size, counted, some

_GIB = 1 << 30
_KEYS = ("memory", "cpus", "disk")


@dataclass(frozen=True)
class HostSize:
    """The whole size of the host: bytes of memory, processors, bytes of the file system with the deltas. 0: not known."""

    memory: int
    cpus: int
    disk: int


def host(paths: Paths) -> HostSize:
    """This host."""
    try:
        disk = os.statvfs(paths.lxc)
        return HostSize(memory.read().total, os.cpu_count() or 0, disk.f_blocks * disk.f_frsize)
    except OSError:
        return HostSize(0, 0, 0)


def notes(spec: Spec, host: HostSize, former: Spec | None = None) -> tuple[str, ...]:
    """Notes on limits without effect. ``former``: the spec that the container has, which was spoken of before. Pure."""
    found = []
    for key, (has, words) in _sizes(host).items():
        value = getattr(spec, key)
        if has and value > has and (former is None or value != getattr(former, key)):
            said = f"{value:g}" if key == "cpus" else as_size(value)
            found.append(f"its limit {key}={said} has no effect: {words}")
    return tuple(found)


def _sizes(host: HostSize) -> Mapping[str, tuple[int, str]]:
    many = counted(host.cpus, "processor")
    return {
        "memory": (host.memory, f"the host has {host.memory / _GIB:.1f} GiB of memory"),
        "cpus": (host.cpus, f"the host has {many}"),
        "disk": (host.disk, f"the file system with the deltas has {host.disk / _GIB:.1f} GiB"),
    }


def asked_for(config: Config) -> list[Spec]:
    """The values of such limits in settings and profiles, as specs whose names say where they stand. Pure."""
    found = [Spec("lxcfleet.yaml", memory=config.memory, cpus=config.cpus, disk=config.disk)]
    for name, profile in config.profiles.items():
        found.append(Spec(f"the profile {name}", **{key: profile.said[key] for key in _KEYS if key in profile.said}))
    return found


def of_all(specs: Iterable[Spec], host: HostSize) -> list[str]:
    """A line for each such limit that containers have. Pure."""
    named: dict[str, list[str]] = {}
    for spec in specs:
        for note in notes(spec, host):
            named.setdefault(note.removeprefix("its "), []).append(spec.name)
    return [f"{some(names, 3)}: {note}" for note, names in named.items()]
