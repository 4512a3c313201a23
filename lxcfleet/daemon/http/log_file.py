"""A container's log as a client gets it: its last lines across a rotation, then the lines that follow later."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

_FOLLOW_SECONDS = 0.2
"""Seconds between two looks at a log file that a client follows."""


async def pieces(path: str, lines: int, *, follow: bool) -> AsyncIterator[bytes]:
    """The file from before the last rotation, then the current one. With ``follow`` later lines, too, across rotations."""
    old = b"" if lines == 0 and follow else await asyncio.to_thread(_read_from, f"{path}.1", 0)
    text = old + (current := await asyncio.to_thread(_read_from, path, 0))
    yield _last_lines(text, lines)
    position = len(current)
    inode = _inode(path)
    while follow:
        await asyncio.sleep(_FOLLOW_SECONDS)
        if _inode(path) != inode:
            yield await asyncio.to_thread(_read_from, f"{path}.1", position)
            inode, position = _inode(path), 0
        piece = await asyncio.to_thread(_read_from, path, position)
        position += len(piece)
        yield piece


def _read_from(path: str, position: int) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(position)
            return file.read()
    except OSError:
        return b""


def _inode(path: str) -> int | None:
    try:
        return os.stat(path).st_ino
    except OSError:
        return None


def _last_lines(text: bytes, count: int) -> bytes:
    return b"".join(text.splitlines(keepends=True)[-count:]) if count else text
