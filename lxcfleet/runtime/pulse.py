"""How long the event loop takes before it looks for something new: for so long the daemon answers nobody.

It is measured where the loop waits for events, so it costs no wake-up of its own.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable
from dataclasses import dataclass

STALL_SECONDS = 0.2
"""A turn of the loop that takes longer is a stall."""
WINDOW_SECONDS = 60.0
"""The longest turn is that of one to two such times."""


@dataclass(frozen=True)
class PulseReading:
    """The loop so far, by one clock."""

    stalls: int = 0
    """How many turns took longer than STALL_SECONDS."""
    longest: float = 0.0
    """Seconds of the longest turn lately."""


class _Clock:
    """Turns by one clock."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._began = now()
        self._stalls = 0
        self._longest = self._before = 0.0

    def begin(self) -> None:
        self._began = self._now()

    def end(self) -> None:
        turn = self._now() - self._began
        self._longest = max(self._longest, turn)
        self._stalls += turn > STALL_SECONDS

    def next_window(self) -> None:
        self._before, self._longest = self._longest, 0.0

    def reading(self) -> PulseReading:
        return PulseReading(self._stalls, max(self._longest, self._before))


class Pulse(selectors.EpollSelector):
    """The selector of an event loop, which measures the loop's turns: from one wait for events to the next.

    It does so by time, and by the processor time that the loop itself took: on a busy host a turn may be long for that alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self._clocks = {"elapsed": _Clock(time.monotonic), "processor": _Clock(time.thread_time)}
        self._since = time.monotonic()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for events; a turn has ended."""
        if time.monotonic() - self._since > WINDOW_SECONDS:
            self._since = time.monotonic()
            for clock in self._clocks.values():
                clock.next_window()
        for clock in self._clocks.values():
            clock.end()
        try:
            return super().select(timeout)
        finally:
            for clock in self._clocks.values():
                clock.begin()

    def reading(self) -> dict[str, PulseReading]:
        """How long the turns took so far, by clock: ``elapsed`` and ``processor``."""
        return {name: clock.reading() for name, clock in self._clocks.items()}


class MeasuredLoop(asyncio.SelectorEventLoop):
    """An event loop that is measured."""

    def __init__(self) -> None:
        self.pulse = Pulse()
        super().__init__(self.pulse)


def of_running_loop() -> dict[str, PulseReading]:
    """How long the turns of the loop that runs took so far; nothing of a loop that is not measured."""
    loop = asyncio.get_running_loop()
    return loop.pulse.reading() if isinstance(loop, MeasuredLoop) else {}
