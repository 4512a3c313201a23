"""Looking at things in the background, but only while somebody asks for what was found."""

from __future__ import annotations

import asyncio
import time

IDLE_SECONDS = 900.0
"""When nobody asked for so long, nothing is looked at."""


class Interest:
    """Whether somebody asks."""

    def __init__(self) -> None:
        self._wanted = asyncio.Event()
        self._asked = 0.0

    def show(self) -> None:
        """Somebody asked."""
        self._asked = time.monotonic()
        self._wanted.set()

    async def wait(self) -> None:
        """Come back when somebody asked lately."""
        while True:
            await self._wanted.wait()
            if time.monotonic() - self._asked <= IDLE_SECONDS:
                return
            self._wanted.clear()
