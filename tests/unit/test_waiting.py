"""Waiting for containers: the events that end it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from lxcfleet.api.records import ResultRecord
from lxcfleet.api.requests import WaitRequest
from lxcfleet.containers.container import Container, Running
from lxcfleet.containers.events import Gone
from lxcfleet.containers.exits import Exit
from lxcfleet.containers.registry import Registry
from lxcfleet.containers.restarts import RestartCourse
from lxcfleet.daemon.uses import waiting
from lxcfleet.daemon.uses.waiting import Waiting
from lxcfleet.errors import Broken
from lxcfleet.host.process import cgroup
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.selection import Selection
from lxcfleet.spec.states import Health

RUNNING = Running(1, 1, -1, cgroup.Payload({}), 0.0, 0.0)


class Healths:
    """Stand-in for the healths: no container is healthy."""

    def of(self, _: Container) -> Health:
        return Health.STARTING

    def reason(self, _: Container) -> str:
        return "connection refused"


class _Registry(Registry):
    async def observe(self) -> None:
        """Does nothing, as nobody else starts any container."""


class World:
    """One container, and a client that waits for it."""

    def __init__(self, directory: Path, *, runs: bool) -> None:
        bus, nobody = Bus(), cast(Any, None)
        self.registry = _Registry(Paths(directory, directory, directory), nobody, bus)
        self.container = Container("web", Spec("web"), running=RUNNING if runs else None)
        self.registry.add(self.container)
        self.waiting = Waiting(self.registry, cast(Any, Healths()))
        bus.subscribe("waiting", Gone, lambda _: self.waiting.wake())

    def wait(self, until: str, timeout: float, meanwhile: Callable[[], None] = lambda: None) -> ResultRecord:
        async def run() -> ResultRecord:
            asyncio.get_running_loop().call_later(0.02, meanwhile)
            ask = WaitRequest(Selection(("web",)), until, timeout)
            [result] = await asyncio.wait_for(self.waiting.wait(ask), 60)
            return result

        return asyncio.run(run())


@pytest.mark.parametrize(("until", "runs"), [("running", False), ("healthy", True), ("healthy", False)])
def test_a_wait_for_a_container_that_is_destroyed_meanwhile_fails_at_once(until: str, runs: bool, tmp_path: Path) -> None:
    """Before, the wait lasted its whole time, which may be a day."""
    world = World(tmp_path, runs=runs)

    def destroy() -> None:
        world.registry.forget("web")
        world.registry.add(Container("web", Spec("web")))  # a new container of that name is not the one that the client meant

    result = world.wait(until, 86400, destroy)
    assert result["status"] == "failed"
    assert result["error"] is not None
    assert "destroyed meanwhile" in result["error"]["message"]


def test_a_destroyed_container_counts_as_stopped(tmp_path: Path) -> None:
    world = World(tmp_path, runs=True)
    result = world.wait("stopped", 86400, lambda: world.registry.forget("web"))
    assert (result["status"], result["error"]) == ("destroyed", None)


PAST = Exit(1.0, 0, seconds=1.0)


def test_the_exit_status_is_that_of_the_end_that_was_waited_for(tmp_path: Path) -> None:
    """It was the one of an earlier run where that had ended well, and the last start failed, or a destroy ended the run."""
    world = World(tmp_path, runs=False)
    world.container.exit = PAST
    assert world.wait("stopped", 1).get("exit_status", "none") == 0
    world.container.course = RestartCourse(3, gave_up=True, cause="/srv/data is not there")
    assert world.wait("stopped", 1).get("exit_status", "none") is None
    world = World(tmp_path, runs=True)
    world.container.exit = PAST
    assert world.wait("stopped", 9, lambda: world.registry.forget("web")).get("exit_status", "none") is None


def test_one_that_is_started_again_while_others_are_waited_for_keeps_its_status(tmp_path: Path) -> None:
    world = World(tmp_path, runs=False)
    world.container.exit = replace(PAST, status=7 << 8)
    other = Container("other", Spec("other"), running=RUNNING)
    world.registry.add(other)

    async def run() -> list[ResultRecord]:
        task = asyncio.create_task(world.waiting.wait(WaitRequest(Selection(("web", "other")), "stopped", 60)))
        await asyncio.sleep(0.02)
        world.container.exit = PAST
        other.running, other.exit = None, PAST
        return await task

    assert {each["name"]: each.get("exit_status") for each in asyncio.run(run())} == {"web": 7, "other": 0}


def test_an_event_ends_the_wait_without_a_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "LOOK_SECONDS", 86400.0)
    world = World(tmp_path, runs=False)

    def start() -> None:
        world.container.running = RUNNING
        world.waiting.wake()

    assert world.wait("running", 86400, start)["status"] == "running"


def test_a_change_without_an_event_is_seen_at_the_next_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "LOOK_SECONDS", 0.001)
    world = World(tmp_path, runs=False)

    def start() -> None:
        world.container.running = RUNNING

    assert world.wait("running", 86400, start)["status"] == "running"


def test_the_result_after_the_time_is_the_present_state(tmp_path: Path) -> None:
    result = World(tmp_path, runs=True).wait("healthy", 0)
    assert result["error"] is not None
    assert "running and starting: connection refused" in result["error"]["why"]


def test_a_broken_container_is_not_waited_for(tmp_path: Path) -> None:
    world = World(tmp_path, runs=False)
    world.container.spec, world.container.problem = None, Broken("web is broken", why="no such key")
    result = world.wait("running", 86400)
    assert result["error"] is not None
    assert "no such key" in result["error"]["why"]
