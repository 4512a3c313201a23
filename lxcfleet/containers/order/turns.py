"""The order in which containers start, at boot as well, and end, at shutdown as well. Pure, but for the waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from itertools import groupby

from lxcfleet.containers.container import Container
from lxcfleet.runtime.operations import Job
from lxcfleet.spec.container.depends import Graph
from lxcfleet.spec.results import Result
from lxcfleet.spec.selection import natural_order

NOBODY = Graph({}, {})
"""Nobody depends on anybody."""


def turns(
    containers: Sequence[Container], graph: Graph = NOBODY, *, last_first: bool = False
) -> list[list[Container]]:
    """``containers`` in groups of the same boot_order, the lowest first; one without a spec counts as 0, and one that waits
    for others has no lower one than they.

    Within a group each comes after those that it waits for; what lacks something yet is blocked for a while. With
    ``last_first`` nothing would keep one from ending before those that need it, so these have groups of their own.
    """
    by_name = {container.name: container for container in containers}
    own = {name: by_name[name].spec for name in natural_order(by_name)}
    order = graph.lifted({name: 0 if spec is None else spec.boot_order for name, spec in own.items()})
    groups = [list(group) for _, group in groupby(sorted(own, key=order.__getitem__, reverse=last_first), order.__getitem__)]
    if last_first:
        parts = [turn for group in groups for turn in graph.turns_to_stop(group)]
    else:
        parts = [[name for turn in graph.turns_to_start(group) for name in turn] for group in groups]
    return [[by_name[name] for name in part] for part in parts]


class Gates:
    """Turns, each of which begins once all of those before are through."""

    def __init__(self, turns: Sequence[Collection[str]]) -> None:
        self._left = [set(turn) for turn in turns]
        self._number = {name: number for number, turn in enumerate(turns) for name in turn}
        self._through = [asyncio.Event() for _ in turns]
        self._open()

    def passed(self, name: str) -> None:
        """That one is through, or will never be."""
        self._left[self._number[name]].discard(name)
        self._open()

    async def wait(self, name: str) -> None:
        """Return when it is the turn of that one."""
        for through in self._through[: self._number[name]]:
            await through.wait()

    def _open(self) -> None:
        for left, through in zip(self._left, self._through, strict=True):
            if not left:
                through.set()


def in_turns(groups: Sequence[Sequence[Job]], ready: Callable[[int], Awaitable[None]]) -> list[Job]:
    """The jobs of all groups. Those of a group begin once the group before is done and ``ready`` has returned.

    ``ready`` is called with the number of the group that is done. The jobs must be begun in the given order.
    A job that waits for its turn has not begun, and can be cancelled.
    """
    done = [asyncio.Event() for _ in groups]
    left = [len(group) for group in groups]
    up = [False for _ in groups]
    locks = [asyncio.Lock() for _ in groups]

    async def after(number: int) -> None:
        await done[number].wait()
        async with locks[number]:
            if not up[number]:
                await ready(number)
                up[number] = True

    def gated(number: int, job: Job) -> Job:
        async def run() -> Result:
            try:
                return await job.run()
            finally:
                left[number] -= 1
                if left[number] == 0:
                    done[number].set()

        return Job(job.name, run, job.forget, partial(after, number - 1) if number else None)

    return [gated(number, job) for number, group in enumerate(groups) for job in group]
