"""Limits of many running containers: those asked for in the same turn of the loop are set by one child of the launcher.

A child for each of them would take most of the time: to fork it costs more than what it does.
"""

from __future__ import annotations

import asyncio

from lxcfleet.errors import from_body
from lxcfleet.launcher.client import TRIES, Died, Launcher
from lxcfleet.launcher.items.containers import LimitItem
from lxcfleet.launcher.operations import LIMIT

Waiting = tuple[LimitItem, "asyncio.Future[None]"]


class LimitSetter:
    """Sets limits of running containers."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._next: list[Waiting] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def set(self, item: LimitItem) -> None:
        """Set limits of one container. Raises FleetError."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._next.append((item, done))
        if len(self._next) == 1:
            loop.call_soon(self._begin)
        await done

    def _begin(self) -> None:
        task = asyncio.get_running_loop().create_task(self._carry_out(self._next))
        self._next = []
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry_out(self, asked: list[Waiting]) -> None:
        """Have a child do it. What it did not answer for is asked for once more, as to set a limit twice changes nothing."""
        left = asked
        try:
            for _ in range(TRIES):
                left = await self._ask(left)
                if not left:
                    return
            raise Died("limits can't be changed", why="the process that did it ended before it was done")
        except Exception as error:
            for _, done in left:
                if not done.done():
                    done.set_exception(error)

    async def _ask(self, asked: list[Waiting]) -> list[Waiting]:
        """Those that got no answer."""
        answered = 0
        async for answer in self._launcher.each(LIMIT, [item for item, _ in asked]):
            _, done = asked[answered]
            answered += 1
            if done.done():  # who asked has gone away
                continue
            if answer["error"]:
                done.set_exception(from_body(answer["error"]))
            else:
                done.set_result(None)
        return asked[answered:]
