"""Adding up one delta at once, for clients that wait for the result, and all of them in the background."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from lxcfleet.containers.measuring import delta_sizes
from lxcfleet.containers.measuring.delta_sizes import DeltaSizes, Looks
from lxcfleet.containers.registry import Registry
from lxcfleet.host.kernel import tree
from lxcfleet.paths import Paths


def endless(_: Path) -> Iterator[int]:
    """The sums of a tree whose files don't end."""
    size = 0
    while True:
        size += 1
        time.sleep(0.001)
        yield size


def test_many_questions_keep_no_start_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start needs one of asyncio's few threads, too."""
    seen: list[str] = []
    end = threading.Event()

    def steps(delta: Path) -> Iterator[int]:
        seen.append(delta.parent.name)
        end.wait()
        yield 7

    monkeypatch.setattr(tree, "disk_usage_steps", steps)
    monkeypatch.setattr(delta_sizes, "PATIENCE", 60.0)

    async def ask() -> list[int | None]:
        looks = Looks(Paths(lxc=tmp_path, run=tmp_path, etc=tmp_path))
        names = [f"c{number}" for number in range(40)]
        asking = [asyncio.create_task(looks.size(name)) for name in [*names, *names]]
        try:
            while len(seen) < delta_sizes.AT_ONCE:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)  # more could begin by then
            await asyncio.wait_for(asyncio.to_thread(lambda: None), 30)
            begun = list(seen)
            asking[-1].cancel()  # a client that goes away takes the answer from no other
        finally:
            end.set()
        sizes = await asyncio.gather(*asking[:-1])
        assert len(begun) == delta_sizes.AT_ONCE
        assert sorted(seen) == sorted(names)
        await looks.size("c0")
        assert len(seen) == len(names) + 1  # the present size, not the former one
        return sizes

    assert set(asyncio.run(asyncio.wait_for(ask(), 60))) == {7}


def test_a_tree_whose_files_do_not_end_is_not_known_and_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "disk_usage_steps", lambda top: endless(top) if "h" in top.parent.name else iter([7]))
    monkeypatch.setattr(delta_sizes, "PATIENCE", 0.3)

    async def ask() -> list[int | None]:
        looks = Looks(Paths(lxc=tmp_path, run=tmp_path, etc=tmp_path))
        hostile = [asyncio.create_task(looks.size(f"h{number}")) for number in range(20)]
        found = await asyncio.gather(*hostile)
        return [await looks.size("c"), *found]

    assert asyncio.run(asyncio.wait_for(ask(), 30)) == [7, *[None] * 20]


def test_a_large_delta_keeps_no_other_from_being_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def steps(delta: Path) -> Iterator[int]:
        name = delta.parent.name
        return endless(delta) if name == "huge" else islice(endless(delta), 150) if name == "large" else iter([7])

    monkeypatch.setattr(tree, "disk_usage_steps", steps)
    for constant, seconds in {"QUICK_SECONDS": 0.1, "LARGE_SECONDS": 2.0, "SHARE": 1.0}.items():
        monkeypatch.setattr(delta_sizes, constant, seconds)
    registry = cast(Registry, [SimpleNamespace(name=name) for name in ("a", "huge", "large", "z")])
    sizes = DeltaSizes(Paths(lxc=tmp_path, run=tmp_path, etc=tmp_path), registry)

    async def look() -> dict[str, int]:
        running = asyncio.create_task(sizes.run())
        while len(sizes.read()) < 3:
            await asyncio.sleep(0.05)
        running.cancel()
        return sizes.read()

    assert asyncio.run(asyncio.wait_for(look(), 60)) == {"a": 7, "large": 150, "z": 7}
