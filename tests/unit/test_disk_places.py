"""Who waits for whom where many ask what containers have on the disk."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lxcfleet.api.disk import DiskRequest
from lxcfleet.containers.measuring.disk import AT_ONCE, READERS_ASKING, READERS_AT_ONCE, DiskUse
from lxcfleet.errors import Busy
from lxcfleet.paths import Paths
from lxcfleet.spec.selection import Selection


class Child:
    """A launcher whose children look for as long as the test says."""

    def __init__(self) -> None:
        self.begun = 0
        self.end = asyncio.Event()

    async def ask_large(self, _: object, item: Any) -> list[dict[str, Any]]:
        """Look at the targets."""
        self.begun += 1
        await self.end.wait()
        whole = {"path": "/", "disk_bytes": 1, "apparent_bytes": 1, "items": 1}
        return [{"name": name, "whole": whole, "paths": [], "cut": False} for name, _ in item["targets"]]


async def _begun(child: Child, number: int) -> None:
    while child.begun < number:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)  # more could begin by then


def _disk(top: Path, child: Any) -> DiskUse:
    async def chosen(_: Selection) -> list[Any]:
        return [SimpleNamespace(name="large", spec=None)]

    registry: Any = SimpleNamespace(chosen=chosen)
    mask: Any = None
    return DiskUse(Paths(lxc=top, run=top, etc=top), registry, child, mask)


def test_readers_keep_no_administrator_waiting(tmp_path: Path) -> None:
    async def ask() -> None:
        child = Child()
        everybody = _disk(tmp_path, child)
        readers = everybody.for_readers()
        question = DiskRequest(Selection(("large",)))
        asking = [asyncio.ensure_future(readers.used(question)) for _ in range(READERS_ASKING)]
        await _begun(child, READERS_AT_ONCE)
        with pytest.raises(Busy, match="may only read"):
            await readers.used(question)
        alone = asyncio.ensure_future(everybody.used(question))
        await _begun(child, READERS_AT_ONCE + 1)
        child.end.set()
        assert [record["name"] for record in await alone] == ["large"]
        await asyncio.gather(*asking)
        await readers.used(question)

    asyncio.run(asyncio.wait_for(ask(), 60))


def test_a_question_whose_client_is_gone_waits_no_more_and_its_child_keeps_its_slot(tmp_path: Path) -> None:
    async def ask() -> None:
        child = Child()
        disk = _disk(tmp_path, child)
        question = DiskRequest(Selection(("large",)))
        gone = [asyncio.ensure_future(disk.used(question)) for _ in range(40)]
        await _begun(child, AT_ONCE)
        for each in gone:
            each.cancel()
        last = asyncio.ensure_future(disk.used(question))
        await asyncio.sleep(0.1)
        assert child.begun == AT_ONCE
        child.end.set()
        await last
        assert child.begun == AT_ONCE + 1

    asyncio.run(asyncio.wait_for(ask(), 60))
