"""The planner of fleet files: it converges, also from the middle; it keeps what others changed; it can't act."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck as Check
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lxcfleet.containers import store
from lxcfleet.errors import Conflict, InvalidInput
from lxcfleet.fleets import applied as records
from lxcfleet.fleets import export
from lxcfleet.fleets.applied import Applied
from lxcfleet.fleets.changes import Current, Kind
from lxcfleet.fleets.plan import FleetPlan, OnHost, Prune, plan
from lxcfleet.patch.rollout import change_sets
from lxcfleet.spec.container import combinations
from lxcfleet.spec.container.merging import merge
from lxcfleet.spec.container.secrets import SecretSource, SourceKind
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files import fleet_file
from lxcfleet.spec.files.fleet_sources import Sources
from lxcfleet.spec.files.settings import Config
from lxcfleet.spec.states import State

from .test_architecture import NAMES, ROOT, imports
from .test_round_trip import said

Fleet = dict[str, Current]
TIME = "2026-01-01T00:00:00Z"


def planned(text: str, fleet: Mapping[str, Current], before: Applied | None = None, **more: Any) -> FleetPlan:
    file = fleet_file.parse(Sources(f"lxcfleet: 1\nfleet: shop\ngroups:\n{text}", "f"), Config())
    there = OnHost(fleet, **{key: more.pop(key) for key in ("others", "volumes", "apps") if key in more})
    return plan(file, before, there, Config(), time=TIME, **more)


def carry_out(made: FleetPlan, fleet: Fleet, most: int | None = None) -> Fleet:
    """The fleet after the first ``most`` changes of a plan."""
    after = dict(fleet)
    for each in made.changes[:most]:
        now = after.get(each.name)
        match each.kind:
            case Kind.CREATE:
                assert each.spec is not None
                spec = replace(each.spec, name=each.name, created=TIME)
                after[each.name] = Current(spec, spec)
            case Kind.LIVE:
                assert now is not None
                after[each.name] = Current(each.spec, each.spec if now.in_force else None)
            case Kind.RESTART | Kind.START:
                after[each.name] = Current(each.spec, each.spec)
            case Kind.STOP:
                assert now is not None
                after[each.name] = Current(now.spec, None)
            case Kind.DESTROY:
                del after[each.name]
    return after


SAID: dict[str, st.SearchStrategy[str]] = {
    "memory": st.sampled_from(["64M", "1G"]), "command": st.sampled_from(["[a]", "[b, c]"]),
}  # fmt: skip
MAY_BE_SAID: dict[str, st.SearchStrategy[Any]] = {
    "count": st.integers(0, 4), "environment": st.sampled_from(["{A: x}", "{A: y, B: z}"]),
    "labels": st.sampled_from(["{r: w}", "{}"]), "pids": st.integers(1, 3), "ports": st.sampled_from(["[a=1]", "[b=2]"]),
}  # fmt: skip
GROUPS = st.fixed_dictionaries(SAID, optional=MAY_BE_SAID)
FILES = st.dictionaries(st.sampled_from(["web", "db", "api"]), GROUPS, max_size=3)


def written(groups: Mapping[str, Mapping[str, Any]]) -> str:
    def inner(group: Mapping[str, Any]) -> str:
        return ", ".join(f"{key}: {value}" for key, value in group.items())

    return "".join(f"  {name}: {{{inner(group)}}}\n" for name, group in groups.items()) or "  {}\n"


@pytest.mark.parametrize("done", [0, 1, 2])
def test_the_former_file_takes_back_what_a_broken_off_apply_gave_and_leaves_what_others_gave(done: int) -> None:
    former, bad = (f"  web: {{count: 2, command: [{command}], memory: 64M}}\n" for command in ("good", "bad"))
    made = planned(former, {})
    fleet = carry_out(made, {})
    broken_off = planned(bad, fleet, made.after)
    during = records.from_json(records.to_json(records.while_tried(made.after, broken_off.values, broken_off.had)))
    half = carry_out(broken_off, fleet, done)
    back = planned(former, half, during)
    assert [(each.name, each.kind) for each in back.changes] == [("web1", Kind.RESTART), ("web2", Kind.RESTART)][:done]
    assert back.kept == ()
    assert carry_out(back, half) == fleet
    assert back.after.tried == {}
    set_by_hand = replace(cast(Spec, fleet["web2"].spec), command=("other",))
    left = planned(former, {**half, "web2": Current(set_by_hand, set_by_hand)}, during)
    assert [(each.name, each.key, each.why) for each in left.kept] == [("web2", "command", "set")]


@pytest.mark.parametrize("said", ["", ", memory: 64M"])
def test_the_former_file_gives_back_what_others_had_changed_before_an_apply_that_was_broken_off(said: str) -> None:
    former, second, third = (f"  web: {{command: [a]{more}}}\n" for more in (said, ", memory: 128M", ", memory: 256M"))
    made = planned(former, {})
    by_hand = replace(cast(Spec, carry_out(made, {})["web"].spec), memory=1 << 30)
    fleet, during = {"web": Current(by_hand, by_hand)}, made.after
    for bad in (second, third):
        broken_off = planned(bad, fleet, during)
        during = records.from_json(records.to_json(records.while_tried(during, broken_off.values, broken_off.had)))
        fleet = carry_out(broken_off, fleet)
    back = planned(former, fleet, during)
    assert carry_out(back, fleet)["web"].spec == by_hand
    assert (back.after.tried, back.after.had) == ({}, {})
    assert not planned(former, carry_out(back, fleet), back.after).changed


def test_a_key_that_the_file_does_not_say_any_more_gets_its_default_and_one_that_it_never_said_stays() -> None:
    made = planned("  web: {command: [a], memory: 64M}\n", {})
    by_hand = replace(cast(Spec, carry_out(made, {})["web"].spec), memory=1 << 30, pids=7)
    left = planned("  web: {command: [a]}\n", {"web": Current(by_hand, by_hand)}, made.after)
    assert [dict(each.differs) for each in left.changes] == [{"memory": ("1G", "0")}]


@settings(max_examples=100, deadline=None, suppress_health_check=list(Check))
@given(FILES, FILES, st.integers(0, 8))
def test_what_was_broken_off_is_planned_again_and_then_nothing(first: Any, second: Any, broken_off: int) -> None:
    made = planned(written(first), {})
    fleet = carry_out(made, {})
    assert not planned(written(first), fleet, made.after).changed
    for group in {*first} & {*second}:
        if ("count" in first[group]) != ("count" in second[group]):
            return
    again = planned(written(second), fleet, made.after, prune=Prune.ALL)
    half = carry_out(again, fleet, broken_off)
    rest = planned(written(second), half, made.after, prune=Prune.ALL)
    assert {each.name for each in rest.changes} == {each.name for each in again.changes[broken_off:]}
    whole = carry_out(rest, half)
    end = planned(written(second), whole, rest.after, prune=Prune.ALL)
    assert (end.changed, end.kept, end.left) == (False, (), ())


DECLARING = Config(secrets={name: SecretSource(SourceKind.CREDENTIAL, "x") for name in ("db-pw", "tls", "api", "key")})
"""Settings that declare the secrets of tests."""


@settings(max_examples=40, deadline=None, suppress_health_check=list(Check))
@given(said(profile=False), said(profile=False))
@example({}, {"memory": 10**15 + 1})
def test_an_exported_file_changes_nothing(one: dict[str, Any], other: dict[str, Any]) -> None:
    fleet: Fleet = {}
    for name, values in {"web1": one, "web2": one, "web3": {**one, "pids": 7}, "x": other}.items():
        values = {key: value for key, value in values.items() if key != "profile"}
        if "depends_on" in values:  # what it names has to be there
            values["depends_on"] = dict.fromkeys(["out"] if values["depends_on"] else [], "started")
        try:
            like = merge(values, {}, DECLARING)
        except InvalidInput:
            return
        if [*combinations.problems(like)]:
            return
        fleet[name] = Current(replace(like, name=name, created=TIME), None)
    text = export.text("shop", [each.spec for each in fleet.values() if each.spec], None, DECLARING)
    assert set(fleet_file.parse(Sources(text, "f"), DECLARING).groups) == {"web", "x"}
    file = fleet_file.parse(Sources(text, "f"), DECLARING)
    fleet["out"] = Current(Spec("out", created=TIME), None)
    made = plan(file, None, OnHost(fleet), DECLARING, adopt=True)
    assert {key for each in made.changes for key in each.differs} == {"fleet", "group"}
    after = carry_out(made, fleet)
    assert not plan(file, made.after, OnHost(after), DECLARING).changed
    assert not plan(file, None, OnHost(after), DECLARING).changed


def test_a_group_that_was_scaled_to_none_is_in_the_exported_file() -> None:
    made = planned("  web: {count: 2, command: [a], memory: 64M, rollout: {priority: 3}}\n  db: {command: [b]}\n", {})
    fleet = carry_out(made, {})
    web = replace(made.after.groups["web"], now=0)
    before = replace(made.after, groups={**made.after.groups, "web": web})
    text = export.text("shop", [each.spec for each in fleet.values() if each.spec], before, Config())
    file = fleet_file.parse(Sources(text, "f"), Config())
    assert {name: group.count for name, group in file.groups.items()} == {"db": None, "web": 0}
    again = plan(file, before, OnHost({name: replace(each, in_force=None) for name, each in fleet.items()}), Config())
    assert not again.changed
    assert again.after.groups["web"].said == web.said
    assert again.after.groups["web"].rollout == web.rollout


@pytest.mark.parametrize(
    ("change", "state", "again"),
    [
        ("command: [c]", State.EXITED, True), ("environment: {V: '2'}, command: [a]", State.EXITED, True),
        ("labels: {v: '2'}, command: [a]", State.EXITED, False), ("command: [c]", State.STOPPED, False),
    ],
)  # fmt: skip
def test_a_job_that_was_completed_runs_once_more_if_it_has_something_else_to_do(
    change: str, state: State, again: bool
) -> None:
    """The migration to a second version never ran, and what waits for it was restarted with that version."""
    text = "  job: {command: [a]}\n  web: {command: [b], depends_on: {job: completed}}\n  sole: {command: [a]}\n"
    made = planned(text, {})
    fleet = {name: replace(each, in_force=None, state=state) for name, each in carry_out(made, {}).items()}
    (job, sole) = planned(text.replace("command: [a]", change), fleet, made.after).changes
    assert (job.name, job.starts, job.job, "runs once more" in job.why) == ("job", again, again, again)
    assert (sole.name, sole.starts) == ("sole", False), "nothing waits for it, so it is no job"


@pytest.mark.parametrize(("state", "told"), [(State.EXITED, False), (State.FAILED, True), (State.STOPPED, True)])
def test_a_job_that_is_completed_is_as_the_file_has_it(state: State, told: bool) -> None:
    text = "  job: {command: [a]}\n  web: {command: [b], depends_on: {job: completed}}\n"
    made = planned(text, {})
    fleet = carry_out(made, {})
    fleet["job"] = replace(fleet["job"], in_force=None, state=state)
    assert [each.name for each in planned(text, fleet, made.after).kept] == ["job"][:told]
    fleet["web"] = replace(fleet["web"], in_force=None, state=state)
    assert "web" in [each.name for each in planned(text, fleet, made.after).kept]


JOB = "  job: {command: [a]}\n  web: {count: %d, command: [b%s], depends_on: {job: completed}}\n"


@pytest.mark.parametrize(
    ("state", "count", "change", "again", "stuck"),
    [
        (State.FAILED, 2, "", False, False), (State.FAILED, 2, ", c", True, False), (State.FAILED, 3, "", True, False),
        (State.STOPPED, 2, ", c", False, True), (State.STOPPED, 3, "", False, False), (State.EXITED, 2, ", c", False, False),
    ],
)  # fmt: skip
def test_a_job_that_failed_runs_once_more_if_anything_waits_for_it(
    state: State, count: int, change: str, again: bool, stuck: bool
) -> None:
    """The rollout of an apply waited for it, until somebody ran it by hand."""
    made = planned(JOB % (2, ""), {})
    fleet = carry_out(made, {})
    fleet["job"] = replace(fleet["job"], in_force=None, state=state)
    now = planned(JOB % (count, change), fleet, made.after)
    assert ["job" in each.why for each in now.changes if each.name == "job"] == [False] * again
    assert [(each.kind, each.job) for each in now.changes if each.name == "job"] == [(Kind.START, True)] * again
    assert [each.name for each in now.kept] == ([] if again or state is State.EXITED else ["job"])
    assert now.after_jobs == ({"web3"} if again and count == 3 else set())
    assert ["depends_on.job: job is not completed: somebody stopped it" in each for each in now.stuck] == [True] * stuck


def test_a_job_that_failed_runs_once_more_while_others_are_blocked_by_it() -> None:
    made = planned(JOB % (2, ""), {})
    fleet = carry_out(made, {})
    fleet["job"] = replace(fleet["job"], in_force=None, state=State.FAILED)
    fleet["web2"] = replace(fleet["web2"], in_force=None, state=State.BLOCKED)
    now = planned(JOB % (2, ""), fleet, made.after)
    assert [(each.name, each.kind) for each in now.changes] == [("job", Kind.START)]
    assert now.changes[0].why.endswith("has to be completed before web2")
    assert now.id == planned(JOB % (2, ""), carry_out(made, {}), made.after).id, "states are no part of it"
    labelled = (JOB % (2, "")).replace("[a]", "[a], labels: {x: y}")
    (change,) = planned(labelled, fleet, made.after).changes
    assert (change.kind, change.starts, change.job) == (Kind.LIVE, True, True)
    fleet["job"] = replace(fleet["job"], state=State.STOPPED, why="its exit status is not known")
    (kept,) = planned(JOB % (2, ""), fleet, made.after).kept
    assert kept.why == "its exit status is not known", "nobody stopped it"


def test_new_containers_come_after_a_job_that_runs_once_more_for_them() -> None:
    """They ran with the new version before the migration to it."""
    made = planned(JOB % (2, ""), {})
    fleet = carry_out(made, {})
    fleet["job"] = replace(fleet["job"], in_force=None, state=State.EXITED)
    text = (JOB % (3, "")).replace("[a]", "[c]") + "  top: {command: [d], depends_on: {web: started}}\n  db: {command: [e]}\n"
    now = planned(text, fleet, made.after)
    assert {each.name for each in now.of(Kind.CREATE)} == {"web3", "top", "db"}
    assert now.after_jobs == {"web3", "top"}


def test_the_base_that_a_container_was_given_stays_until_the_file_names_another_one() -> None:
    """`rollback`, or a way back from a bad patch, puts containers on a generation: no file takes that back unasked."""
    text = "  web: {count: 1, memory: 64M%s}\n"
    first = planned(text % "", {})
    now = carry_out(first, {})["web1"].spec
    assert now is not None
    back = replace(now, generation=3)
    stranger = replace(back, fleet=None, group=None)
    for spec, before in ((back, first.after), (stranger, None)):
        adopted = planned(text % "", {"web1": Current(spec, spec)}, before, adopt=True)
        assert all(each.spec is not None and each.spec.generation == 3 for each in adopted.changes)
    moved = planned(text % ", generation: 4", {"web1": Current(back, back)}, first.after)
    assert [(each.kind, each.differs) for each in moved.changes] == [(Kind.RESTART, {"generation": ("3", "4")})]
    on = replace(back, generation=4)
    gone = planned(text % "", {"web1": Current(on, on)}, moved.after)
    assert [(each.kind, each.differs) for each in gone.changes] == [(Kind.RESTART, {"generation": ("4", "0")})]


def test_what_others_changed_stays_until_the_file_moves() -> None:
    text = "  web: {count: 2, command: [a], memory: 1G}\n"
    made = planned(text, {})
    fleet = carry_out(made, {})
    spec = fleet["web1"].spec
    assert spec is not None
    changed = replace(spec, memory=5 << 30, pids=9)
    fleet["web1"] = Current(changed, changed)
    again = planned(text, fleet, made.after)
    assert (again.changed, [(each.name, each.key, each.file, each.now) for each in again.kept]) == (
        False, [("web1", "memory", "1G", "5G")],
    )  # fmt: skip
    moved = planned(text.replace("1G", "2G"), fleet, made.after)
    assert {each.name: each.differs["memory"] for each in moved.changes} == {"web1": ("5G", "2G"), "web2": ("1G", "2G")}
    dropped = planned(text.replace(", memory: 1G", ""), fleet, made.after)
    assert {each.name: each.differs["memory"][0] for each in dropped.changes} == {"web1": "5G", "web2": "1G"}
    assert all(each.spec and not each.spec.memory for each in dropped.changes)


def test_a_record_of_the_former_version_gives_an_empty_plan() -> None:
    """It had fewer fields, and wrote some of the values in another form."""
    text = "  web: {count: 1, command: [a], memory: 1G, environment: {A: x}, network: none}\n"
    fleet = carry_out(planned(text, {}), {})
    old = """{"version": 1, "fleet": "shop", "where": "f", "time": "t", "groups": {"web": {"count": 1, "now": 1, "held": 1,
        "by": "", "said": {"command": ["a"], "memory": "1024M", "environment": {"A": "x"}, "network": "none", "colour": 1},
        "members": {}, "rollout": null}}}"""
    before = records.from_json(old)
    made = planned(text, fleet, before)
    assert (made.changed, made.kept) == (False, ())
    spec = fleet["web1"].spec
    assert spec is not None
    lines = store.render(replace(spec, first_id=1 << 20)).splitlines()
    disk = "\n".join(line for line in lines if not line.startswith(("fleet:", "group:", "drain:")))
    former = store.parse("web1", disk.encode(), "f")
    made = planned(text, {"web1": Current(former, former)}, adopt=True)
    assert {key for each in made.changes for key in each.differs} == {"fleet", "group"}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 9}', '{"version": 1, "fleet": "a"}', "\0", '{"version": 1,'])
def test_a_record_that_makes_no_sense_is_no_record(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        records.from_json(text)


def test_what_is_in_the_way_is_told() -> None:
    text = "  web: {count: 2, command: [a]}\n"
    made = planned(text, {})
    fleet = carry_out(made, {})
    with pytest.raises(Conflict, match="two fleets"):
        planned(text, {}, others=[replace(made.after, fleet="other")])
    mine = fleet["web1"].spec
    assert mine is not None
    stranger = replace(mine, fleet=None, group=None)
    with pytest.raises(Conflict) as caught:
        planned(text, {**fleet, "web1": Current(stranger)}, made.after)
    assert "web1 belongs to no fleet" in caught.value.why
    with pytest.raises(Conflict) as caught:
        planned(text, {**fleet, "web1": Current(replace(mine, fleet="x"))}, made.after, adopt=True)
    assert "web1 belongs to the fleet x" in caught.value.why
    with pytest.raises(InvalidInput) as refused:
        planned(text, {**fleet, "web2": Current(None)}, made.after)
    assert "web2 is broken" in refused.value.why
    with pytest.raises(Conflict) as never:
        planned(text.replace("[a]", "[a], privileged: true"), fleet, made.after)
    assert "web1: privileged" in never.value.why
    with pytest.raises(Conflict, match=r"all of the group web|2 of 2"):
        planned("  {}\n", fleet, made.after, prune=Prune.YES)
    gone = planned("  {}\n", fleet, made.after, prune=Prune.ALL)
    assert [each.kind for each in gone.changes] == [Kind.DESTROY] * 2


def test_the_planner_can_not_act() -> None:
    """Neither it nor anything that it imports opens the door to the host."""
    files = {name: ROOT.parent.joinpath(*name.split(".")) for name in NAMES}
    found: set[str] = set()
    waiting = ["lxcfleet.fleets.plan", "lxcfleet.fleets.export"]
    while waiting:
        name = waiting.pop()
        if name in found or name not in NAMES:
            continue
        found.add(name)
        path = files[name]
        waiting += imports(path / "__init__.py" if path.is_dir() else path.with_suffix(".py"))
    assert len(found) > 20
    assert not [name for name in found if name.startswith("lxcfleet.host")]
    assert "lxcfleet.fleets.plan" in sys.modules


def test_change_sets_are_read_as_they_were_written() -> None:
    one = merge({"command": ("a",), "memory": 1 << 30}, {}, Config())
    other = merge({"command": ("b",), "labels": {"a": "b"}, "environment": {"X": "1"}}, {}, Config())
    for former, wanted in ((one, other), (other, one), (replace(one, fleet="a", group="b"), one)):
        values = change_sets.changing_values(former, wanted)
        assert change_sets.applied(former, values.wanted) == wanted
        assert change_sets.applied(wanted, values.former) == former
    assert isinstance(one, Spec)


def test_a_container_that_does_not_run_is_told_of_and_one_that_is_being_started_is_not() -> None:
    text = "  web: {count: 1, command: [a]}\n"
    made = planned(text, {})
    spec = carry_out(made, {})["web1"].spec
    found = {state: planned(text, {"web1": Current(spec, None, state)}, made.after).kept for state in State}
    assert {state for state, kept in found.items() if kept} == {
        State.STOPPED, State.EXITED, State.FAILED, State.BACKOFF,
    }  # fmt: skip
    assert found[State.STOPPED][0].why == "somebody stopped it"
    assert found[State.FAILED][0].why == "it ended with an error, or could not be started"


@pytest.mark.parametrize(
    ("now", "mends"),
    [
        ("memory: 64M", True), ("memory: 16M", False), ("environment: {A: b}", True), ("labels: {a: b}", False),
        ("memory: 32M", False),
    ],
)  # fmt: skip
def test_what_failed_is_started_with_a_spec_that_may_mend_it(now: str, mends: bool) -> None:
    text = "  web: {count: 1, command: [a], memory: 32M}\n"
    made = planned(text, {})
    spec = carry_out(made, {})["web1"].spec
    text = text.replace("memory: 32M", now if now.startswith("memory") else f"memory: 32M, {now}")
    plans = {s: planned(text, {"web1": Current(spec, None, s)}, made.after) for s in (State.FAILED, State.STOPPED)}
    assert any(each.starts for each in plans[State.FAILED].changes) == mends
    assert bool(plans[State.FAILED].kept) != mends
    assert not any(each.starts for each in plans[State.STOPPED].changes)
    assert plans[State.FAILED].id == plans[State.STOPPED].id


def test_a_plan_holds_whatever_state_a_container_is_in() -> None:
    """One that fails and is started again is down and starting in turns: `apply --plan` was refused or not by chance."""
    made = planned("  web: {count: 2, command: [a], pids: 9}\n", {})
    fleet = carry_out(made, {})
    text, spec = "  web: {count: 3, command: [a], pids: 9}\n", fleet["web1"].spec
    plans = [planned(text, {**fleet, "web1": Current(spec, None, state)}, made.after) for state in State]
    assert len({each.id for each in plans}) == 1
    assert spec is not None
    changed = planned(text, {**fleet, "web1": Current(replace(spec, pids=7), None, State.BACKOFF)}, made.after)
    assert changed.id != plans[0].id, "that `set` changed something is another plan"


def test_new_containers_that_are_alike_share_one_spec() -> None:
    """A plan for thousands would take seconds else."""
    made = planned("  web: {count: 50, command: [x], members: {web7: {pids: 5}}}\n", {})
    assert len({id(each.spec) for each in made.changes}) == 2
    other = planned("  web: {count: 50, command: [x], members: {web8: {pids: 5}}}\n", {})
    assert made.id != other.id
    assert made.id == planned("  web: {count: 50, command: [x], members: {web7: {pids: 5}}}\n", {}).id


def test_a_dependency_has_to_exist_when_the_file_is_applied() -> None:
    text = "  web: {count: 2, depends_on: {db: healthy}}\n"
    with pytest.raises(InvalidInput) as told:
        planned(text, {})
    assert told.value.why == "f:4: groups: web: depends_on.db: there is no container and no group of this name"
    made = planned(text + "  db: {}\n", {})
    assert [each.kind for each in made.changes] == [Kind.CREATE] * 3
    assert planned(text + "  db: {count: 0}\n", {}).changed, "a group may get its containers later"
    stranger = Spec("db", created=TIME)
    assert planned(text, {"db": Current(stranger, stranger)}).changed
    fleet = carry_out(made, {})
    with pytest.raises(InvalidInput):
        planned(text, fleet, made.after, prune=Prune.ALL)
    assert not planned(text, fleet, made.after).of(Kind.DESTROY)


def test_a_circle_through_containers_that_are_not_in_the_file_is_refused() -> None:
    other = Spec("other", created=TIME, depends_on={"web": "started"})
    fleet = {"other": Current(other, other)}
    with pytest.raises(InvalidInput) as told:
        planned("  web: {count: 1, depends_on: {other: started}}\n", fleet)
    assert told.value.why.startswith("f:4: groups: web: depends_on.other: a circle: ")
    assert planned("  web: {count: 1}\n", fleet).changed


def test_who_may_not_see_values_of_variables_can_not_find_them_by_guesses() -> None:
    """A member of lxcfleet-ro could: a plan told whether a variable in a file was the one that the container has."""
    groups = "  web: {command: [sleep, '1'], environment: {PASSWORD: %s}}\n"
    fleet = carry_out(planned(groups % "s3cret", {}), {})
    guesses = [planned(groups % guess, fleet, blind=True) for guess in ("s3cret", "other")]
    assert [(made.changed, made.changes, made.kept) for made in guesses] == [(False, (), ())] * 2
    others = planned("  web: {command: [sleep, '2'], environment: {PASSWORD: other}}\n", fleet, blind=True)
    assert [[*each.differs] for each in others.changes] == [["command"]]
    also = carry_out(planned(groups % "another", {}), {})
    once_more = planned("  web: {command: [sleep, '2'], environment: {PASSWORD: other}}\n", also, blind=True)
    assert (once_more.changes, once_more.id, others.id) == (others.changes, "", "")
    assert once_more.not_compared == ("environment",)
