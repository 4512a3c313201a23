"""The driver of rollouts, with a fleet that is not there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lxcfleet.api.requests import RolloutRequest
from lxcfleet.containers.desired import Intent
from lxcfleet.containers.ends import endings
from lxcfleet.containers.exits import Ending
from lxcfleet.containers.restarts import FRESH
from lxcfleet.errors import FleetError, HostError
from lxcfleet.host.process import proc
from lxcfleet.patch.before import Before
from lxcfleet.patch.fallen import Fallen
from lxcfleet.patch.rollout import baking, causes, driver, ledger, packages, testing
from lxcfleet.patch.rollout.change_sets import ChangeSets
from lxcfleet.patch.rollout.driver import Driver, Outcomes
from lxcfleet.patch.rollout.known import Known
from lxcfleet.patch.rollout.ledger import Ledger
from lxcfleet.patch.rollout.orders import Orders
from lxcfleet.patch.rollout.sight import Sight
from lxcfleet.patch.rollout.state import Rollout, RolloutKind, Status
from lxcfleet.patch.rollout.testing import Trials
from lxcfleet.patch.rollout.trial import Verdict
from lxcfleet.patch.stale.judge import OldFile, StaleScan, Why
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.runtime.tasks import Tasks
from lxcfleet.spec.files.profiles import Profile
from lxcfleet.spec.policies.rollout import ProfileRollout, RolloutSettings, Share
from lxcfleet.spec.policies.rollout_tests import RolloutTest
from lxcfleet.spec.results import Result
from lxcfleet.spec.selection import Selection
from lxcfleet.spec.states import Action, Health, State

OLD = OldFile("/usr/lib/libssl.so.3", Why.REPLACED, "base", ())
POLICY = RolloutSettings(Share(1), Share(0), 0.0, 10.0, ())


class Box:
    """A stand-in for a healthy container that runs."""

    def __init__(self, name: str) -> None:
        self.name, self.spec, self.problem, self.busy = name, None, None, None
        self.wanted: Any = None
        self.foreground: Any = None
        self.labels: dict[str, str] = {}
        self.number = 1
        self.clock: Callable[[], float] | None = None
        """Tells its age, where that grows."""
        self.old = True
        self.unread = ""
        self.ends = False
        """Whether it ends as soon as it was restarted."""
        self.down = False
        self.age = 100.0
        self.resting, self.owed, self.course = False, False, FRESH
        self.health = Health.HEALTHY
        self.starts_ill = False
        self.foreground = None
        self.state = State.STOPPED

    @property
    def running(self) -> Any:
        if self.down:
            return None
        age = self.age if self.clock is None else self.clock()
        return SimpleNamespace(identity=f"{self.number}@1.00", age=age, payload=SimpleNamespace(frozen=False))


NO_GROUPS = cast(Any, SimpleNamespace(rollout_of=lambda *_: None, rollouts=dict))


class Registry:
    """A registry of these boxes."""

    def __init__(self, boxes: Sequence[Box]) -> None:
        self._boxes = {box.name: box for box in boxes}

    def __iter__(self) -> Iterator[Box]:
        return iter(self._boxes.values())

    def __contains__(self, name: str) -> bool:
        return name in self._boxes

    def __getitem__(self, name: str) -> Box:
        return self._boxes[name]

    def noted(self, box: Box) -> Intent | None:
        return Intent.RUN if box.owed else None

    def choose(self, _: object) -> list[Box]:
        return list(self)

    async def observe(self) -> None:
        """Does nothing, as nobody else starts any container."""


class World:
    """The surroundings of a driver."""

    def __init__(self, directory: Path, *names: str) -> None:
        self.paths = Paths(lxc=directory / "lxc", run=directory, etc=directory / "etc")
        self.boxes = {name: Box(name) for name in names}
        for name in names:
            self.paths.container(name).directory.mkdir(parents=True)
        self.restarted: list[str] = []
        config = SimpleNamespace(profiles={}, rollout=POLICY, stop_timeout=1.0)
        prober = SimpleNamespace(
            of=lambda box: box.health, healthy_seconds=lambda _: 100.0, matures=lambda _: None, reason=lambda _: "",
            demand=lambda *_, **__: None,
        )
        self.fleet = SimpleNamespace(
            prober=prober, registry=Registry(list(self.boxes.values())), config=config,
            bus=Bus(),
            actions=SimpleNamespace(run_jobs=self._run_jobs, act=self._restart),
            operations=SimpleNamespace(any=lambda _: False),
            prerequisites=SimpleNamespace(lack=lambda _: None),
        )  # fmt: skip
        self.ending: Ending | None = None
        """How all containers ended, as far as that is known."""
        self.endings = SimpleNamespace(of=lambda _: self.ending)
        self.failing = 0
        self.verified: list[str] = []
        self.unproven = False
        """Whether all containers have old files after their restart."""
        self.reasons: list[str] = []
        """The reasons why they are not proven."""
        self.fallen, self.before = Fallen(self.paths), Before(self.paths.well_before)
        self.in_pieces: list[str] = []
        """The package manager's unfinished work, look by look."""
        self.tried: list[tuple[str, int, str]] = []
        """The tests that were run: the container, the number of its run, the test."""
        self.verdicts: dict[tuple[str, str, bool], list[Verdict]] = {}
        """What tests say, one after the other: by container, test, and whether the container was restarted."""
        self.went_well: list[Rollout] = []
        self.halted: list[Rollout] = []
        self.make()

    async def _verify(self, chosen: Selection) -> Any:
        self.verified += chosen.patterns
        old = [{"path": "/usr/lib/libssl.so.3"}] if self.unproven else []
        return [{"name": name, "old": old, "reasons": self.reasons} for name in chosen.patterns]

    async def _rescue(self, rollout: Rollout) -> None:
        self.halted.append(rollout)

    def make(self) -> None:
        """Make the parts of rollouts anew, as a daemon does when it starts."""
        fleet = cast(Any, self.fleet)
        known = Known(self.paths)
        self.ledger = Ledger(self.paths, fleet.registry, fleet.bus, self.fallen, known)
        self.trials = Trials(self._try, Tasks(), self.ledger.wake.set, known)
        sets = ChangeSets(self.paths, cast(Any, None))
        sight = self.sight = Sight(fleet, self._find, self.fallen, self.before, NO_GROUPS, self.trials, sets)
        self.orders = Orders(fleet, self.ledger, sight, self.fallen, sets)
        self.driver = Driver(
            self.paths, fleet, self.ledger, sight, self._in_pieces, cast(Any, self.endings), sets,
            Outcomes(self.orders.undo, self._rescue, self.went_well.append, self._verify),
        )

    async def _try(self, box: Any, test: RolloutTest) -> tuple[Verdict, str]:
        self.tried.append((box.name, box.number, test.name))
        verdicts = self.verdicts.get((box.name, test.name, box.number > 1), [Verdict.GOOD])
        return verdicts.pop(0) if len(verdicts) > 1 else verdicts[0], "its last line"

    def _in_pieces(self) -> str:
        return self.in_pieces.pop(0) if self.in_pieces else ""

    async def _find(self, boxes: Sequence[Any]) -> dict[str, StaleScan]:
        return {box.name: StaleScan(box.name, 1, 1, (OLD,) * box.old, box.unread) for box in boxes}

    async def _run_jobs(self, _: str, jobs: Sequence[Any]) -> list[Result]:
        results = []
        for job in jobs:
            try:
                results.append(await job.run())
            except FleetError as error:
                results.append(Result(job.name, "failed", False, error.body()))
        return results

    async def _restart(self, box: Box, *_: object) -> Result:
        self.restarted.append(box.name)
        if self.failing:
            self.failing -= 1
            raise HostError("no space left on device")
        box.number, box.old, box.down = box.number + 1, False, box.ends
        return Result(box.name, "restarted", True)

    async def drive(self, seconds: float = 60.0) -> None:
        """Run the driver until the rollout has ended."""
        task = asyncio.create_task(self.driver.run())
        try:
            async with asyncio.timeout(seconds):
                while self.ledger.active is not None and self.ledger.active.status is not Status.HALTED:
                    await asyncio.sleep(0.01)
        finally:
            task.cancel()


def test_a_stale_container_that_can_not_be_read_at_the_second_look_is_restarted(tmp_path: Path) -> None:
    """A second patch arrives while a container waits whose processes can't all be read at that moment."""
    world = World(tmp_path, "a", "b", "c")
    box = world.boxes["c"]

    async def run() -> None:
        found = await world._find(list(world.boxes.values()))
        await world.orders.take_up(found)
        box.old, box.unread = False, "new processes came all the time"
        await world.orders.take_up(found)
        await world.drive()

    asyncio.run(run())
    rollout = world.ledger.last
    assert rollout is not None
    assert rollout.status is Status.DONE
    assert {name: member.note for name, member in rollout.members.items()} == {"a": "", "b": "", "c": ""}
    assert world.restarted == ["a", "b", "c"]


def test_a_start_that_is_owed_and_could_not_be_noted_is_waited_for_too(tmp_path: Path) -> None:
    world = World(tmp_path, "a", "b")
    world.fleet.operations.any = lambda _: True
    for box in world.boxes.values():
        box.down = True
    world.boxes["a"].owed = True
    assert {name: seen.busy for name, seen in world.sight.look(None).items()} == {"a": "start", "b": None}


def test_nothing_is_restarted_while_the_package_manager_is_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another upgrade begins during the rollout, or dpkg was unfinished when the operator said `patch apply`."""
    monkeypatch.setattr(driver, "HOST_SECONDS", 0.3)  # each reason lasts so long: the follower has to see it
    world = World(tmp_path, "a", "b")
    world.in_pieces = ["process 7 holds dpkg's lock", "libc6 is unpacked, not configured"]

    async def run() -> list[str]:
        await world.orders.begin(RolloutRequest(RolloutKind.PATCH, Selection(everything=True)))
        task = asyncio.create_task(world.drive())
        waited = []
        async for record in world.ledger.follow():
            waited.append(record["waits_for"])
            assert not (record["waits_for"] and world.restarted)
        await task
        return waited

    monkeypatch.setattr(ledger, "FOLLOW_SECONDS", 0.0)
    said = asyncio.run(run())
    assert [text for text in dict.fromkeys(said) if text] == [
        "process 7 holds dpkg's lock", "libc6 is unpacked, not configured",
    ]  # fmt: skip
    assert world.restarted == ["a", "b"]


def test_a_restart_that_was_asked_for_does_not_wait_for_packages(tmp_path: Path) -> None:
    world = World(tmp_path, "a")
    world.in_pieces = ["libc6 is unpacked, not configured"] * 1000

    async def run() -> None:
        await world.orders.begin(RolloutRequest(RolloutKind.RESTART, Selection(everything=True)))
        await world.drive()

    asyncio.run(run())
    assert world.restarted == ["a"]


@pytest.mark.parametrize("order", ["pause", "abort"])
def test_an_order_is_obeyed_that_comes_just_before_a_wave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    """What packages the host has is noted for the wave, and that takes a moment."""
    world = World(tmp_path, "a", "b")
    loop = asyncio.new_event_loop()

    def remember(*_: object, **__: object) -> dict[str, str]:
        async def ask() -> None:
            if world.ledger.active is not None:
                getattr(world.orders, order)()

        asyncio.run_coroutine_threadsafe(ask(), loop).result(60)
        return {}

    monkeypatch.setattr(packages, "remember", remember)

    async def run() -> None:
        await world.orders.begin(RolloutRequest(RolloutKind.RESTART, Selection(everything=True)))
        task = asyncio.create_task(world.driver.run())
        async with asyncio.timeout(60):
            while world.ledger.last is None or world.ledger.last.status is Status.RUNNING:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        task.cancel()

    loop.run_until_complete(run())
    loop.close()
    assert world.ledger.last is not None
    assert world.ledger.last.status is (Status.PAUSED if order == "pause" else Status.ABORTED)
    assert not world.restarted


# a patch that takes a container down


def bad_patch(tmp_path: Path) -> World:
    """A patch has ended the first of three containers, and the rollout is halted."""
    world = World(tmp_path, "a", "b", "c")
    world.boxes["a"].ends = True

    async def run() -> None:
        await world.orders.take_up(["a", "b", "c"])
        await world.drive()

    asyncio.run(run())
    rollout = world.ledger.active
    assert rollout is not None
    assert (rollout.status, world.restarted) == (Status.HALTED, ["a"])
    assert world.fallen.of(cast(Any, world.boxes["a"])) is not None
    assert world.boxes["a"].resting, "it starts when the host boots"
    return world


def mend(world: World) -> None:
    """Give the host a good version again."""
    world.boxes["a"].ends = False


def is_well(world: World) -> bool:
    """Whether all containers run the good version, and no fall is noted."""
    boxes = cast(Any, world.boxes.values())
    return not any(box.down or box.old or world.fallen.of(box) for box in boxes)


def test_a_repair_of_the_host_brings_back_what_the_bad_patch_took_down(tmp_path: Path) -> None:
    world = bad_patch(tmp_path)
    mend(world)

    async def run() -> None:
        await world.orders.take_up(["b", "c"])
        await world.drive()

    asyncio.run(run())
    assert world.ledger.last is not None
    assert world.ledger.last.status is Status.DONE
    assert world.restarted == ["a", "a", "b", "c"]
    assert is_well(world)


def test_resume_brings_it_back_too(tmp_path: Path) -> None:
    world = bad_patch(tmp_path)
    mend(world)

    async def run() -> None:
        world.orders.resume(accept=False)
        await world.drive()

    asyncio.run(run())
    assert is_well(world)


@pytest.mark.parametrize("lost", [False, True])
def test_a_patch_or_apply_after_an_abort_or_a_reboot_brings_it_back_even_if_nothing_else_is_stale(
    tmp_path: Path, lost: bool
) -> None:
    world = bad_patch(tmp_path)
    world.orders.abort()
    if lost:
        world.paths.rollout.unlink()
        world.make()
    mend(world)
    for box in world.boxes.values():
        box.old = False

    async def run() -> None:
        await world.orders.take_up([])
        await world.drive()

    asyncio.run(run())
    assert world.restarted == ["a", "a"]
    assert is_well(world)


@pytest.mark.parametrize("unproven", [False, True])
def test_a_canary_is_looked_at_before_the_others_follow(tmp_path: Path, unproven: bool) -> None:
    world = World(tmp_path, "a", "b", "c")
    world.fleet.config.rollout = replace(POLICY, canaries=Share(1), bake=0.01)
    world.unproven, world.reasons = unproven, ["a file in its delta keeps the host's out"]
    for box in world.boxes.values():
        box.clock = proc.uptime

    async def run() -> None:
        await world.orders.take_up(["a", "b", "c"])
        await world.drive()

    asyncio.run(run())
    assert world.verified == ["a"]
    last = world.ledger.last
    assert last is not None
    if unproven:
        assert (world.restarted, [each.status for each in world.halted]) == (["a"], [Status.HALTED])
        assert last.members["a"].note == "though it was restarted, it has old files: /usr/lib/libssl.so.3"
    else:
        assert (world.restarted, last.status) == (["a", "b", "c"], Status.DONE)
        assert last.members["a"].note == "not proven: a file in its delta keeps the host's out"


def test_what_stands_on_a_generation_is_not_compared_with_the_host(tmp_path: Path) -> None:
    world = World(tmp_path, "a")
    world.boxes["a"].spec = cast(Any, SimpleNamespace(generation=3))
    asyncio.run(world.driver._prove(["a", "gone"]))
    assert world.verified == []


@pytest.mark.parametrize("reverts", [False, True])
def test_a_daemon_that_was_killed_just_after_a_halt_leaves_what_follows_to_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reverts: bool
) -> None:
    world = bad_patch(tmp_path)
    assert world.ledger.active is not None
    world.ledger.keep(replace(world.ledger.active, auto_revert=reverts))
    world.halted.clear()
    undone = []

    async def undo(_: Orders) -> None:
        undone.append(1)

    monkeypatch.setattr(Orders, "undo", undo)
    world.make()  # as a daemon does when it starts

    async def run() -> None:
        task = asyncio.create_task(world.driver.run())
        async with asyncio.timeout(60):
            while not (world.halted or undone):
                await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(run())
    assert (len(world.halted), len(undone)) == ((0, 1) if reverts else (1, 0))


def test_a_patch_that_ends_the_container_again_halts_again_with_one_start(tmp_path: Path) -> None:
    world = bad_patch(tmp_path)

    async def run() -> None:
        await world.orders.take_up([])
        await world.drive()

    asyncio.run(run())
    assert world.ledger.active is not None
    assert (world.ledger.active.status, world.restarted) == (Status.HALTED, ["a", "a"])
    assert world.fallen.of(cast(Any, world.boxes["a"])) is not None


@pytest.mark.parametrize("when", ["while it is halted", "after an abort", "before it is noted"])
def test_a_container_that_was_stopped_after_a_patch_took_it_down_stays_down_until_it_is_started(
    tmp_path: Path, when: str
) -> None:
    world = bad_patch(tmp_path)
    box = cast(Any, world.boxes["a"])
    if when == "after an abort":
        world.orders.abort()
    elif when == "before it is noted":
        world.fallen.forget("a")
    world.orders.note_wish(box, Action.STOP)
    box.resting = False
    mend(world)

    async def run() -> None:
        await world.orders.take_up(["b", "c"])
        await world.drive()

    asyncio.run(run())
    assert world.restarted == ["a", "b", "c"], "a was not started again"
    assert box.down
    assert world.fallen.down(box) is None
    fall = world.fallen.of(box)
    assert when == "before it is noted" or (fall is not None and bool(fall.stopped))
    world.fallen.tidy([box], [])
    assert not box.resting, "it does not start when the host boots either"
    world.orders.note_wish(box, Action.START)
    assert when == "before it is noted" or world.fallen.down(box) is not None


@pytest.mark.parametrize(
    ("ending", "status", "ended"), [(Ending(37 << 8), 37, "exit status 37"), (None, None, endings.NOT_KNOWN)]
)
def test_a_halt_has_the_exit_status_of_its_container(
    tmp_path: Path, ending: Ending | None, status: int | None, ended: str
) -> None:
    world = bad_patch(tmp_path)
    world.ending = ending

    async def run() -> None:
        await world.orders.take_up([])
        await world.drive()

    asyncio.run(run())
    assert world.ledger.active is not None
    halt = world.ledger.active.halted
    assert halt is not None
    assert (halt.exit_status, halt.ended) == (status, ended)
    assert f"process 1: {ended}" in causes.in_words(halt)


@pytest.mark.parametrize("remembered", [True, False])
def test_a_container_that_broke_with_the_patch_is_waited_for_and_halts(tmp_path: Path, remembered: bool) -> None:
    """Its checks fail with new programs beside old libraries, and go on failing after the restart."""
    world = World(tmp_path, "a", "b")
    boxes = cast(Any, list(world.boxes.values()))
    if remembered:
        world.before.note(boxes, lambda _: Health.HEALTHY)
    for box in boxes:
        box.health = Health.UNHEALTHY

    async def run() -> None:
        await world.orders.take_up(["a", "b"])
        await world.drive()

    asyncio.run(run())
    assert world.ledger.last is not None
    assert world.ledger.last.status is (Status.HALTED if remembered else Status.DONE)
    assert world.restarted == (["a"] if remembered else ["a", "b"])


def test_a_full_disk_has_time_to_be_mended_before_the_attempts_are_used_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(proc, "uptime", lambda: clock.now)
    world = World(tmp_path, "a")
    world.failing = 2

    async def run() -> list[int]:
        await world.orders.take_up(["a"])
        task = asyncio.create_task(world.driver.run())
        tries = []
        for number in range(1, 4):
            async with asyncio.timeout(60):
                while len(world.restarted) < number:
                    await asyncio.sleep(0.01)
            for _ in range(20):
                await asyncio.sleep(0.01)  # longer than three attempts take
            tries.append(len(world.restarted))
            clock.now += 30.0
        async with asyncio.timeout(60):
            while world.ledger.active is not None:
                await asyncio.sleep(0.01)
        task.cancel()
        return tries

    monkeypatch.setattr("lxcfleet.patch.rollout.planner.LOOK_SECONDS", 0.01)
    assert asyncio.run(run()) == [1, 2, 3]
    assert world.ledger.last is not None
    assert world.ledger.last.status is Status.DONE


# -- tests of a group --------------------------------------------------------------------------------------------------

SMOKE = RolloutTest("smoke", ("/bin/check",), passes=2)


def having(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *tests: RolloutTest) -> World:
    """Three containers with these tests."""
    monkeypatch.setattr(testing, "PAUSE_SECONDS", 0.01)
    world = World(tmp_path, "a", "b", "c")
    world.fleet.config.profiles = {"": Profile(rollout=ProfileRollout(tests=tests))}
    return world


def roll(world: World) -> Rollout:
    """Restart all of them."""

    async def run() -> None:
        await world.orders.begin(RolloutRequest(RolloutKind.RESTART, Selection(everything=True)))
        await world.drive()

    asyncio.run(run())
    assert world.ledger.last is not None
    return world.ledger.last


def test_tests_are_run_before_each_restart_and_after_it_as_often_as_they_have_to_be_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = having(tmp_path, monkeypatch, SMOKE)
    rollout = roll(world)
    assert (rollout.status, world.restarted) == (Status.DONE, ["a", "b", "c"])
    assert world.tried == [(name, number, "smoke") for name in "abc" for number in (1, 2, 2)]
    assert [(each.passed, each.verdict) for each in rollout.members["c"].trials] == [(2, Verdict.GOOD)]


def test_a_test_that_fails_after_the_restart_alone_halts_at_the_canary_and_tells_its_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = having(tmp_path, monkeypatch, SMOKE)
    world.verdicts["a", "smoke", True] = [Verdict.BAD]
    rollout = roll(world)
    assert (rollout.status, world.restarted) == (Status.HALTED, ["a"])
    assert rollout.halted is not None
    assert rollout.halted.why == "its test smoke was bad 10 s after its start: its last line"


def test_a_test_that_is_not_known_is_not_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = having(tmp_path, monkeypatch, SMOKE)
    world.verdicts["a", "smoke", True] = [Verdict.UNKNOWN]
    rollout = roll(world)
    assert rollout.halted is not None
    assert rollout.halted.why == "its test smoke was not known 10 s after its start: its last line"


def test_what_failed_before_does_not_halt_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = having(tmp_path, monkeypatch, SMOKE, RolloutTest("other", ("/bin/other",)))
    world.verdicts["b", "smoke", False] = world.verdicts["b", "smoke", True] = [Verdict.BAD]
    rollout = roll(world)
    assert rollout.status is Status.DONE
    assert rollout.members["b"].note == "failing before: smoke (bad: its last line)"
    assert rollout.members["a"].note == ""


def test_an_optional_test_is_told_and_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = having(tmp_path, monkeypatch, RolloutTest("extra", ("/bin/extra",), passes=5, required=False))
    world.verdicts["a", "extra", True] = [Verdict.BAD]
    rollout = roll(world)
    assert rollout.status is Status.DONE
    assert [each.verdict for each in rollout.members["a"].trials] == [Verdict.BAD]
    assert world.tried.count(("a", 2, "extra")) == 1


def test_one_good_run_between_bad_ones_is_none_in_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = having(tmp_path, monkeypatch, SMOKE)
    good, bad = Verdict.GOOD, Verdict.BAD
    world.boxes["a"].age = 1.0
    world.verdicts["a", "smoke", True] = [bad, good, bad, good, good]
    assert roll(world).status is Status.DONE
    assert world.tried.count(("a", 2, "smoke")) == 5


def test_a_daemon_that_is_killed_runs_the_tests_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first daemon restarted the canary, and was killed before its tests were good."""
    world = having(tmp_path, monkeypatch, SMOKE)
    world.boxes["a"].age = 1.0
    world.verdicts["a", "smoke", True] = [Verdict.UNKNOWN]

    async def until_it_tests() -> None:
        await world.orders.begin(RolloutRequest(RolloutKind.RESTART, Selection(everything=True)))
        task = asyncio.create_task(world.driver.run())
        async with asyncio.timeout(60):
            while ("a", 2, "smoke") not in world.tried:
                await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(until_it_tests())
    world.make()
    world.verdicts.clear()
    asyncio.run(world.drive())
    assert world.ledger.last is not None
    assert (world.ledger.last.status, world.restarted) == (Status.DONE, ["a", "b", "c"])
    assert world.ledger.last.members["a"].excused == {}


def test_after_a_patch_only_what_the_last_rollout_left_bad_is_excused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A running container sees some of the new files already, so its test may fail because of the patch."""
    world = having(tmp_path, monkeypatch, SMOKE)

    async def patch() -> None:
        for box in world.boxes.values():
            box.old = True
        await world.orders.take_up(["a", "b", "c"])
        await world.drive()

    world.verdicts["a", "smoke", False] = world.verdicts["a", "smoke", True] = [Verdict.BAD]
    asyncio.run(patch())
    assert world.ledger.last is not None
    assert (world.ledger.last.status, world.restarted) == (Status.HALTED, ["a"])
    assert world.tried[0] == ("a", 2, "smoke"), "nothing was tried before"
    world.orders.abort()
    assert roll(world).members["a"].note == "failing before: smoke (bad: its last line)"
    world.make()  # the note outlives the daemon
    asyncio.run(patch())
    assert world.ledger.last.status is Status.DONE
    assert world.ledger.last.members["a"].note == "failing before: smoke (bad: its last line)"


def test_a_test_that_fails_while_the_canary_is_baked_halts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baking, "seconds_between_tests", lambda *_: 0.02)
    world = having(tmp_path, monkeypatch, SMOKE)
    world.fleet.config.rollout = replace(POLICY, canaries=Share(1), bake=600.0)
    world.verdicts["a", "smoke", True] = [Verdict.GOOD] * 5 + [Verdict.BAD]
    rollout = roll(world)
    assert (rollout.status, world.restarted) == (Status.HALTED, ["a"])
    assert rollout.halted is not None
    assert rollout.halted.why == "its test smoke was bad 100 s after its start: its last line"
    assert world.tried.count(("a", 2, "smoke")) >= 6
