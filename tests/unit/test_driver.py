"""The driver of rollouts, with a fleet that is not there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lxcfleet.api.requests import RolloutRequest
from lxcfleet.patch.rollout import driver
from lxcfleet.patch.rollout.driver import Driver
from lxcfleet.patch.rollout.state import RolloutKind, Status
from lxcfleet.patch.stale.judge import OldFile, StaleScan, Why
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.spec.results import Result
from lxcfleet.spec.rollout import RolloutSettings, Share
from lxcfleet.spec.selection import Selection
from lxcfleet.spec.states import Health

OLD = OldFile("/usr/lib/libssl.so.3", Why.REPLACED, "base", ())
POLICY = RolloutSettings(Share(1), Share(0), 0.0, 10.0, ())


class Box:
    """A container that runs and is well."""

    def __init__(self, name: str) -> None:
        self.name, self.spec, self.problem, self.busy = name, None, None, None
        self.labels: dict[str, str] = {}
        self.number = 1
        self.old = True
        self.unread = ""

    @property
    def running(self) -> Any:
        return SimpleNamespace(identity=f"{self.number}@1.00", age=100.0, payload=SimpleNamespace(frozen=False))


class Registry:
    """All of them."""

    def __init__(self, boxes: Sequence[Box]) -> None:
        self._boxes = {box.name: box for box in boxes}

    def __iter__(self) -> Iterator[Box]:
        return iter(self._boxes.values())

    def __contains__(self, name: str) -> bool:
        return name in self._boxes

    def __getitem__(self, name: str) -> Box:
        return self._boxes[name]

    def choose(self, _: object) -> list[Box]:
        return list(self)

    async def observe(self) -> None:
        """Nobody else starts any."""


class World:
    """All that a driver sees and does."""

    def __init__(self, directory: Path, *names: str) -> None:
        self.paths = Paths(lxc=directory / "lxc", run=directory, etc=directory / "etc")
        self.boxes = {name: Box(name) for name in names}
        self.restarted: list[str] = []
        config = SimpleNamespace(profiles={}, rollout=POLICY, stop_timeout=1.0)
        prober = SimpleNamespace(of=lambda _: Health.HEALTHY, healthy_seconds=lambda _: 100.0, reason=lambda _: "")
        fleet = SimpleNamespace(
            prober=prober, registry=Registry(list(self.boxes.values())), config=config,
            bus=Bus(),
            actions=SimpleNamespace(run_jobs=self._run_jobs, act=self._restart),
            operations=SimpleNamespace(any=lambda _: False),
        )  # fmt: skip
        self.in_pieces: list[str] = []
        """What the package manager is in the middle of, look by look."""
        self.driver = Driver(
            self.paths, cast(Any, fleet), self._find, lambda: self.in_pieces.pop(0) if self.in_pieces else ""
        )

    async def _find(self, boxes: Sequence[Any]) -> dict[str, StaleScan]:
        return {box.name: StaleScan(box.name, 1, 1, (OLD,) * box.old, box.unread) for box in boxes}

    async def _run_jobs(self, _: str, jobs: Sequence[Any]) -> list[Result]:
        return [await job.run() for job in jobs]

    async def _restart(self, box: Box, *_: object) -> Result:
        self.restarted.append(box.name)
        box.number, box.old = box.number + 1, False
        return Result(box.name, "restarted", True)

    async def drive(self, seconds: float = 5.0) -> None:
        """Until it has ended."""
        task = asyncio.create_task(self.driver.run())
        try:
            async with asyncio.timeout(seconds):
                while self.driver.active is not None:
                    await asyncio.sleep(0.01)
        finally:
            task.cancel()


def test_what_can_not_be_read_now_and_was_stale_before_is_restarted(tmp_path: Path) -> None:
    """A second patch is taken up while a container waits whose processes can't all be read at that moment."""
    world = World(tmp_path, "a", "b", "c")
    box = world.boxes["c"]

    async def run() -> None:
        found = await world._find(list(world.boxes.values()))
        await world.driver.take_up(found)
        box.old, box.unread = False, "new processes came all the time"
        await world.driver.take_up(found)
        await world.drive()

    asyncio.run(run())
    rollout = world.driver.last
    assert rollout is not None
    assert rollout.status is Status.DONE
    assert {name: member.note for name, member in rollout.members.items()} == {"a": "", "b": "", "c": ""}
    assert world.restarted == ["a", "b", "c"]


def test_nothing_is_restarted_while_the_package_manager_is_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another upgrade begins during the rollout, or dpkg was half-way when somebody said `patch apply`."""
    monkeypatch.setattr(driver, "HOST_SECONDS", 0.02)
    world = World(tmp_path, "a", "b")
    world.in_pieces = ["process 7 holds dpkg's lock", "libc6 is unpacked, not configured"]

    async def run() -> list[str]:
        await world.driver.begin(RolloutRequest(RolloutKind.PATCH, Selection(everything=True)))
        task = asyncio.create_task(world.drive())
        waited = []
        async for record in world.driver.follow():
            waited.append(record["waits_for"])
            assert not (record["waits_for"] and world.restarted)
        await task
        return waited

    monkeypatch.setattr(driver, "FOLLOW_SECONDS", 0.0)
    said = asyncio.run(run())
    assert [text for text in dict.fromkeys(said) if text] == [
        "process 7 holds dpkg's lock", "libc6 is unpacked, not configured",
    ]  # fmt: skip
    assert world.restarted == ["a", "b"]


def test_a_restart_that_was_asked_for_does_not_wait_for_packages(tmp_path: Path) -> None:
    world = World(tmp_path, "a")
    world.in_pieces = ["libc6 is unpacked, not configured"] * 1000

    async def run() -> None:
        await world.driver.begin(RolloutRequest(RolloutKind.RESTART, Selection(everything=True)))
        await world.drive()

    asyncio.run(run())
    assert world.restarted == ["a"]
