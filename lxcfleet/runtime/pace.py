"""Sleeping in step."""

from __future__ import annotations

import asyncio


async def sleep_in_step(seconds: float) -> None:
    """Sleep until the event loop's clock shows the next multiple of ``seconds``.

    Tasks that look at something again and again wake up together so. For a daemon at rest an awakening of the processor costs
    more than most looks do.
    """
    await asyncio.sleep(until_step(seconds, asyncio.get_running_loop().time()))


def until_step(seconds: float, now: float) -> float:
    """Seconds from ``now``, by the monotonic clock, until the next multiple of ``seconds``. Pure."""
    return seconds - now % seconds if seconds > 0 else 0.0
