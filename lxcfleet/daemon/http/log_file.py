"""A container's log as a client gets it: its last lines across a rotation, then the lines that follow later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from lxcfleet.logs.rotated import MISSED, Rotated

FOLLOW_SECONDS = 0.2
"""Seconds between two looks at a log file that a client follows."""


async def pieces(path: str, lines: int, *, follow: bool) -> AsyncIterator[bytes]:
    """The last lines, or with 0 all that there are. With ``follow`` later ones, too, across rotations."""
    log = await asyncio.to_thread(Rotated, Path(path), lines)
    try:
        while True:
            while piece := await asyncio.to_thread(log.block):
                if log.jumped:
                    yield b"\r\n" + MISSED + b"\r\n"
                yield piece
            yield b""  # which shows whether the client is still there
            if not follow:
                break
            await asyncio.sleep(FOLLOW_SECONDS)
    finally:
        asyncio.get_running_loop().run_in_executor(None, log.close)
