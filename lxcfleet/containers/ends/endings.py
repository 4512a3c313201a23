"""How containers ended: the exit status of process 1, as liblxc's monitors tell it.

A status that nobody heard, as the daemon did not run at that moment, is not known.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterable

from lxcfleet.containers.container import Container
from lxcfleet.containers.ends.memory import MemoryKills
from lxcfleet.containers.events import Ends
from lxcfleet.containers.exits import SHELL, Ending
from lxcfleet.containers.registry import Registry
from lxcfleet.errors import HostError
from lxcfleet.host.lxc import monitor_fifo, stopping
from lxcfleet.host.lxc.monitor_fifo import MonitorFifo, MonitorRecord
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus

log = logging.getLogger(__name__)

NOT_KNOWN = "it ended; its exit status is not known, as lxcfleetd did not hear of it"
RUNS = "it has not ended"
_FEW = 16
"""Of so many that end together, the monitor of each is looked at first, as that takes less than a look at all processes."""


def words(container: Container, ending: Ending | None) -> str:
    """How a container ended, or that it did not."""
    if container.running is not None:
        return RUNS
    return ending.words if ending is not None else NOT_KNOWN


class Endings:
    """How each container ended last, as far as this daemon heard of it."""

    def __init__(self, paths: Paths, registry: Registry, memory: MemoryKills, bus: Bus) -> None:
        self._registry = registry
        self._bus = bus
        self._memory = memory
        self._lxc_path = str(paths.lxc)
        self._known: dict[str, Ending] = {}
        self._heard_at: dict[str, float] = {}
        """When each of these was heard, in seconds since the epoch."""
        self._asked: set[str] = set()
        """Containers whose last run lxc-stop ended."""
        self._fifo = MonitorFifo(paths.lxc, self._hear)
        self.problem: HostError | None = None
        """Why monitors are not heard at the moment; None: they are."""

    def check(self) -> None:
        """Listen to monitors, if this daemon does not yet. A failure is logged, once."""
        self._forget_unsure()
        self._memory.check()
        try:
            self._fifo.check()
            problem = None
        except HostError as error:
            problem = error
        if problem is not None and str(problem) != str(self.problem):
            log.warning("how containers end is not known for now: %s", str(problem).replace("\n", "; "))
        self.problem = problem

    def of(self, container: Container) -> Ending | None:
        """How its last run ended; None: it runs, or that is not known."""
        return None if container.running is not None else self.heard(container.name)

    def heard(self, name: str) -> Ending | None:
        """How its process 1 ended, if it has; its monitor may still tidy up. None: it runs, or that is not known."""
        self._fifo.drain()
        self._forget_unsure()
        return self._known.get(name)

    def _forget_unsure(self) -> None:
        """While monitors are not heard, the start of a new run is not: what is known may be of the run before."""
        if not self._fifo.reads:
            self._known.clear()

    def heard_at(self, name: str) -> float:
        """When it was heard how it ended, in seconds since the epoch: its monitor tidied up after that. Else it is now."""
        return self._heard_at[name] if name in self._known else time.time()

    def asked(self, name: str) -> bool:
        """Whether its last end came while lxc-stop waited for that."""
        return name in self._asked

    def forget(self, name: str) -> None:
        """The container does not exist any more."""
        self._known.pop(name, None)
        self._heard_at.pop(name, None)
        self._asked.discard(name)

    def close(self) -> None:
        """The daemon ends."""
        self._fifo.remove()

    def _hear(self, records: Iterable[MonitorRecord]) -> None:
        ended = set()
        for record in records:
            if record.name not in self._registry:
                continue
            if record.kind == monitor_fifo.EXIT:
                self._known[record.name] = self._ending(record.name, record.value)
                self._heard_at[record.name] = time.time()
                ended.add(record.name)
            elif record.kind == monitor_fifo.STATE and record.value == monitor_fifo.STARTING:
                self._memory.read()  # so that nothing about its former run is read later
                self._memory.forget(record.name)
                self.forget(record.name)
                ended.discard(record.name)
        # While an action is under way on a container, that is who wanted it to end, or nobody did.
        alone = [name for name in ended if self._registry[name].busy is None]
        suspects = [name for name in alone if self._may_be_asked(name)] if len(alone) <= _FEW else alone
        # All of the host's processes are looked at, so once for all that ended together.
        asking = stopping.asking() if suspects else []
        asked = {name for name in suspects if any(stopping.stops(words, name, self._lxc_path) for words in asking)}
        self._asked |= asked
        for name in alone:
            if name not in asked and self._registry[name].running is not None:
                self._bus.publish(Ends(self._registry[name], failed=self._known[name].exit_status != 0))

    def _may_be_asked(self, name: str) -> bool:
        """Whether an lxc-stop may wait for its end. Nobody can tell if its monitor is not known."""
        running = self._registry[name].running
        return running is None or stopping.may_ask(running.monitor, f"{self._lxc_path}/{name}/command")

    def _ending(self, name: str, status: int) -> Ending:
        """How it ended; also whether for memory: its cgroup is still there, until its monitor removes it a moment later."""
        return Ending(status, self._memory.ran_out(name) if _killed(status) else "")


def _killed(status: int) -> bool:
    """Whether SIGKILL ended its program."""
    return Ending(status).exit_status == SHELL + signal.SIGKILL
