"""A container may end at any moment. Its end is published once, even if an action is under way on it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lxcfleet.containers.common import Common
from lxcfleet.containers.container import Container
from lxcfleet.containers.copies.snapshot_files import SnapshotFiles
from lxcfleet.containers.desired import Intent
from lxcfleet.containers.events import EndedInHand, Exited
from lxcfleet.containers.reconciling.reconciler import Reconciler
from lxcfleet.containers.registry import Registry
from lxcfleet.containers.requests.actions import Actions
from lxcfleet.errors import FleetError, HostError
from lxcfleet.host.process import cgroup
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus, Event
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.states import Action


class Fleet:
    """One container, ``web``, and stand-ins for its steps. ``during`` is called in the middle of a step."""

    def __init__(self, paths: Paths, during: dict[str, Callable[[Fleet], None]]) -> None:
        self.bus = Bus()
        self.told: list[str] = []
        self._paths, self._during = paths, during
        nobody: Any = None
        self.registry: Registry = Registry(paths, nobody, self.bus)
        room: Any = SimpleNamespace(forget=lambda container: self.registry.forget("web"), release_unused=self._nothing)
        self.container = Container("web", Spec("web", first_id=1879048192))
        self.registry.add(self.container)
        reconciler = Reconciler(self.registry, cast(Any, self), nobody, room, 10.0)
        files = SnapshotFiles(paths, nobody, self.bus)
        self.actions = Actions(
            Common(paths, self.registry, nobody, self.bus), reconciler, nobody, room, nobody, files, nobody
        )
        self.bus.subscribe("log", Event, self._hear)
        self.bus.subscribe("actions", Exited, lambda event: self.actions.exited(event.container))
        self.bus.subscribe(
            "actions", EndedInHand, lambda event: self.actions.ended_in_hand(event.container, succeeded=event.succeeded)
        )
        (paths.lxc / "web").mkdir()

    async def _nothing(self) -> None:
        pass

    def _hear(self, event: Event) -> None:
        told = event.told()
        if told is not None:
            self.told.append(told.what)

    def begin(self, *, frozen: bool = False) -> None:
        """The container begins to run."""
        payload = SimpleNamespace(frozen=frozen)
        descriptor = os.open(os.devnull, os.O_RDONLY)
        running = SimpleNamespace(descriptor=descriptor, payload=payload, gone=asyncio.Event(), cgroups=frozenset())
        self.container.running = cast(Any, running)

    def end(self) -> None:
        """The container's monitor ends."""
        running = self.container.running
        assert running is not None
        self.registry._ended(self.container, running)

    def end_for_a_reboot(self) -> None:
        """The container ends, and its post-stop hook has noted a reboot."""
        self.note("web", Intent.RUN, must=True)
        self.end()

    async def _do(self, step: str) -> None:
        await asyncio.sleep(0)
        if step in self._during:
            self._during[step](self)

    # The acts that steps consist of.

    async def prepare(self, container: Container, *, make: bool, mount: bool) -> int | None:
        """Return a descriptor."""
        await self._do("mount")
        return os.open(os.devnull, os.O_RDONLY)

    async def check(self, container: Container) -> None:
        """Let time pass."""
        await self._do("check")

    def note(self, name: str, intent: Intent | None, *, must: bool) -> None:
        """Write the intent to disk."""
        if intent is None:
            self._paths.container(name).pending.unlink(missing_ok=True)
        else:
            self._paths.container(name).pending.write_text(intent.value)

    async def freeze(self, container: Container) -> None:
        """Fail if the container has ended."""
        await self._do("freeze")
        if container.running is None:
            raise HostError("can't be frozen")

    async def thaw(self, container: Container) -> None:
        """Fail if the container has ended."""
        await self._do("thaw")
        if container.running is None:
            raise HostError("can't be thawed")

    async def leave(self, container: Container, drain: float | None) -> None:
        """Let time pass."""
        await self._do("leave")

    def come_back(self, container: Container) -> None:
        """Do nothing, as nobody looks for the container."""

    async def halt(self, container: Container, timeout: float) -> None:
        """End the container."""
        await self._do("halt")
        if container.running is not None:
            self.end()

    async def boot(self, container: Container, namespace: int) -> None:
        """Start the container."""
        os.close(namespace)
        self.begin()
        await self._do("boot")

    def retire(self, name: str) -> None:
        """Do nothing, as nobody looks for its directory."""

    async def remove_leftovers(self, name: str) -> None:
        """Do nothing, as there are none."""

    def has_lost_its_name(self, name: str) -> bool:
        """Never."""
        return False

    def remains(self, container: Container) -> bool:
        """Whether the container is there."""
        return True


def fail(fleet: Fleet) -> None:
    fleet.end()
    raise HostError("did not start")


@pytest.fixture(autouse=True)
def no_cgroups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "remove", lambda cgroups, most=None: True)


@pytest.mark.parametrize(
    ("runs", "action", "during", "told"),
    [
        (True, Action.STOP, {}, ["stopped"]),
        (True, Action.STOP, {"leave": Fleet.end}, ["stopped"]),
        (True, Action.RESTART, {"leave": Fleet.end}, ["restarted"]),
        (True, Action.RESTART, {"boot": Fleet.end}, ["restarted", "stopped"]),
        (True, Action.RESTART, {"boot": fail}, ["stopped"]),
        (True, Action.FREEZE, {"freeze": Fleet.end}, ["stopped"]),
        (True, Action.UNFREEZE, {"thaw": Fleet.end}, ["stopped"]),
        (True, Action.DESTROY, {"leave": Fleet.end}, ["destroyed"]),
        (False, Action.START, {}, ["started"]),
        (False, Action.START, {"boot": Fleet.end}, ["started", "stopped"]),
        (False, Action.START, {"boot": fail}, ["stopped"]),
    ],
)
def test_every_end_is_published_once(
    runs: bool, action: Action, during: dict[str, Callable[[Fleet], None]], told: list[str], tmp_path: Path
) -> None:
    async def play() -> None:
        fleet = Fleet(Paths(lxc=tmp_path, run=tmp_path, etc=tmp_path), during)
        if runs:
            fleet.begin(frozen=action is Action.UNFREEZE)
        try:
            await fleet.actions.act(fleet.container, action, 0)
        except FleetError:
            assert fleet.told == []  # the end is published once it is known that the action did not mean it
        for _ in range(20):
            await asyncio.sleep(0)
        assert (fleet.told, fleet.container.busy) == (told, None)

    asyncio.run(play())


def test_a_reboot_from_inside_during_an_action_is_not_lost(tmp_path: Path) -> None:
    async def play() -> None:
        fleet = Fleet(Paths(lxc=tmp_path, run=tmp_path, etc=tmp_path), {})
        fleet.begin()
        with fleet.registry.in_hand(fleet.container, "audit"):
            fleet.end_for_a_reboot()
        for _ in range(20):
            await asyncio.sleep(0)
        assert fleet.told == ["stopped", "resumed"]
        assert fleet.container.running is not None

    asyncio.run(play())
