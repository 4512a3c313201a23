"""The resources that containers use, as counters: two readings give a rate."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence

from lxcfleet.api.records import ContainerUsageRecord, UsageRecord
from lxcfleet.containers.container import Container, Running
from lxcfleet.containers.registry import Registry
from lxcfleet.host.facts import memory
from lxcfleet.host.process.counters import Counters, Counts
from lxcfleet.spec.selection import Selection
from lxcfleet.spec.states import Health

IDLE_SECONDS = 30.0
"""Seconds without a question after which the files are closed."""


class Usages:
    """Takes readings of the resources that containers use."""

    def __init__(self, registry: Registry, health: Callable[[Container], Health | None]) -> None:
        self._registry = registry
        self._health = health
        self._counters: dict[str, Counters] = {}
        """The counters of each run; see container.Running.identity."""
        self._lock = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None

    async def read(self, selection: Selection) -> UsageRecord:
        """The present counters of the chosen containers, or of all. A thread reads the many files."""
        await self._registry.observe()
        if not (selection.patterns or selection.labels):
            selection = Selection(everything=True)
        async with self._lock:
            self._forget({c.running.identity for c in self._registry if c.running is not None})
            chosen = self._registry.choose(selection)
            runs = [(c.running, c.spec.port if c.spec else "") for c in chosen]
            now = time.monotonic()
            counted, cost = await asyncio.to_thread(self._count, runs)
            self._close_later()
        began = time.thread_time()
        host = memory.read()
        containers = [self._record(*each) for each in zip(chosen, runs, counted, strict=True)]
        return {
            "time": now,
            "cost": cost + time.thread_time() - began,
            "host": {
                "processors": os.cpu_count() or 1,
                "memory_total_bytes": host.total,
                "memory_available_bytes": host.available,
                "swap_total_bytes": host.swap_total,
                "swap_free_bytes": host.swap_free,
            },
            "containers": containers,
        }

    def _count(self, runs: Sequence[tuple[Running | None, str]]) -> tuple[list[Counts], float]:
        """The counts, and the seconds of processor time that they took."""
        began = time.thread_time()
        counts = [self._counters_of(*run).read() if run[0] is not None else Counts() for run in runs]
        return counts, time.thread_time() - began

    def _counters_of(self, running: Running | None, port: str) -> Counters:
        assert running is not None
        if running.identity not in self._counters:
            self._counters[running.identity] = Counters(running.payload, port)
        return self._counters[running.identity]

    def _forget(self, alive: set[str]) -> None:
        for identity in self._counters.keys() - alive:
            self._counters.pop(identity).close()

    def _close_later(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._close_all)

    def _close_all(self) -> None:
        if not self._lock.locked():  # if it is locked, another question is being answered, and puts this off
            self._forget(set())

    def _record(self, container: Container, run: tuple[Running | None, str], counts: Counts) -> ContainerUsageRecord:
        spec, running = container.spec, run[0]
        read, written = counts.io_bytes or (None, None)
        received, sent = counts.net_bytes or (None, None)
        return {
            "name": container.name,
            "state": container.state,
            "health": self._health(container),
            "run": running.identity if running else None,
            "cpu_seconds": counts.cpu_seconds,
            "memory_bytes": counts.memory_bytes,
            "processes": counts.processes,
            "io_read_bytes": read,
            "io_written_bytes": written,
            "net_received_bytes": received,
            "net_sent_bytes": sent,
            "throttled_seconds": counts.throttled_seconds,
            "pressure": dict(counts.pressure),
            "cpus_limit": (spec.cpus or None) if spec else None,
            "memory_limit_bytes": (spec.memory or None) if spec else None,
            "processes_limit": (spec.pids or None) if spec else None,
        }
