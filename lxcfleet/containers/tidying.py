"""Removes the cgroups of containers that have ended, where liblxc's monitor did not.

A monitor tries once, and not at all if it is killed. Root inside may have nested thousands of cgroups, so what takes longer
than a moment is done in a thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from lxcfleet.containers.container import Container, Running
from lxcfleet.host.process import cgroup

log = logging.getLogger(__name__)

FIRST_SECONDS = 0.5
"""Seconds after which the last process of an ended container has mostly gone."""
LAST_SECONDS = 60.0
"""Seconds after which a process that still holds a cgroup is not about to end."""
_AT_ONCE = 64
"""A container has fewer cgroups than this; they are removed in half a millisecond."""


class Tidying:
    """Removes what is left, and tries again ever less often while it is in use."""

    def __init__(self, containers: Mapping[str, Container]) -> None:
        self._containers = containers
        self._under_way: set[asyncio.Task[None]] = set()

    def ended(self, name: str, running: Running) -> None:
        """A run is over."""
        left = {*cgroup.usual(name), *running.cgroups}
        if not cgroup.remove(left, _AT_ONCE):
            self.later(name, left)

    async def run(self) -> None:
        """Remove what former runs left, for ever: their end may have been seen by nobody, if the daemon was killed, too."""
        while True:
            running = [each.running for each in self._containers.values() if each.running is not None]
            used = {group for each in running for group in each.cgroups}
            left = await asyncio.to_thread(cgroup.left_behind, frozenset(self._containers), used)
            for name in sorted(left):
                log.info("%s: removing the cgroups of a former run", name)
                self.later(name, left[name], 0.0)
            await asyncio.sleep(LAST_SECONDS)

    def later(self, name: str, left: Iterable[Path], seconds: float = FIRST_SECONDS) -> None:
        """Remove them in so many seconds.

        This goes on if the container is destroyed: a process that takes long to end holds its cgroup.
        """
        task = asyncio.get_running_loop().create_task(self._tidy(name, frozenset(left), seconds))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    def close(self) -> None:
        """The daemon ends; the next one removes what is left."""
        for task in self._under_way:
            task.cancel()

    async def _tidy(self, name: str, left: frozenset[Path], seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            container = self._containers.get(name)
            busy = container is not None and container.busy is not None
            now = container.running if container is not None else None
            if now is not None:
                left -= set(now.cgroups)
            if not busy and await asyncio.to_thread(cgroup.remove, left):
                return
            if seconds >= LAST_SECONDS:
                return
            seconds = 2 * seconds or FIRST_SECONDS
