"""The planner: the steps of each action, and a good end after a crash at any of them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxcfleet.containers.container import Container
from lxcfleet.containers.desired import NOTHING, Desired, Intent, Lack, Observed
from lxcfleet.containers.reconciling.holding import Hold
from lxcfleet.containers.reconciling.plan import WANTED, Steps, change, create, plan, recover
from lxcfleet.containers.reconciling.steps import (
    Boot,
    Check,
    Halt,
    Leave,
    Make,
    Mount,
    PutInForce,
    Remove,
    Retire,
    Settle,
    Step,
    Thaw,
    Want,
    Work,
    Write,
    describe,
)
from lxcfleet.errors import FleetError, HostError, NotStarted
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading.terms import Init
from lxcfleet.spec.states import Action

SPEC = Spec("web", Init.APP, ("true",), first_id=1879048192, created="2026-01-01T00:00:00Z")
LIVE = replace(SPEC, memory=1 << 29, labels={"tier": "front"})
BOTH = replace(LIVE, command=("sleep", "1"))
STOPPED = Observed(exists=True)
RUNNING = Observed(exists=True, running=True)
FROZEN = Observed(exists=True, running=True, frozen=True)
OWED = Observed(exists=True, noted=Intent.RUN)
STOPPING = Observed(exists=True, running=True, noted=Intent.STOPPED)
LEAVING = Observed(exists=True, running=True, noted=Intent.GONE)
BEGINNINGS = (STOPPED, RUNNING, FROZEN, OWED, STOPPING, LEAVING)


def steps(action: Action, now: Observed) -> Steps:
    return plan(WANTED[action], now)


def play(some: Steps, now: Observed) -> Observed:
    for step in some:
        now = step.after(now)
    return now


def halfway(step: Step, now: Observed) -> Observed:
    """The state after a crash in the middle of ``step``, if it is neither the one before nor the one after."""
    return replace(now, half_made=True) if isinstance(step, Make) else now


def crashes(some: Steps, now: Observed) -> list[Observed]:
    """The states that a crash can leave: before, in the middle of and after each step."""
    found = [now]
    for step in some:
        found.append(halfway(step, now))
        now = step.after(now)
        found.append(now)
    return found


def recovered(now: Observed) -> Observed:
    return play(recover(now), now)


def same(one: Observed, other: Observed) -> bool:
    """Whether both are the same for the user: the noted intent counts as fulfilled."""
    return (one.exists, one.running) == (other.exists, other.running)


def clean(now: Observed) -> bool:
    return now.noted is None and not now.half_made and not now.half_removed


TARGETS = {
    Action.START: Observed(exists=True, running=True),
    Action.STOP: Observed(exists=True),
    Action.RESTART: Observed(exists=True, running=True),
    Action.DESTROY: Observed(exists=False),
}


@pytest.mark.parametrize(("action", "begin"), itertools.product(TARGETS, BEGINNINGS))
def test_an_action_reaches_its_target(action: Action, begin: Observed) -> None:
    end = play(steps(action, begin), begin)
    assert same(end, TARGETS[action])
    assert clean(end)


@pytest.mark.parametrize(("action", "begin"), itertools.product(TARGETS, BEGINNINGS))
def test_a_crash_at_any_step_ends_as_it_was_or_as_it_was_to_become(action: Action, begin: Observed) -> None:
    # An intent that was owed before counts as fulfilled, as the daemon would have fulfilled it.
    was = recovered(begin)
    for left in crashes(steps(action, begin), begin):
        end = recovered(left)
        assert clean(end), f"{left} recovers to {end}"
        assert same(end, was) or same(end, TARGETS[action]), f"{left} recovers to {end}"


LACK = Lack("db not healthy")


@pytest.mark.parametrize("begin", [STOPPED, OWED, replace(STOPPED, noted=Intent.STOPPED)])
def test_a_start_that_lacks_something_is_noted_and_waits(begin: Observed) -> None:
    begin = replace(begin, lack=LACK)
    for left in crashes(steps(Action.START, begin), begin):
        again = recover(left)
        assert Boot() not in again
        assert play(again, left).noted in (begin.noted, None, Intent.RUN)
    waiting = play(steps(Action.START, begin), begin)
    assert (waiting.running, waiting.noted) == (False, Intent.RUN)
    assert steps(Action.START, waiting) == recover(waiting) == (Hold(LACK),)
    assert describe("web", steps(Action.START, waiting)) == ["web: wait with its start: db not healthy"]
    assert play(recover(replace(waiting, lack=None)), waiting).running
    assert play(steps(Action.STOP, waiting), waiting) == replace(waiting, noted=None)


def test_what_runs_goes_on_whatever_is_lacking() -> None:
    for action in (Action.START, Action.STOP, Action.DESTROY, Action.FREEZE):
        assert steps(action, replace(RUNNING, lack=LACK)) == steps(action, RUNNING)


def test_a_container_is_made_as_one_that_is_to_run_and_waits() -> None:
    made = create(True, LACK)
    assert play(made, NOTHING).noted is Intent.RUN
    for left in crashes(made, NOTHING):
        end = recovered(replace(left, lack=LACK))
        assert end.noted is Intent.RUN or not end.exists
        assert not end.running
    assert create(False, LACK) == create(False)


@pytest.mark.parametrize("start", [True, False])
def test_a_crash_while_creating_ends_with_nothing_or_all(start: bool) -> None:
    target = Observed(exists=True, running=start)
    for left in crashes(create(start), NOTHING):
        end = recovered(left)
        assert clean(end)
        assert same(end, NOTHING) or same(end, target)


@pytest.mark.parametrize(("action", "begin"), itertools.product(TARGETS, BEGINNINGS))
def test_a_second_crash_during_recovery_ends_well_too(action: Action, begin: Observed) -> None:
    was = recovered(begin)
    for left in crashes(steps(action, begin), begin):
        for again in crashes(recover(left), left):
            end = recovered(again)
            assert clean(end)
            assert same(end, was) or same(end, TARGETS[action])


def test_a_running_container_is_stopped_before_its_name_goes() -> None:
    assert steps(Action.DESTROY, FROZEN) == (Want(Intent.GONE), Thaw(), Leave(), Halt(), Retire(), Remove())


@pytest.mark.parametrize("begin", [RUNNING, FROZEN])
def test_a_restart_looks_before_it_stops(begin: Observed) -> None:
    """Before, a wrong rule in mask.d stopped a container for a start that could only fail."""
    some = steps(Action.RESTART, begin)
    assert some[0] == Check()
    hands, begun = carried_out(some, begin, 1)
    assert begun == [Check()]
    assert (hands.now, hands.found) == (begin, True)


def test_the_delta_is_removed_by_nothing_but_destroy_and_the_undoing_of_create() -> None:
    others = [action for action in Action if action is not Action.DESTROY]
    for action, begin in itertools.product(others, BEGINNINGS):
        assert not {Retire(), Remove()} & {*steps(action, begin)}
    for noted, running in itertools.product((None, Intent.RUN, Intent.STOPPED), (True, False)):
        assert Retire() not in recover(Observed(exists=True, running=running, noted=noted))
    assert Retire() in recover(Observed(exists=True, noted=Intent.GONE))


@pytest.mark.parametrize(
    ("text", "intent"),
    [
        ("start\n", Intent.RUN), ("destroy\n", Intent.GONE), ("stop\n", Intent.STOPPED),
        ("", None), ("\n", None), ("nonsense", Intent.RUN),
    ],
)  # fmt: skip
def test_words_of_former_versions_and_of_the_hook_are_understood(text: str, intent: Intent | None) -> None:
    assert Intent.read(text) is intent


def test_a_container_in_the_desired_state_needs_no_step() -> None:
    assert steps(Action.START, RUNNING) == ()
    assert steps(Action.START, FROZEN) == (Thaw(),)  # a start means that the container is to run
    assert steps(Action.STOP, STOPPED) == ()
    assert steps(Action.FREEZE, FROZEN) == ()
    assert steps(Action.UNFREEZE, RUNNING) == ()
    assert recover(RUNNING) == ()
    assert describe("web", ()) == ["web: nothing to do"]


def test_a_stop_until_the_next_boot_leaves_no_note() -> None:
    resting = Desired(Intent.STOPPED, lasting=False)
    assert plan(resting, RUNNING) == (Leave(), Halt())
    assert plan(resting, OWED) == (Settle(),)


def test_stop_takes_back_a_start_that_is_owed() -> None:
    assert steps(Action.STOP, OWED) == (Settle(),)


def test_only_a_restart_needs_its_note() -> None:
    """A full disk must keep nobody from starting or stopping a container."""
    must = {action: [step.must for step in steps(action, RUNNING) if isinstance(step, Want)] for action in TARGETS}
    assert must == {Action.START: [], Action.STOP: [False], Action.RESTART: [True], Action.DESTROY: [True]}
    assert Want(Intent.RUN, must=False) in steps(Action.START, STOPPED)


# -- failures ------------------------------------------------------------------------------------------------------


class ModelHands:
    """Does steps to an Observed. ``fails``: the number of the call that fails, before it has any effect."""

    def __init__(self, now: Observed, fails: int) -> None:
        self.now = now
        self.was = now.spec or SPEC
        self.found = now.running
        self._left = fails

    def _act(self, now: Observed) -> None:
        self._left -= 1
        if self._left == 0:
            raise HostError("as it may happen")
        self.now = now

    async def prepare(self, container: Container, *, make: bool, mount: bool) -> int | None:
        self._act(Make(mount).after(self.now) if make else self.now)
        return os.open("/", os.O_RDONLY) if mount else None

    async def check(self, container: Container) -> None:
        self._act(self.now)

    async def unmake(self, container: Container) -> None:
        self.now = NOTHING

    def note(self, name: str, intent: Intent | None, *, must: bool) -> None:
        self._act(replace(self.now, noted=intent))

    def write(self, container: Container, spec: Spec) -> None:
        self._act(Write(spec, self.was).after(self.now))

    def put_back(self, container: Container, former: Spec) -> None:
        self.now = replace(self.now, spec=former, in_force=self.now.in_force if self.now.running else former)

    async def put_in_force(self, container: Container, spec: Spec) -> None:
        self._act(replace(self.now, in_force=spec))

    def hold(self, container: Container, lack: Lack) -> None:
        self._act(self.now)

    async def freeze(self, container: Container) -> None:
        self._act(replace(self.now, frozen=True))

    async def thaw(self, container: Container) -> None:
        self._act(replace(self.now, frozen=False))

    async def leave(self, container: Container, drain: float | None) -> None:
        self.found = False
        self._act(self.now)

    def come_back(self, container: Container) -> None:
        self.found = self.now.running

    async def halt(self, container: Container, timeout: float) -> None:
        self._act(Halt().after(self.now))

    async def boot(self, container: Container, namespace: int) -> None:
        os.close(namespace)
        self._act(replace(self.now, running=True))

    def retire(self, name: str) -> None:
        self._act(Retire().after(self.now))

    async def remove_leftovers(self, name: str) -> None:
        self._act(Remove().after(self.now))


def carried_out(some: Steps, begin: Observed, fails: int) -> tuple[ModelHands, list[Step]]:
    """The state and the steps that began, if call number ``fails`` fails."""
    hands, begun = ModelHands(begin, fails), []
    container = Container("web", None, running=cast(Any, object()) if begin.running else None)
    with contextlib.suppress(FleetError):
        asyncio.run(Work(hands, hands, container).carry_out(some, [lambda _, step: begun.append(step)]))
    return hands, begun


@pytest.mark.parametrize("made", [True, False])
def test_a_hint_to_the_logs_of_a_container_is_given_while_it_has_them(made: bool) -> None:
    class Refused(ModelHands):
        async def boot(self, container: Container, namespace: int) -> None:
            os.close(namespace)
            raise NotStarted("web did not start", hint="see /var/lib/lxc/web/lxc.log")

    begin = NOTHING if made else STOPPED
    hands = Refused(begin, 0)
    some = create(True) if made else steps(Action.START, begin)
    with pytest.raises(HostError) as caught:
        asyncio.run(Work(hands, hands, Container("web", None)).carry_out(some))
    assert ("--no-start" in caught.value.hint, "lxc.log" in caught.value.hint) == (made, not made)


@pytest.mark.parametrize("made", [True, False])
def test_what_ran_is_not_undone_if_nobody_can_be_led_to_it(made: bool) -> None:
    """Its init may have written to its delta. A container was removed that had ended by then."""

    class Unfound(ModelHands):
        def come_back(self, container: Container) -> None:
            raise HostError("lf1: the bridge's port can't be set up")

    hands = Unfound(NOTHING if made else STOPPED, 0)
    some = create(True) if made else steps(Action.START, STOPPED)
    with pytest.raises(HostError, match="port"):
        asyncio.run(Work(hands, hands, Container("web", None)).carry_out(some))
    assert hands.now.exists
    assert hands.now.running
    assert hands.now.noted is Intent.RUN


ACTS = st.sampled_from([*TARGETS])


@given(ACTS, st.sampled_from(BEGINNINGS), st.integers(1, 8))
def test_a_failure_before_the_point_of_no_return_is_undone(action: Action, begin: Observed, fails: int) -> None:
    hands, begun = carried_out(steps(action, begin), begin, fails)
    if begun and not {Halt(), Retire(), Settle()} & {*begun} and len(begun) >= fails:
        assert hands.now == begin
        assert hands.found == begin.running
    end = recovered(hands.now)
    assert same(end, recovered(begin)) or same(end, TARGETS[action])


@given(ACTS, st.sampled_from([None, *BEGINNINGS]), st.integers(1, 9))
def test_what_a_failed_step_leaves_down_is_as_somebody_wanted_it_or_a_start_is_owed(
    action: Action, begin: Observed | None, fails: int
) -> None:
    """Whatever step failed: what was to run before, or is to run now, is either up, or noted as to be started."""
    now = begin or OWED
    some = recover(now) if begin is None else steps(action, now)
    hands, _ = carried_out(some, now, fails)
    left = hands.now
    if begin is None or (action is Action.RESTART and begin.running):
        assert left.running or left.start_is_owed, f"{begin} {action} {left}"
    if left.start_is_owed:
        assert action in (Action.START, Action.RESTART) or now.start_is_owed
        assert recovered(left).running


@given(st.booleans(), st.integers(1, 6))
def test_a_creation_that_fails_leaves_nothing_or_a_running_container(start: bool, fails: int) -> None:
    hands, begun = carried_out(create(start), NOTHING, fails)
    assert hands.now == NOTHING or hands.now.running or len(begun) == len(create(start))
    if Mount() in begun and not hands.now.running:
        assert hands.now == NOTHING


# -- changes of the spec -------------------------------------------------------------------------------------------

HAS = Observed(exists=True, running=True, spec=SPEC, in_force=SPEC)


def test_a_change_is_on_disk_before_it_is_in_force_and_keys_that_need_a_restart_wait() -> None:
    assert change(LIVE, HAS) == (Write(LIVE, SPEC), PutInForce(LIVE, SPEC))
    assert change(BOTH, HAS) == (Write(BOTH, SPEC), PutInForce(LIVE, SPEC))
    assert change(replace(SPEC, command=("sleep", "1")), HAS) == (Write(replace(SPEC, command=("sleep", "1")), SPEC),)
    assert change(BOTH, replace(HAS, running=False)) == (Write(BOTH, SPEC),)
    assert change(SPEC, HAS) == ()
    assert change(LIVE, replace(HAS, spec=LIVE)) == (PutInForce(LIVE, SPEC),)  # an earlier change ended in the middle
    assert describe("web", change(BOTH, HAS)) == [
        "web: write its spec: command, labels, memory",
        "web: change while it runs: labels, memory",
    ]


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("wanted", [LIVE, BOTH])
def test_a_crash_while_a_spec_changes_ends_with_the_former_one_or_all_of_the_new_one(wanted: Spec, running: bool) -> None:
    begin = replace(HAS, running=running)
    for left in crashes(change(wanted, begin), begin):
        end = recovered(left)
        assert end.spec in (SPEC, wanted)
        assert end.running == running
        if running:
            assert end.in_force == (SPEC if end.spec == SPEC else LIVE)
            assert recover(end) == ()
        again = play(plan(WANTED[Action.RESTART], end), end)
        assert again.in_force == again.spec  # a restart has all of it


def test_a_change_that_fails_leaves_the_former_spec_on_disk_and_in_force() -> None:
    for fails in (1, 2):
        hands, _ = carried_out(change(BOTH, HAS), HAS, fails)
        assert (hands.now.spec, hands.now.in_force) == (SPEC, SPEC)
