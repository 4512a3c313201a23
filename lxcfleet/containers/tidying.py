"""Removes the cgroups of containers that have ended, where liblxc's monitor did not.

A monitor tries once, and not at all if it is killed. Root inside may have nested thousands of cgroups, so what takes longer
than a moment is done in a thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping

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
        self._closed = False

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

    def later(self, name: str, left: Iterable[str], seconds: float = FIRST_SECONDS) -> None:
        """Remove them in so many seconds, in a thread.

        This goes on if the container is destroyed: a process that takes long to end holds its cgroup.
        """
        asyncio.get_running_loop().call_later(seconds, self._tidy, name, frozenset(left), seconds)

    def close(self) -> None:
        """The daemon ends; the next one removes what is left."""
        self._closed = True

    def _tidy(self, name: str, left: frozenset[str], seconds: float) -> None:
        if self._closed:
            return
        container = self._containers.get(name)
        if container is not None and container.busy is not None:
            self._again(name, left, seconds)
            return
        if container is not None and container.running is not None:
            left -= container.running.cgroups
        removed = asyncio.get_running_loop().run_in_executor(None, cgroup.remove, left)
        removed.add_done_callback(lambda done: None if done.result() else self._again(name, left, seconds))

    def _again(self, name: str, left: frozenset[str], seconds: float) -> None:
        if seconds < LAST_SECONDS and not self._closed:
            self.later(name, left, 2 * seconds or FIRST_SECONDS)
