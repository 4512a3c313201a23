"""A start that is blocked for a moment: how long its caller waits for it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lxcfleet.containers.container import Container
from lxcfleet.containers.desired import Lack
from lxcfleet.containers.order.ordering import Ordering
from lxcfleet.containers.reconciling.prerequisites import Prerequisites
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.results import Result

BLOCKED = Result("web", "blocked", True, notes=("blocked: db not healthy; it starts by itself after that",))


async def looked(_: Container, done: Result) -> Result:
    """It ran well so far."""
    return done


def ordering(prerequisites: Prerequisites) -> Ordering:
    registry = cast(Any, SimpleNamespace(knows=lambda _: True))
    return Ordering(registry, cast(Any, None), prerequisites, cast(Any, SimpleNamespace(look=looked)))


@pytest.mark.parametrize("coming", [{"freed": True}, {"busy": "start"}, {"lack": Lack("db not healthy", passing=True)}])
def test_it_waits_while_the_container_is_about_to_start_whoever_starts_it(coming: dict[str, Any]) -> None:
    async def run() -> Result:
        container, prerequisites = Container("web", Spec("web")), Prerequisites()
        for key, value in coming.items():
            setattr(container, key, value)
        waiting = asyncio.create_task(ordering(prerequisites).settled(container, BLOCKED))
        await asyncio.sleep(0)
        prerequisites.tell()  # something that has nothing to do with it
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done()
        container.running, container.lack, container.freed, container.busy = cast(Any, object()), None, False, None
        prerequisites.tell()
        return await asyncio.wait_for(waiting, 60)

    assert asyncio.run(run()) == Result("web", "started", True)


def test_it_does_not_wait_for_what_does_not_come_by_itself() -> None:
    container = Container("web", Spec("web"), lack=Lack("db not healthy"))
    done = asyncio.run(asyncio.wait_for(ordering(Prerequisites()).settled(container, BLOCKED), 60))
    assert (done.status, done.notes) == ("blocked", BLOCKED.notes)
