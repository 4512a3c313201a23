"""Canaries that stay under watch before others follow them: `rollout: {bake: 10m}`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lxcfleet.errors import InvalidInput
from lxcfleet.patch.rollout import baking, planner, state
from lxcfleet.patch.rollout.baking import CanaryFinding
from lxcfleet.patch.rollout.planner import Finish, Prove, RestartWave, Stop, Wait
from lxcfleet.patch.rollout.state import LiveState, Member, MemberPhase, Rollout, RolloutKind
from lxcfleet.patch.rollout.trial import Trial, Verdict
from lxcfleet.spec.policies.rollout import RolloutSettings, Share, overridden
from lxcfleet.spec.reading.durations import Duration
from lxcfleet.units import as_duration, parse_duration

BAKE = 600.0
POLICY = RolloutSettings(Share(50, percent=True), Share(1), 5.0, 120.0, ("*",), bake=BAKE)
NAMES = ("a", "b", "c")
OLD, NEW = "1@1.00", "2@2.00"


def begun(**policy: Any) -> Rollout:
    """The canary was just restarted."""
    members = {name: Member(name, OLD) for name in NAMES}
    plan = Rollout("r1", RolloutKind.RESTART, replace(POLICY, **policy), "now", members)
    chosen = planner.decide(plan, world(None))
    assert chosen == RestartWave(("a",))
    return planner.begin_wave(plan, ("a",))


def world(age: float | None, **more: Any) -> dict[str, LiveState]:
    """All are well; the canary runs anew since ``age`` seconds, if at all."""
    well = LiveState(OLD, healthy=True, healthy_for=1000.0, running_for=1000.0)
    seen = {name: well for name in NAMES}
    if age is not None:
        values: dict[str, Any] = {"healthy": True, "healthy_for": max(0.0, age - 2.0), "running_for": age, **more}
        seen["a"] = LiveState(NEW, **values)
    return seen


def look(plan: Rollout, seen: dict[str, LiveState]) -> tuple[Rollout, planner.Decision]:
    """One turn of a daemon that began just now: it knows what is written down, and nothing else."""
    plan = planner.settle(state.from_json(state.to_json(plan)), seen)
    return plan, planner.decide(plan, seen)


def test_the_next_wave_comes_after_the_time_and_the_look() -> None:
    plan = begun()
    told = []
    for age in (3.0, 8.0, 200.0, 560.0, 606.0):
        plan, decision = look(plan, world(age))
        assert isinstance(decision, Wait)
        told.append(decision.why)
    assert told == [
        "a: to be healthy for 5 s", "a: baking, 10 min left", "a: baking, 7 min left", "a: baking, 48 s left",
        "a: baking, 2 s left",
    ]  # fmt: skip
    plan, decision = look(plan, world(608.0))
    assert decision == Prove(("a",))
    plan = planner.note_proofs(plan, {"a": CanaryFinding()})
    assert look(plan, world(608.5))[1] == RestartWave(("b",))


def test_a_daemon_that_is_killed_goes_on_with_the_time_that_is_left() -> None:
    plan, _ = look(begun(), world(8.0))
    # The next daemon has not heard of the canary's health yet, and it is long past the deadline.
    plan, decision = look(plan, world(500.0, healthy=False, healthy_for=0.0, reason="starting"))
    assert isinstance(decision, Wait)
    assert plan.members["a"].phase is MemberPhase.GATED
    plan, decision = look(plan, world(501.0, healthy_for=1.0))
    assert isinstance(decision, Wait)
    assert decision.why == "a: baking, 2 min left"
    assert look(plan, world(608.0, healthy_for=100.0))[1] == Prove(("a",))


def test_without_the_setting_nothing_is_waited_for() -> None:
    plan, decision = look(begun(bake=0.0), world(8.0))
    assert decision == RestartWave(("b",))
    assert plan.members["a"].baked_from is None


def test_the_time_begins_once_its_tests_are_good() -> None:
    good, bad = Trial("login", passed=1, verdict=Verdict.GOOD), Trial("login", verdict=Verdict.BAD)
    plan, _ = look(begun(), world(8.0, trials=(Trial("login"),)))
    assert plan.members["a"].baked_from is None
    plan, _ = look(plan, world(20.0, trials=(good,)))
    assert plan.members["a"].baked_from == 20.0
    # A daemon that began just now has to run them again, and is not through before.
    plan, decision = look(plan, world(700.0, trials=(Trial("login"),)))
    assert isinstance(decision, Wait)
    assert look(plan, world(701.0, trials=(good,)))[1] == Prove(("a",))
    assert isinstance(look(plan, world(701.0, trials=(bad,)))[1], Stop)


def test_a_group_may_have_a_time_of_its_own() -> None:
    plan = begun()
    plan = plan.update(replace(plan.members["a"], bake=30.0))
    plan, _ = look(plan, world(8.0))
    assert look(plan, world(30.0))[1] == Wait(1.0, "a: baking, 8 s left")
    assert look(plan, world(38.0))[1] == Prove(("a",))
    assert look(begun().update(replace(begun().members["a"], bake=0.0)), world(8.0))[1] == RestartWave(("b",))


def test_only_canaries_are_baked() -> None:
    members = {name: Member(name, OLD) for name in NAMES}
    plan = Rollout("r1", RolloutKind.RESTART, replace(POLICY, canaries=Share(0)), "now", members)
    plan = planner.begin_wave(plan, ("a",))
    assert look(plan, world(8.0))[1] == RestartWave(("b",))


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        ({"healthy": False, "unhealthy": True, "reason": "status 503"},
         "it became unhealthy after it had been healthy for 92 s: status 503"),
        ({"identity": None}, "it ended after its restart"),
    ],
)  # fmt: skip
def test_a_canary_that_fails_meanwhile_halts(seen: dict[str, Any], why: str) -> None:
    plan, _ = look(begun(), world(8.0))
    live = world(100.0)
    live["a"] = replace(live["a"], **seen)
    plan, decision = look(plan, live)
    assert decision == Stop("a", why)
    assert not [m for m in plan.members.values() if m.name != "a" and m.wave is not None]


def test_old_code_that_runs_after_the_restart_halts_and_a_shadow_is_told() -> None:
    plan, _ = look(begun(), world(8.0))
    plan, decision = look(plan, world(610.0))
    assert decision == Prove(("a",))
    record: Any = {"old": [{"path": f"/usr/lib/{n}"} for n in range(5)], "reasons": ["3 of its processes run old code"]}
    after, decision = look(planner.note_proofs(plan, {"a": baking.proof_of(record)}), world(611.0))
    why = "though it was restarted, it has old files: /usr/lib/0, /usr/lib/1, /usr/lib/2 and 2 more"
    assert decision == Stop("a", why)
    record = {"old": [], "reasons": ["2 files in its delta keep the host's out"]}
    after, decision = look(planner.note_proofs(plan, {"a": baking.proof_of(record)}), world(611.0))
    assert decision == RestartWave(("b",))
    assert after.members["a"].note == "not proven: 2 files in its delta keep the host's out"


def test_the_time_begins_anew_for_a_canary_that_somebody_restarts() -> None:
    plan, _ = look(begun(), world(8.0))
    plan, decision = look(plan, world(6.0, healthy=False, healthy_for=0.0))
    assert isinstance(decision, Wait)
    plan, decision = look(plan, world(7.0, healthy_for=5.0))
    assert isinstance(decision, Wait)
    assert plan.members["a"].baked_from == 7.0
    assert look(plan, world(608.0))[1] == Prove(("a",))


def test_what_a_look_finds_too_late_is_dropped() -> None:
    plan, _ = look(begun(), world(8.0))
    ended, _ = look(plan, {name: now for name, now in world(8.0).items() if name != "a"})
    assert planner.note_proofs(ended, {"a": CanaryFinding(old="x"), "gone": CanaryFinding()}) == ended


def test_after_a_halt_the_time_begins_anew() -> None:
    plan, _ = look(begun(), world(8.0))
    plan, decision = look(plan, world(50.0, healthy=False, unhealthy=True))
    assert isinstance(decision, Stop)
    plan = planner.resume(planner.halt(plan, state.Halt("a", decision.why)), world(60.0))
    plan, decision = look(plan, world(70.0))
    assert plan.members["a"].baked_from == 70.0
    assert isinstance(decision, Wait)


def test_a_rollout_of_canaries_alone_is_baked_and_done() -> None:
    plan = replace(begun(), members={"a": begun().members["a"]})
    plan, _ = look(plan, world(8.0))
    plan, decision = look(plan, world(608.0))
    assert decision == Prove(("a",))
    assert look(planner.note_proofs(plan, {"a": CanaryFinding()}), world(609.0))[1] == Finish()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90", 90), ("45s", 45), ("10m", 600), ("10 min", 600), ("2h", 7200), ("1d", 86400), ("0.5m", 30),
     (" 5M ", 300)],
)
def test_lengths_of_time(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds
    assert parse_duration(as_duration(seconds)) == seconds
    assert overridden(RolloutSettings(), {"bake": text}).bake == seconds


@pytest.mark.parametrize("wrong", ["", "x", "-1", "1w", "10mm", "1e3", "2d", True, [], "1" * 10])
def test_what_is_no_length_of_time_is_refused(wrong: object) -> None:
    with pytest.raises(InvalidInput):
        overridden(RolloutSettings(), {"bake": wrong})


def test_numbers_are_seconds() -> None:
    assert overridden(RolloutSettings(), {"bake": 1.5}).bake == 1.5
    assert overridden(RolloutSettings(), {"bake": 90}).bake == 90
    assert [Duration(1e6).tell(each) for each in (0.0, 600.0, 90.0, 1.5, 7200.0)] == ["0", "10m", "90s", "1.5s", "2h"]
