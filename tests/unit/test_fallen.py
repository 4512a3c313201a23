"""A container that a patch took down waits, and one that is to run by a later wish does not: this is told apart on disk, for
the next daemon."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from lxcfleet.containers import owed
from lxcfleet.containers.desired import Intent
from lxcfleet.containers.reconciling import plan
from lxcfleet.containers.restarts import RestartCourse
from lxcfleet.host.kernel import tree
from lxcfleet.patch.fallen import Fallen
from lxcfleet.spec.states import Action

from .one_container import OneContainer

MOMENT = "2026-01-01T00:00:00Z"
DUE = RestartCourse(1, due=1.0)


class World(OneContainer):
    """A container, ``web``, that does not run, and that a patch may take down."""

    def begin(self, course: RestartCourse = DUE) -> None:
        """A daemon begins: it knows what is on disk."""
        super().begin(course)
        owed.recall(self.paths, self.registry)
        self.fallen = Fallen(self.paths)
        self.fallen.rest(self.registry)

    def want(self, intent: Intent | None = Intent.RUN) -> None:
        self.lifecycle.note("web", intent, must=True)

    def fall(self) -> None:
        """A patch takes it down."""
        self.fallen.note(self.container, "its start failed", MOMENT)
        assert self.container.resting

    def act(self, action: Action) -> list[str]:
        """Do the first step of an action, in which the daemon is killed then; gives the names of all its steps."""
        steps = self.reconciler.plan(self.container, plan.WANTED[action])
        first: Any = steps[0]
        if hasattr(first, "intent"):
            self.lifecycle.note("web", first.intent, must=first.must)
        return [step.name for step in steps]

    @property
    def rests(self) -> bool:
        """Whether it waits for the host's boot, or the next patch."""
        assert (self.container.course.due is None) is self.container.resting
        return self.container.resting


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_what_was_to_run_before_a_patch_took_it_down_rests(world: World) -> None:
    world.want()
    world.fall()
    for _ in range(2):
        world.begin()
        assert world.rests
        assert world.registry.noted(world.container) is Intent.RUN, "what it may lack can still come"


@pytest.mark.parametrize("before", [None, Intent.RUN])
def test_what_is_to_run_since_a_patch_took_it_down_does_not_rest(world: World, before: Intent | None) -> None:
    """The host booted, or it was started again and is restarted: then the daemon was killed. It stayed down."""
    world.want(before)
    world.fall()
    world.want()
    world.begin()
    assert not world.rests
    assert [step.name for step in world.reconciler.owed(world.container)] == ["mount", "boot", "settle"]


@pytest.mark.parametrize("before", [None, Intent.RUN])
def test_a_start_of_what_a_patch_took_down_is_finished_by_the_next_daemon(world: World, before: Intent | None) -> None:
    world.want(before)
    world.fall()
    world.begin()
    assert world.act(Action.START) == ["want", "mount", "boot", "settle"]
    world.begin()
    assert not world.rests
    assert world.registry.noted(world.container) is Intent.RUN


def test_a_stop_of_what_a_patch_took_down_forgets_that_it_was_to_run(world: World) -> None:
    world.want()
    world.fall()
    assert world.act(Action.STOP) == ["settle"]


@pytest.mark.parametrize("seconds", [-3600, 0, 3600])
def test_a_clock_that_was_set_changes_nothing(world: World, seconds: int) -> None:
    def shift(file: Path) -> None:
        moment = file.stat().st_mtime_ns + seconds * 10**9
        os.utime(file, ns=(moment, moment))

    world.want()
    shift(world.own.pending)
    world.fall()
    world.begin()
    assert world.rests
    world.want()
    shift(world.own.pending)
    world.begin()
    assert not world.rests


def test_a_stop_and_a_start_that_are_noted_beside_the_fall_leave_that_as_it_is(world: World) -> None:
    world.want()
    world.fall()
    world.fallen.mark(world.container, MOMENT)
    world.begin()
    assert not world.container.resting, "it stays down, also when the host boots"
    world.fallen.mark(world.container, "")
    world.begin()
    assert world.rests
    world.want()
    world.fallen.mark(world.container, MOMENT)
    world.fallen.mark(world.container, "")  # a start that is blocked is noted here after it was noted as to run
    world.begin()
    assert not world.rests


def test_a_second_fall_is_later_than_the_wish_before_it(world: World) -> None:
    world.fall()
    world.want()
    world.fall()
    world.begin()
    assert world.rests


def test_a_note_of_an_earlier_version_keeps_no_start_from_being_finished(world: World) -> None:
    world.own.fallen.write_text('{"since": "", "why": "x"}')
    world.begin()
    assert world.rests
    world.want()
    world.begin()
    assert not world.rests


def test_what_was_to_run_before_a_note_of_an_earlier_version_rests(world: World) -> None:
    """Such a note does not say which wish it found. Before, that was taken for a later one, and what a patch took down was
    started."""
    world.want()
    os.utime(world.own.pending, (1, 1))
    world.own.fallen.write_text('{"since": "", "why": "x"}')
    world.begin()
    assert world.rests
    world.fallen.mark(world.container, MOMENT)
    world.fallen.mark(world.container, "")
    world.begin()
    assert world.rests
    world.want()
    world.begin()
    assert not world.rests


@pytest.mark.parametrize("since", [False, True])
def test_a_wish_that_the_disk_took_no_note_of_is_told_apart_by_the_next_daemon(
    world: World, monkeypatch: pytest.MonkeyPatch, since: bool
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tree, "write_first", full)
    world.reconciler.want(world.container, Intent.RUN, must=False)
    world.fall()
    if since:
        world.reconciler.want(world.container, Intent.RUN, must=False)
    for _ in range(2):
        world.begin()
        assert world.rests is not since


def test_what_is_to_run_since_is_not_put_to_rest_while_it_waits_for_its_turn(world: World) -> None:
    """Else a start after the host's boot that failed was not tried again."""
    world.want()
    world.fall()
    world.container.resting = False
    world.fallen.tidy(world.registry, [])
    assert world.container.resting
    world.want()
    world.container.resting = False
    world.fallen.tidy(world.registry, [])
    assert not world.container.resting


def test_a_wish_that_the_disk_has_no_room_for_is_told_apart_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(tree, "write_first", full)
        world.reconciler.want(world.container, Intent.RUN, must=False)
    world.fall()
    world.reconciler.settle_again()
    assert not world.own.pending.exists(), "written now, it would look as if it were wanted since"
    world.container.resting = False  # as it is to run when the host boots
    world.fallen.tidy(world.registry, [])
    assert not world.container.resting
    world.reconciler.settle_again()
    world.begin()
    assert not world.rests
