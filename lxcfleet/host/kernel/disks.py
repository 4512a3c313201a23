"""Disks: block devices as the kernel's limits of throughput number them. They are for whole disks, not for partitions."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from lxcfleet.host.kernel import mounts

_SYSTEM = Path("/sys")


def number(name: str, system: Path = _SYSTEM) -> str:
    """``MAJOR:MINOR`` of the disk with that name, such as sda or /dev/disk/by-id/…; of a partition's, that of its disk.

    Empty: there is no such disk.
    """
    path = Path(name) if name.startswith("/dev/") else Path("/dev", name)
    try:
        found = os.stat(path)
    except OSError:
        return _number(system / "class/block" / path.name.replace("/", "!"))
    return _whole(found.st_rdev, system) if stat.S_ISBLK(found.st_mode) else ""


def named(name: str) -> tuple[str, ...]:
    """The number of the disk with that name, if there is one."""
    return tuple(filter(None, (number(name),)))


def of_directory(directory: Path, system: Path = _SYSTEM) -> tuple[str, ...]:
    """The numbers of the disks that a directory's file system is on; none: it is on none, or on some that can't be told."""
    place = directory
    while not place.exists() and place != place.parent:
        place = place.parent
    device = os.stat(place).st_dev
    if os.major(device):
        return tuple(filter(None, (_whole(device, system),)))
    source = mounts.source_of(place)  # btrfs and others number their file systems by themselves
    if not source.startswith("/dev/"):
        return ()
    numbers = (number(each, system) for each in _beside(source, system))
    return tuple(dict.fromkeys(filter(None, numbers)))


def _beside(source: str, system: Path) -> list[str]:
    """All block devices of the file system that is on ``source`` among others: btrfs lists them."""
    own = Path(source).resolve().name.replace("/", "!")
    for devices in system.glob("fs/btrfs/*/devices"):
        try:
            names = sorted(os.listdir(devices))
        except OSError:  # another one, which was unmounted at this moment
            continue
        if own in names:
            return names
    return [source]


def _whole(device: int, system: Path) -> str:
    return _number(system / f"dev/block/{os.major(device)}:{os.minor(device)}")


def _number(entry: Path) -> str:
    try:
        here = entry.resolve(strict=True)
        if (here / "partition").exists():
            here = here.parent
        return (here / "dev").read_text(encoding="ascii").strip()
    except OSError:
        return ""
