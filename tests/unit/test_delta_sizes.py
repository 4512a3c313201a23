"""Adding up what a delta takes, for those who want to know now."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from lxcfleet.containers import delta_sizes
from lxcfleet.containers.delta_sizes import Looks
from lxcfleet.host.kernel import tree
from lxcfleet.paths import Paths


def test_many_who_ask_keep_no_start_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start needs one of the few threads that asyncio has, too."""
    seen: list[str] = []
    end = threading.Event()

    def disk_usage(delta: Path) -> int:
        seen.append(delta.parent.name)
        end.wait(20)
        return 7

    monkeypatch.setattr(tree, "disk_usage", disk_usage)

    async def ask() -> list[int]:
        looks = Looks(Paths(lxc=tmp_path, run=tmp_path, etc=tmp_path))
        names = [f"c{number}" for number in range(40)]
        asking = [asyncio.create_task(looks.size(name)) for name in [*names, *names]]
        await asyncio.sleep(0.1)
        began = time.monotonic()
        await asyncio.to_thread(lambda: None)
        waited, begun = time.monotonic() - began, list(seen)
        asking[-1].cancel()  # one who goes away takes the answer from nobody
        end.set()
        sizes = await asyncio.gather(*asking[:-1])
        assert waited < 5
        assert len(begun) == delta_sizes.AT_ONCE
        assert sorted(seen) == sorted(names)
        await looks.size("c0")
        assert len(seen) == len(names) + 1  # as it is now, not as it was
        return sizes

    assert set(asyncio.run(asyncio.wait_for(ask(), 60))) == {7}
