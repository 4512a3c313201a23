"""What fails in its first run after a boot of the host that brought it a patch counts as taken down by the patch."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lxcfleet.base.merge import reconcile
from lxcfleet.containers import store
from lxcfleet.containers.desired import Intent
from lxcfleet.containers.exits import Exit
from lxcfleet.containers.restarts import FRESH, RestartCourse
from lxcfleet.host.kernel import tree
from lxcfleet.patch.booted import Booted
from lxcfleet.patch.fallen import Fallen
from lxcfleet.paths import Paths
from lxcfleet.spec.states import State

WELL = 60.0


def status_of(version: str) -> bytes:
    """dpkg's record with one package."""
    return f"Package: greet\nStatus: install ok installed\nArchitecture: all\nVersion: {version}\n\n".encode()


class Boxes(dict[str, Any]):
    """A registry of containers."""

    paths: Paths

    def noted(self, box: Any) -> Intent | None:
        return Intent.RUN if box.owed else store.noted(self.paths, box.name)


class World:
    """Containers that last started with version 1 of a package, of which the host has version 2; except ``same``."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths = Paths(lxc=directory / "lxc", run=directory / "run", etc=directory / "etc")
        self.boxes = {name: self._box(name) for name in ("a", "b", "same")}
        self.well: dict[str, float] = {}
        self.status = directory / "status"
        self.status.write_bytes(status_of("2"))
        monkeypatch.setattr(reconcile, "last_base", lambda _, name: "2" if name == "same" else "1")
        monkeypatch.setattr(
            reconcile, "file_at_last_start", lambda _, name, path: status_of("2" if name == "same" else "1")
        )
        self.paths.run.mkdir()
        self.fallen = Fallen(self.paths)
        self.booted = self.anew()

    def _box(self, name: str) -> Any:
        self.paths.container(name).directory.mkdir(parents=True)
        return SimpleNamespace(
            name=name, running=None, busy=None, exit=None, state=State.STOPPED, resting=False, foreground=None,
            wanted=SimpleNamespace(generation=0), course=FRESH, lack=None, unseen=False, backs_off=False, owed=False,
        )  # fmt: skip

    def anew(self) -> Booted:
        """As another daemon has it."""
        registry = Boxes(self.boxes)
        registry.paths = self.paths
        return Booted(self.paths, cast(Any, registry), self.fallen, lambda box: self.well.get(box.name, 0.0), self.status)

    def ends(self, name: str, *, asked: bool = False, later: float = 1.0) -> None:
        """The container ends with a failure."""
        self.boxes[name].running = None
        self.boxes[name].exit = Exit(at=time.time() + later, status=3 << 8, asked=asked)
        self.boxes[name].state = State.STOPPED if asked else State.FAILED

    def runs(self, name: str, pid: int, row: int = 0) -> None:
        """The container runs; ``row``: so often it had failed in a row before, and its policy started it again."""
        self.boxes[name].running = SimpleNamespace(identity=f"{pid}@1.00")
        self.boxes[name].state = State.RUNNING
        self.boxes[name].course = RestartCourse(row)

    def owed(self, *names: str) -> None:
        """Their starts are owed to them."""
        for name in names:
            self.paths.container(name).pending.write_text(Intent.RUN.value, encoding="ascii")

    def down(self) -> set[str]:
        """Those that a patch took down."""
        return {name for name, box in self.boxes.items() if self.fallen.down(box) is not None}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_what_fails_after_a_boot_with_other_packages_was_taken_down_by_them(world: World) -> None:
    world.booted.booting(world.boxes)
    world.ends("a")
    world.ends("same")
    world.anew().settle(WELL)  # whichever daemon sees it
    assert world.down() == {"a"}
    fall = world.fallen.of(world.boxes["a"])
    assert fall is not None
    assert "status 3" in fall.why
    assert "greet 1 -> 2" in fall.why


def test_an_end_from_before_the_boot_or_one_that_was_asked_for_is_no_fall(world: World) -> None:
    world.ends("a")
    world.owed("a")
    world.booted.booting(world.boxes)
    world.ends("b", asked=True)
    world.booted.settle(WELL)
    assert world.down() == set()


def test_a_clock_that_was_put_back_while_the_host_booted_hides_no_fall(world: World) -> None:
    world.ends("a", later=7200)  # before the boot
    world.ends("b", later=7200)
    world.owed("a")
    world.booted.booting(world.boxes)
    world.ends("b", later=-7200)
    world.booted.settle(WELL)
    assert world.down() == {"b"}


@pytest.mark.parametrize("again", [True, False])
def test_only_the_first_run_counts(world: World, again: bool) -> None:
    """The operator stopped one before it was well, or restarted it: weeks later it fails by itself."""
    world.owed(*world.boxes)
    world.booted.booting(world.boxes)
    world.booted.settle(WELL)
    world.runs("a", 1)
    world.runs("b", 2)
    world.booted.settle(WELL)
    world.ends("a", asked=True)
    if not again:
        world.anew().settle(WELL)
    world.runs("a", 3)
    world.boxes["b"].running.identity = "4@9.00"  # nobody heard of the end before that
    world.booted = world.anew()
    world.booted.settle(WELL)
    world.ends("a")
    world.ends("b")
    world.booted.settle(WELL)
    assert world.down() == set()


def test_what_is_not_owed_its_start_any_more_has_no_first_run(world: World) -> None:
    """The operator had it stay down, as it was about to be started; `lxcfleet run` is begun by its caller."""
    world.owed("b")
    world.booted.booting(world.boxes)
    world.boxes["b"].foreground = object()
    world.booted.settle(WELL)
    world.boxes["b"].foreground = None
    world.ends("a")
    world.ends("b")
    world.booted.settle(WELL)
    assert world.down() == set()


def test_what_is_run_in_the_foreground_is_no_matter_of_the_boot(world: World) -> None:
    world.boxes["a"].foreground = object()
    world.booted.booting(world.boxes)
    world.boxes["a"].foreground = None
    world.ends("a")
    world.booted.settle(WELL)
    assert world.down() == set()


def test_restarts_by_its_policy_belong_to_the_first_run_until_the_policy_gives_up(world: World) -> None:
    world.owed("a", "b")
    world.booted.booting(world.boxes)
    for turn in range(3):
        for name in ("a", "b"):
            world.runs(name, 10 + turn, row=turn if name == "a" else min(turn, 1))  # the second one ran for long in between
        world.booted.settle(WELL)
        world.booted.settle(WELL)
        for name in ("a", "b"):
            world.ends(name, later=turn)
            world.boxes[name].state, world.boxes[name].backs_off = State.BACKOFF, True
        world.booted.settle(WELL)
        assert world.down() == set()
        for name in ("a", "b"):
            world.boxes[name].backs_off = False
    for name in ("a", "b"):
        world.boxes[name].state = State.FAILED
    world.booted.settle(WELL)
    assert world.down() == {"a"}


def test_what_was_well_after_the_boot_and_fails_later_failed_by_itself(world: World) -> None:
    world.owed("a", "b")
    world.booted.booting(world.boxes)
    world.well["a"] = WELL
    world.booted.settle(WELL)
    world.ends("a")
    world.ends("b")
    world.booted.settle(WELL)
    assert world.down() == {"b"}


def test_a_full_disk_keeps_one_from_being_noted_and_no_other_from_being_proven(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def note(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    world.booted.booting(world.boxes)
    world.ends("a")
    world.well["b"] = WELL
    with monkeypatch.context() as patch:
        patch.setattr(world.fallen, "note", note)
        for _ in range(3):
            world.booted.settle(WELL)
    assert caplog.text.count("can't be noted") == 1
    world.well.clear()
    world.ends("b")
    world.anew().settle(WELL)
    assert world.down() == {"a"}  # as there is room again; the other one was well


def test_what_could_not_be_written_down_is_tried_again_and_told_once(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def write(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    world.booted.booting(world.boxes)
    world.well = {"a": WELL, "b": WELL}
    with monkeypatch.context() as patch:
        patch.setattr(tree, "write", write)
        for _ in range(3):
            world.booted.settle(WELL)
    assert caplog.text.count("can't be noted") == 1
    world.booted.settle(WELL)
    world.well.clear()
    world.ends("a")
    world.anew().settle(WELL)
    assert world.down() == set()


def test_without_a_boot_nothing_is_a_fall(world: World) -> None:
    world.ends("a")
    world.booted.settle(WELL)
    assert world.down() == set()


def test_a_damaged_note_is_none(world: World) -> None:
    world.paths.booted.write_text("{")
    world.ends("a")
    world.anew().settle(WELL)
    assert world.down() == set()


def test_what_is_on_a_generation_was_brought_nothing(world: World) -> None:
    """Its base is another one than the host's present root, at each boot."""
    world.boxes["a"].wanted.generation = 3
    world.boxes["b"].wanted = None  # its spec can't be read
    world.booted.booting(world.boxes)
    world.ends("a")
    world.ends("b")
    world.booted.settle(WELL)
    assert world.down() == set()
