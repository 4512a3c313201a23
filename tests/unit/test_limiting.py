"""Limits of many containers: one child of the launcher for all that are asked for at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lxcfleet.containers.reconciling.limiting import LimitSetter
from lxcfleet.errors import FleetError, WrongState
from lxcfleet.launcher.client import Died


def item(name: str) -> Any:
    return {"name": name, "pid": 1, "limits": [], "disk": None, "memory": None}


class Launcher:
    """Answers for ``answered`` items of each request, and then its child is killed."""

    def __init__(self, *answered: int, refuses: str = "") -> None:
        self.asked: list[list[str]] = []
        self._answered, self._refuses = [*answered], refuses

    async def each(self, operation: object, items: list[Any]) -> AsyncIterator[Any]:
        self.asked.append([each["name"] for each in items])
        await asyncio.sleep(0)
        for each in items[: self._answered.pop(0)]:
            error = WrongState("too much in use").body() if each["name"] == self._refuses else None
            yield {"name": each["name"], "error": error}


def ask(launcher: Launcher, *names: str) -> list[str]:
    """The outcome for each."""

    async def run() -> list[BaseException | None]:
        limits = LimitSetter(launcher)  # type: ignore[arg-type]
        return await asyncio.gather(*(limits.set(item(name)) for name in names), return_exceptions=True)

    return [type(each).__name__ for each in asyncio.run(run())]


def test_all_that_are_asked_for_together_go_to_one_child() -> None:
    launcher = Launcher(3)
    assert ask(launcher, "a", "b", "c") == ["NoneType"] * 3
    assert launcher.asked == [["a", "b", "c"]]


def test_one_that_is_refused_does_not_stop_the_others() -> None:
    assert ask(Launcher(3, refuses="b"), "a", "b", "c") == ["NoneType", "WrongState", "NoneType"]


def test_what_a_killed_child_did_not_answer_for_is_asked_for_once_more() -> None:
    launcher = Launcher(1, 1)
    assert ask(launcher, "a", "b", "c") == ["NoneType", "NoneType", "Died"]
    assert launcher.asked == [["a", "b", "c"], ["b", "c"]]


def test_who_asks_later_is_answered_by_another_child() -> None:
    launcher = Launcher(1, 0, 0)

    async def run() -> None:
        limits = LimitSetter(launcher)  # type: ignore[arg-type]
        await limits.set(item("a"))
        with pytest.raises(Died) as caught:
            await limits.set(item("b"))
        assert isinstance(caught.value, FleetError)

    asyncio.run(run())
    assert launcher.asked == [["a"], ["b"], ["b"]]
