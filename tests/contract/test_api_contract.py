"""The contract of the API's calls: over a fake launcher, and over real LXC."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import pytest

from lxcfleet.api.client import Client
from lxcfleet.api.queries import DoctorRequest, EventsRequest, LogsRequest
from lxcfleet.api.records import (
    ContainerDetails,
    ContainerRecord,
    DoctorRecord,
    EventRecord,
    FindingRecord,
    OperationRecord,
    ResultRecord,
)
from lxcfleet.api.requests import ActionRequest, CreateRequest, WaitRequest
from lxcfleet.errors import AlreadyExists, FleetError, InvalidInput, NotFound
from lxcfleet.spec.reading.terms import Init
from lxcfleet.spec.selection import Selection
from lxcfleet.spec.states import Action

from .conftest import FOREVER, Fleet, soon


def has_fields_of(record: Any, kind: type) -> bool:
    return set(record) == set(kind.__annotations__)


def metrics(fleet: Fleet) -> str:
    return b"".join(fleet.client.metrics()).decode()


def code_of(result: ResultRecord) -> str | None:
    return result["error"]["code"] if result["error"] else None


# create


def test_a_created_container_runs(fleet: Fleet) -> None:
    operation = fleet.create("", labels={"tier": "front"}, environment={"MODE": "night"})
    assert has_fields_of(operation, OperationRecord)
    assert (operation["status"], operation["action"]) == ("done", "create")
    assert (operation["total"], operation["done"], operation["changed"]) == (1, 1, True)
    (result,) = operation["results"]
    assert result == {"name": fleet.prefix, "status": "created", "changed": True, "error": None}
    (record,) = fleet.client.containers(fleet.all)
    assert has_fields_of(record, ContainerRecord)
    assert (record["name"], record["state"], record["init"]) == (fleet.prefix, "running", "app")
    assert (record["command"], record["labels"]) == ([*FOREVER], {"tier": "front"})
    assert (record["privileged"], record["problem"]) == (False, None)
    assert isinstance(record["pid"], int)


def test_info_has_all_details(fleet: Fleet) -> None:
    fleet.create("", environment={"MODE": "night"})
    details = fleet.client.info(fleet.prefix)
    assert has_fields_of(details, ContainerDetails)
    assert details["environment"] == {"MODE": "night"}
    assert isinstance(details["first_id"], int)


def test_a_count_takes_the_next_free_numbers(fleet: Fleet) -> None:
    fleet.create("", count=3)
    assert set(fleet.states()) == {"1", "2", "3"}
    fleet.act(Action.DESTROY, 2, force=True)
    assert {r["name"] for r in fleet.create("", count=2)["results"]} == {fleet.name(2), fleet.name(4)}
    assert set(fleet.states()) == {"1", "2", "3", "4"}


def test_ensure_changes_nothing_the_second_time(fleet: Fleet) -> None:
    assert fleet.create("", count=2, ensure=True)["changed"]
    again = fleet.create("", count=2, ensure=True)
    assert not again["changed"]
    assert [r["changed"] for r in again["results"]] == [False, False]
    fleet.act(Action.STOP, 2)
    third = {r["name"]: r["changed"] for r in fleet.create("", count=3, ensure=True)["results"]}
    assert third == {fleet.name(1): False, fleet.name(2): True, fleet.name(3): True}
    assert set(fleet.states().values()) == {"running"}


def test_ensure_tells_what_differs_and_leaves_it(fleet: Fleet) -> None:
    fleet.create("a", command=("sleep", "1000"))
    asked = CreateRequest(name=fleet.name("a"), said={"command": ("sleep", "1001")}, ensure=True)
    planned = fleet.client.create(dataclasses.replace(asked, dry_run=True))
    for (result,) in planned["results"], fleet.end(fleet.client.create(asked))["results"]:
        assert (result["status"], result["changed"], result["error"]) == ("unchanged", False, None)
        assert [*result["differs"]["command"]] == ["sleep 1000", "sleep 1001"]
        assert set(result["differs"]) == {"command"}
    (result,) = fleet.create("a", command=("sleep", "1000"), ensure=True)["results"]
    assert "differs" not in result
    assert fleet.client.info(fleet.name("a"))["command"] == ["sleep", "1000"]


def test_a_name_that_exists_is_refused(fleet: Fleet) -> None:
    fleet.create("web", start=False)
    with pytest.raises(AlreadyExists):
        fleet.create("web")
    assert fleet.states() == {"web": "stopped"}


def test_without_a_start_the_new_container_is_stopped(fleet: Fleet) -> None:
    fleet.create("", start=False)
    (record,) = fleet.client.containers(fleet.all)
    assert (record["state"], record["pid"]) == ("stopped", None)


def test_a_privileged_container_is_shown_as_such(fleet: Fleet) -> None:
    fleet.create("", privileged=True, start=False)
    assert fleet.client.containers(fleet.all)[0]["privileged"]
    assert fleet.client.info(fleet.prefix)["first_id"] is None


def test_a_dry_run_only_plans(fleet: Fleet) -> None:
    request = CreateRequest(name=fleet.prefix, count=2, said={"command": FOREVER}, dry_run=True)
    operation = fleet.client.create(request)
    assert operation["status"] == "done"
    assert any(fleet.name(1) in line for line in operation["plan"])
    assert operation["changed"]
    assert fleet.states() == {}


def test_a_dry_run_tells_what_would_change(fleet: Fleet) -> None:
    fleet.create("", count=2)
    fleet.act(Action.STOP, 2)

    def planned(**fields: Any) -> tuple[bool, dict[str, str]]:
        request = CreateRequest(name=fleet.prefix, ensure=True, said={"command": FOREVER}, dry_run=True, **fields)
        operation = fleet.client.create(request)
        words = {r["name"].removeprefix(fleet.prefix): r["status"] for r in operation["results"]}
        return operation["changed"], words

    assert planned(count=1) == (False, {"1": "unchanged"})
    assert planned(count=3, start=False) == (True, {"1": "unchanged", "2": "unchanged", "3": "planned"})
    operation = fleet.client.act(ActionRequest(Action.STOP, fleet.all, dry_run=True))
    words = {r["name"].removeprefix(fleet.prefix): (r["status"], r["changed"]) for r in operation["results"]}
    assert (operation["changed"], words) == (True, {"1": ("planned", True), "2": ("unchanged", False)})
    assert fleet.states() == {"1": "running", "2": "stopped"}


def test_an_unknown_profile_is_refused(fleet: Fleet) -> None:
    with pytest.raises(InvalidInput, match="no-such-profile"):
        fleet.create("", profile="no-such-profile")
    assert fleet.states() == {}


def test_if_two_clients_create_the_same_name_one_wins(fleet: Fleet) -> None:
    outcomes: list[str] = []

    def create() -> None:
        try:
            outcomes.extend(code_of(r) or "ok" for r in fleet.create("twin")["results"])
        except FleetError as error:
            outcomes.append(error.code)

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["already-exists"] * 3 + ["ok"]
    assert fleet.states() == {"twin": "running"}


# actions


def test_a_container_s_life_from_create_to_destroy(fleet: Fleet) -> None:
    fleet.create("a")
    life = [
        (Action.FREEZE, "frozen"),
        (Action.UNFREEZE, "running"),
        (Action.RESTART, "running"),
        (Action.STOP, "stopped"),
        (Action.START, "running"),
    ]
    for action, state in life:
        (result,) = fleet.act(action)
        assert (code_of(result), result["changed"]) == (None, True), action
        assert fleet.states() == {"a": state}, action
    (result,) = fleet.act(Action.DESTROY, force=True)
    assert (result["status"], result["changed"]) == ("destroyed", True)
    with pytest.raises(NotFound):
        fleet.client.info(fleet.name("a"))


@pytest.mark.parametrize(("action", "started"), [(Action.START, True), (Action.STOP, False)])
def test_a_container_that_is_as_asked_for_already_is_unchanged(fleet: Fleet, action: Action, started: bool) -> None:
    fleet.create("a", start=started)
    (result,) = fleet.act(action)
    assert (code_of(result), result["changed"]) == (None, False)


def test_freezing_a_stopped_container_fails(fleet: Fleet) -> None:
    fleet.create("a", start=False)
    (result,) = fleet.act(Action.FREEZE)
    assert (code_of(result), result["changed"]) == ("wrong-state", False)


def test_destroying_a_running_container_needs_force(fleet: Fleet) -> None:
    fleet.create("", count=2)
    fleet.act(Action.STOP, 2)
    results = {r["name"]: code_of(r) for r in fleet.act(Action.DESTROY)}
    assert results == {fleet.name(1): "wrong-state", fleet.name(2): None}
    assert fleet.states() == {"1": "running"}


def test_one_failure_leaves_the_others_done(fleet: Fleet) -> None:
    fleet.create("", count=3)
    fleet.act(Action.STOP, 2)
    results = {r["name"]: code_of(r) for r in fleet.act(Action.FREEZE)}
    assert results == {fleet.name(1): None, fleet.name(2): "wrong-state", fleet.name(3): None}


def test_actions_can_be_planned(fleet: Fleet) -> None:
    fleet.create("a")
    operation = fleet.client.act(ActionRequest(Action.DESTROY, fleet.all, force=True, dry_run=True))
    assert operation["status"] == "done"
    assert any(fleet.name("a") in line for line in operation["plan"])
    assert fleet.states() == {"a": "running"}


# selections


def test_labels_and_globs_narrow_each_other(fleet: Fleet) -> None:
    fleet.create("a", start=False, labels={"tier": "front"})
    fleet.create("b", start=False, labels={"tier": "back"})
    fleet.create("c1", start=False, labels={"tier": "front"})
    front = (("tier", "front"),)

    def names(*selection: Any) -> list[str]:
        return [r["name"].removeprefix(fleet.prefix) for r in fleet.client.containers(Selection(*selection))]

    assert names((f"{fleet.prefix}*",), front) == ["a", "c1"]
    assert names((f"{fleet.prefix}[ab]",)) == ["a", "b"]
    assert set(names((), front)) >= {"a", "c1"}
    assert names((fleet.name("b"), fleet.name("a"))) == ["a", "b"]
    assert names((f"{fleet.prefix}no*",)) == []


def test_order_is_natural(fleet: Fleet) -> None:
    fleet.create("", count=11, start=False)
    names = [record["name"] for record in fleet.client.containers(fleet.all)]
    assert names == [fleet.name(number) for number in range(1, 12)]


def test_without_a_selection_nothing_is_done(fleet: Fleet) -> None:
    with pytest.raises(InvalidInput):
        fleet.client.act(ActionRequest(Action.STOP, Selection()))


def test_with_one_unknown_name_nothing_is_done(fleet: Fleet) -> None:
    fleet.create("a")
    selection = Selection((fleet.name("a"), fleet.name("nix")))
    with pytest.raises(NotFound, match=fleet.name("nix")):
        fleet.client.act(ActionRequest(Action.STOP, selection))
    with pytest.raises(NotFound):
        fleet.client.containers(selection)
    assert fleet.states() == {"a": "running"}


def test_a_glob_may_match_nothing(fleet: Fleet) -> None:
    operation = fleet.end(fleet.client.act(ActionRequest(Action.STOP, fleet.all)))
    assert (operation["status"], operation["total"], operation["results"]) == ("done", 0, [])


# operations


def test_an_operation_goes_on_without_its_client(fleet: Fleet) -> None:
    request = CreateRequest(name=fleet.prefix, count=2, said={"command": FOREVER})
    operation = fleet.client.create(request)
    stream = fleet.client.follow(operation["id"])
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    soon(lambda: fleet.client.operation(operation["id"])["status"] == "done")
    assert fleet.states() == {"1": "running", "2": "running"}


def test_an_operation_can_be_followed_twice(fleet: Fleet) -> None:
    operation = fleet.create("", count=2, start=False)
    items = list(fleet.client.follow(operation["id"]))
    assert items == [*operation["results"], operation]
    assert fleet.client.operation(operation["id"]) == operation
    assert operation["id"] in [each["id"] for each in fleet.client.operations()]


def test_cancelling_an_ended_operation_changes_nothing(fleet: Fleet) -> None:
    operation = fleet.create("", start=False)
    fleet.client.cancel(operation["id"])
    assert fleet.client.operation(operation["id"])["status"] == "done"


def test_each_cancelled_container_has_a_result(fleet: Fleet) -> None:
    operation = fleet.client.create(CreateRequest(name=fleet.prefix, count=40, said={"command": FOREVER}))
    fleet.client.cancel(operation["id"])
    ended = fleet.end(operation)
    done = {r["name"] for r in ended["results"] if r["error"] is None}
    rest = [code_of(r) for r in ended["results"] if r["error"] is not None]
    assert ended["status"] in ("cancelled", "done")
    assert set(rest) <= {"cancelled"}
    assert len(ended["results"]) == ended["total"] == 40
    assert {fleet.name(rest) for rest in fleet.states()} == done


@pytest.mark.parametrize("call", ["operation", "cancel", "follow"])
def test_unknown_operations_are_not_found(client: Client, call: str) -> None:
    with pytest.raises(NotFound):
        list(getattr(client, call)("no-such-operation"))


# wait, logs, events, doctor


def test_wait_gives_one_result_each(fleet: Fleet) -> None:
    fleet.create("a")
    fleet.create("b", start=False)
    both = fleet.client.wait(WaitRequest(fleet.all, "running", 0.2))
    assert [(r["name"], r["error"] is None) for r in both] == [
        (fleet.name("a"), True),
        (fleet.name("b"), False),
    ]
    assert all(not r["changed"] for r in both)
    (result,) = fleet.client.wait(WaitRequest(Selection((fleet.name("b"),)), "stopped", 5))
    assert result["error"] is None


def test_wait_ends_when_the_container_reaches_the_state(fleet: Fleet) -> None:
    fleet.create("a")
    results: list[ResultRecord] = []
    wait = WaitRequest(fleet.all, "stopped", 20)
    thread = threading.Thread(target=lambda: results.extend(fleet.client.wait(wait)))
    thread.start()
    fleet.act(Action.STOP)
    thread.join(60)
    assert [r["error"] for r in results] == [None]


def test_logs(fleet: Fleet) -> None:
    fleet.create_speaking("a", "one\\ntwo\\nthree\\n")

    def log(**options: Any) -> bytes:
        return b"".join(fleet.client.logs(LogsRequest(fleet.name("a"), **options))).replace(b"\r\n", b"\n")

    soon(lambda: log().endswith(b"three\n"))
    assert log() == b"one\ntwo\nthree\n"
    assert log(lines=2) == b"two\nthree\n"
    followed = fleet.client.logs(LogsRequest(fleet.name("a"), lines=1, follow=True))
    assert next(followed)


def test_logs_of_an_unknown_container_are_not_found(client: Client) -> None:
    with pytest.raises(NotFound):
        next(client.logs(LogsRequest("no-such-container")))


def test_events_tell_what_happened(fleet: Fleet) -> None:
    fleet.create("a")
    fleet.act(Action.DESTROY, force=True)
    mine = [event for event in fleet.client.events(EventsRequest()) if event["container"] == fleet.name("a")]
    assert all(has_fields_of(event, EventRecord) for event in mine)
    words = [event["what"] for event in mine]
    assert words.index("created") < words.index("destroyed")


def test_events_can_be_followed(fleet: Fleet) -> None:
    stream = fleet.client.events(EventsRequest(follow=True))
    thread = threading.Thread(target=fleet.create, args=("late",))
    thread.start()
    assert any(event["container"] == fleet.name("late") for event in stream)
    thread.join()


@pytest.mark.parametrize("init", Init)
def test_doctor_compares_needs_with_the_host(client: Client, init: Init) -> None:
    record = client.doctor(DoctorRequest(1, init))
    assert has_fields_of(record, DoctorRecord)
    assert record["findings"]
    assert all(has_fields_of(finding, FindingRecord) for finding in record["findings"])
    assert {finding["level"] for finding in record["findings"]} <= {"ok", "warning", "fail"}


def test_the_server_says_its_version(client: Client) -> None:
    assert client.server()["version"]


# metrics and targets for Prometheus


def test_the_metrics_of_the_fleet(fleet: Fleet) -> None:
    fleet.create("a", labels={"role": "web"})
    fleet.create("b", start=False)
    text = metrics(fleet)
    one, two = (f'container="{fleet.name(name)}"' for name in "ab")
    assert f'lxcfleet_container_state{{{one},state="running"}} 1.0\n' in text
    assert f'lxcfleet_container_state{{{two},state="running"}} 0.0\n' in text
    (info,) = (line for line in text.splitlines() if line.startswith("lxcfleet_container_info") and one in line)
    assert 'label_role="web"' in info
    fleet.act(Action.DESTROY, force=True)
    assert one not in metrics(fleet)


def test_targets_are_the_exporters_of_running_containers(fleet: Fleet) -> None:
    fleet.create("a", labels={"prometheus": "9100"})
    fleet.create("b")
    addresses = {record["name"]: record["addresses"] for record in fleet.client.containers(fleet.all)}
    mine = [target for target in fleet.client.targets() if target["labels"]["container"].startswith(fleet.prefix)]
    if not addresses[fleet.name("a")]:  # a fleet without a network has no targets
        assert mine == []
        return
    (target,) = mine
    assert target["targets"] == [f"{addresses[fleet.name('a')][0]}:9100"]
    assert target["labels"]["__meta_lxcfleet_label_prometheus"] == "9100"
