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
    """The loop so far."""

    stalls: int = 0
    """How many turns took longer than STALL_SECONDS."""
    longest: float = 0.0
    """Seconds of the longest turn lately."""


class Pulse(selectors.EpollSelector):
    """The selector of an event loop, which measures the loop's turns: from one wait for events to the next."""

    def __init__(self) -> None:
        super().__init__()
        self._woke = self._since = time.monotonic()
        self._stalls = 0
        self._longest = self._before = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for events; a turn has ended."""
        now = time.monotonic()
        self._note(now, now - self._woke)
        try:
            return super().select(timeout)
        finally:
            self._woke = time.monotonic()

    def _note(self, now: float, turn: float) -> None:
        if now - self._since > WINDOW_SECONDS:
            self._before, self._longest, self._since = self._longest, 0.0, now
        self._longest = max(self._longest, turn)
        self._stalls += turn > STALL_SECONDS

    def reading(self) -> PulseReading:
        """How long the turns took so far."""
        return PulseReading(self._stalls, max(self._longest, self._before))


class MeasuredLoop(asyncio.SelectorEventLoop):
    """An event loop that is measured."""

    def __init__(self) -> None:
        self.pulse = Pulse()
        super().__init__(self.pulse)


def of_running_loop() -> PulseReading:
    """How long the turns of the loop that runs took so far; nothing of a loop that is not measured."""
    loop = asyncio.get_running_loop()
    return loop.pulse.reading() if isinstance(loop, MeasuredLoop) else PulseReading()
