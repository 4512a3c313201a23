"""The order in which containers start at boot and end at shutdown. Pure, but for the waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import groupby

from lxcfleet.containers.container import Container
from lxcfleet.runtime.operations import Job
from lxcfleet.spec.results import Result
from lxcfleet.spec.selection import natural_order


def turns(containers: Sequence[Container], *, last_first: bool = False) -> list[list[Container]]:
    """``containers`` in groups of the same boot_order, the lowest first; one without a spec counts as 0."""

    def order(container: Container) -> int:
        return container.spec.boot_order if container.spec is not None else 0

    by_name = {container.name: container for container in containers}
    named = [by_name[name] for name in natural_order(by_name)]
    return [list(group) for _, group in groupby(sorted(named, key=order, reverse=last_first), key=order)]


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
