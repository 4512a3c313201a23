"""What the daemon tells the process that passes consoles and events on, also while another one takes its place."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from lxcfleet.logs import keeper
from lxcfleet.logs.keeper import Keeper
from lxcfleet.logs.servant import Follower, serve
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Told
from lxcfleet.spec.files.settings import LogsSettings, LogTarget


class Servants:
    """Processes that only take orders. ``ends``: called while one ends."""

    def __init__(self) -> None:
        self.ends: list[Any] = []
        self.connections: list[socket.socket] = []
        self.pid = None

    def start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        theirs.setblocking(False)
        self.connections.append(theirs)
        return ours

    async def end(self) -> None:
        await asyncio.sleep(0)
        for each in self.ends:
            each()

    async def orders(self, number: int, count: int) -> list[str]:
        """The orders that one of them got, in short."""
        found: list[str] = []
        async with asyncio.timeout(60):
            while len(found) < count:
                await asyncio.sleep(0.01)
                try:
                    order = json.loads(self.connections[number].recv(65536))
                except (IndexError, BlockingIOError):
                    continue
                found.append(order.get("message") or order["to"])
        return found


def test_it_may_have_as_many_files_open_as_there_are_containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, it had the usual 1,024 descriptors, and what the rest of a thousand containers printed was not passed on."""
    servants = Servants()
    asked: list[bool] = []

    def begin(*_: object, wide: bool) -> Servants:
        asked.append(wide)
        return servants

    monkeypatch.setattr(keeper, "Servant", begin)

    async def story() -> None:
        paths = Paths(tmp_path / "lxc", tmp_path / "run", tmp_path / "etc")
        running = asyncio.create_task(Keeper(paths, LogsSettings(to=LogTarget.JOURNAL), []).run(0))
        await servants.orders(0, 1)
        running.cancel()

    asyncio.run(story())
    assert asked == [True]


def test_events_that_come_while_another_process_begins_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    servants = Servants()
    monkeypatch.setattr(keeper, "Servant", lambda *_, **__: servants)
    paths = Paths(tmp_path / "lxc", tmp_path / "run", tmp_path / "etc")

    async def story() -> None:
        kept = Keeper(paths, LogsSettings(to=LogTarget.JOURNAL), [])
        running = asyncio.create_task(kept.run(0))
        assert await servants.orders(0, 1) == ["journal"]
        servants.ends.append(lambda: kept.tell(Told("stopped", "web1", ""), None))
        kept.take_over(LogsSettings(to=LogTarget.SYSLOG))
        kept.tell(Told("created", "web1", ""), None)
        assert await servants.orders(1, 3) == ["syslog", "web1: created", "web1: stopped"]
        running.cancel()

    asyncio.run(story())


def test_what_was_to_be_told_when_the_process_ends_is_sent_before(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log, theirs:
        log.bind(str(tmp_path / "log"))
        log.setblocking(False)
        with ours:
            ours.send(json.dumps({"do": "settings", "to": "syslog", "socket": str(tmp_path / "log")}).encode())
            ours.send(json.dumps({"do": "tell", "fields": {"SYSLOG_IDENTIFIER": "x"}, "message": "the last event",
                                  "priority": 6}).encode())  # fmt: skip
        serve(theirs, Follower("host"))
        assert b"the last event" in log.recv(65536)
