"""In which order containers start at boot and end at shutdown. Pure, but for the waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import groupby

from lxcfleet.fleet.operations import Job
from lxcfleet.fleet.registry import Container
from lxcfleet.model import Result, natural_order


def turns(containers: Sequence[Container], *, last_first: bool = False) -> list[list[Container]]:
    """``containers`` in groups of the same boot_order, the lowest first; one without a spec counts as 0."""

    def order(container: Container) -> int:
        return container.spec.boot_order if container.spec is not None else 0

    by_name = {container.name: container for container in containers}
    named = [by_name[name] for name in natural_order(by_name)]
    return [list(group) for _, group in groupby(sorted(named, key=order, reverse=last_first), key=order)]


def in_turns(groups: Sequence[Sequence[Job]], ready: Callable[[int], Awaitable[None]]) -> list[Job]:
    """The jobs of all groups, where those of a group begin once the ones before are done and ``ready``.

    ``ready`` is called with the number of the group that is done, and its end is waited for. The jobs must be begun
    in the order that they are given in.
    """
    opened = [asyncio.Event() for _ in groups]
    left = [len(group) for group in groups]

    async def close(number: int) -> None:
        left[number] -= 1
        if left[number] == 0 and number + 1 < len(groups):
            try:
                await ready(number)
            finally:
                opened[number + 1].set()

    def gated(number: int, job: Job) -> Job:
        async def run() -> Result:
            if number:
                await opened[number].wait()
            try:
                return await job.run()
            finally:
                await close(number)

        return Job(job.name, run, job.forget)

    return [gated(number, job) for number, group in enumerate(groups) for job in group]
