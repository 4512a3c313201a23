"""The watcher between hook and rollout, on a stand-in for a host: clocks that jump, records that can't be read."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lxcfleet.containers.common import Common
from lxcfleet.errors import HostError
from lxcfleet.host.packages import database, dpkg
from lxcfleet.patch import watcher
from lxcfleet.patch.before import Before
from lxcfleet.patch.booted import Booted
from lxcfleet.patch.fallen import Fallen
from lxcfleet.patch.owners import Owners
from lxcfleet.patch.shadow.files import Shadow, ShadowFindings, ShadowKind
from lxcfleet.patch.stale.judge import StaleScan
from lxcfleet.patch.verify.prover import Prover
from lxcfleet.patch.watcher import Survival, Watcher
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus, Event
from lxcfleet.spec.policies.windows import PatchPolicy, PatchSettings
from lxcfleet.spec.selection import Selection
from lxcfleet.spec.states import Health

OLD = StaleScan("web", 1, 1, files=(cast(Any, None),))


class World:
    """The surroundings of a watcher."""

    def __init__(self, directory: Path) -> None:
        self.paths = Paths(lxc=directory / "lxc", run=directory, etc=directory / "etc")
        self.settings = PatchSettings(quiet=10)
        self.clock = 1000.0
        self.half_done = ""
        self.found = {"web": OLD}
        self.boxes: list[Any] = []
        self.applied: list[list[str]] = []
        self.failing = 0
        self.renewals = 0
        self.events: list[str] = []
        self.watcher = self.make()

    def make(self) -> Watcher:
        """A new watcher, as a daemon makes one when it starts."""

        async def nothing() -> None:
            """Do nothing."""

        async def scan(_: object) -> dict[str, StaleScan]:
            return self.found

        mask = cast(Any, SimpleNamespace(distrust=lambda: None, refresh=nothing))
        registry = cast(Any, _Registry(nothing, self.boxes))
        self.own = SimpleNamespace(renew_servants=nothing, begin=self.begin, awaited=False)
        finder = cast(Any, SimpleNamespace(scan=scan))
        bus = Bus()
        bus.subscribe("test", Event, lambda event: self.events.append(told.what) if (told := event.told()) else None)
        admin = self.paths.run / "dpkg"
        healths = cast(Any, SimpleNamespace(of=lambda box: box.health, healthy_seconds=lambda _: 0))
        booted = Booted(self.paths, registry, Fallen(self.paths), healths.healthy_seconds)
        return Watcher(
            Common(self.paths, registry, cast(Any, None), bus), lambda: self.settings, mask, cast(Any, self.own), finder,
            self.apply, Survival(Before(self.paths.well_before), healths, Fallen(self.paths), booted), admin=admin,
        )  # fmt: skip

    async def apply(self, stale: Any) -> None:
        """Stand-in for the rollout."""
        if self.failing:
            self.failing -= 1
            raise HostError("the disk is full")
        self.applied.append(list(stale))

    def begin(self, *, daemon: bool) -> None:
        """Note that lxcfleet's own parts are renewed."""
        assert daemon
        self.renewals += 1

    def pass_time(self, seconds: float) -> str:
        """Let so many seconds pass and look; returns the phase."""
        self.clock += seconds
        asyncio.run(self.watcher.tick())
        return self.watcher.record()["phase"]


class _Registry:
    def __init__(self, observe: Any, boxes: list[Any]) -> None:
        self.observe, self._boxes = observe, boxes

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Any]:
        return iter(self._boxes)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path)
    monkeypatch.setattr(watcher, "time", SimpleNamespace(monotonic=lambda: made.clock))
    monkeypatch.setattr(dpkg, "half_done", lambda _: made.half_done)
    made.watcher = made.make()
    return made


def test_nothing_was_heard(world: World) -> None:
    assert world.pass_time(100) == "idle"
    assert world.applied == []


@pytest.mark.parametrize("policy", [*PatchPolicy])
def test_own_parts_are_renewed_once_whatever_the_policy_is(world: World, policy: PatchPolicy) -> None:
    world.settings = replace(world.settings, policy=policy)
    world.watcher.notify()
    assert world.pass_time(1) == "quiet"
    assert (world.renewals, world.own.awaited) == (0, True)
    for _ in range(3):
        world.pass_time(10)
    assert (world.renewals, world.own.awaited) == (1, False)


def test_many_calls_of_the_hook_are_one_patch(world: World) -> None:
    for _ in range(200):
        world.watcher.notify()
        os.utime(world.paths.notice, ns=(time.time_ns(), time.time_ns() + 1))
        assert world.pass_time(1) == "quiet"
    assert world.pass_time(9) == "quiet"
    assert world.pass_time(1) == "idle"
    assert world.applied == [["web"]]
    assert world.pass_time(1000) == "idle"
    assert world.applied == [["web"]]


def test_it_acts_as_soon_as_the_quiet_time_is_over_and_not_at_the_next_look_after_that(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def sleep(seconds: float) -> None:
        """Let the clock stand for the time, until the watcher has acted."""
        if world.applied:
            raise asyncio.CancelledError
        world.clock += seconds

    async def note() -> None:
        """Do nothing."""

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(watcher, "sleep_in_step", lambda seconds: sleep(seconds - world.clock % seconds))
    monkeypatch.setattr(world.watcher, "_finder", SimpleNamespace(note_lists=note, scan=world.watcher._finder.scan))
    world.settings = replace(world.settings, quiet=2.25)
    world.clock = 1000.5
    world.watcher.notify()
    asyncio.run(world.watcher.look())
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(world.watcher.run())
    assert world.clock == 1002.75


def test_a_clock_that_jumps_changes_nothing(world: World) -> None:
    world.watcher.notify()
    assert world.pass_time(0) == "quiet"
    for moment in (10, 4_000_000_000):  # decades back, and the hook is called again; then decades ahead
        os.utime(world.paths.notice, (moment, moment))
        assert world.pass_time(5) == "quiet"
    assert world.pass_time(9) == "quiet"
    assert world.pass_time(1) == "idle"
    assert world.applied == [["web"]]


def test_a_daemon_that_was_down_catches_up_and_acts_once(world: World) -> None:
    world.watcher.notify()
    world.watcher = world.make()
    assert world.pass_time(1) == "quiet"
    assert world.pass_time(10) == "idle"
    world.watcher = world.make()
    assert world.pass_time(100) == "idle"
    assert world.applied == [["web"]]


def test_nothing_while_packages_are_half_way_or_can_not_be_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.half_done = "libc6 is half-configured"
    world.watcher.notify()
    world.pass_time(0)
    assert world.pass_time(10) == "broken"
    assert world.watcher.record()["why"].startswith("libc6 is half-configured")

    def unreadable(_: object) -> str:
        raise HostError("dpkg-query failed", why="parsing file '/var/lib/dpkg/status' near line 1")

    monkeypatch.setattr(dpkg, "half_done", unreadable)
    assert world.pass_time(10) == "broken"
    assert "can't be read (parsing file" in world.watcher.record()["why"]
    assert world.applied == []
    monkeypatch.setattr(dpkg, "half_done", lambda _: "")
    assert world.pass_time(10) == "idle"
    assert world.applied == [["web"]]
    assert world.events == ["patch-waits", "patched"]


def test_a_failure_is_tried_again(world: World) -> None:
    world.failing = 1
    world.watcher.notify()
    world.pass_time(0)
    assert world.pass_time(10) == "failed"
    assert world.watcher.record()["why"] == "the disk is full"
    assert world.pass_time(10) == "failed"
    assert world.pass_time(30) == "idle"
    assert world.applied == [["web"]]


@pytest.mark.parametrize("policy", [PatchPolicy.NOTIFY, PatchPolicy.MANUAL])
def test_policies_that_restart_nothing(world: World, policy: PatchPolicy) -> None:
    world.settings = PatchSettings(policy, quiet=0)
    world.watcher.notify()
    assert world.pass_time(0) == "idle"
    assert world.applied == []
    assert world.events == (["patched"] if policy is PatchPolicy.NOTIFY else [])


@contextlib.contextmanager
def dpkg_at_work(world: World) -> Iterator[None]:
    """Have another process than this one hold dpkg's lock."""
    admin = world.paths.run / "dpkg"
    admin.mkdir(exist_ok=True)
    (admin / "lock").touch()
    ready, go_on = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        descriptor = os.open(admin / "lock", os.O_RDWR)
        fcntl.lockf(descriptor, fcntl.LOCK_EX)
        os.write(ready[1], b"x")
        os.read(go_on[0], 1)
        os._exit(0)
    try:
        os.read(ready[0], 1)
        yield
    finally:
        os.write(go_on[1], b"x")
        os.waitpid(child, 0)
        for descriptor in (*ready, *go_on):
            os.close(descriptor)


@pytest.mark.reaches("processes", reason="another process holds the lock")
def test_during_a_long_run_of_dpkg_the_patch_does_not_count_as_dealt_with(world: World) -> None:
    """The hook is called only after dpkg."""
    with dpkg_at_work(world):
        assert world.pass_time(1) == "busy"
        assert "holds dpkg's lock" in world.watcher.record()["why"]
    assert world.pass_time(1) == "idle"


def box(name: str, health: Health) -> Any:
    running = SimpleNamespace(identity="1@1.00")
    return SimpleNamespace(name=name, running=running, health=health, resting=True, busy=None)


@pytest.mark.reaches("processes", reason="another process holds the lock")
def test_a_container_that_fell_ill_with_a_patch_counts_as_well_before_even_after_a_restart_of_the_daemon(
    world: World,
) -> None:
    world.settings = PatchSettings(PatchPolicy.NOTIFY, quiet=10)
    world.found = {"web": OLD, "ill": OLD, "other": StaleScan("other", 1, 1)}
    world.boxes += [box("web", Health.HEALTHY), box("ill", Health.UNHEALTHY), box("other", Health.HEALTHY)]
    web, ill, other = world.boxes
    world.pass_time(1)
    with dpkg_at_work(world):
        world.pass_time(1)
        web.health = Health.UNHEALTHY
    world.watcher.notify()
    world.watcher = world.make()
    assert world.pass_time(1) == "quiet"
    assert world.pass_time(10) == "idle"
    world.watcher = world.make()
    before = Before(world.paths.well_before)
    assert [before.was_well(each) for each in (web, ill, other)] == [True, False, False]
    web.running.identity = "2@2.00"
    assert not before.was_well(web), "another run of it"


def test_nothing_stale(world: World) -> None:
    world.found = {"web": StaleScan("web", 1, 1, problem="/proc/1/maps: Permission denied")}
    world.watcher.notify()
    world.pass_time(0)
    assert world.pass_time(10) == "idle"
    assert world.applied == [[]], "a rollout that is halted looks again"
    assert world.events == ["unread", "patched"]


def test_a_dpkg_that_failed_while_a_window_was_waited_for(world: World) -> None:
    """dpkg was run by hand, so no hook is called."""
    opened = PatchSettings(PatchPolicy.WINDOW, 10, ("00:00-24:00",), "UTC")
    world.settings = replace(opened, windows=(f"{datetime.now(UTC) + timedelta(days=3):%a} 00:00-24:00",))
    world.watcher.notify()
    world.pass_time(0)
    assert world.pass_time(10) == "window"
    world.half_done = "libc6 is half-configured"
    world.pass_time(3600)
    world.settings = opened
    assert world.pass_time(1) == "broken"
    assert world.applied == []


@pytest.mark.reaches("processes", reason="a lock is held by another process")
def test_dpkg_at_work_is_waited_for(world: World) -> None:
    admin = world.paths.run / "dpkg"
    admin.mkdir()
    (admin / "lock-frontend").touch()
    world.watcher.notify()
    with _locked(admin / "lock-frontend") as holder:
        assert world.pass_time(100) == "busy"
        assert world.watcher.record()["why"] == f"process {holder} holds dpkg's lock"
    assert world.pass_time(1) == "quiet"
    assert world.pass_time(10) == "idle"
    assert world.applied == [["web"]]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Another process holds the lock, as dpkg does."""
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        descriptor = os.open(path, os.O_RDWR)
        fcntl.lockf(descriptor, fcntl.LOCK_EX)
        os.write(tell, b"x")
        time.sleep(60)
        os._exit(0)
    try:
        os.read(ready, 1)
        yield child
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(tell)


@pytest.mark.reaches("processes", reason="a lock is held by another process")
def test_asking_for_a_lock_takes_none(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    assert dpkg.holder(tmp_path) is None
    with _locked(tmp_path / "lock"):
        pass
    with _locked(tmp_path / "lock") as child:
        assert dpkg.holder(tmp_path) == child


def test_no_file_has_an_owner_if_packages_can_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(_: object) -> object:
        raise HostError("dpkg-query failed")

    monkeypatch.setattr(database, "owners", unreadable)
    assert asyncio.run(Owners().find(["/usr/bin/env"])) == {}


def test_nothing_is_proven_if_packages_can_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shadow of a package's file must not count as one of a file without an owner."""
    shadow = Shadow("/usr/bin/env", ShadowKind.FILE, False, 1.0, 2.0, False, "delta", True)
    web = SimpleNamespace(name="web", running=None, busy=None, state="stopped", spec=None, wanted=None)

    async def chosen(_: object) -> list[object]:
        return [web]

    async def scan(_: object, _wanted: object) -> dict[str, StaleScan]:
        return {"web": StaleScan("web", 0, 0)}

    async def shadows(_: object) -> dict[str, ShadowFindings]:
        return {"web": ShadowFindings("web", (shadow,))}

    def unreadable(_: object) -> object:
        raise HostError("dpkg-query did not end within 60 s")

    monkeypatch.setattr(database, "owners", unreadable)
    monkeypatch.setattr(database, "installed", dict)
    monkeypatch.setattr(database, "by_architecture", dict)
    monkeypatch.setattr(dpkg, "half_done", lambda: "")
    registry = cast(Any, SimpleNamespace(chosen=chosen))
    finder = cast(Any, SimpleNamespace(scan=scan, shadows=shadows, data=True))
    nothing = cast(Any, SimpleNamespace(of=lambda _: None))
    prover = Prover(registry, finder, Owners(), nothing, nothing, nothing)
    for asked in (prover.verify(Selection(), ()), prover.shadows(Selection())):
        with pytest.raises(HostError, match="did not end"):
            asyncio.run(cast(Any, asked))


@pytest.mark.reaches("processes", reason="a lock is held by another process")
def test_dpkg_is_asked_anew_when_its_records_have_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["iU ", "ii "]
    monkeypatch.setattr(database, "states", lambda **_: [("web", words.pop())])
    (tmp_path / "status").touch()
    assert (dpkg.in_pieces(tmp_path), dpkg.in_pieces(tmp_path), words) == ("", "", ["iU "])
    (tmp_path / "status-new").touch()
    (tmp_path / "status-new").rename(tmp_path / "status")
    assert dpkg.in_pieces(tmp_path) == "web is unpacked, not configured"
    (tmp_path / "lock").touch()
    with _locked(tmp_path / "lock") as child:
        assert dpkg.in_pieces(tmp_path) == f"process {child} holds dpkg's lock"
