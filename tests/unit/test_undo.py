"""`rollout undo` of a rollout that goes on while it is looked at whether its members can have back what they had."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lxcfleet.api.records import RolloutRecord
from lxcfleet.cli.ui import follow, rolling
from lxcfleet.cli.verbs import app, change
from lxcfleet.errors import Broken, FleetError, WrongState
from lxcfleet.fleets import apply
from lxcfleet.patch.rollout import planner
from lxcfleet.patch.rollout.change_sets import KEPT, ChangeSets
from lxcfleet.patch.rollout.state import MemberPhase, Rollout, Status, from_json, to_json
from lxcfleet.patch.rollout.undoing import Undoing
from lxcfleet.spec.container.spec import Spec

from .test_driver import World as Fleet


class World:
    """Containers that get another limit or command by a rollout, and what happens during the look."""

    def __init__(self, directory: Path) -> None:
        self.fleet = Fleet(directory, "a", "b", "c")
        self.looked: list[str] = []
        self.kept: list[Rollout] = []
        self.meanwhile: list[Callable[[], object]] = []
        """What happens during the looks, one after the other."""
        changing = SimpleNamespace(check_there=self._look)
        self.orders, self.ledger = self.fleet.orders, self.fleet.ledger
        self._use(ChangeSets(self.fleet.paths, cast(Any, changing)))
        keep = self.ledger.keep

        def note(rollout: Rollout) -> None:
            keep(rollout)
            self.kept.append(rollout)

        cast(Any, self.ledger).keep = note
        for name, box in self.fleet.boxes.items():
            box.wanted = box.spec = cast(Any, Spec(name, first_id=1879048192, created="2026-01-01T00:00:00Z", pids=100))

    def _use(self, sets: ChangeSets) -> None:
        self.orders._change_sets, self.orders._undoing = sets, Undoing(self.orders._fleet, self.ledger, sets)

    async def _look(self, now: Spec, _: Spec) -> None:
        self.looked.append(now.name)
        await asyncio.sleep(0)
        if self.meanwhile:
            self.meanwhile.pop(0)()

    async def begin(self, **fields: Any) -> Rollout:
        """Begin to change all containers."""
        wanted = {name: replace(box.wanted, **fields) for name, box in self.fleet.boxes.items()}
        await self.orders.begin_change(wanted, {})
        assert self.ledger.last is not None
        return self.ledger.last

    def wave(self, *names: str, given: bool = True, **fields: Any) -> None:
        """The driver begins a wave, and these have their specs already if ``given``."""
        assert self.ledger.last is not None
        self.ledger.keep(planner.begin_wave(self.ledger.last, names))
        for name in names if given else ():
            box = self.fleet.boxes[name]
            box.wanted = replace(box.wanted, **fields)

    def give(self, name: str, **fields: Any) -> None:
        """The driver gives a container other values, and its member is done."""
        box = self.fleet.boxes[name]
        box.wanted = replace(box.wanted, **fields)

    def ends(self, status: Status) -> None:
        """The last rollout ends so."""
        assert self.ledger.last is not None
        self.ledger.keep(planner.end(self.ledger.last, status, "now"))

    def restart(self) -> None:
        """Another daemon goes on."""
        sets = self.orders._change_sets
        self.fleet.make()
        self.orders, self.ledger = self.fleet.orders, self.fleet.ledger
        self._use(sets)

    def undone(self) -> Rollout:
        """The rollout that was undone, as it ended."""
        return [each for each in self.kept if each.status is Status.ABORTED][-1]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_what_is_changed_during_the_look_is_taken_back_too_and_nothing_older_is_written_down(world: World) -> None:
    async def run() -> None:
        first = await world.begin(pids=200)
        world.wave("a", pids=200)
        world.meanwhile = [lambda: world.wave("b", pids=200)]
        await world.orders.undo()
        assert world.ledger.last is not None
        assert set(world.ledger.last.members) == {"a", "b"}
        assert world.ledger.last.undoes == first.id

    asyncio.run(run())
    assert world.looked == ["a", "b"]
    ended = world.undone()
    assert (ended.wave, ended.members["b"].phase) == (2, MemberPhase.RESTARTING)


def test_a_rollout_that_begins_during_the_look_is_not_touched(world: World) -> None:
    others: list[Rollout] = []

    def another() -> None:
        assert world.ledger.last is not None
        world.ledger.keep(planner.end(world.ledger.last, Status.DONE, "now"))
        others.append(replace(world.ledger.last, id="another", status=Status.RUNNING))
        world.ledger.keep(others[0])

    async def run() -> None:
        await world.begin(pids=200)
        world.wave("a", pids=200)
        world.meanwhile = [another]
        with pytest.raises(WrongState, match="nothing is undone") as refused:
            await world.orders.undo()
        assert "another" in refused.value.why

    asyncio.run(run())
    assert world.ledger.last == others[0]


def test_one_that_gets_its_spec_in_this_moment_is_restarted_on_its_former_one(world: World) -> None:
    """A wave has begun, and its specs are being written."""

    async def run() -> None:
        await world.begin(command=("/bin/other",))
        world.wave("a", given=False)
        await world.orders.undo()
        assert world.ledger.last is not None
        assert {name: member.live for name, member in world.ledger.last.members.items()} == {"a": False}

    asyncio.run(run())


def test_one_that_somebody_else_changed_since_is_none_of_the_rollout(world: World) -> None:
    """Its wave was aborted, and the daemon killed before it was seen how it went."""

    async def run() -> None:
        await world.begin(pids=200)
        world.wave("a", pids=200)
        world.wave("b", given=False)
        world.fleet.boxes["b"].wanted = replace(world.fleet.boxes["b"].wanted, pids=300)
        world.orders.abort()
        await world.orders.undo()
        assert world.ledger.last is not None
        assert set(world.ledger.last.members) == {"a"}

    asyncio.run(run())


def test_one_of_which_it_is_not_known_what_it_got_is_left_out_and_told(world: World) -> None:
    """Before, it was left out without a word: its change set is of another version, or its spec can't be read."""

    async def run() -> Rollout:
        first = await world.begin(pids=200)
        for name in ("a", "b"):
            world.wave(name, pids=200)
        file = world.fleet.paths.change_sets / f"{first.id}.json"
        data = json.loads(file.read_text())
        for name in ("b", "c"):
            data["members"][name][1]["pids"] = "as a later version has it"
        file.write_text(json.dumps(data))
        record = await world.orders.undo()
        assert record["left_out"].keys() == {"b"}, "the turn of c has not come"
        assert world.ledger.last is not None
        assert record["left_out"] == world.ledger.last.left_out
        assert from_json(to_json(world.ledger.last)) == world.ledger.last
        error = record["left_out"]["b"]
        assert "b does not get its former spec back" in error["message"]
        assert str(file) in error["why"]
        assert "lxcfleet info b" in error["hint"]
        assert {each["name"] for each in record["containers"]} == {"a"}
        assert rolling.status_of(record) == 3
        return world.ledger.last

    assert asyncio.run(run()).undoes


def test_a_broken_one_is_left_out_and_told(world: World) -> None:
    async def run() -> None:
        record = await undo_but_for(world, "b", got=("a", "b"))
        error = record["left_out"]["b"]
        assert (error["code"], "/b/lxcfleet.yaml" in error["why"], error["hint"]) == ("broken", True, "restore it")

    asyncio.run(run())


def test_an_undo_that_leaves_out_all_that_it_could_put_back_is_kept_so_that_its_status_is_told(world: World) -> None:
    async def run() -> None:
        record = await undo_but_for(world, "a", got=("a",))
        assert (record["status"], record["containers"], [*record["left_out"]]) == ("done", [], ["a"])
        shown = world.ledger.record()
        assert shown is not None
        assert (shown["id"], shown["left_out"], shown["status"]) == (record["id"], record["left_out"], "done")
        assert world.ledger.active is None
        kept = from_json(world.fleet.paths.rollout.read_text())
        assert kept == world.ledger.last

    asyncio.run(run())


def test_what_could_not_be_put_back_is_asked_for_once_more_and_nobody_else_gets_what_was_not_wanted(world: World) -> None:
    """To undo an undo that put nothing back gives the values to b and c, whose turn had not come."""

    async def run() -> None:
        first = await world.begin(pids=200)
        world.wave("a", pids=200)
        mended = world.fleet.boxes["a"].wanted
        break_(world, "a")
        for _ in range(2):
            record = await world.orders.undo(by_itself=True)
            assert (record["undoes"], [*record["left_out"]]) == (first.id, ["a"])
        world.fleet.boxes["a"].wanted = mended
        world.restart()
        record = await world.orders.undo()
        assert (record["undoes"], record["left_out"]) == (first.id, {})
        assert [each["name"] for each in record["containers"]] == ["a"]

    asyncio.run(run())


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("members", [False, True])
def test_the_same_command_puts_the_rest_back_whether_the_first_undo_had_members_and_the_daemon_was_restarted(
    world: World, restarted: bool, members: bool
) -> None:
    """Before, an undo with members was undone itself, which gave them again what was not wanted; and after a restart of the
    daemon one without members was refused."""

    async def run() -> None:
        first = await world.begin(pids=200)
        for name in ("a", "b") if members else ("a",):
            world.wave(name, pids=200)
        mended = world.fleet.boxes["a"].wanted
        break_(world, "a")
        for _ in range(KEPT + 2):  # however often: what it changed is known still
            await world.orders.undo()
            world.ends(Status.DONE)
            if members:
                world.give("b", pids=100)
        world.fleet.boxes["a"].wanted = mended
        if restarted:
            world.restart()
        record = await world.orders.undo()
        assert (record["undoes"], [each["name"] for each in record["containers"]]) == (first.id, ["a"])
        with pytest.raises(WrongState, match="is being undone already") as refused:
            await world.orders.undo()
        assert "lxcfleet rollout status --follow" in refused.value.hint
        assert "lxcfleet rollout undo --redo" in refused.value.hint
        world.give("a", pids=100)
        world.ends(Status.DONE)
        with pytest.raises(WrongState, match="there is nothing to undo") as refused:
            await world.orders.undo()
        assert f"no container has the specs of {first.id} any more" in refused.value.why

    asyncio.run(run())


@pytest.mark.parametrize("restarted", [False, True])
def test_what_was_taken_back_is_given_again_if_that_is_asked_for_and_can_be_taken_back_once_more(
    world: World, restarted: bool
) -> None:
    async def run() -> None:
        with pytest.raises(WrongState, match="there is nothing to do again"):
            await world.orders.undo(redo=True)
        first = await world.begin(pids=200)
        for name in ("a", "b"):
            world.wave(name, pids=200)
        with pytest.raises(WrongState, match="there is nothing to do again"):
            await world.orders.undo(redo=True)
        await world.orders.undo(by_itself=True)
        for name in ("a", "b"):
            world.give(name, pids=100)
        world.ends(Status.DONE)
        if restarted:
            world.restart()
        again = await world.orders.undo(redo=True)
        assert (again["undoes"], [each["name"] for each in again["containers"]]) == ("", ["a", "b"])
        for name in ("a", "b"):
            world.wave(name, pids=200)
        world.ends(Status.DONE)
        back = await world.orders.undo()
        assert (back["undoes"], [each["name"] for each in back["containers"]]) == (again["id"], ["a", "b"])
        assert first.id not in (again["undoes"], back["undoes"])

    asyncio.run(run())


def break_(world: World, name: str) -> None:
    """From now on its spec can't be read."""
    box: Any = world.fleet.boxes[name]
    box.wanted, box.problem = None, Broken(f"{name} is broken", why=f"/{name}/lxcfleet.yaml: no mapping", hint="restore it")


async def undo_but_for(world: World, name: str, *, got: Iterable[str]) -> RolloutRecord:
    """Undo a rollout that gave some of them what it was to; one of these can't be read any more."""
    await world.begin(pids=200)
    for each in got:
        world.wave(each, pids=200)
    break_(world, name)
    return await world.orders.undo()


@pytest.fixture
def undone(world: World) -> Any:
    """The rollout that puts back what all but the first one of two got, once it has ended."""

    async def run() -> Any:
        record = await undo_but_for(world, "a", got=("a", "b"))
        members = [{**each, "phase": "done", "wave": 1} for each in record["containers"]]
        return {**record, "status": "done", "ended": "2026-01-01T00:00:00Z", "containers": members}

    return asyncio.run(run())


def results() -> list[Any]:
    """What a client knows of the containers before it has followed the rollout."""
    differs = {"pids": ("100", "200")}
    return [{"name": name, "status": "begun", "changed": False, "error": None, "differs": differs} for name in ("a", "b")]


def test_a_client_does_not_say_of_one_that_is_left_out_that_it_was_taken_back(undone: Any) -> None:
    found = results()
    rolling.settle(found, undone, taken_back=True)
    assert [(each["name"], each["status"], each["changed"], each["error"]) for each in found] == [
        ("a", "failed", True, undone["left_out"]["a"]), ("b", "taken back", False, None),
    ]  # fmt: skip


@pytest.mark.parametrize("quiet", [False, True])
def test_a_set_that_was_taken_back_tells_whom_that_left_out(
    undone: Any, quiet: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    begun = {**undone, "id": undone["undoes"], "undoes": "", "left_out": {}, "status": "running", "ended": None}
    client: Any = SimpleNamespace(rollout_follow=lambda: iter([begun, undone]))
    record: Any = {
        "results": results(), "rollout": begun, "dry_run": False, "restarts": [], "restart_needed": [], "plan": [],
        "notes": [],
    }  # fmt: skip
    with pytest.raises(FleetError, match="the former values are put back, but for a\n"):
        change._wait(client, record, "table", quiet=quiet, wait=True)
    out, err = capfd.readouterr()
    assert "a does not get its former spec back" in err
    assert out.split() == (["a"] if quiet else ["a", "failed", "b", "taken", "back"])


@pytest.mark.parametrize("quiet", [False, True])
def test_a_create_that_was_taken_back_tells_whom_that_left_out(
    undone: Any, quiet: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """``create --ensure``, which changes those that are there."""
    with pytest.raises(FleetError, match="the former values are put back, but for a\n"):
        follow._tell_restarts(undone, quiet, taken_back=True)
    assert "a does not get its former spec back" in capfd.readouterr().err


@pytest.mark.parametrize("ended", [True, False])
def test_a_create_hears_of_a_way_back_that_began_before_it_asked(undone: Any, ended: bool) -> None:
    """Before, it said nothing at all of the halt, and succeeded."""
    now = undone if ended else {**undone, "status": "running", "ended": None}
    client: Any = SimpleNamespace(rollout=lambda: now, rollout_follow=lambda: iter([now, undone]))
    record = follow._restarts(client, undone["undoes"], wait=True, quiet=True)
    assert record == undone
    found = results()
    assert follow._settle(found, record, undone["undoes"])
    assert [each["status"] for each in found] == ["failed", "taken back"]
    assert follow._restarts(client, "another", wait=True, quiet=True) is None


def test_a_switch_of_an_app_that_was_taken_back_tells_whom_that_left_out(
    undone: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    begun = {**undone, "id": undone["undoes"], "undoes": "", "left_out": {}, "status": "running", "ended": None}
    client = SimpleNamespace(use_app=lambda _: {"rollout": begun, "apps": {}}, rollout_follow=lambda: iter([begun, undone]))
    monkeypatch.setattr(app, "connect", lambda _: client)
    request: Any = SimpleNamespace(revert=True)
    with pytest.raises(FleetError, match="the former values are put back, but for a\n"):
        app._switch(cast(Any, None), request, wait=True, style="table", quiet=True)
    assert "a does not get its former spec back" in capfd.readouterr().err


def test_an_apply_does_not_say_of_one_that_is_left_out_that_it_is_taken_back(undone: Any) -> None:
    members = [{"name": name, "phase": "done", "note": "", "wave": 1} for name in ("a", "b")]
    halted: Any = {**undone, "status": "aborted", "containers": members, "halted": {"container": "c", "why": "it is ill"}}
    found = apply._results(halted, {"a": None, "b": None}, undone, reverts=True)
    assert [(each.name, each.status, each.changed) for each in found] == [("a", "failed", True), ("b", "taken back", False)]
    assert found[0].error == undone["left_out"]["a"]
