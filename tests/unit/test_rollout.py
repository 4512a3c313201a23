"""The planner of rollouts: its decisions, and that its promises hold whatever happens around it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxcfleet.errors import InvalidInput
from lxcfleet.patch.rollout import live, planner, state
from lxcfleet.patch.rollout.planner import FindStale, Finish, RestartWave, Stop, Wait
from lxcfleet.patch.rollout.state import Halt, LiveState, Member, MemberPhase, Rollout, RolloutKind, Status
from lxcfleet.patch.rollout.waves import WaveBlocked, next_wave
from lxcfleet.spec.policies.rollout import RolloutSettings, Share

QUICK = RolloutSettings(Share(25, percent=True), Share(0), 0.0, 10.0, ("*",))
OLD, NEW = "1@1.00", "2@2.00"


def policy(**fields: Any) -> RolloutSettings:
    return replace(QUICK, **fields)


def rollout(*members: Member, kind: RolloutKind = RolloutKind.RESTART, **fields: Any) -> Rollout:
    named = {member.name: member for member in members}
    values: dict[str, Any] = {"policy": QUICK, "members": named, **fields}
    return Rollout(id="r1", kind=kind, created="now", **values)


def names(count: int) -> list[str]:
    return [f"c{number}" for number in range(1, count + 1)]


def many(count: int, **fields: Any) -> list[Member]:
    return [Member(name, OLD, healthy_deadline=10.0, **fields) for name in names(count)]


def well(count: int, labels: Mapping[str, str] = {}, **fields: Any) -> dict[str, LiveState]:
    now = LiveState(OLD, labels, healthy=True, healthy_for=100.0, running_for=100.0)
    return {name: replace(now, **fields) for name in names(count)}


HEALTHY = LiveState(NEW, healthy=True, healthy_for=1.0, running_for=1.0)
STARTING = LiveState(NEW, running_for=1.0)


# choosing the next wave


@pytest.mark.parametrize(
    ("share", "total", "sizes"),
    [("25%", 8, [2, 2, 2, 2]), ("3", 8, [3, 3, 2]), ("100%", 4, [4]), ("10%", 4, [1, 1, 1, 1]), ("1", 1, [1]), ("9", 2, [2])],
)
def test_waves_are_as_large_as_may_be_down(share: str, total: int, sizes: list[int]) -> None:
    plan = rollout(*many(total), policy=policy(max_unavailable=Share.parse(share)))
    assert [len(wave) for wave in planner.preview(plan, well(total))] == sizes


def test_canaries_go_first_and_are_healthy_ones() -> None:
    plan = rollout(*many(10), policy=policy(canaries=Share(2), max_unavailable=Share(4)))
    assert [len(wave) for wave in planner.preview(plan, well(10))] == [2, 4, 4]
    seen = {**well(10), "c1": replace(STARTING, identity=OLD)}
    assert next_wave(plan, seen) == ("c2", "c3")
    more = policy(canaries=Share(50, percent=True), max_unavailable=Share(4))
    assert len(planner.preview(replace(plan, policy=more), well(10))[0]) == 4  # no more than may be down at once


def test_a_group_has_canaries_of_its_own_and_all_others_wait_for_them() -> None:
    web = [Member(name, OLD, crew="shop/web") for name in ("c4", "c5", "c6", "c7")]
    late = Member("c8", OLD, crew="shop/late", priority=1)
    crews = {"shop/web": Share(50, percent=True), "shop/late": Share(1)}
    plan = rollout(*many(3), *web, late, crews=crews, policy=policy(canaries=Share(1), max_unavailable=Share(8)))
    assert planner.preview(plan, well(8)) == [("c1", "c4", "c5"), ("c2", "c3", "c6", "c7"), ("c8",)]
    assert planner.preview(replace(plan, crews={**crews, "shop/web": Share(0)}), well(8))[:2] == [
        ("c1",), ("c2", "c3", "c4", "c5", "c6", "c7"),
    ]  # fmt: skip
    begun = planner.begin_wave(plan, ("c1", "c4", "c5"))
    assert [member.canary for member in begun.members.values()] == [True, False, False, True, True, False, False, False]
    assert [member.canary for member in planner.begin_wave(begun, ("c6", "c8")).members.values()][5:] == [False, False, True]
    assert [begun.tried(crew) for crew in (None, *crews)] == [True, True, False]
    alone = planner.begin_wave(plan, ("c4",))
    assert not alone.tried(None)
    assert planner.begin_wave(alone, ("c1", "c2")).members["c2"].canary
    assert not planner.patched(begun).tried("shop/web")


def test_a_patch_on_the_way_has_canaries_of_its_own() -> None:
    plan = rollout(*many(8), kind=RolloutKind.PATCH, policy=policy(canaries=Share(1)), patch=1, scanned=1)
    plan = planner.begin_wave(plan, ("c1",))
    seen = {**well(8), "c1": HEALTHY}
    plan = planner.settle(plan, seen)
    assert next_wave(plan, seen) == ("c2", "c3")
    assert next_wave(planner.patched(plan), seen) == ("c2",)


def test_the_order_is_by_priority_and_then_by_name() -> None:
    plan = rollout(*many(3, priority=5), *[Member("db", OLD, priority=-1), Member("c10", OLD, priority=5)])
    plan = replace(plan, policy=policy(max_unavailable=Share(2)))
    seen = {**well(3), "db": well(1)["c1"], "c10": well(1)["c1"]}
    assert planner.preview(plan, seen) == [("db",), ("c1", "c2"), ("c3", "c10")]


def test_never_all_of_one_label() -> None:
    seen = {**well(4, {"tier": "front"}), "d1": LiveState(OLD, {"tier": "db"}, healthy=True)}
    plan = rollout(*many(4), Member("d1", OLD), policy=policy(max_unavailable=Share(100, percent=True)))
    assert planner.preview(plan, seen) == [("c1", "c2", "c3", "d1"), ("c4",)]
    none = replace(plan, policy=replace(plan.policy, groups=()))
    assert len(planner.preview(none, seen)) == 1
    other = replace(plan, policy=replace(plan.policy, groups=("role",)))
    assert len(planner.preview(other, seen)) == 1


def test_members_of_a_group_that_are_not_in_the_rollout_count() -> None:
    seen = {"c1": LiveState(OLD, {"a": "b"}, healthy=True), "c2": LiveState(OLD, {"a": "b"}, unhealthy=True)}
    plan = rollout(*many(2), policy=policy(max_unavailable=Share(2)))
    assert next_wave(plan, seen) == ("c2",)  # the last healthy one stays up
    assert next_wave(rollout(*many(1)), {**seen, "c2": replace(seen["c2"], healthy=True)}) == ("c1",)
    assert next_wave(rollout(*many(1)), seen) == ("c1",)  # the other container is ill, as it was before the rollout


def test_containers_that_are_down_anyway_are_counted() -> None:
    plan = rollout(*many(8))  # two may be down
    seen = {**well(8), "c8": replace(STARTING, identity=OLD, reason="status 503")}
    assert next_wave(plan, seen) == ("c1", "c8")
    seen["c7"] = seen["c6"] = seen["c8"]
    assert next_wave(plan, seen) == ("c6", "c7")  # the free places do not make the wave larger
    seen["c6"] = seen["c1"]
    assert next_wave(plan, seen) == ("c7", "c8")
    plan = plan.update(*(replace(plan.members[name], phase=MemberPhase.DONE) for name in ("c7", "c8")))
    blocked = next_wave(plan, seen)
    assert isinstance(blocked, WaveBlocked)
    assert "c7 and 1 more are not healthy: status 503" in blocked.why


def test_a_container_that_was_ill_before_costs_nothing_and_is_not_waited_for() -> None:
    plan = rollout(*many(4), policy=policy(max_unavailable=Share(1)))
    plan = plan.update(replace(plan.members["c2"], expected=False))
    seen = {**well(4), "c2": LiveState(OLD, unhealthy=True)}
    assert planner.preview(plan, seen) == [("c1", "c2"), ("c3",), ("c4",)]
    plan = planner.begin_wave(plan, ("c2",))
    plan = planner.settle(plan, {**seen, "c2": replace(STARTING, unhealthy=True)})
    assert (plan.members["c2"].phase, plan.members["c2"].note) == (MemberPhase.DONE, "it was not healthy before either")


def test_where_all_are_ill_they_are_not_restarted_in_one_wave() -> None:
    """Their checks are wrong, or broke with the patch and it is no longer known that the containers were well before."""
    plan = rollout(*many(8, expected=False), policy=policy(canaries=Share(1)))
    seen = well(8, healthy=False, unhealthy=True)
    assert planner.preview(plan, seen) == [("c1",), ("c2", "c3"), ("c4", "c5"), ("c6", "c7"), ("c8",)]
    plan = planner.begin_wave(replace(plan, policy=policy(min_healthy_time=5.0)), ("c1",))
    seen["c1"] = replace(STARTING, unhealthy=True)
    assert isinstance(planner.decide(planner.settle(plan, seen), seen), Wait), "it has to stay up, at least"
    seen["c1"] = LiveState(None)
    assert isinstance(planner.decide(planner.settle(plan, seen), seen), Stop)


def test_a_fleet_that_became_unhealthy_with_the_patch_is_rolled_by_canary_and_gate_with_its_limit() -> None:
    plan = rollout(*many(8), policy=policy(canaries=Share(1)))
    seen = well(8, healthy=False, unhealthy=True)
    assert [len(wave) for wave in planner.preview(plan, seen)] == [1, 2, 2, 2, 1]
    plan = planner.begin_wave(plan, ("c1",))
    seen["c1"] = replace(STARTING, unhealthy=True, running_for=10.0)
    assert isinstance(planner.decide(planner.settle(plan, seen), seen), Stop)
    seen["c1"] = HEALTHY
    assert planner.decide(planner.settle(plan, seen), seen) == RestartWave(("c2", "c3"))


def test_a_profile_may_have_a_limit_of_its_own() -> None:
    plan = rollout(*many(4, pool="db"), pools={"db": Share(1)}, policy=policy(max_unavailable=Share(3)))
    assert [len(wave) for wave in planner.preview(plan, well(4))] == [1, 1, 1, 1]


def test_a_container_that_was_not_stale_for_a_while_is_not_lost() -> None:
    """When the second patch came, the process with the old library had ended. The next process has the old library again."""
    members = {member.name: member for member in many(2)}
    plan = planner.merge(planner.patched(rollout(kind=RolloutKind.PATCH)), members, 1)
    plan = planner.merge(planner.patched(plan), {"c1": members["c1"]}, 2)
    assert (plan.members["c2"].phase, plan.members["c2"].note) == (MemberPhase.SKIPPED, "it is not stale any more")
    plan = planner.settle(planner.begin_wave(plan, ("c1",)), {**well(2), "c1": HEALTHY})
    plan = planner.merge(plan, {"c2": members["c2"]}, 2)
    assert plan.by_phase(MemberPhase.WAITING) == [members["c2"]]
    assert planner.decide(plan, {**well(2), "c1": HEALTHY}) == RestartWave(("c2",))


# gates


def test_what_ends_before_its_turn_gets_its_spec_all_the_same() -> None:
    """A bad release that reached two containers is taken back; the second one ends of it before its turn."""
    seen = {**well(3), "c2": LiveState(None, failed=True), "c3": LiveState(None)}
    now = planner.settle(rollout(*many(3), kind=RolloutKind.CHANGE), seen)
    assert [(member.phase, member.fallen) for member in now.members.values()] == [
        (MemberPhase.WAITING, False), (MemberPhase.WAITING, True), (MemberPhase.SKIPPED, False),
    ]  # fmt: skip
    assert now.members["c3"].note == "it was stopped"
    decision = planner.decide(now, seen)
    assert isinstance(decision, planner.RestartWave)
    # A restart of what runs is no matter of what has ended.
    other = planner.settle(rollout(*many(3)), seen)
    assert other.members["c2"].phase is MemberPhase.SKIPPED


def test_a_start_by_somebody_else_that_did_not_give_it_its_spec_is_not_its_turn() -> None:
    """Such as one that was under way as the wave began: it was taken for the wave's own, and the rollout was done."""
    plan = planner.begin_wave(rollout(replace(many(1)[0], fallen=True, identity=""), kind=RolloutKind.CHANGE), ("c1",))
    seen = {"c1": replace(HEALTHY, lacks_spec=True)}
    plan = planner.settle(planner.settle(plan, seen), seen)
    assert planner.decide(plan, seen) == RestartWave(("c1",))
    again = planner.begin_wave(plan, ("c1",))
    assert planner.settle(again, {"c1": replace(HEALTHY, identity="3@3.00")}).members["c1"].phase is MemberPhase.DONE
    failed = planner.halt(plan.update(replace(plan.members["c1"], identity="", phase=MemberPhase.FAILED)), Halt("c1", "why"))
    assert planner.decide(planner.settle(planner.resume(failed, seen), seen), seen) == RestartWave(("c1",))


def begun(*chosen: str, count: int = 4, **fields: Any) -> Rollout:
    return planner.begin_wave(rollout(*many(count, **fields)), chosen)


def test_the_next_wave_waits_until_all_are_healthy_for_long_enough() -> None:
    plan = begun("c1", min_healthy_time=5.0)
    seen = {**well(4), "c1": STARTING}
    for now, phase in [
        (STARTING, MemberPhase.GATED),
        (replace(HEALTHY, healthy_for=4.0, running_for=9.0), MemberPhase.GATED),
        (replace(HEALTHY, healthy_for=5.0, running_for=9.0), MemberPhase.DONE),
    ]:
        seen["c1"] = now
        plan = planner.settle(plan, seen)
        assert plan.members["c1"].phase is phase
        assert isinstance(planner.decide(plan, seen), RestartWave if phase is MemberPhase.DONE else Wait)


def test_the_next_wave_waits_no_longer_than_it_has_to() -> None:
    seen = {**well(4), "c1": replace(HEALTHY, healthy_for=4.0)}
    decision = planner.decide(planner.settle(begun("c1", min_healthy_time=5.0), seen), seen)
    assert isinstance(decision, Wait)
    assert decision.seconds == 1.0
    assert "to be healthy for 5 s" in decision.why


def test_members_that_are_due_within_a_moment_share_a_look() -> None:
    """A wave of a hundred, each healthy a little later than the one before, took a hundred looks at the whole fleet. Its end
    is not noticed any later."""
    plan = planner.begin_wave(rollout(*many(100), policy=policy(min_healthy_time=5.0)), names(100))
    looks, clock = 0, 5.0
    while True:
        times = {name: clock - number / 100 for number, name in enumerate(names(100))}
        seen = {name: replace(HEALTHY, healthy_for=time, running_for=time) for name, time in times.items()}
        plan = planner.settle(plan, seen)
        if not plan.by_phase(MemberPhase.RESTARTING, MemberPhase.GATED):
            break
        decision = planner.decide(plan, seen)
        assert isinstance(decision, Wait)
        assert decision.seconds is not None
        looks, clock = looks + 1, clock + decision.seconds
    assert looks <= 5
    assert clock == pytest.approx(5.99)


def test_a_look_comes_when_the_first_is_due_however_long_others_take() -> None:
    plan = planner.begin_wave(rollout(*many(2), policy=policy(min_healthy_time=5.0)), names(2))
    seen = {"c1": replace(HEALTHY, healthy_for=4.0), "c2": replace(HEALTHY, healthy_for=1.0)}
    assert planner.decide(planner.settle(plan, seen), seen) == Wait(1.0, "c1: to be healthy for 5 s")


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({"matures": 6.0}, 6.0),
        ({"matures": 60.0}, 9.0),  # its deadline comes first
        ({}, planner.LOOK_SECONDS),
    ],
)
def test_what_becomes_healthy_by_its_age_is_looked_at_then(fields: dict[str, float], seconds: float) -> None:
    """Each look is one at the whole fleet."""
    seen = {**well(4), "c1": replace(STARTING, **fields)}
    decision = planner.decide(planner.settle(begun("c1"), seen), seen)
    assert isinstance(decision, Wait)
    assert decision.seconds == seconds


def test_what_was_changed_long_after_its_start_is_not_looked_at_again_and_again() -> None:
    changed = Member("c1", NEW, healthy_deadline=10.0, phase=MemberPhase.GATED, wave=1, changed_at=100.0)
    seen = {"c1": replace(STARTING, running_for=101.0, matures=60.0)}
    assert planner.decide(rollout(changed), seen) == Wait(9.0, "c1: not healthy yet")


@pytest.mark.parametrize(
    ("now", "why"),
    [
        (replace(STARTING, running_for=10.0, reason="status 500"), "it was not healthy 10 s after its start: status 500"),
        (LiveState(None), "it does not run after its restart"),
    ],
)
def test_a_gate_that_fails_halts_and_names_the_container_and_the_reason(now: LiveState, why: str) -> None:
    plan = begun("c1")
    seen = {**well(4), "c1": now}
    plan = planner.settle(plan, seen)
    assert planner.decide(plan, seen) == Stop("c1", why)
    plan = planner.halt(plan, Halt("c1", why))
    assert planner.decide(plan, seen) == Wait(None, "halted")


def test_a_restart_that_failed_says_what_failed() -> None:
    plan = planner.note_failures(begun("c1"), {"c1": "c1 did not start: no space left on device"})
    seen = {**well(4), "c1": LiveState(None)}
    assert planner.decide(planner.settle(plan, seen), seen) == Stop("c1", "c1 did not start: no space left on device")


def test_a_container_that_can_t_be_restarted_is_tried_again_and_then_halts_it() -> None:
    plan, seen, tries = rollout(*many(1)), well(1), 0
    while isinstance(decision := planner.decide(plan := planner.settle(plan, seen), seen), RestartWave):
        plan = planner.note_failures(planner.begin_wave(plan, decision.names), {"c1": "it is busy: stop"})
        tries += 1
    assert (tries, decision) == (planner.ATTEMPTS, Stop("c1", "it is busy: stop"))


def test_a_busy_container_is_waited_for() -> None:
    plan = rollout(*many(1))
    seen = well(1, busy="stop")
    decision = planner.decide(plan, seen)
    assert isinstance(decision, Wait)
    assert "stop" in decision.why
    assert isinstance(planner.decide(plan, seen, blocked_for=11.0), Stop)


@pytest.mark.parametrize(
    ("now", "note"),
    [
        (None, "destroyed"),
        (LiveState(None), "stopped"),
        (HEALTHY, "restarted meanwhile"),
        (LiveState(OLD, frozen=True), "frozen"),
        (LiveState(OLD, problem="c1 is broken: its spec can't be used"), "can't be used"),
    ],
)
def test_there_may_be_nothing_to_do_any_more(now: LiveState | None, note: str) -> None:
    seen = {} if now is None else {"c1": now}
    plan = planner.settle(rollout(*many(1)), seen)
    assert (plan.members["c1"].phase, note in plan.members["c1"].note) == (MemberPhase.SKIPPED, True)
    assert planner.decide(plan, seen) == Finish()


def test_a_rollout_without_members_is_done_at_once() -> None:
    assert planner.decide(rollout(), {}) == Finish()
    assert planner.preview(rollout(), {}) == []


# the operator


def test_a_paused_rollout_finishes_restarts_that_have_begun_and_begins_none() -> None:
    plan = planner.pause(begun("c1"))
    seen = {**well(4), "c1": STARTING}
    assert isinstance(planner.decide(plan := planner.settle(plan, seen), seen), Wait)
    seen["c1"] = HEALTHY
    assert planner.decide(plan := planner.settle(plan, seen), seen) == Wait(None, "paused")
    assert planner.decide(planner.resume(plan, seen), seen) == RestartWave(("c2",))


def test_resumed_after_a_halt_the_container_gets_a_new_deadline_and_no_second_restart() -> None:
    seen = {**well(4), "c1": replace(STARTING, running_for=10.0)}
    plan = planner.settle(begun("c1"), seen)
    plan = planner.resume(planner.halt(plan, Halt("c1", plan.members["c1"].note)), seen)
    assert plan.members["c1"].phase is MemberPhase.GATED
    assert isinstance(planner.decide(planner.settle(plan, seen), seen), Wait)
    late = {**seen, "c1": replace(STARTING, running_for=20.0)}
    assert isinstance(planner.decide(planner.settle(plan, late), late), Stop)
    seen["c1"] = HEALTHY
    assert planner.decide(planner.settle(plan, seen), seen) == RestartWave(("c2",))


def test_failed_members_can_be_left_as_they_are_and_count_as_down() -> None:
    seen = {**well(8), "c1": replace(STARTING, running_for=10.0)}
    plan = planner.settle(begun("c1", count=8), seen)
    plan = planner.resume(plan, seen, accept=True)
    assert planner.decide(plan, seen) == RestartWave(("c2",))  # two containers may be down, and c1 is


def test_a_resume_restarts_members_that_were_not_restarted_and_starts_those_that_do_not_run() -> None:
    plan = begun("c1").update(replace(begun("c1").members["c1"], phase=MemberPhase.FAILED))
    assert planner.resume(plan, well(4)).members["c1"].phase is MemberPhase.WAITING
    assert planner.resume(plan, {}).members["c1"].phase is MemberPhase.SKIPPED
    member = planner.resume(plan, {"c1": LiveState(None)}).members["c1"]
    assert (member.phase, member.fallen, member.accepted) == (MemberPhase.WAITING, True, False)
    assert planner.resume(plan, {"c1": LiveState(None)}, accept=True).members["c1"].accepted


# a bad patch, and the one that mends it


SICK = replace(STARTING, running_for=10.0, unhealthy=True, reason="status 500")
GONE = LiveState(None)


def halted_at(canary: LiveState, count: int = 4) -> tuple[Rollout, dict[str, LiveState]]:
    """A rollout of a bad patch, whose canary has this state after its restart."""
    plan = rollout(kind=RolloutKind.PATCH, policy=policy(canaries=Share(1), max_unavailable=Share(2)))
    plan = planner.merge(planner.patched(plan), {m.name: m for m in many(count)}, 1)
    assert planner.decide(plan, well(count)) == RestartWave(("c1",))
    seen = {**well(count), "c1": canary}
    plan = planner.settle(planner.begin_wave(plan, ("c1",)), seen)
    decision = planner.decide(plan, seen)
    assert isinstance(decision, Stop)
    return planner.halt(plan, Halt("c1", decision.why)), seen


def test_a_new_change_of_the_host_supersedes_a_halt_and_the_sick_canary_is_restarted_first() -> None:
    plan, seen = halted_at(SICK)
    plan = planner.supersede(planner.patched(plan), seen)
    assert (plan.status, plan.halted) == (Status.RUNNING, None)
    assert planner.decide(plan, seen) == FindStale()
    found = {name: Member(name, OLD) for name in ("c2", "c3", "c4")}
    plan = planner.merge(plan, {**found, "c1": Member("c1", NEW, expected=False)}, plan.patch)
    assert plan.members["c1"].expected, "it was well before the bad patch"
    assert planner.decide(plan, seen) == RestartWave(("c1",)), "it is down anyway"
    seen["c1"] = replace(HEALTHY, identity="3@3.00")
    plan = planner.settle(planner.begin_wave(plan, ("c1",)), seen)
    assert planner.decide(plan, seen) == RestartWave(("c2", "c3"))


def test_after_the_way_back_only_containers_with_the_bad_version_are_restarted() -> None:
    plan, seen = halted_at(SICK)
    plan = planner.supersede(planner.patched(plan), seen)
    plan = planner.merge(plan, {"c1": Member("c1", NEW, expected=False)}, plan.patch)
    assert planner.decide(plan, seen) == RestartWave(("c1",))
    seen["c1"] = replace(HEALTHY, identity="3@3.00")
    plan = planner.settle(planner.begin_wave(plan, ("c1",)), seen)
    assert planner.decide(plan, seen) == FindStale()
    assert planner.decide(planner.merge(plan, {}, plan.patch), seen) == Finish()
    assert {m.phase for m in plan.members.values() if m.name != "c1"} == {MemberPhase.SKIPPED}


@pytest.mark.parametrize("how", ["patched", "resume"])
def test_a_container_that_died_of_the_patch_is_started(how: str) -> None:
    plan, seen = halted_at(GONE)
    plan = planner.resume(plan, seen) if how == "resume" else planner.supersede(planner.patched(plan), seen)
    assert planner.decide(planner.settle(plan, seen), seen) == FindStale()
    plan = planner.merge(planner.settle(plan, seen), {"c1": Member("c1", "", fallen=True)}, plan.patch)
    assert planner.decide(plan, seen) == RestartWave(("c1",))
    plan = planner.begin_wave(plan, ("c1",))
    assert planner.decide(planner.settle(plan, seen), seen) == RestartWave(("c1",)), "the daemon was killed before it was"
    seen["c1"] = HEALTHY
    plan = planner.settle(planner.note_starts(plan, ("c1",)), seen)
    assert plan.members["c1"].phase is MemberPhase.DONE


def test_a_container_that_dies_again_halts_again_after_one_start() -> None:
    plan, seen = halted_at(GONE)
    plan = planner.merge(planner.supersede(planner.patched(plan), seen), {}, 2)
    plan = planner.note_starts(planner.begin_wave(plan, ("c1",)), ("c1",))
    assert planner.decide(planner.settle(plan, seen), seen) == Stop("c1", "it does not run after its restart")


def test_a_fallen_container_that_was_started_by_hand_is_checked_and_not_skipped() -> None:
    plan, seen = halted_at(GONE)
    plan = planner.merge(planner.supersede(planner.patched(plan), seen), {}, 2)
    plan = planner.settle(plan, {**seen, "c1": STARTING})
    assert plan.members["c1"].phase is MemberPhase.GATED
    assert planner.settle(plan, seen).members["c1"].phase is MemberPhase.FAILED


def test_a_patch_that_is_no_cure_gives_a_new_deadline_and_restarts_nothing_twice() -> None:
    plan, seen = halted_at(SICK)
    plan = planner.supersede(planner.patched(plan), seen)
    plan = planner.merge(plan, {name: Member(name, OLD) for name in ("c2", "c3", "c4")}, plan.patch)
    assert isinstance(planner.decide(planner.settle(plan, seen), seen), Wait)
    seen["c1"] = replace(SICK, running_for=20.0)
    assert isinstance(planner.decide(planner.settle(plan, seen), seen), Stop)


def test_a_mended_version_does_not_wait_for_the_check_of_the_canary() -> None:
    """A failure of that check in the same moment does not halt the rollout either."""
    plan, seen = halted_at(SICK)
    plan = replace(plan, status=Status.RUNNING, halted=None)
    assert planner.decide(planner.patched(plan), seen) == FindStale()
    plan = planner.merge(planner.patched(plan), {"c1": Member("c1", NEW, expected=False)}, 2)
    assert planner.decide(plan, seen) == RestartWave(("c1",))


def test_a_patch_during_the_way_back_is_taken_up_and_restarts_each_that_is_stale_once() -> None:
    """The bad version was taken back, and its canary is on the way to the old one, when another package is patched."""
    plan, seen = halted_at(SICK)
    plan = planner.supersede(planner.patched(plan), seen)
    plan = planner.merge(plan, {"c1": Member("c1", NEW, expected=False)}, plan.patch)
    plan = planner.begin_wave(plan, ("c1",))
    seen["c1"] = replace(STARTING, identity="3@3.00")
    plan = planner.patched(planner.settle(plan, seen))
    assert planner.decide(plan, seen) == FindStale()
    found = {"c1": Member("c1", "3@3.00"), **{name: Member(name, OLD) for name in ("c2", "c3", "c4")}}
    plan = planner.merge(plan, found, plan.patch)
    assert plan.halted is None
    restarted: list[str] = []
    while isinstance(decision := planner.decide(plan, seen), RestartWave):
        restarted += decision.names
        plan = planner.begin_wave(plan, decision.names)
        seen |= {name: replace(HEALTHY, identity="4@4.00") for name in decision.names}
        plan = planner.settle(plan, seen)
    assert (restarted[0], sorted(restarted)) == ("c1", ["c1", "c2", "c3", "c4"])
    assert decision == FindStale()
    assert planner.decide(planner.merge(plan, {}, plan.patch), seen) == Finish()


def test_a_patch_during_a_pause_stays_paused() -> None:
    plan = planner.pause(rollout(*many(2), kind=RolloutKind.PATCH, patch=1, scanned=1))
    plan = planner.supersede(planner.patched(plan), well(2))
    assert planner.decide(plan, well(2)) == Wait(None, "paused")


# patches


def test_a_second_patch_is_taken_up_and_nothing_is_restarted_twice_for_one() -> None:
    plan = rollout(*many(4), kind=RolloutKind.PATCH, patch=1, scanned=1)
    plan = planner.begin_wave(plan, ("c1",))
    seen = {**well(4), "c1": HEALTHY}
    plan = planner.patched(planner.settle(plan, seen))
    assert planner.decide(plan, seen) == FindStale()
    found = {"c1": Member("c1", NEW), **{name: Member(name, OLD) for name in ("c2", "c3")}}
    plan = planner.merge(plan, found, plan.patch)
    phases = {name: member.phase for name, member in plan.members.items()}
    assert phases == {**dict.fromkeys(("c1", "c2", "c3"), MemberPhase.WAITING), "c4": MemberPhase.SKIPPED}
    for name in ("c1", "c2", "c3"):
        plan = planner.settle(planner.begin_wave(plan, (name,)), {**seen, name: replace(HEALTHY, identity="3@3.00")})
    assert planner.decide(plan, seen) == FindStale()  # a look that confirms that nothing is stale
    plan = planner.merge(plan, {"c1": Member("c1", "3@3.00")}, plan.patch)
    assert "stale still" in plan.members["c1"].note
    assert planner.decide(plan, seen) == Finish()


def test_ten_patches_in_a_minute_are_one_rollout_and_each_is_restarted_at_most_once_for_each() -> None:
    plan = rollout(*many(4), kind=RolloutKind.PATCH, patch=1, scanned=1, policy=policy(max_unavailable=Share(1)))
    seen, restarts = well(4), dict.fromkeys(names(4), 0)
    for number in range(2, 12):
        decision = planner.decide(plan, seen)
        assert isinstance(decision, RestartWave)
        plan = planner.begin_wave(plan, decision.names)
        for name in decision.names:
            restarts[name] += 1
            seen[name] = replace(HEALTHY, identity=f"{number}@{number}.00")
        plan = planner.patched(planner.settle(plan, seen))
        assert (plan.patch, planner.decide(plan, seen)) == (number, FindStale())
        plan = planner.merge(plan, {name: Member(name, now.identity or "") for name, now in seen.items()}, number)
    assert sum(restarts.values()) == 10, "one at a time, and none twice for one patch"
    while isinstance(decision := planner.decide(plan, seen), RestartWave):
        plan = planner.begin_wave(plan, decision.names)
        seen |= {name: replace(HEALTHY, identity=f"{name}@99.00") for name in decision.names}
        plan = planner.settle(plan, seen)
    assert planner.decide(planner.merge(plan, {}, plan.patch), seen) == Finish()
    assert {now.identity for now in seen.values()} == {f"{name}@99.00" for name in names(4)}


def test_a_patch_during_a_restart_of_chosen_containers_is_taken_up_too() -> None:
    plan = planner.patched(rollout(*many(1)))
    assert planner.decide(plan, well(2)) == FindStale()
    plan = planner.merge(plan, {"c2": Member("c2", OLD)}, plan.patch)
    assert {m.name for m in plan.by_phase(MemberPhase.WAITING)} == {"c1", "c2"}


def test_a_frozen_stale_container_does_not_keep_the_rollout_going() -> None:
    plan = rollout(*many(1), kind=RolloutKind.PATCH, patch=1, scanned=1, confirmed=False)
    seen = well(1, frozen=True)
    plan = planner.settle(plan, seen)
    assert planner.decide(plan, seen) == FindStale()
    plan = planner.merge(plan, {"c1": Member("c1", OLD)}, plan.patch)
    assert planner.decide(plan, seen) == Finish()


# on disk


@given(st.data())
def test_a_rollout_is_read_as_it_was_written(data: st.DataObject) -> None:
    text = st.text(max_size=5)
    member = st.builds(
        Member, text, text, st.integers(), st.none() | text, st.floats(0, 9), st.floats(0, 9), st.booleans(),
        st.sampled_from(MemberPhase), st.none() | st.integers(), st.none() | st.integers(), st.integers(), st.booleans(),
        st.booleans(), text, st.booleans(),
    )  # fmt: skip
    members = {each.name: each for each in data.draw(st.lists(member, max_size=3))}
    plan = rollout(
        *members.values(),
        pools={"db": Share(50, percent=True)},
        crews={"web": Share(2)},
        status=data.draw(st.sampled_from(Status)),
        halted=data.draw(st.none() | st.builds(Halt, st.none() | text, text, text)),
        selections=({"patterns": ["a*"], "labels": {}, "everything": False},),
    )
    assert state.from_json(state.to_json(plan)) == plan


def test_a_rollout_of_the_former_version_is_read() -> None:
    plan = rollout(*many(2), kind=RolloutKind.PATCH, halted=Halt("c1", "status 500", "log"), status=Status.HALTED)
    data = json.loads(state.to_json(plan))
    data["members"] = [{key: each[key] for key in each if key in FORMER_MEMBER} for each in data["members"]]
    data["halted"] = {key: data["halted"][key] for key in ("container", "why", "log")}
    assert state.from_json(json.dumps({key: data[key] for key in data if key in FORMER})) == plan


FORMER = {
    "version", "id", "kind", "policy", "created", "members", "pools", "status", "wave", "patch", "scanned", "confirmed",
    "canaried", "halted", "ended", "selections",
}  # fmt: skip
FORMER_MEMBER = {
    "name", "identity", "priority", "pool", "min_healthy_time", "healthy_deadline", "expected", "phase", "wave",
    "restarted_for", "attempts", "accepted", "stale", "note",
}  # fmt: skip


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"version": 2}', '{"version": 1, "members": 3}'])
def test_a_text_that_is_no_rollout_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        state.from_json(text)
    whole = state.to_json(rollout(*many(2)))
    for length in range(0, len(whole), 7):
        with pytest.raises(ValueError):  # noqa: PT011
            state.from_json(whole[:length])


@pytest.mark.parametrize(("text", "of_ten"), [("0", 0), ("3", 3), ("25%", 2), ("1%", 1), ("0%", 0), ("100%", 10)])
def test_shares(text: str, of_ten: int) -> None:
    assert Share.parse(text).of(10) == of_ten
    assert str(Share.parse(text)) == text


@pytest.mark.parametrize("text", ["", "%", "-1", "101%", "1.5", "x", "٣", "5 %"])
def test_texts_that_are_no_shares_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        Share.parse(text)


def test_who_depends_on_another_comes_after_it_whatever_the_priority() -> None:
    members = Member("a", OLD), Member("b", OLD, priority=9), Member("x", OLD, priority=5)
    plan = rollout(*members, policy=policy(max_unavailable=Share(3)))
    now = well(1)["c1"]
    seen = {"a": replace(now, awaited={"b"}), "b": now, "x": now}
    assert planner.preview(plan, seen) == [("x",), ("b",), ("a",)]
    circle = {name: replace(now, awaited={"a", "b", "x"}) for name in seen}
    assert planner.preview(plan, circle) == [("a",), ("x",), ("b",)]


def test_who_could_not_start_again_is_not_stopped() -> None:
    plan = rollout(*many(2), policy=policy(max_unavailable=Share(2)))
    seen = {**well(2), "c1": replace(well(1)["c1"], lack="db not healthy")}
    assert next_wave(plan, seen) == ("c2",)
    blocked = next_wave(rollout(*many(1)), seen)
    assert blocked == WaveBlocked("c1", "it could not start again: db not healthy")
    assert planner.decide(rollout(*many(1)), seen, 11.0) == Stop("c1", "it could not start again: db not healthy")


# -- what breaks after its gate -----------------------------------------------------------------------------------


def test_what_fails_after_it_had_been_healthy_halts_the_rollout() -> None:
    plan = begun("c1")
    done = planner.settle(plan, {**well(4), "c1": HEALTHY})
    assert done.members["c1"].phase is MemberPhase.DONE
    for now, phase in (
        (LiveState(None, failed=True), MemberPhase.FAILED),
        (LiveState(None), MemberPhase.DONE),  # it ended well, or somebody stopped it
        (LiveState(None, failed=True, busy="start"), MemberPhase.DONE),
        (None, MemberPhase.DONE),
    ):
        seen = well(4)
        del seen["c1"]
        after = planner.settle(done, {**seen, **({"c1": now} if now else {})})
        assert after.members["c1"].phase is phase
    broken = planner.settle(done, {**well(4), "c1": LiveState(None, failed=True)})
    assert planner.decide(broken, well(4)) == Stop("c1", "it failed after it had been healthy")
    stopped = planner.leave_stopped(done, "c1")
    assert planner.settle(stopped, {**well(4), "c1": LiveState(None, failed=True)}).members["c1"].phase is MemberPhase.DONE


# changes without a restart


def changed(seconds: float = 3.0, **fields: Any) -> tuple[Rollout, dict[str, LiveState]]:
    """Two members that get another spec without a restart; the first has it, at the age of 100 s."""
    plan = rollout(*many(2, live=True), kind=RolloutKind.CHANGE, policy=policy(canaries=Share(1), min_healthy_time=seconds))
    seen = well(2, **fields)
    assert planner.decide(plan, seen) == RestartWave(("c1",))
    plan = planner.begin_wave(plan, ("c1",))
    return live.note_changed(plan, ["c1"], seen), seen


def after(seconds: float, **fields: Any) -> dict[str, LiveState]:
    """Some time after that change."""
    now = {"running_for": 100.0 + seconds, "healthy_for": seconds, **fields}
    return {**well(2), "c1": replace(well(1)["c1"], **now)}


def phase_of(plan: Rollout, seen: Mapping[str, LiveState], name: str = "c1") -> tuple[MemberPhase, str]:
    member = planner.settle(plan, seen).members[name]
    return member.phase, member.note


def test_a_change_without_a_restart_has_to_be_well_from_then_on() -> None:
    plan, seen = changed()
    assert phase_of(plan, seen) == (MemberPhase.GATED, ""), "it was healthy for long, but not with its new spec"
    assert phase_of(plan, after(2.0, healthy_for=102.0)) == (MemberPhase.GATED, "")
    plan = planner.settle(plan, after(3.0))
    assert plan.members["c1"].phase is MemberPhase.DONE
    assert planner.decide(plan, after(3.0)) == RestartWave(("c2",))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"identity": None}, "it ended after its change"),
        ({"identity": NEW}, "it ended after its change, and was started again"),
        ({"healthy": False, "unhealthy": True, "reason": "503"}, "it became unhealthy after its change: 503"),
    ],
)
def test_a_change_without_a_restart_that_harms_a_container_halts_at_once(fields: dict[str, Any], why: str) -> None:
    plan, _ = changed()
    seen = after(1.0, **fields)
    plan = planner.settle(plan, seen)
    assert planner.decide(plan, seen) == Stop("c1", why)
    assert phase_of(plan, seen, "c2") == (MemberPhase.WAITING, "")


def test_a_check_that_fails_now_and_then_until_the_deadline_halts_a_change_without_a_restart() -> None:
    plan, _ = changed()
    failing = {"healthy_for": 2.0, "reason": "too slow"}
    assert phase_of(plan, after(9.0, **failing)) == (MemberPhase.GATED, "")
    assert phase_of(plan, after(10.0, **failing)) == (MemberPhase.FAILED, "it was not well 10 s after its change: too slow")


def test_what_was_ill_before_its_change_only_has_to_stay_up() -> None:
    plan, _ = changed()
    plan = plan.update(replace(plan.members["c1"], expected=False))
    ill = {"healthy": False, "unhealthy": True, "healthy_for": 0.0}
    assert phase_of(plan, after(2.0, **ill))[0] is MemberPhase.GATED
    assert phase_of(plan, after(3.0, **ill))[0] is MemberPhase.DONE
    assert phase_of(plan, after(3.0, identity=None))[0] is MemberPhase.FAILED


def test_a_change_that_nobody_noted_is_made_once_more_and_one_that_can_not_be_made_halts() -> None:
    """The daemon was killed just after or just before it; or the kernel refused it."""
    plan = planner.begin_wave(rollout(*many(2, live=True), kind=RolloutKind.CHANGE), ("c1",))
    assert phase_of(plan, well(2))[0] is MemberPhase.WAITING
    for _ in range(planner.ATTEMPTS):
        plan = planner.note_failures(planner.begin_wave(plan, ("c1",)), {"c1": "it uses more"})
    assert phase_of(plan, well(2)) == (MemberPhase.FAILED, "it uses more")


def test_the_operator_may_restart_what_was_changed_without_a_restart() -> None:
    plan, _ = changed()
    plan = live.restarted(plan, "c1")
    fresh = {**well(2), "c1": HEALTHY}
    assert phase_of(plan, fresh)[0] is MemberPhase.GATED
    assert phase_of(plan, {**fresh, "c1": replace(HEALTHY, healthy_for=3.0)})[0] is MemberPhase.DONE
    assert phase_of(plan, {**fresh, "c1": replace(STARTING, identity=None)})[0] is MemberPhase.FAILED
    assert state.from_json(state.to_json(plan)) == plan


def test_a_frozen_container_is_left_as_it_was_by_a_change_and_one_that_could_not_start_again_is_changed() -> None:
    plan = rollout(*many(2, live=True), kind=RolloutKind.CHANGE)
    assert phase_of(plan, well(2, frozen=True))[0] is MemberPhase.SKIPPED
    assert planner.decide(planner.settle(plan, well(2, problem="broken", lack="db1 not healthy")), well(2, lack="no"))
    assert next_wave(plan, well(2, lack="db1 not healthy")) == ("c1",)
