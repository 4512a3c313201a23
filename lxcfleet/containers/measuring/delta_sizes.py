"""The sizes of the containers' deltas, added up in the background, a little at a time.

To add up a delta, each of its files is looked at. A question for the sizes of all deltas does not wait for that: the answer
is the last sum of each. A question for one delta is answered with its present size.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

from lxcfleet.base.stack import delta
from lxcfleet.containers.registry import Registry
from lxcfleet.host.kernel import tree
from lxcfleet.paths import Paths
from lxcfleet.runtime.interest import Interest

SHARE = 0.05
"""The largest share of one processor that this may take."""
KEPT_SECONDS = 60.0
"""Seconds for which one sum is good enough."""
_SLICE_SECONDS = 0.02
AT_ONCE = 2
"""At most so many deltas are added up at once for single questions: a start must not wait for a free thread."""


class DeltaSizes:
    """The size of each delta on disk, as of the last look."""

    def __init__(self, paths: Paths, registry: Registry) -> None:
        self._paths = paths
        self._registry = registry
        self._sizes: dict[str, int] = {}
        self._looked: dict[str, float] = {}
        self._interest = Interest()

    def read(self) -> dict[str, int]:
        """Bytes by container, without those that were not looked at yet. Looking goes on only while somebody asks."""
        self._interest.show()
        return dict(self._sizes)

    async def run(self) -> None:
        """Look at one after the other, for ever."""
        while True:
            await self._interest.wait()
            for name in [container.name for container in self._registry]:
                if time.monotonic() - self._looked.get(name, -KEPT_SECONDS) >= KEPT_SECONDS:
                    await self._look(name)
            for gone in [name for name in self._looked if name not in self._registry]:
                del self._looked[gone], self._sizes[gone]
            await asyncio.sleep(1.0)

    async def _look(self, name: str) -> None:
        """Add one delta up, in slices with pauses, within the share of processor time."""
        steps = tree.disk_usage_steps(_own_layer(self._paths, name))
        size, more = 0, True
        while more:
            began = time.monotonic()
            so_far, more = await asyncio.to_thread(_go_on, steps)
            size = max(size, so_far)
            await asyncio.sleep((time.monotonic() - began) * (1 / SHARE - 1))
        self._sizes[name], self._looked[name] = size, time.monotonic()


class Looks:
    """Adds single deltas up at once. Simultaneous questions for the same delta share one answer."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._going_on: dict[str, asyncio.Task[int]] = {}

    async def size(self, name: str) -> int:
        """Bytes that the delta takes on disk."""
        task = self._going_on.get(name)
        if task is None:
            task = self._going_on[name] = asyncio.get_running_loop().create_task(self._look(name))
            task.add_done_callback(lambda _: self._going_on.pop(name))
        return await asyncio.shield(task)

    async def _look(self, name: str) -> int:
        async with self._slots:
            return await asyncio.to_thread(tree.disk_usage, _own_layer(self._paths, name))


def _own_layer(paths: Paths, name: str) -> Path:
    """The layer that counts for a container's use of disk: its own. Other containers share the other layers."""
    return Path(delta(paths, name).source)


def _go_on(steps: Iterator[int]) -> tuple[int, bool]:
    """Take steps for one slice of time; the sum so far, and whether there are more."""
    deadline, size = time.monotonic() + _SLICE_SECONDS, 0
    for size in steps:
        if time.monotonic() > deadline:
            return size, True
    return size, False
