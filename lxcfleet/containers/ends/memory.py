"""Containers that lose processes because memory ran out: heard at once, told in words, and counted.

The kernel's log names the process and whose limit was reached. The counter in a container's cgroup tells of kills that the
log left out, as the kernel limits how many of these messages it writes (mm/oom_kill.c: ten in five seconds).
"""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import time
from dataclasses import dataclass

from lxcfleet.containers.container import Container
from lxcfleet.containers.events import KilledForMemory
from lxcfleet.containers.lxc_config import ends_whole
from lxcfleet.containers.registry import Registry
from lxcfleet.host.process import proc
from lxcfleet.host.process.kernel_log import KernelLog, Kill
from lxcfleet.host.process.memory_events import MemoryEvents
from lxcfleet.runtime.bus import Bus
from lxcfleet.units import as_size

log = logging.getLogger(__name__)

GATHER_SECONDS = 0.2
"""Kills within so many seconds are one event."""
PAUSE_SECONDS = 10.0
"""The least time between two events about one container: its root can have processes killed as fast as it likes."""
COUNTS_SECONDS = 60.0
"""A container that is killed so soon after one of its processes was killed for memory ended for that reason."""
AGAIN_SECONDS = (0.1, 1.0)
"""cgroup v1 tells that memory ran out just before it kills somebody, so the counter is looked at again."""
_LONGEST = 120
"""Characters of the path of a cgroup that are told; its end tells more than its beginning."""
_NUMBERED = re.compile(r"-[0-9]+$")


def words(limit: int, kill: Kill | None, more: int = 0) -> str:
    """The kills, in words. ``limit``: of the container, in bytes; ``kill``: None if nobody knows whom the kernel killed;
    ``more``: how many further processes it killed."""
    parts = []
    if kill is not None and kill.limit is None:
        parts.append("the host had none left")
    elif kill is not None and kill.limit:
        parts.append(f"limit of {_short(kill.limit)}")
    elif limit:
        parts.append(f"limit {as_size(limit)}")
    if kill is not None and kill.process:
        within = kill.within if kill.within and kill.within != kill.limit else ""
        parts.append(f"process {kill.process}" + (f" in {_short(within)}" if within else ""))
    text = "killed for memory" + (f": {', '.join(parts)}" if parts else "")
    return text + (f", and {more} more" if more else "")


def _short(path: str) -> str:
    return path if len(path) <= _LONGEST else f"…{path[-_LONGEST:]}"


@dataclass
class _Run:
    """The kills that were heard of in the present run of a container."""

    seen: int = 0
    """Kills that the counter has, and that are accounted for."""
    last: float | None = None
    """When the last one was heard; time.monotonic()."""
    kill: Kill | None = None
    """The first of those that are not told yet, of which the log said more."""
    untold: int = 0
    told: float | None = None
    """When the last event was published."""
    words: str = ""
    """The last ones in words."""
    timer: asyncio.TimerHandle | None = None


class MemoryKills:
    """Hears of processes that the kernel kills for memory."""

    def __init__(self, registry: Registry, bus: Bus) -> None:
        self._registry, self._bus = registry, bus
        self._log = KernelLog()
        self._events = MemoryEvents(self._look)
        self._runs: dict[str, _Run] = {}
        self._began = time.time()
        self._complained = False

    def check(self) -> None:
        """Listen to the kernel's log, if this daemon does not yet, and read it."""
        self._log.begin()
        self._log.watch(self.read)
        self.read()

    def began(self, container: Container) -> None:
        """A container began to run, or was found running."""
        running = container.running
        if running is None:
            return
        run = self._runs.setdefault(container.name, _Run())
        if running.since < self._began:  # what an earlier daemon may have told is not told again
            run.seen = running.payload.out_of_memory_kills or 0
        try:
            self._events.watch(container.name, running.payload)
        except FileNotFoundError:
            pass  # it has ended again
        except OSError as error:
            if not self._complained:
                log.warning("kills for memory are heard of by the kernel's log only: %s: %s", container.name, error)
            self._complained = True
        if run.untold:  # the log said so before it was known to run
            self._end_whole(container, run.kill)
        self._count(container.name)

    def ended(self, name: str) -> None:
        """A container has ended, or does not exist any more."""
        self._events.forget(name)
        run = self._runs.get(name)
        if run is not None:
            self._tell(name)
        self.forget(name)

    def forget(self, name: str) -> None:
        """A new run begins, or the container does not exist any more."""
        run = self._runs.pop(name, None)
        if run is not None and run.timer is not None:
            run.timer.cancel()
        if run is not None and name in self._registry and self._registry[name].running is not None:
            self._runs[name] = _Run()

    def ran_out(self, name: str) -> str:
        """How the kernel killed a process of the container lately, in words; empty: it did not."""
        self._count(name)
        run = self._runs.get(name)
        if run is None or run.last is None or time.monotonic() - run.last > COUNTS_SECONDS:
            return ""
        self._tell(name)
        return run.words

    def close(self) -> None:
        """The daemon ends."""
        self._events.close()
        self._log.close()
        for run in self._runs.values():
            if run.timer is not None:
                run.timer.cancel()

    def read(self) -> None:
        """Read what the kernel's log says."""
        for kill in self._log.kills():
            name = self._name(kill.container)
            if name is not None:
                self._hear(name, kill, 1)

    def _look(self, name: str) -> None:
        """Something happened to the memory of a container."""
        there = self._count(name)  # cgroup v1 tells of its removal, too, and then nobody is killed in it any more
        container = self._container(name)
        if there and container is not None and container.running is not None and _is_v1(container):
            for seconds in AGAIN_SECONDS:
                asyncio.get_running_loop().call_later(seconds, self._count, name)

    def _count(self, name: str) -> bool:
        """Compare the counter with what the log said; whether there is a counter.

        The counter is read first: the kernel writes to its log before it counts, so nothing is counted that is not there yet.
        """
        container = self._container(name)
        running = None if container is None else container.running
        count = None if running is None else running.payload.out_of_memory_kills
        self.read()
        if count is None:
            return False
        run = self._runs.setdefault(name, _Run())
        if count > run.seen:
            self._hear(name, None, count - run.seen)
            run.seen = count
        return True

    def _hear(self, name: str, kill: Kill | None, number: int) -> None:
        container = self._registry[name]
        run = self._runs.setdefault(name, _Run())
        # v1 counts what was killed in the container's own cgroup, and not what was killed in those below.
        if kill is not None and not (kill.within and _is_v1(container)):
            run.seen += 1
        run.kill = run.kill or kill
        run.untold += number
        run.last = time.monotonic()
        container.memory_kills += number
        self._end_whole(container, kill)
        if run.timer is None:
            pause = GATHER_SECONDS if run.told is None else max(GATHER_SECONDS, run.told + PAUSE_SECONDS - run.last)
            run.timer = asyncio.get_running_loop().call_later(pause, self._tell, name)

    def _tell(self, name: str) -> None:
        """Publish what was not told yet."""
        run = self._runs.get(name)
        if run is None or not run.untold:
            return
        if run.timer is not None:
            run.timer.cancel()
        container = self._container(name)
        limit = container.spec.memory if container is not None and container.spec is not None else 0
        run.words = words(limit, run.kill, run.untold - 1)
        if container is not None:
            container.last_memory_kill = run.words
        run.kill, run.untold, run.told, run.timer = None, 0, time.monotonic(), None
        self._bus.publish(KilledForMemory(name, run.words))

    def _end_whole(self, container: Container, kill: Kill | None) -> None:
        """End a container that is to end as a whole. On cgroup v2 the kernel has done that: memory.oom.group."""
        running, spec = container.running, container.spec
        if running is None or spec is None or not ends_whole(spec) or not _is_v1(container):
            return
        if kill is None or kill.limit == "":
            proc.send_signal(running.pid, running.monitor, signal.SIGKILL)

    def _container(self, name: str) -> Container | None:
        if name not in self._registry:
            return None
        return self._registry[name]

    def _name(self, own: str) -> str | None:
        """The container with the cgroup ``lxc.payload.OWN``; None: it is none of ours."""
        for name in (own, _NUMBERED.sub("", own)):
            if name in self._registry:
                running = self._registry[name].running
                if running is None or any(d.endswith(f"/lxc.payload.{own}") for d in running.payload.directories.values()):
                    return name
        return None


def _is_v1(container: Container) -> bool:
    return container.running is not None and "memory" in container.running.payload.directories
