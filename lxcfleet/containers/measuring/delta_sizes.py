"""The sizes of the containers' deltas, added up in the background, a little at a time.

To add up a delta, each of its files is looked at. A question for the sizes of all deltas does not wait for that: the answer
is the last sum of each. A question for one delta is answered with its present size, or with nothing where that takes long:
root in a container decides how many files there are, and nobody waits for those, whichever container is asked about.
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
QUICK_SECONDS = 1.0
"""A delta that takes more seconds of a processor is large. Large ones are added up beside the others, which don't wait."""
LARGE_SECONDS = 120.0
"""After so many seconds of a processor a delta is given up, and its size is not known. That is tens of millions of files."""
AT_ONCE = 2
"""At most so many are added up at once for single questions: a start must not wait for a free thread."""
PATIENCE = 5.0
"""Seconds that a single question may take."""


class DeltaSizes:
    """The size of each delta on disk, as of the last look."""

    def __init__(self, paths: Paths, registry: Registry) -> None:
        self._paths = paths
        self._registry = registry
        self._sizes: dict[str, int] = {}
        self._looked: dict[str, float] = {}
        self._large: set[str] = set()
        self._interest = Interest()

    def read(self) -> dict[str, int]:
        """Bytes by container, without those that were not looked at yet. Looking goes on only while somebody asks."""
        self._interest.show()
        return dict(self._sizes)

    async def run(self) -> None:
        """Look at one after the other, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_looking(large=False))
            group.create_task(self._keep_looking(large=True))

    async def _keep_looking(self, large: bool) -> None:
        while True:
            await self._interest.wait()
            names = [container.name for container in self._registry]
            for gone in self._looked.keys() - set(names):
                del self._looked[gone]
                self._sizes.pop(gone, None)
            self._large.intersection_update(names)
            for name in [each for each in names if (each in self._large) is large]:
                if time.monotonic() - self._looked.get(name, -KEPT_SECONDS) >= KEPT_SECONDS:
                    await self._look(name, LARGE_SECONDS if large else QUICK_SECONDS)
            await asyncio.sleep(1.0)

    async def _look(self, name: str, most: float) -> None:
        """Add one delta up, in slices with pauses, within the share of processor time and ``most`` seconds of that."""
        steps = tree.disk_usage_steps(_own_layer(self._paths, name))
        size, more, taken = 0, True, 0.0
        while more and taken < most:
            began = time.monotonic()
            so_far, more = await asyncio.to_thread(_go_on, steps, began + _SLICE_SECONDS)
            size = max(size, so_far)
            slice_seconds = time.monotonic() - began
            taken += slice_seconds
            await asyncio.sleep(slice_seconds * (2 / SHARE - 1))  # two may be looked at beside each other
        was_large = name in self._large
        (self._large.add if taken >= QUICK_SECONDS else self._large.discard)(name)
        if more and not was_large:
            return
        self._looked[name] = time.monotonic()
        if more:
            self._sizes.pop(name, None)
        else:
            self._sizes[name] = size


class Looks:
    """Adds up single deltas, and volumes, at once. Simultaneous questions for the same one share one answer."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._going_on: dict[Path, asyncio.Task[int | None]] = {}

    async def size(self, name: str) -> int | None:
        """Bytes that the delta takes on disk. None: that is not known within PATIENCE."""
        return await self.within(_own_layer(self._paths, name))

    async def within(self, directory: Path) -> int | None:
        """The same for what is in a directory."""
        task = self._going_on.get(directory)
        if task is None:
            task = self._going_on[directory] = asyncio.get_running_loop().create_task(self._look(directory))
            task.add_done_callback(lambda _: self._going_on.pop(directory))
        return await asyncio.shield(task)

    async def _look(self, directory: Path) -> int | None:
        deadline = time.monotonic() + PATIENCE
        try:
            async with asyncio.timeout(PATIENCE):
                await self._slots.acquire()
        except TimeoutError:
            return None
        try:
            size, more = await asyncio.to_thread(_go_on, tree.disk_usage_steps(directory), deadline)
        finally:
            self._slots.release()
        return None if more else size


def _own_layer(paths: Paths, name: str) -> Path:
    """The layer that counts for a container's use of disk: its own. Other containers share the other layers."""
    return Path(delta(paths, name).source)


def _go_on(steps: Iterator[int], deadline: float) -> tuple[int, bool]:
    """Take steps until then; the sum so far, and whether there are more."""
    size = 0
    for size in steps:
        if time.monotonic() > deadline:
            return size, True
    return size, False
