"""Starts outside the daemon, as by plain lxc-start: LXC's pre-start hook announces them to the daemon.

An announcement is an empty file with the container's name, which the daemon removes. If one is lost, the daemon still finds
the container a few seconds later, as it looks for running containers regularly.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from lxcfleet.containers.events import StartAnnounced
from lxcfleet.containers.registry import Registry
from lxcfleet.host.kernel import tree
from lxcfleet.host.kernel.inotify import DirectoryWatch
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.runtime.soon import Soon
from lxcfleet.runtime.tasks import Tasks

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds until the daemon checks whether an announced container runs; they double with each check."""


def announce(paths: Paths, name: str) -> None:
    """Tell the daemon that the container is about to start. Does nothing if no daemon listens. Raises OSError."""
    if paths.starting.is_dir():
        tree.write(paths.starting / name, "")


class StartAnnouncements:
    """Receives announcements, and soon checks whether the containers run."""

    def __init__(self, paths: Paths, registry: Registry, bus: Bus, tasks: Tasks) -> None:
        self._directory: Path = paths.starting
        self._registry = registry
        self._bus = bus
        self._watch: DirectoryWatch | None = None
        self._soon = Soon(tasks, "announced-starts", self.look, "announced starts can't be looked for")

    def begin(self) -> None:
        """Begin to listen. If that fails, the log says so."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._take()  # announcements for an earlier daemon
            self._watch = DirectoryWatch(self._directory, self._soon.kick)
        except OSError as error:
            log.warning("containers that plain lxc-start begins are found some seconds later: %s", error)

    def close(self) -> None:
        """The daemon ends."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _take(self) -> set[str]:
        names = set()
        for file in self._directory.iterdir():
            if not file.name.startswith("."):  # a temporary file that is about to be renamed
                file.unlink(missing_ok=True)
                names.add(file.name)
        return names

    async def look(self) -> None:
        """Look for announced containers until all of them run or have had enough time. Raises FleetError, OSError."""
        expected: set[str] = set()
        pause = FIRST_PAUSE
        while pause <= LONGEST_PAUSE:
            if new := {name for name in self._take() if name in self._registry}:
                expected |= new
                pause = FIRST_PAUSE
                for name in sorted(new):
                    self._bus.publish(StartAnnounced(self._registry[name]))
            expected = {n for n in expected if n in self._registry and self._registry[n].running is None}
            if not expected:
                return
            await asyncio.sleep(pause)
            pause *= 2
            await self._registry.observe()
