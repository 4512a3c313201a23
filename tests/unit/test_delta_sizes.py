"""Adding up one delta at once, for clients that wait for the result."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from lxcfleet.containers.measuring import delta_sizes
from lxcfleet.containers.measuring.delta_sizes import Looks
from lxcfleet.host.kernel import tree
from lxcfleet.paths import Paths


def test_many_questions_keep_no_start_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start needs one of asyncio's few threads, too."""
    seen: list[str] = []
    end = threading.Event()

    def disk_usage(delta: Path) -> int:
        seen.append(delta.parent.name)
        end.wait()
        return 7

    monkeypatch.setattr(tree, "disk_usage", disk_usage)

    async def ask() -> list[int]:
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
