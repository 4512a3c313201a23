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
from lxcfleet.containers.exits import Exit
from lxcfleet.containers.restarts import FRESH
from lxcfleet.host.kernel import tree
from lxcfleet.patch.booted import Booted
from lxcfleet.patch.fallen import Fallen
from lxcfleet.paths import Paths
from lxcfleet.spec.states import State

WELL = 60.0


def status_of(version: str) -> bytes:
    """dpkg's record with one package."""
    return f"Package: greet\nStatus: install ok installed\nArchitecture: all\nVersion: {version}\n\n".encode()


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
            wanted=SimpleNamespace(generation=0), course=FRESH, lack=None, unseen=False, backs_off=False,
        )  # fmt: skip

    def anew(self) -> Booted:
        """As another daemon has it."""
        registry = cast(Any, self.boxes)
        return Booted(self.paths, registry, self.fallen, lambda box: self.well.get(box.name, 0.0), self.status)

    def ends(self, name: str, *, asked: bool = False, later: float = 1.0) -> None:
        """The container ends with a failure."""
        self.boxes[name].exit = Exit(at=time.time() + later, status=3 << 8, asked=asked)
        self.boxes[name].state = State.STOPPED if asked else State.FAILED

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
    world.booted.booting(world.boxes)
    world.ends("a", later=-60)
    world.ends("b", asked=True)
    world.booted.settle(WELL)
    assert world.down() == set()


def test_what_was_well_after_the_boot_and_fails_later_failed_by_itself(world: World) -> None:
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
