"""The event loop's turns are measured, and a long one is told of."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable

import pytest

from lxcfleet.runtime import pulse
from lxcfleet.runtime.pulse import STALL_SECONDS, WINDOW_SECONDS, MeasuredLoop, Pulse, PulseReading


def run(work: Callable[[], None]) -> PulseReading:
    async def main() -> PulseReading:
        work()
        await asyncio.sleep(0)
        return pulse.of_running_loop()["elapsed"]

    with asyncio.Runner(loop_factory=MeasuredLoop) as runner:
        return runner.run(main())


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    return clock


def test_a_turn_that_takes_long_is_a_stall(clock: Clock) -> None:
    found = run(lambda: clock.pass_seconds(3 * STALL_SECONDS))
    assert found.stalls == 1
    assert found.longest == pytest.approx(3 * STALL_SECONDS)


def test_a_short_turn_is_none(clock: Clock) -> None:
    found = run(lambda: clock.pass_seconds(STALL_SECONDS / 2))
    assert found.stalls == 0
    assert found.longest == pytest.approx(STALL_SECONDS / 2)


def test_a_wait_for_events_is_no_turn(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    selector = Pulse()

    def wait(*_: object) -> list[object]:
        clock.pass_seconds(30)
        return []

    monkeypatch.setattr(selectors.EpollSelector, "select", wait)
    selector.select()
    selector.select()
    assert selector.reading()["elapsed"] == PulseReading()
    selector.close()


def test_the_longest_turn_is_forgotten_after_a_while(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    selector = Pulse()
    clock.pass_seconds(5)
    selector.select(0)
    monkeypatch.setattr(selectors.EpollSelector, "select", lambda *_: clock.pass_seconds(WINDOW_SECONDS + 1))
    for longest in (5, 5, 5, 0):
        assert selector.reading()["elapsed"] == PulseReading(stalls=1, longest=longest)
        selector.select()
    selector.close()


def test_processor_time_is_told_apart(clock: Clock) -> None:
    selector = Pulse()
    clock.pass_seconds(5)  # somebody else had the processor
    selector.select(0)
    assert selector.reading()["processor"].stalls == 0
    selector.close()


def test_processor_time_is_not_asked_for_at_each_short_turn(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    selector, asked = Pulse(), []

    def thread_time() -> float:
        asked.append(0)
        return float(len(asked))

    monkeypatch.setattr(time, "thread_time", thread_time)
    for _ in range(100):
        clock.pass_seconds(pulse.SHORT_SECONDS / 10)
        selector.select(0)
    assert 1 < len(asked) < 15
    assert selector.reading()["processor"].longest == pytest.approx(pulse.SHORT_SECONDS / 10)
    selector.close()


def test_a_loop_that_is_not_measured_tells_nothing() -> None:
    async def ask() -> dict[str, PulseReading]:
        return pulse.of_running_loop()

    assert asyncio.run(ask()) == {}
