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


def of_directory(directory: Path, system: Path = _SYSTEM) -> str:
    """The number of the disk that a directory's file system is on; empty: it is on none, or on one that can't be told."""
    place = directory
    while not place.exists() and place != place.parent:
        place = place.parent
    device = os.stat(place).st_dev
    if os.major(device):
        return _whole(device, system)
    source = mounts.source_of(place)  # btrfs and others number their file systems by themselves
    return number(source, system) if source.startswith("/dev/") else ""


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
