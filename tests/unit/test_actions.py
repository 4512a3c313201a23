"""Actions that waited for their turn."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from lxcfleet.containers import store
from lxcfleet.containers.common import Common
from lxcfleet.containers.container import Container
from lxcfleet.containers.copies.snapshot_files import SnapshotFiles
from lxcfleet.containers.desired import Intent
from lxcfleet.containers.events import ActionDone, StartFailed
from lxcfleet.containers.reconciling import plan
from lxcfleet.containers.reconciling.reconciler import Reconciler
from lxcfleet.containers.reconciling.steps import Boot
from lxcfleet.containers.registry import Registry
from lxcfleet.containers.requests.actions import Actions
from lxcfleet.containers.requests.reboots import Reboots
from lxcfleet.errors import HostError, NotFound
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.states import Action


@pytest.mark.parametrize("action", [Action.START, Action.RESTART, Action.DESTROY, None])
def test_an_action_is_not_done_to_a_new_container_that_got_the_name_of_its_destroyed_one(
    action: Action | None, tmp_path: Path
) -> None:
    """The new container might be stopped, and be destroyed or started like the old one. None: what the old one was owed."""
    nobody: Any = None
    paths = Paths(lxc=tmp_path, run=tmp_path, etc=tmp_path)
    registry = Registry(paths, nobody, Bus())
    before, after = (Container("web", Spec("web", first_id=1879048192, created=created)) for created in ("1", "2"))
    registry.add(before)
    chosen = before
    registry.forget("web")
    registry.add(after)
    # Anything else that it did with this would fail with another error than NotFound.
    reconciler = Reconciler(registry, nobody, nobody, nobody, 10.0)
    files = SnapshotFiles(paths, nobody, Bus())
    actions = Actions(Common(paths, registry, nobody, Bus()), reconciler, nobody, nobody, nobody, files, nobody)

    async def act() -> None:
        if action is None:
            await reconciler.go_on(chosen)
        else:
            await actions.act(chosen, action, 0)

    with pytest.raises(NotFound, match="destroyed meanwhile"):
        asyncio.run(act())


def test_a_spec_limits_the_time_that_its_container_may_take_to_end() -> None:
    nobody: Any = None
    reconciler = Reconciler(nobody, nobody, nobody, nobody, 10.0)
    assert reconciler._patience(Container("web", Spec("web", stop_timeout=0.5))) == 0.5
    assert reconciler._patience(Container("web", Spec("web"))) == 10.0
    assert reconciler._patience(Container("web", None)) == 10.0


def test_reboots_in_a_row_wait_ever_longer() -> None:
    """An init that rebooted at once kept 85 % of two processors busy."""
    reboots = Reboots()
    moment, waits = 0.0, []
    for _ in range(12):
        waits.append(reboots.wait("web", moment))
        moment += waits[-1] + 0.5
    assert waits == [0, 0, 0, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert reboots.wait("db", moment) == 0
    assert reboots.wait("web", moment + 200) == 0
    assert list(reboots._known) == ["web"]


def test_a_reboot_that_the_full_disk_kept_from_being_noted_is_not_lost(tmp_path: Path) -> None:
    """LXC's hook could make the file, and not write the word to it: the container stayed down, and nobody was told."""
    paths = Paths(lxc=tmp_path, run=tmp_path, etc=tmp_path)
    pending = paths.container("web").pending
    pending.parent.mkdir()
    assert store.noted(paths, "web") is None
    pending.touch()
    assert store.noted(paths, "web") is Intent.RUN
    os.utime(pending, (1000, 1000))
    assert store.noted(paths, "web") is None, "a power failure may have emptied it"


def told_by_resume(tmp_path: Path, busy: str | None) -> list[StartFailed | ActionDone]:
    """What is told if what is owed to a container is finished, and that fails; ``busy``: the action that is under way."""
    nobody: Any = None
    paths = Paths(lxc=tmp_path, run=tmp_path, etc=tmp_path)
    bus = Bus()
    told: list[StartFailed | ActionDone] = []
    bus.subscribe("test", StartFailed, told.append)
    bus.subscribe("test", ActionDone, told.append)
    registry = Registry(paths, nobody, bus)
    web = Container("web", Spec("web"), busy=busy)
    registry.add(web)

    class Failing:
        def owed(self, _: Container) -> plan.Steps:
            return (Boot(),)

        async def go_on(self, _: Container) -> None:
            raise HostError("the disk is full")

    reconciler: Any = Failing()
    actions = Actions(Common(paths, registry, nobody, bus), reconciler, nobody, nobody, nobody, nobody, nobody)

    async def follow() -> None:
        actions.resume(web, "rebooted from inside")
        await asyncio.sleep(0.05)

    asyncio.run(follow())
    return told


def test_a_start_after_a_reboot_that_fails_is_told(tmp_path: Path) -> None:
    assert told_by_resume(tmp_path, None) == [
        ActionDone("web", "resumed", "rebooted from inside"),
        StartFailed("web", "rebooted from inside: the disk is full"),
    ]


def test_what_is_owed_is_finished_by_the_start_that_is_under_way(tmp_path: Path) -> None:
    """A daemon that began told that a start had failed, as its container was busy: its restart policy was starting it."""
    assert told_by_resume(tmp_path, "start") == []
