"""How a process of ours gets its memory from the C library."""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8
"""malloc.h of glibc."""


def have_one() -> None:
    """Have all threads share one heap. To be called before there are any.

    glibc makes a heap for each thread that allocates while another one does: each grows to the most that its thread ever
    needed at once, and is given back to nobody. Python's threads hardly ever allocate at the same moment.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have no such thing
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
