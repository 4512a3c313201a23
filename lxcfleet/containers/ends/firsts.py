"""The first moments of an app container: one whose command ends at once did not start as far as its operator is concerned."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace

from lxcfleet.containers.container import Container, Running
from lxcfleet.containers.ends.endings import Endings
from lxcfleet.errors import WrongState
from lxcfleet.host.process import cgroup, proc
from lxcfleet.spec.reading.terms import Init
from lxcfleet.spec.results import Result

FIRST_SECONDS = 0.3
"""A command that ends before it took so much processor time has ended at once."""
LONGEST_SECONDS = 3.0
"""The longest look, in seconds: on a busy host a container may wait for a processor."""
LOOK_SECONDS = 0.01
"""A container that took no processor time for so long, and whose processes sleep, waits for something: it is up."""
TIDY_SECONDS = 5.0
"""The longest time that its monitor may take to tidy up."""
_STARTED = ("created", "started", "restarted")


class Firsts:
    """Looks at containers that have just been started."""

    def __init__(self, endings: Endings) -> None:
        self._endings = endings

    async def look(self, container: Container, done: Result) -> Result:
        """The result of a start: ``done``, or a failure if the command has ended with a failure by now."""
        spec = container.spec
        if container.lack is not None:
            return done
        if done.status not in _STARTED or spec is None or spec.init is not Init.APP:
            return done
        if not await self._ends(container):
            return done
        past = container.exit
        if past is None or past.asked or not past.exit_status:
            return done
        error = WrongState(
            f"{container.name} was {done.status}, and its command ended at once: {past.words}",
            why=past.printed,
            hint=f"the container is there: `lxcfleet info {container.name}`; `lxcfleet destroy {container.name}` removes it",
        )
        return replace(done, status="failed", error=error.body())

    async def _ends(self, container: Container) -> bool:
        """Whether it has ended, after a look for as long as it does something."""
        deadline = time.monotonic() + LONGEST_SECONDS
        used: float | None = -1.0
        while (running := container.running) is not None and self._endings.heard(container.name) is None:
            now = running.payload.cpu_seconds
            if now is None and self._endings.heard(container.name) is not None:
                break  # the monitor has told the end since, and has removed the cgroup after that
            if now is None or now > FIRST_SECONDS or time.monotonic() > deadline:
                return False
            # On a busy host one may begin another process, and sleep, between two looks at them: the time that it took tells.
            if now == used and _sleeps(running) and running.payload.cpu_seconds == now:
                return False
            used = now
            await asyncio.sleep(LOOK_SECONDS)
        if running is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(running.gone.wait(), TIDY_SECONDS)
        return container.running is None


def _sleeps(running: Running) -> bool:
    """Whether all its processes sleep."""
    directory = running.payload.directory
    pids, _ = cgroup.members(directory) if directory is not None else ([], False)
    return bool(pids) and all(map(proc.sleeps, pids))
