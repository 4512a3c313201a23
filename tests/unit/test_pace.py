"""Tasks of the daemon that wake up together."""

from __future__ import annotations

import asyncio

import pytest

from lxcfleet.runtime.pace import sleep_in_step


@pytest.mark.parametrize(
    ("now", "every", "asleep"), [(100.25, 1.0, 0.75), (101.0, 1.0, 1.0), (103.5, 5.0, 1.5), (7.0, 0.0, 0.0)]
)
def test_tasks_wake_up_at_multiples_of_their_pause(
    monkeypatch: pytest.MonkeyPatch, now: float, every: float, asleep: float
) -> None:
    """So one that wakes up each second and one that does each five seconds share every fifth awakening."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def run() -> None:
        monkeypatch.setattr(asyncio, "sleep", sleep)
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
        await sleep_in_step(every)
        monkeypatch.undo()

    asyncio.run(run())
    assert pauses == [asleep]
