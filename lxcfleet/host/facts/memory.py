"""The host's memory and swap."""

from __future__ import annotations

from typing import NamedTuple

import psutil


class HostMemory(NamedTuple):
    """The present amounts in bytes."""

    total: int
    available: int
    """Memory that programs can have without swapping: MemAvailable; proc(5)."""
    swap_total: int
    swap_free: int


def read() -> HostMemory:
    """Read /proc; raises OSError if that fails."""
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    return HostMemory(memory.total, memory.available, swap.total, swap.free)
