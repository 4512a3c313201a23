"""Whether the results of a background task are still asked for, so that it can rest while they are not."""

from __future__ import annotations

import asyncio
import time

IDLE_SECONDS = 900.0
"""How long results are worth the work after they were last asked for."""


class Interest:
    """Whether results are asked for."""

    def __init__(self) -> None:
        self._wanted = asyncio.Event()
        self._asked = 0.0

    def show(self) -> None:
        """They were asked for just now."""
        self._asked = time.monotonic()
        self._wanted.set()

    async def wait(self) -> None:
        """Come back when they were asked for within IDLE_SECONDS."""
        while True:
            await self._wanted.wait()
            if time.monotonic() - self._asked <= IDLE_SECONDS:
                return
            self._wanted.clear()
