"""The planner: what each action comes to, and that a crash at any step ends well."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from lxcfleet.containers.plan import (
    DESTROY,
    NOTHING,
    START,
    Situation,
    Step,
    after,
    create,
    describe,
    plan,
    recover,
    undo_create,
)
from lxcfleet.spec.states import Action

STOPPED = Situation(exists=True)
RUNNING = Situation(exists=True, running=True)
FROZEN = Situation(exists=True, running=True, frozen=True)
OWED = Situation(exists=True, pending=START)
BEGINNINGS = (STOPPED, RUNNING, FROZEN, OWED)


def play(steps: tuple[Step, ...], now: Situation, *, start: bool = True) -> Situation:
    for step in steps:
        now = after(step, now, start=start)
    return now


def halfway(step: Step, now: Situation) -> Situation:
    """What a crash in the middle of ``step`` leaves, where that is neither before nor after it."""
    match step:
        case Step.MAKE:
            return replace(now, half_made=True)
        case _:
            return now


def crashes(steps: tuple[Step, ...], now: Situation, *, start: bool = True) -> list[Situation]:
    """All situations that a crash can leave: before, in the middle of and after each step."""
    found = [now]
    for step in steps:
        found.append(halfway(step, now))
        now = after(step, now, start=start)
        found.append(now)
    return found


def recovered(now: Situation) -> Situation:
    return play(recover(now), now)


def same(one: Situation, other: Situation) -> bool:
    """Whether the user can't tell them apart: what is owed has been given in both."""
    return (one.exists, one.running) == (other.exists, other.running)


def clean(now: Situation) -> bool:
    return now.pending is None and not now.half_made and not now.half_removed


TARGETS = {
    Action.START: Situation(exists=True, running=True),
    Action.STOP: Situation(exists=True),
    Action.RESTART: Situation(exists=True, running=True),
    Action.DESTROY: Situation(exists=False),
}


@pytest.mark.parametrize(("action", "begin"), itertools.product(TARGETS, BEGINNINGS))
def test_an_action_reaches_its_target(action: Action, begin: Situation) -> None:
    end = play(plan(action, begin), begin)
    assert same(end, TARGETS[action])
    assert clean(end)


@pytest.mark.parametrize(("action", "begin"), itertools.product(TARGETS, BEGINNINGS))
def test_a_crash_at_any_step_ends_as_it_was_or_as_it_was_to_become(action: Action, begin: Situation) -> None:
    # What is owed before counts as given: that is what the daemon would have done.
    was = recovered(begin)
    for left in crashes(plan(action, begin), begin):
        end = recovered(left)
        assert clean(end), f"{left} recovers to {end}"
        assert same(end, was) or same(end, TARGETS[action]), f"{left} recovers to {end}"


@pytest.mark.parametrize("start", [True, False])
def test_a_crash_while_creating_ends_with_nothing_or_all(start: bool) -> None:
    target = Situation(exists=True, running=start)
    for left in crashes(create(start), NOTHING, start=start):
        end = recovered(left)
        assert clean(end)
        assert same(end, NOTHING) or same(end, target)


@pytest.mark.parametrize(("action", "begin"), itertools.product(TARGETS, BEGINNINGS))
def test_a_second_crash_during_recovery_ends_well_too(action: Action, begin: Situation) -> None:
    was = recovered(begin)
    for left in crashes(plan(action, begin), begin):
        for again in crashes(recover(left), left):
            end = recovered(again)
            assert clean(end)
            assert same(end, was) or same(end, TARGETS[action])


def test_a_running_container_is_stopped_before_its_name_goes() -> None:
    steps = plan(Action.DESTROY, FROZEN)
    assert steps == (Step.OWE_DESTROY, Step.THAW, Step.LEAVE, Step.HALT, Step.RETIRE, Step.REMOVE)


def test_the_delta_is_removed_by_nothing_but_destroy_and_the_undoing_of_create() -> None:
    others = [action for action in Action if action is not Action.DESTROY]
    for action, begin in itertools.product(others, BEGINNINGS):
        assert Step.RETIRE not in plan(action, begin)
        assert Step.REMOVE not in plan(action, begin)
    for pending, running in itertools.product((None, START, "nonsense"), (True, False)):
        assert Step.RETIRE not in recover(Situation(exists=True, running=running, pending=pending))
    assert Step.RETIRE in recover(Situation(exists=True, pending=DESTROY))


def test_what_is_as_asked_needs_no_step() -> None:
    assert plan(Action.START, RUNNING) == ()
    assert plan(Action.START, FROZEN) == (Step.THAW,)  # who starts it wants it to run
    assert plan(Action.STOP, STOPPED) == ()
    assert plan(Action.FREEZE, FROZEN) == ()
    assert plan(Action.UNFREEZE, RUNNING) == ()
    assert recover(RUNNING) == ()
    assert describe("web", ()) == ["web: nothing to do"]


def test_stop_takes_back_a_start_that_is_owed() -> None:
    assert plan(Action.STOP, OWED) == (Step.SETTLE,)


def test_a_creation_that_failed_is_undone() -> None:
    assert not play(undo_create(OWED), OWED).exists
    assert undo_create(NOTHING) == (Step.REMOVE,)
