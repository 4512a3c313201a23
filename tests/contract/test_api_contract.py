"""What every daemon owes its clients: these tests run against the fake one and against the real one."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from lxcfleet.api.calls import CALLS, MAX_BODY
from lxcfleet.api.client import Client
from lxcfleet.errors import AlreadyExists, FleetError, InvalidInput, NotFound, Unreachable
from lxcfleet.model import Action, Selection
from lxcfleet.names import Paths
from lxcfleet.wire import (
    ActionRequest,
    ContainerDetails,
    ContainerRecord,
    CreateRequest,
    DoctorRecord,
    EventRecord,
    FindingRecord,
    OperationRecord,
    ResultRecord,
    WaitRequest,
)

from .conftest import FOREVER, Fleet


def soon(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """What ``condition`` gives once that is true."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.02)
    return value


def has_fields_of(record: Any, kind: type) -> bool:
    return set(record) == set(kind.__annotations__)


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


def test_info_gives_all(fleet: Fleet) -> None:
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


def test_a_name_that_exists_is_refused(fleet: Fleet) -> None:
    fleet.create("web", start=False)
    with pytest.raises(AlreadyExists):
        fleet.create("web")
    assert fleet.states() == {"web": "stopped"}


def test_no_start_leaves_it_stopped(fleet: Fleet) -> None:
    fleet.create("", start=False)
    (record,) = fleet.client.containers(fleet.all)
    assert (record["state"], record["pid"]) == ("stopped", None)


def test_privileged_shows(fleet: Fleet) -> None:
    fleet.create("", privileged=True, start=False)
    assert fleet.client.containers(fleet.all)[0]["privileged"]
    assert fleet.client.info(fleet.prefix)["first_id"] is None


def test_a_dry_run_only_plans(fleet: Fleet) -> None:
    request = CreateRequest(name=fleet.prefix, count=2, command=FOREVER, dry_run=True)
    operation = fleet.client.create(request)
    assert operation["status"] == "done"
    assert any(fleet.name(1) in line for line in operation["plan"])
    assert operation["changed"]
    assert fleet.states() == {}


def test_a_dry_run_tells_what_would_change(fleet: Fleet) -> None:
    fleet.create("", count=2)
    fleet.act(Action.STOP, 2)

    def planned(**fields: Any) -> tuple[bool, dict[str, str]]:
        request = CreateRequest(name=fleet.prefix, ensure=True, command=FOREVER, dry_run=True, **fields)
        operation = fleet.client.create(request)
        words = {r["name"].removeprefix(fleet.prefix): r["status"] for r in operation["results"]}
        return operation["changed"], words

    assert planned(count=1) == (False, {"1": "unchanged"})
    assert planned(count=3, start=False) == (True, {"1": "unchanged", "2": "unchanged", "3": "planned"})
    operation = fleet.client.act(ActionRequest(Action.STOP, fleet.all, dry_run=True))
    words = {r["name"].removeprefix(fleet.prefix): (r["status"], r["changed"]) for r in operation["results"]}
    assert (operation["changed"], words) == (True, {"1": ("planned", True), "2": ("unchanged", False)})
    assert fleet.states() == {"1": "running", "2": "stopped"}


@pytest.mark.parametrize("fields", [{"init": "system", "command": ["true"]}, {"init": "app"}])
def test_init_and_command_must_agree(fleet: Fleet, fields: dict[str, object]) -> None:
    status, body = raw(fleet.client, "POST", "/1.0/containers", json.dumps({"name": fleet.prefix, **fields}))
    assert (status, body["error"]["code"]) == (400, "invalid-input")
    assert fleet.states() == {}


def test_an_unknown_profile_is_refused(fleet: Fleet) -> None:
    with pytest.raises(InvalidInput, match="no-such-profile"):
        fleet.create("", profile="no-such-profile")
    assert fleet.states() == {}


def test_of_two_who_create_the_same_name_one_wins(fleet: Fleet) -> None:
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


def test_a_life(fleet: Fleet) -> None:
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
def test_what_is_so_already_is_unchanged(fleet: Fleet, action: Action, started: bool) -> None:
    fleet.create("a", start=started)
    (result,) = fleet.act(action)
    assert (code_of(result), result["changed"]) == (None, False)


def test_freezing_what_is_stopped_fails(fleet: Fleet) -> None:
    fleet.create("a", start=False)
    (result,) = fleet.act(Action.FREEZE)
    assert (code_of(result), result["changed"]) == ("wrong-state", False)


def test_destroying_what_runs_needs_force(fleet: Fleet) -> None:
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


def test_a_name_that_is_missing_stops_the_whole(fleet: Fleet) -> None:
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
    request = CreateRequest(name=fleet.prefix, count=2, command=FOREVER)
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


def test_cancelling_what_has_ended_changes_nothing(fleet: Fleet) -> None:
    operation = fleet.create("", start=False)
    fleet.client.cancel(operation["id"])
    assert fleet.client.operation(operation["id"])["status"] == "done"


def test_what_was_cancelled_is_accounted_for(fleet: Fleet) -> None:
    operation = fleet.client.create(CreateRequest(name=fleet.prefix, count=40, command=FOREVER))
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


def test_ensure_tells_what_differs_and_leaves_it(fleet: Fleet) -> None:
    fleet.create("a", command=("sleep", "1000"))
    asked = CreateRequest(name=fleet.name("a"), command=("sleep", "1001"), ensure=True)
    planned = fleet.client.create(dataclasses.replace(asked, dry_run=True))
    for (result,) in planned["results"], fleet.end(fleet.client.create(asked))["results"]:
        assert (result["status"], result["changed"], result["error"]) == ("unchanged", False, None)
        assert [*result["differs"]["command"]] == ["sleep 1000", "sleep 1001"]
        assert set(result["differs"]) == {"command"}
    (result,) = fleet.create("a", command=("sleep", "1000"), ensure=True)["results"]
    assert "differs" not in result
    assert fleet.client.info(fleet.name("a"))["command"] == ["sleep", "1000"]


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


def test_wait_ends_when_it_comes_true(fleet: Fleet) -> None:
    fleet.create("a")
    results: list[ResultRecord] = []
    wait = WaitRequest(fleet.all, "stopped", 20)
    thread = threading.Thread(target=lambda: results.extend(fleet.client.wait(wait)))
    thread.start()
    fleet.act(Action.STOP)
    thread.join(10)
    assert [r["error"] for r in results] == [None]


def test_logs(fleet: Fleet) -> None:
    fleet.create_speaking("a", "one\\ntwo\\nthree\\n")

    def log(**options: Any) -> bytes:
        return b"".join(fleet.client.logs(fleet.name("a"), **options)).replace(b"\r\n", b"\n")

    soon(lambda: log().endswith(b"three\n"))
    assert log() == b"one\ntwo\nthree\n"
    assert log(lines=2) == b"two\nthree\n"
    followed = fleet.client.logs(fleet.name("a"), lines=1, follow=True)
    assert next(followed)


def test_logs_of_nobody_are_not_found(client: Client) -> None:
    with pytest.raises(NotFound):
        next(client.logs("no-such-container"))


def test_events_tell_what_happened(fleet: Fleet) -> None:
    fleet.create("a")
    fleet.act(Action.DESTROY, force=True)
    mine = [event for event in fleet.client.events() if event["container"] == fleet.name("a")]
    assert all(has_fields_of(event, EventRecord) for event in mine)
    words = [event["what"] for event in mine]
    assert words.index("created") < words.index("destroyed")


def test_events_can_be_followed(fleet: Fleet) -> None:
    stream = fleet.client.events(follow=True)
    thread = threading.Thread(target=fleet.create, args=("late",))
    thread.start()
    assert any(event["container"] == fleet.name("late") for event in stream)
    thread.join()


@pytest.mark.parametrize("init", ["system", "app"])
def test_doctor_compares(client: Client, init: str) -> None:
    record = client.doctor(1, init)
    assert has_fields_of(record, DoctorRecord)
    assert record["findings"]
    assert all(has_fields_of(finding, FindingRecord) for finding in record["findings"])
    assert {finding["level"] for finding in record["findings"]} <= {"ok", "warning", "fail"}


def test_the_server_says_its_version(client: Client) -> None:
    assert client.server()["version"]


# bad requests


def raw(client: Client, method: str, path: str, body: str | bytes | None = None) -> tuple[int, Any]:
    """A request that Client would not send; gives status and body."""
    connection = http.client.HTTPConnection("localhost", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(client._paths.socket))
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


BAD_BODIES = [
    "",
    "{",
    "[]",
    '"text"',
    "null",
    '{"name": 5}',
    '{"name": "a", "count": "many"}',
    '{"name": "a", "count": 0}',
    '{"name": "a", "count": -1}',
    '{"name": "a", "count": 1000000000}',
    '{"name": "a", "count": true}',
    '{"name": "a", "colour": "red"}',
    '{"name": "a", "command": "ls"}',
    '{"name": "a", "command": ["ls", 5]}',
    '{"name": "a", "command": ["l\\u0000s"]}',
    '{"name": "a", "labels": {"": "x"}}',
    '{"name": "a", "labels": ["x"]}',
    '{"name": "a", "environment": {"A=B": "x"}}',
    '{"name": "a", "init": "sysv"}',
    b"\xff\xfe",
]


@pytest.mark.parametrize("body", BAD_BODIES)
@pytest.mark.parametrize("path", ["/1.0/containers", "/1.0/actions", "/1.0/wait"])
def test_bad_bodies_are_refused(fleet: Fleet, path: str, body: str | bytes) -> None:
    before = fleet.client.containers(Selection())
    status, answer = raw(fleet.client, "POST", path, body)
    assert (status, answer["error"]["code"]) == (400, "invalid-input")
    assert set(answer["error"]) == {"code", "message", "why", "hint"}
    assert fleet.client.containers(Selection()) == before


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a" * 64,
        "a/b",
        "a:b",
        "a,b",
        "a\nb",
        "-a",
        "a-",
        ".",
        "..",
        "A",
        "ä",
        "a b",
        "a\x00b",
        "../../etc",
    ],
)
def test_bad_names_are_refused(fleet: Fleet, name: str) -> None:
    body = json.dumps({"name": name, "command": ["true"]})
    status, answer = raw(fleet.client, "POST", "/1.0/containers", body)
    assert (status, answer["error"]["code"]) == (400, "invalid-input")


def test_a_name_that_gets_too_long_by_its_number_is_refused(fleet: Fleet) -> None:
    body = json.dumps({"name": "a" * 62, "count": 10, "command": ["true"]})
    status, answer = raw(fleet.client, "POST", "/1.0/containers", body)
    assert (status, answer["error"]["code"]) == (400, "invalid-input")


@pytest.mark.parametrize(
    "path", ["/", "/2.0", "/1.0/nix", "/1.0/containers/%2e%2e/logs/x", "/1.0/containers/"]
)
def test_unknown_paths_are_not_found(client: Client, path: str) -> None:
    status, answer = raw(client, "GET", path)
    assert (status, answer["error"]["code"]) == (404, "not-found")


@pytest.mark.parametrize("name", ["nix", "..", "%2e%2e", "a%2fb", "a%00b", "%ff", "a" * 5000])
def test_unknown_containers_are_not_found(client: Client, name: str) -> None:
    status, answer = raw(client, "GET", f"/1.0/containers/{name}")
    assert status in (400, 404)
    assert answer["error"]["code"] in ("invalid-input", "not-found")


@pytest.mark.parametrize("query", ["label=x", "label==", "label=a%0ab=c"])
def test_bad_labels_in_a_query_are_refused(client: Client, query: str) -> None:
    status, answer = raw(client, "GET", f"/1.0/containers?{query}")
    assert (status, answer["error"]["code"]) == (400, "invalid-input")


@pytest.mark.parametrize(
    "query", ["count=x&init=app", "count=0&init=app", "count=1&init=x", f"count={10**9}&init=app"]
)
def test_bad_doctor_queries_are_refused(client: Client, query: str) -> None:
    status, answer = raw(client, "GET", f"/1.0/doctor?{query}")
    assert (status, answer["error"]["code"]) == (400, "invalid-input")


def test_a_huge_body_is_refused(client: Client) -> None:
    """At once, by its length: it may break the connection before all of it is sent."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(client._paths.socket))
    head = f"POST /1.0/containers HTTP/1.1\r\nHost: x\r\nContent-Length: {MAX_BODY + 1}\r\n\r\n"
    connection.sendall(head.encode())
    connection.settimeout(10)
    with contextlib.suppress(OSError):
        connection.sendall(b" " * (MAX_BODY + 1))
    assert connection.recv(65536).split()[1] in (b"400", b"413")
    connection.close()
    assert client.server()


@pytest.mark.parametrize(
    "data", [b"", b"GET", b"\x00\xff\r\n\r\n", b"GET /1.0 HTTP/1.1\r\nContent-Length: 9\r\n\r\n"]
)
def test_a_client_that_breaks_off_does_no_harm(client: Client, data: bytes) -> None:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(client._paths.socket))
    connection.sendall(data)
    connection.close()
    assert client.server()


def test_no_daemon_is_unreachable(tmp_path: Any) -> None:
    with pytest.raises(Unreachable):
        Client(Paths(run=tmp_path)).server()


def test_every_call_has_a_method_of_its_name() -> None:
    names = {"list": "containers"}
    assert all(hasattr(Client, names.get(name, name)) for name in CALLS)


# what Prometheus reads


def test_the_fleet_as_numbers(fleet: Fleet) -> None:
    fleet.create("a", labels={"role": "web"})
    fleet.create("b", start=False)
    text = fleet.client.metrics()
    one, two = (f'container="{fleet.name(name)}"' for name in "ab")
    assert f'lxcfleet_container_state{{{one},state="running"}} 1.0\n' in text
    assert f'lxcfleet_container_state{{{two},state="running"}} 0.0\n' in text
    (info,) = (line for line in text.splitlines() if line.startswith("lxcfleet_container_info") and one in line)
    assert 'label_role="web"' in info
    fleet.act(Action.DESTROY, force=True)
    assert one not in fleet.client.metrics()


def test_targets_are_the_exporters_of_what_runs(fleet: Fleet) -> None:
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


# attach


class Attached:
    """A command in a container whose output comes through pipes."""

    def __init__(
        self, fleet: Fleet, *command: str, name: str | None = None, tty: bool = False, **environment: str
    ):
        out, write_out = os.pipe()
        err, write_err = os.pipe()
        read_in, self.stdin = os.pipe()
        self.stdout, self.stderr = open(out, "rb"), open(err, "rb")  # noqa: SIM115
        target = name or fleet.name("a")
        request: Any = {"name": target, "command": list(command), "environment": environment, "tty": tty}
        try:
            self.socket = fleet.client.attach(request, (read_in, write_out, write_err))
        finally:
            for descriptor in (read_in, write_out, write_err):
                os.close(descriptor)
        self.socket.settimeout(20)

    def say(self, data: bytes) -> None:
        os.write(self.stdin, data)
        os.close(self.stdin)

    def end(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.socket.recv(65536))
        self.socket.close()
        return message


@pytest.fixture
def running(fleet: Fleet) -> Fleet:
    fleet.create("a")
    return fleet


def test_attach_passes_output_and_status(running: Fleet) -> None:
    command = Attached(running, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert command.end() == {"exit": 7}
    assert (command.stdout.read(), command.stderr.read()) == (b"out\n", b"err\n")


def test_attach_passes_stdin(running: Fleet) -> None:
    command = Attached(running, "wc", "-c")
    command.say(b"x" * 1000)
    assert command.end() == {"exit": 0}
    assert command.stdout.read().split() == [b"1000"]


def test_attach_passes_the_environment(running: Fleet) -> None:
    command = Attached(running, "sh", "-c", 'echo "$MODE"', MODE="a b\nc")
    assert command.end() == {"exit": 0}
    assert command.stdout.read() == b"a b\nc\n"


def test_attach_passes_signals(running: Fleet) -> None:
    command = Attached(running, "sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done")
    assert command.stdout.readline() == b"ready\n"
    command.socket.send(b'{"signal": 15}')
    assert command.end() == {"exit": 9}


def test_a_command_that_a_signal_killed(running: Fleet) -> None:
    assert Attached(running, "sh", "-c", "kill -9 $$").end() == {"exit": 137}


def test_a_command_that_does_not_exist(running: Fleet) -> None:
    command = Attached(running, "/no/such/command")
    assert command.end() == {"exit": 127}
    assert b"/no/such/command" in command.stderr.read()


def test_a_command_that_can_not_be_run(running: Fleet) -> None:
    assert Attached(running, "/etc/passwd").end() == {"exit": 126}


def test_attach_to_nobody(fleet: Fleet) -> None:
    assert Attached(fleet, "true", name="no-such-container").end()["error"]["code"] == "not-found"


def test_attach_to_one_that_is_stopped(fleet: Fleet) -> None:
    fleet.create("a", start=False)
    assert Attached(fleet, "true").end()["error"]["code"] == "wrong-state"


def test_a_client_that_goes_away_hangs_up(running: Fleet) -> None:
    note = f"/tmp/{running.prefix}-hup"
    script = f"trap 'echo hup > {note}; exit' HUP; echo ready; while :; do sleep 0.05; done"
    command = Attached(running, "sh", "-c", script)
    assert command.stdout.readline() == b"ready\n"
    command.socket.close()

    def noted() -> bool:
        return Attached(running, "rm", note).end() == {"exit": 0}

    soon(noted)


def test_many_at_once(running: Fleet) -> None:
    commands = [Attached(running, "sh", "-c", f"echo {number}; exit {number}") for number in range(20)]
    assert [command.end()["exit"] for command in commands] == list(range(20))
    assert [command.stdout.read() for command in commands] == [b"%d\n" % number for number in range(20)]


def test_a_terminal(running: Fleet) -> None:
    command = Attached(running, "sh", "-c", "tty && exit 5", tty=True)
    data, descriptors, _, _ = socket.recv_fds(command.socket, 65536, 1)
    assert json.loads(data) == {"terminal": True}
    (master,) = descriptors
    assert command.end() == {"exit": 5}
    assert b"/dev/" in os.read(master, 1000)
    os.close(master)
    assert command.stdout.read() == b""


def test_the_empty_command_is_a_shell(running: Fleet) -> None:
    command = Attached(running)
    command.say(b"echo $((6 * 7)); exit 4\n")
    assert command.end() == {"exit": 4}
    assert b"42\n" in command.stdout.read()


@pytest.mark.parametrize("data", [b"{", b"[]", b"{}", b'{"name": 5}', b'{"name": "a", "command": "ls"}'])
def test_bad_attach_requests(client: Client, data: bytes) -> None:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection,
        open(os.devnull, "rb") as nothing,
    ):
        connection.connect(str(client._paths.attach_socket))
        socket.send_fds(connection, [data], [nothing.fileno()] * 3)
        connection.settimeout(10)
        assert json.loads(connection.recv(65536))["error"]["code"] == "invalid-input"


@pytest.mark.parametrize("count", [0, 1, 2])
def test_attach_requests_without_descriptors(client: Client, count: int) -> None:
    request = {"name": "a", "command": ["true"], "environment": {}, "tty": False}
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection,
        open(os.devnull, "rb") as nothing,
    ):
        connection.connect(str(client._paths.attach_socket))
        socket.send_fds(connection, [json.dumps(request).encode()], [nothing.fileno()] * count)
        connection.settimeout(10)
        assert json.loads(connection.recv(65536))["error"]["code"] == "invalid-input"
