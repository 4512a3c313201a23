"""Where the host writes memory that it has no room for, and whether that is encrypted."""

from __future__ import annotations

import os
from pathlib import Path

_SYSFS = Path("/sys/dev/block")
_DEPTH = 8


def unencrypted(table: Path = Path("/proc/swaps"), sysfs: Path = _SYSFS) -> list[str]:
    """The devices and files that are in use for swap, and not encrypted by dm-crypt; compressed memory (zram) does not
    count; proc_swaps(5)."""
    try:
        lines = table.read_text(encoding="utf-8", errors="replace").splitlines()[1:]
    except OSError:
        return []
    names = [line.split()[0].replace("\\040", " ") for line in lines if line.strip()]
    return [name for name in names if not os.path.basename(name).startswith("zram") and not _is_encrypted(name, sysfs)]


def _is_encrypted(name: str, sysfs: Path) -> bool:
    try:
        status = os.stat(name)
    except OSError:
        return False
    number = status.st_rdev or status.st_dev
    return _below(sysfs / f"{os.major(number)}:{os.minor(number)}", _DEPTH)


def _below(device: Path, depth: int) -> bool:
    """Whether a block device, or all that it lies on, is dm-crypt's."""
    try:
        if (device / "dm/uuid").read_text(encoding="ascii", errors="replace").startswith("CRYPT-"):
            return True
        below = list((device / "slaves").iterdir())
    except OSError:
        return False
    return bool(below) and depth > 0 and all(_below(each, depth - 1) for each in below)
