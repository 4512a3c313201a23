"""How long the event loop takes before it looks for something new: for so long the daemon answers nobody.

It is measured where the loop waits for events, so it costs no wake-up of its own.
"""

from __future__ import annotations

import asyncio
import selectors
import time
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


SHORT_SECONDS = 0.002
"""Of turns that are shorter the processor time is not asked for, but for one of several: it counts as long as they took."""


class _Turns:
    """Turns by one clock."""

    def __init__(self) -> None:
        self._stalls = 0
        self._longest = self._before = 0.0

    def add(self, turn: float) -> None:
        self._longest = max(self._longest, turn)
        if turn > STALL_SECONDS:
            self._stalls += 1

    def next_window(self) -> None:
        self._before, self._longest = self._longest, 0.0

    def reading(self) -> PulseReading:
        return PulseReading(self._stalls, max(self._longest, self._before))


class Pulse(selectors.EpollSelector):
    """The selector of an event loop, which measures the loop's turns: from one wait for events to the next.

    It does so by time, and by the processor time that the loop itself took: on a busy host a turn may be long for that alone.
    To ask for the latter takes the kernel, and a tenth of a short turn, so it is not asked for at each.
    """

    def __init__(self) -> None:
        super().__init__()
        self._elapsed, self._processor = _Turns(), _Turns()
        self._since = self._began = time.monotonic()
        self._asked = time.thread_time()
        self._unasked = 0.0
        """Seconds of the turns since the processor time was asked for."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for events; a turn has ended."""
        now = time.monotonic()
        if now - self._since > WINDOW_SECONDS:
            self._since = now
            self._elapsed.next_window()
            self._processor.next_window()
        turn = now - self._began
        self._elapsed.add(turn)
        if turn + self._unasked < SHORT_SECONDS:
            self._unasked += turn
            self._processor.add(turn)
        else:
            before, self._asked, self._unasked = self._asked, time.thread_time(), 0.0
            self._processor.add(min(turn, self._asked - before))
        try:
            return super().select(timeout)
        finally:
            self._began = time.monotonic()

    def reading(self) -> dict[str, PulseReading]:
        """How long the turns took so far, by clock: ``elapsed`` and ``processor``."""
        return {"elapsed": self._elapsed.reading(), "processor": self._processor.reading()}


class MeasuredLoop(asyncio.SelectorEventLoop):
    """An event loop that is measured."""

    def __init__(self) -> None:
        self.pulse = Pulse()
        super().__init__(self.pulse)


def of_running_loop() -> dict[str, PulseReading]:
    """How long the turns of the loop that runs took so far; nothing of a loop that is not measured."""
    loop = asyncio.get_running_loop()
    return loop.pulse.reading() if isinstance(loop, MeasuredLoop) else {}
