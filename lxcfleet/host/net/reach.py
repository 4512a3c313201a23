"""Checks from the host whether a container answers over the network."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable

_MAX_STATUS_LINE = 4096
_PIECES = 16


async def tcp(address: str, port: int, timeout: float) -> str:
    """Connect; returns an empty text on success, else the reason for the failure. ``timeout``: seconds."""
    return await _try(_connect(address, port), f"tcp {port}", timeout)


async def http(address: str, port: int, host: str, path: str, timeout: float) -> str:
    """GET ``path``; returns an empty text if the status is from 200 to 399, else the reason for the failure."""
    return await _try(_get(address, port, host, path), f"http {port}{path}", timeout)


async def _try(attempt: Awaitable[str], what: str, timeout: float) -> str:
    try:
        problem = await asyncio.wait_for(attempt, timeout)
    except TimeoutError:
        return f"{what}: no answer within {timeout:g} s"
    except ConnectionRefusedError:
        return f"{what}: connection refused"
    except OSError as error:
        return f"{what}: {os.strerror(error.errno).lower() if error.errno else error}"
    except ValueError:  # the first line has no end
        return f"{what}: no HTTP answer"
    return f"{what}: {problem}" if problem else ""


async def _connect(address: str, port: int) -> str:
    _, writer = await asyncio.open_connection(address, port)
    await _close(writer)
    return ""


async def _get(address: str, port: int, host: str, path: str) -> str:
    """RFC 9112. Only the status line counts; the rest is read so that the server's connection is not cut off."""
    reader, writer = await asyncio.open_connection(address, port, limit=_MAX_STATUS_LINE)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: lxcfleet\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        line = (await reader.readline()).decode("latin-1").split()
        for _ in range(_PIECES):
            if not await reader.read(_MAX_STATUS_LINE):
                break
    finally:
        await _close(writer)
    if len(line) < 2 or not line[0].startswith("HTTP/") or not line[1].isdigit():
        return "no HTTP answer"
    return "" if 200 <= int(line[1]) < 400 else f"status {line[1]}"


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
