"""Clients of the API that go away, and numbers in their queries."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from aiohttp import web

from lxcfleet.api import calls
from lxcfleet.daemon.http import routes
from lxcfleet.daemon.http.access import Access
from lxcfleet.daemon.http.containers import OfFleet
from lxcfleet.daemon.http.server import Server
from lxcfleet.runtime.events import Events


async def for_ever(_: object) -> None:
    await asyncio.sleep(3600)


@contextlib.asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[str]:
    """The path of a socket where the API answers, with a minimal fleet behind it."""
    (directory / "log").write_text("a line\n")
    room = MagicMock()
    room.doctor.return_value = {"findings": [], "fits": None}
    log = str(directory / "log")
    fleet: Any = SimpleNamespace(events=Events(), wait=for_ever, room=room, log_file=lambda *_: log)
    answered = (calls.EVENTS, calls.WAIT, calls.DOCTOR, calls.LOGS)
    server = Server([OfFleet(fleet, MagicMock())], Access(os.getgid(), None), *answered)
    runner = web.AppRunner(server.application, access_log=None)
    await runner.setup()
    path = str(directory / "socket")
    await web.UnixSite(runner, path).start()
    try:
        yield path
    finally:
        await runner.cleanup()


def request(target: str, body: object = None) -> bytes:
    data = b"" if body is None else json.dumps(body).encode()
    method = "GET" if body is None else "POST"
    return f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


async def soon(condition: Callable[[], bool]) -> None:
    for _ in range(6000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came true")


WAIT = {"selection": {"everything": True}, "until": "stopped", "timeout": 3600}


@pytest.mark.parametrize(
    "raw",
    [
        request("/1.0/events?follow=1"),
        request("/1.0/containers/a/logs?follow=1"),
        request("/1.0/wait", WAIT),
    ],
    ids=["events", "logs", "wait"],
)
def test_nothing_goes_on_for_a_client_that_is_gone(raw: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """aiohttp notices that a client is gone when it writes to it; here nothing is to be written."""
    monkeypatch.setattr(routes, "THERE_SECONDS", 0.05)

    async def come_and_go() -> None:
        async with serving(tmp_path) as path:
            before = len(asyncio.all_tasks())
            writers = []
            for _ in range(5):
                _, writer = await asyncio.open_unix_connection(path)
                writer.write(raw)
                writers.append(writer)
            await soon(lambda: len(asyncio.all_tasks()) >= before + 10)  # a task for each connection, and one for each answer
            await asyncio.sleep(0.3)
            assert len(asyncio.all_tasks()) >= before + 10
            for writer in writers:
                writer.close()
            await soon(lambda: len(asyncio.all_tasks()) <= before)

    asyncio.run(asyncio.wait_for(come_and_go(), 60))


@pytest.mark.parametrize("number", ["%C2%B2", "9" * 5000, "-1", "1e3", "%D9%A3"], ids=["²", "long", "-1", "1e3", "٣"])
@pytest.mark.parametrize("target", ["/1.0/doctor?count=", "/1.0/containers/a/logs?lines="])
def test_a_text_that_is_no_number_is_the_clients_mistake(target: str, number: str, tmp_path: Path) -> None:
    async def ask() -> bytes:
        async with serving(tmp_path) as path:
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(request(target + number))
            answer = await reader.readline()
            writer.close()
            return answer

    assert b" 400 " in asyncio.run(asyncio.wait_for(ask(), 60))


def test_what_the_host_refuses_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, it was told as an error of the daemon's, without a next step."""

    async def full(*_: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory", "/srv/x")

    monkeypatch.setattr(sys.modules[__name__], "for_ever", full)

    async def ask() -> tuple[bytes, bytes]:
        async with serving(tmp_path) as path:
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(request("/1.0/wait", WAIT))
            answer = await reader.readuntil(b"\r\n\r\n")
            size = int(answer.lower().partition(b"content-length: ")[2].split()[0])
            body = await reader.readexactly(size)
            writer.close()
            return answer, body

    answer, body = asyncio.run(asyncio.wait_for(ask(), 60))
    assert b" 500 " in answer.splitlines()[0], body
    error = json.loads(body)["error"]
    assert error["code"] == "host-error"
    assert error["why"] == f"/srv/x: Cannot allocate memory (errno {errno.ENOMEM})"
    assert "free -h" in error["hint"]
