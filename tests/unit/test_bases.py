"""The base of a start while dpkg is at work."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lxcfleet.base.generations import store
from lxcfleet.base.generations.record import Generation
from lxcfleet.containers.container import Container
from lxcfleet.containers.reconciling.bases import Bases, for_now
from lxcfleet.paths import Paths
from lxcfleet.spec.container.spec import Spec

SPEC = Spec(name="web1")
GENERATION = Generation(
    number=8, created="2026-01-01T00:00:00Z", why="before a patch", sheets=("s1",), files=1, bytes=1, linked=1, copied=0,
    packages="0" * 64, linked_foreign=0,
)  # fmt: skip


class World:
    """A host on which dpkg is at work or not."""

    def __init__(self, top: Path) -> None:
        self.paths = Paths(lxc=top / "lxc", run=top / "run", etc=top / "etc")
        self.paths.run.mkdir()
        self.paths.generations.mkdir(parents=True)
        store.save(self.paths, GENERATION)
        store.sheet(self.paths, "s1").mkdir(parents=True)
        self.busy = True
        self.asked = 0
        self.bases = self.daemon()

    def daemon(self) -> Bases:
        """The part, as a daemon makes it when it starts."""
        return Bases(self.paths, self._at_work)

    def _at_work(self) -> bool:
        self.asked += 1
        return self.busy


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_without_a_frozen_base_nobody_is_asked(world: World) -> None:
    assert world.bases.of(SPEC) == 0
    assert world.bases.of(Spec(name="web1", generation=3)) == 3
    assert world.asked == 0


def test_a_start_gets_the_frozen_base_as_long_as_dpkg_is_at_work(world: World) -> None:
    world.bases.note(8)
    assert world.bases.of(SPEC) == 8
    assert world.bases.of(Spec(name="web1", generation=3)) == 3, "that one stands where it was put"
    world.busy = False
    assert world.bases.of(SPEC) == 0
    world.busy = True  # dpkg comes back for the next part
    assert world.bases.of(SPEC) == 8


def test_a_daemon_that_starts_meanwhile_knows_it(world: World) -> None:
    world.bases.note(8)
    assert world.daemon().of(SPEC) == 8


def test_once_the_patch_was_dealt_with_it_holds_no_longer(world: World) -> None:
    world.paths.notice_done.write_text("1 1")
    world.bases.note(8)
    assert world.bases.of(SPEC) == 8
    world.paths.notice_done.write_text("1 2")
    assert world.bases.of(SPEC) == 0, "a dpkg that is at work now is another patch, before which nothing was frozen"
    assert not world.paths.patch_base.exists()
    assert world.daemon().of(SPEC) == 0


def test_a_generation_that_is_gone_is_not_used(world: World) -> None:
    world.bases.note(8)
    store.sheet(world.paths, "s1").rmdir()
    assert world.bases.of(SPEC) == 0
    store.sheet(world.paths, "s1").mkdir()
    assert world.bases.of(SPEC) == 8
    record = world.paths.generation_record(8)
    record.write_text("{")
    assert world.bases.of(SPEC) == 0
    record.unlink()
    assert world.bases.of(SPEC) == 0


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"generation": "x", "done": ""}', '{"generation": 8}'])
def test_a_note_that_was_damaged_counts_as_none(world: World, text: str) -> None:
    world.paths.patch_base.write_text(text)
    assert world.daemon().of(SPEC) == 0


def test_only_another_base_than_the_wanted_one_is_for_now() -> None:
    container = Container("web1", SPEC)
    assert for_now(container) == 0
    container.running = cast(Any, SimpleNamespace())
    container.spec, container.desired = Spec(name="web1", generation=8), SPEC
    assert for_now(container) == 8
    container.desired = Spec(name="web1", generation=9)
    assert for_now(container) == 0, "it was put there"
    container.spec, container.desired = SPEC, None
    assert for_now(container) == 0
