"""Background tasks that fail: logged, counted, started again."""

from __future__ import annotations

import ast
import asyncio
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import lxcfleet
from lxcfleet.runtime import tasks
from lxcfleet.runtime.tasks import Tasks


class Failing:
    """Work that fails several times, and then does its work for ever."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.works = asyncio.Event()

    async def __call__(self) -> None:
        if self.left:
            self.left -= 1
            raise ValueError("boom")
        self.works.set()
        await asyncio.Event().wait()


def run(
    test: Callable[[Tasks], Coroutine[Any, Any, None]], *, pause: float = 0.0001, settled: float = tasks.SETTLED_SECONDS
) -> None:
    async def all_of_it() -> None:
        group = Tasks(pause, settled)
        await test(group)
        group.close()

    asyncio.run(asyncio.wait_for(all_of_it(), 60))


def test_a_task_that_fails_is_logged_counted_and_started_again(caplog: pytest.LogCaptureFixture) -> None:
    async def test(group: Tasks) -> None:
        work = Failing(3)
        group.keep("observe", work)
        await work.works.wait()
        [reading] = group.readings()
        assert (reading.name, reading.failures, reading.up, reading.last) == ("observe", 3, True, "ValueError: boom")
        assert reading.last_at is not None

    with caplog.at_level(logging.ERROR):
        run(test)
    assert caplog.text.count("the task observe failed") == 3
    assert caplog.text.count("Traceback") == 3


def test_a_task_that_waits_for_its_restart_is_not_up() -> None:
    async def test(group: Tasks) -> None:
        group.keep("observe", Failing(1))
        while not group.readings()[0].failures:
            await asyncio.sleep(0)
        assert not group.readings()[0].up

    run(test, pause=1000)


def test_an_unexpected_end_of_a_task_is_a_failure() -> None:
    async def test(group: Tasks) -> None:
        runs = 0
        again = asyncio.Event()

        async def work() -> None:
            nonlocal runs
            runs += 1
            if runs == 2:
                again.set()

        group.keep("observe", work)
        await again.wait()
        assert group.readings()[0].failures >= 1
        assert "ended by itself" in group.readings()[0].last

    run(test)


def test_a_task_with_an_end_runs_once_and_again_only_if_it_failed() -> None:
    async def test(group: Tasks) -> None:
        runs: list[int] = []

        async def work() -> None:
            runs.append(1)
            if len(runs) == 1:
                raise OSError("no")

        await group.do("clean", work)
        assert len(runs) == 2
        assert [(r.failures, r.up) for r in group.readings()] == [(1, True)]

    run(test)


def test_one_that_fails_for_long_is_hopeless_but_not_one_of_a_single_container() -> None:
    async def test(group: Tasks) -> None:
        work, other = Failing(10**9), Failing(10**9)
        group.keep("watcher", work)
        group.keep("health", other, subject="c1")
        while min(reading.failures for reading in group.readings()) < tasks.HOPELESS:
            assert "health" not in group.hopeless()
            await asyncio.sleep(0.001)
        assert group.hopeless() == ["watcher"]
        assert group.readings()[1].last == "c1: ValueError: boom"
        work.left = 0
        await work.works.wait()
        while group.hopeless():  # until it has run for a while
            await asyncio.sleep(0.001)

    run(test, settled=0.2)


def test_a_task_survives_the_cancellation_of_what_it_waits_for() -> None:
    async def test(group: Tasks) -> None:
        work = Failing(0)
        waits_for: list[asyncio.Future[None]] = [asyncio.get_running_loop().create_future()]

        async def waiting() -> None:
            if waits_for:
                await waits_for.pop()
            await work()

        group.keep("observe", waiting)
        waits_for[0].cancel()
        await work.works.wait()
        assert group.readings()[0].failures == 1

    run(test)


WAITED_FOR = {
    "runtime/tasks.py",  # the group itself
    "runtime/operations.py",  # a failure is a result of the operation
    "containers/measuring/delta_sizes.py",  # the client's question waits, and gets the failure
    "containers/measuring/disk.py",  # likewise
    "containers/host_keeper.py",  # the question for the host's features waits, and gets the failure
    "containers/reconciling/limiting.py",  # the change waits, and gets the failure
    "containers/copies/snapshot_files.py",  # who asked for the copy waits, and gets the failure
    "containers/copies/stillness.py",  # likewise
    "containers/reconciling/preparer.py",  # the start waits, and gets the failure
    "daemon/attach.py",  # one request, which gets the failure
    "daemon/http/routes.py",  # one request, which gets the failure
    "daemon/http/scrape.py",
    "logs/keeper.py",  # the task that keeps the process waits, and gets the failure
}
"""The modules that may start a task of asyncio by themselves, with the place where its failure is handled."""


def test_background_work_is_started_through_the_group() -> None:
    """Any other task could end silently, as nobody waits for it."""
    root = Path(lxcfleet.__file__).parent
    starting = {
        str(file.relative_to(root))
        for file in root.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ("create_task", "ensure_future")
    }
    assert starting == WAITED_FOR


def test_a_cancelled_task_is_not_started_again() -> None:
    async def test(group: Tasks) -> None:
        work = Failing(0)
        task = group.keep("health", work, subject="c1")
        await work.works.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [(r.failures, r.up) for r in group.readings()] == [(0, True)]

    run(test)
