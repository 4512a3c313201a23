"""The record of running containers, and the order in which they start again."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxcfleet.containers.container import Container
from lxcfleet.containers.order.turns import Gates, in_turns, turns
from lxcfleet.containers.supervision.boot import BootRecord, parse
from lxcfleet.runtime.operations import Job, Operations
from lxcfleet.spec.container.depends import Graph
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.results import Result

NAMES = st.sets(st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True))


@given(st.text(), NAMES, NAMES)
def test_a_record_is_read_as_it_was_written(boot: str, running: set[str], resting: set[str]) -> None:
    record = BootRecord(boot, tuple(running), tuple(resting))
    assert parse(record.render()) == record


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"boot": "x"}', '{"boot": 1, "running": 2, "resting": []}'])
def test_a_record_that_cannot_be_used_is_told_of(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  json has words of its own for each
        parse(text)


@given(st.dictionaries(st.from_regex(r"[a-z]{1,3}", fullmatch=True), st.integers(-3, 3)))
def test_turns_are_in_order_and_lose_no_container(orders: dict[str, int]) -> None:
    containers = [Container(name, Spec(name, boot_order=order)) for name, order in orders.items()]
    groups = [[container.name for container in group] for group in turns(containers)]
    assert sorted(name for group in groups for name in group) == sorted(orders)
    assert [{orders[name] for name in group} for group in groups] == [{order} for order in sorted(set(orders.values()))]
    back = [[container.name for container in group] for group in turns(containers, last_first=True)]
    assert [set(group) for group in back] == [set(group) for group in reversed(groups)]


def test_a_broken_container_has_a_turn() -> None:
    assert [[c.name for c in group] for group in turns([Container("a", None), Container("b", Spec("b"))])] == [["a", "b"]]


@pytest.mark.parametrize("at_once", [1, 2, 16])
def test_a_turn_waits_for_the_one_before_also_if_that_fails(at_once: int) -> None:
    said: list[str] = []

    def job(name: str) -> Job:
        async def run() -> Result:
            said.append(f"{name} begins")
            await asyncio.sleep(0)
            said.append(f"{name} ends")
            if name == "a2":
                raise RuntimeError("as it may happen")
            return Result(name, "started", True)

        return Job(name, run)

    async def ready(number: int) -> None:
        await asyncio.sleep(0)
        said.append(f"{number} is up")

    async def begin() -> list[str]:
        jobs = in_turns([[job("a1"), job("a2")], [job("b1")], [job("c1"), job("c2")]], ready)
        operation = Operations().begin("test", jobs, at_once)
        async for _ in operation.follow():
            pass
        return [result.name for result in operation.results]

    assert sorted(asyncio.run(asyncio.wait_for(begin(), 60))) == ["a1", "a2", "b1", "c1", "c2"]
    marks = [said.index(mark) for mark in ("0 is up", "b1 begins", "b1 ends", "1 is up")]
    assert marks == sorted(marks)
    assert max(said.index("a1 ends"), said.index("a2 ends")) < marks[0]
    assert min(said.index("c1 begins"), said.index("c2 begins")) > marks[-1]


def test_a_job_that_waits_for_its_turn_has_not_begun() -> None:
    """A job may wait a minute until the containers before it are healthy. A cancel or the daemon's end can't wait for it."""

    async def begin() -> list[str]:
        async def run() -> Result:
            return Result("x", "started", True)

        async def ready(_: int) -> None:
            waited.set()
            await asyncio.sleep(3600)

        waited = asyncio.Event()
        operation = Operations().begin("test", in_turns([[Job("a", run)], [Job("b", run), Job("c", run)]], ready), 16)
        await waited.wait()
        operation.cancel()
        async for _ in operation.follow():
            pass
        return [result.status for result in operation.results]

    assert asyncio.run(asyncio.wait_for(begin(), 60)) == ["started", "cancelled", "cancelled"]


def test_a_job_that_is_requested_while_the_daemon_ends_is_not_begun() -> None:
    """A stop may drain for a while, and the API answers until the end. A job that began then would be cut off."""

    async def end() -> tuple[list[str], list[str]]:
        drained, begun = asyncio.Event(), asyncio.Event()

        async def drain() -> Result:
            begun.set()
            await drained.wait()
            return Result("a", "stopped", True)

        async def create() -> Result:
            await asyncio.sleep(3600)
            return Result("b", "created", True)

        operations = Operations()
        stop = operations.begin("stop", [Job("a", drain)], 1)
        await begun.wait()
        settling = asyncio.create_task(operations.settle())
        await asyncio.sleep(0.01)
        late = operations.begin("create", [Job("b", create)], 1)
        drained.set()
        await settling
        assert late.ended
        return [result.status for result in stop.results], [result.status for result in late.results]

    assert asyncio.run(asyncio.wait_for(end(), 60)) == (["stopped"], ["cancelled"])


def test_cancelled_turns_end() -> None:
    async def begin() -> list[str]:
        async def run() -> Result:
            operation.cancel()
            return Result("x", "started", True)

        async def ready(_: int) -> None:
            pass

        operation = Operations().begin("test", in_turns([[Job("a", run)], [Job("b", run)], [Job("c", run)]], ready), 1)
        async for _ in operation.follow():
            pass
        return [result.status for result in operation.results]

    assert asyncio.run(asyncio.wait_for(begin(), 60)) == ["started", "cancelled", "cancelled"]


def test_nobody_has_a_turn_before_those_that_it_waits_for() -> None:
    orders = {"a": 0, "db": 5, "web": -1, "x": 9}
    containers = [Container(name, Spec(name, boot_order=order)) for name, order in orders.items()]
    graph = Graph({"a": (), "db": (), "web": ("db",), "x": ()}, {})
    assert [[each.name for each in group] for group in turns(containers, graph)] == [["a"], ["db", "web"], ["x"]]
    back = turns(containers, graph, last_first=True)
    assert [[each.name for each in group] for group in back] == [["x"], ["web"], ["db"], ["a"]]


def test_a_gate_opens_once_all_before_are_through() -> None:
    async def passing() -> None:
        gates = Gates([["a", "b"], [], ["c"]])
        waiting = asyncio.create_task(gates.wait("c"))
        await gates.wait("a")
        for name in ("a", "a", "b"):
            await asyncio.sleep(0)
            assert not waiting.done()
            gates.passed(name)
        await asyncio.wait_for(waiting, 60)

    asyncio.run(passing())
