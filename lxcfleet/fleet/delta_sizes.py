"""How large the containers' deltas are, looked at in the background, a little at a time.

Adding up a delta means to look at each of its files, so nobody who asks waits for it: they get what was found last.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from lxcfleet.fleet.registry import Registry
from lxcfleet.host import tree
from lxcfleet.names import Paths

SHARE = 0.05
"""The most of one processor that this may take."""
ROUND_SECONDS = 60.0
"""No container is looked at more often than this."""
IDLE_SECONDS = 900.0
"""When nobody asked for so long, nothing is looked at."""
_SLICE_SECONDS = 0.02


class DeltaSizes:
    """What each delta takes on disk, as of the last look."""

    def __init__(self, paths: Paths, registry: Registry) -> None:
        self._paths = paths
        self._registry = registry
        self._sizes: dict[str, int] = {}
        self._wanted = asyncio.Event()
        self._asked = 0.0

    def read(self) -> dict[str, int]:
        """Bytes by container; those that were not looked at yet are missing. Asking keeps the looking alive."""
        self._asked = time.monotonic()
        self._wanted.set()
        return dict(self._sizes)

    async def run(self) -> None:
        """Look at one after the other, for ever."""
        while True:
            await self._wanted.wait()
            began = time.monotonic()
            if began - self._asked > IDLE_SECONDS:
                self._wanted.clear()
                continue
            names = [container.name for container in self._registry]
            for name in names:
                await self._look(name)
            self._sizes = {name: size for name, size in self._sizes.items() if name in self._registry}
            await asyncio.sleep(max(1.0, began + ROUND_SECONDS - time.monotonic()))

    async def _look(self, name: str) -> None:
        """Add one delta up, in slices with pauses that keep to the share."""
        steps = tree.disk_usage_steps(self._paths.container(name).delta)
        size, more = 0, True
        while more:
            began = time.monotonic()
            so_far, more = await asyncio.to_thread(_go_on, steps)
            size = max(size, so_far)
            await asyncio.sleep((time.monotonic() - began) * (1 / SHARE - 1))
        if name in self._registry:
            self._sizes[name] = size


def _go_on(steps: Iterator[int]) -> tuple[int, bool]:
    """Take steps for one slice of time; the sum so far, and whether there are more."""
    deadline, size = time.monotonic() + _SLICE_SECONDS, 0
    for size in steps:
        if time.monotonic() > deadline:
            return size, True
    return size, False
