"""What the daemon makes of an archive's head, before anything is unpacked."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import pytest

from lxcfleet.daemon.uses import archives
from lxcfleet.data.archives import head as heads
from lxcfleet.data.archives.head import Head
from lxcfleet.launcher.client import Reply


class Child:
    """A child that sends the head of an archive."""

    def __init__(self, text: bytes) -> None:
        self.text = text

    async def hear(self) -> Reply[Any]:
        memory = os.memfd_create("head")
        os.write(memory, self.text)
        os.lseek(memory, 0, os.SEEK_SET)
        return Reply({"error": None}, memory)


def test_the_daemon_goes_on_while_a_head_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    there = Head("web", "0.1", "2026-01-01T00:00:00Z", "stopped", {"init": "app"})
    text, going_on = heads.render(there).encode(), threading.Event()
    parse = heads.parse

    def long(text: bytes) -> Head:
        assert going_on.wait(60.0), "the loop stood still meanwhile"
        return parse(text)

    async def play() -> Head:
        asyncio.get_running_loop().call_later(0.0, going_on.set)
        child: Any = Child(text)
        return await archives._head(child)

    monkeypatch.setattr(heads, "parse", long)
    assert asyncio.run(play()) == there
