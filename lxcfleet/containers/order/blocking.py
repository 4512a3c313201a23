"""Has blocked containers start once nothing is lacking any more, and knows what each of them waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from lxcfleet.containers.container import Container
from lxcfleet.containers.events import Held
from lxcfleet.containers.reconciling.prerequisites import Prerequisites
from lxcfleet.containers.registry import Registry
from lxcfleet.runtime.bus import Bus

BUSY_SECONDS = 1.0
"""A blocked container on which an action is under way is looked at again after so long, should that end without an event."""


class Blocking:
    """Looks at blocked containers when something has changed. Nothing is looked at again and again."""

    def __init__(
        self,
        registry: Registry,
        prerequisites: Prerequisites,
        bus: Bus,
        start: Callable[[Sequence[Container]], None],
    ) -> None:
        """``start``: begins to start these, which are to run and lack nothing."""
        self._registry = registry
        self._prerequisites = prerequisites
        self._bus = bus
        self._start = start
        self._held: dict[str, None] = {}
        """The names of blocked containers, and of some that are so no more."""
        self._soon = False
        self._timer: asyncio.TimerHandle | None = None

    def held(self, name: str) -> None:
        """A container is blocked."""
        self._held[name] = None
        self.wake()  # what it lacks may have come while that was noted

    def wake(self) -> None:
        """Something changed that containers may wait for. They are looked at once for all events of this moment."""
        if self._held and not self._soon:
            self._soon = True
            asyncio.get_running_loop().call_soon(self._look)

    def close(self) -> None:
        """The daemon ends; what is blocked stays so until the next one has looked."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._soon = False
        self.close()
        free, pauses = [], []
        for name in list(self._held):
            each = self._registry[name] if name in self._registry else None  # noqa: SIM401  it is no mapping
            if each is None or each.lack is None:
                del self._held[name]
                continue
            if each.busy is not None:
                pauses.append(BUSY_SECONDS)
                continue
            lack = self._prerequisites.lack(each.wanted)
            if lack is None:
                each.lack = None
                free.append(each)
                continue
            before, each.lack = each.lack, lack
            if lack.again is not None:
                pauses.append(lack.again)
            if lack.reason != before.reason:
                self._bus.publish(Held(each.name, lack.words))
        if pauses:
            self._timer = asyncio.get_running_loop().call_later(max(min(pauses), 0.0), self._look)
        if free:
            self._start(free)
