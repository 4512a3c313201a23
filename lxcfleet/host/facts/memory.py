"""The host's memory and swap."""

from __future__ import annotations

from typing import NamedTuple

import psutil


class Memory(NamedTuple):
    """Bytes at the moment."""

    total: int
    available: int
    """What programs can have without swapping: MemAvailable; proc(5)."""
    swap_total: int
    swap_free: int


def read() -> Memory:
    """Look; raises OSError if /proc can't be read."""
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    return Memory(memory.total, memory.available, swap.total, swap.free)
