"""The modules: idempotent, true in check mode, and telling what changes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import Ansible

pytestmark = pytest.mark.system

FOREVER = ["sleep", "infinity"]


def words(result: dict[str, Any]) -> list[str]:
    """What became of each container."""
    return [container["status"] for container in result["containers"]]


def test_containers_are_made_once(ansible: Ansible) -> None:
    ask: dict[str, Any] = {"name": ansible.fleet.name("c"), "count": 3, "command": FOREVER, "labels": {"role": "web", "n": 1}}
    names = [ansible.fleet.name(f"c{number}") for number in (1, 2, 3)]

    planned = ansible.task("containers", "--check", "--diff", **ask)
    assert (planned["changed"], words(planned)) == (True, ["planned"] * 3)
    assert planned["diff"]["before"] == dict.fromkeys(names, "absent")
    assert planned["diff"]["after"] == dict.fromkeys(names, "running")
    assert any(names[2] in line for line in planned["plan"])
    assert ansible.fleet.states() == {}

    made = ansible.task("containers", "--diff", **ask)
    assert (made["changed"], words(made)) == (True, ["created"] * 3)
    assert made["diff"] == planned["diff"]
    assert ansible.fleet.states() == dict.fromkeys(names, "running")
    assert ansible.fleet.record(names[0])["labels"] == {"role": "web", "n": "1"}

    again = ansible.task("containers", "--diff", **ask)
    assert (again["changed"], words(again)) == (False, ["unchanged"] * 3)
    assert again["diff"] == {"before": {}, "after": {}}
    assert not ansible.task("containers", "--check", **ask)["changed"]


def test_what_is_there_and_not_as_asked_for_is_warned_of(ansible: Ansible) -> None:
    name = ansible.fleet.name("a")
    ansible.task("containers", name=name, command=FOREVER, environment={"KEY": "secret"})
    ask: dict[str, Any] = {"name": name, "command": ["sleep", "9"], "labels": {"role": "web"}, "environment": {"KEY": "x"}}
    for state, more, changed in ("present", ("--check",), False), ("present", (), False), ("stopped", (), True):
        done = ansible.task("containers", *more, state=state, **ask)
        assert done["changed"] is changed
        (warning,) = done["warnings"]
        assert warning.startswith(f"{name}: not as asked, and left so: ")
        assert "command: sleep infinity (asked: sleep 9)" in warning
        assert "labels: none (asked: role=web)" in warning
        assert "secret" not in warning
    as_made = ansible.task("containers", name=name, state="stopped", command=FOREVER, environment={"KEY": "secret"})
    assert not as_made.get("warnings")


def test_update_changes_what_is_there(ansible: Ansible) -> None:
    name = ansible.fleet.name("a")
    ask: dict[str, Any] = {"name": name, "command": FOREVER, "update": True}
    assert words(ansible.task("containers", **ask)) == ["created"]
    pid = ansible.fleet.record(name)["pid"]
    live: dict[str, Any] = {**ask, "memory": "256M", "labels": {"role": "web"}}
    for more in ("--check", "--diff"), ("--diff",):
        done = ansible.task("containers", *more, **live)
        assert (done["changed"], done["containers"][0]["error"], "warnings" in done) == (True, None, False)
        assert done["diff"]["before"] == {name: {"labels": "none", "memory": "0", "state": "running"}}
        assert done["diff"]["after"] == {name: {"labels": "role=web", "memory": "256M", "state": "running"}}
    assert (ansible.fleet.record(name)["labels"], ansible.fleet.record(name)["pid"]) == ({"role": "web"}, pid)
    again = ansible.task("containers", "--diff", **live)
    assert (again["changed"], again["diff"]) == (False, {"before": {}, "after": {}})
    by_restart: dict[str, Any] = {**live, "command": ["sleep", "1000000"]}
    planned = ansible.task("containers", "--check", **by_restart)
    assert f"{name}: restart it, in its turn" in planned["plan"]
    assert ansible.fleet.record(name)["pid"] == pid
    done = ansible.task("containers", **by_restart)
    assert (done["changed"], done["rollout"]["status"]) == (True, "done")
    assert ansible.fleet.record(name)["pid"] != pid
    refused = ansible.task("containers", **{**by_restart, "privileged": True})
    assert (refused["failed"], "privileged" in refused["msg"]) == (True, True)
    assert ansible.task("containers", **{**ask, "state": "absent"})["failed"]


def test_a_life(ansible: Ansible) -> None:
    name = ansible.fleet.name("a")
    ask: dict[str, Any] = {"name": name, "command": FOREVER}
    life = [
        ("stopped", "created", "stopped"), ("present", "started", "running"), ("stopped", "stopped", "stopped"),
        ("present", "started", "running"), ("absent", "destroyed", None),
    ]  # fmt: skip
    for state, word, after in life:
        before = ansible.fleet.states()
        planned = ansible.task("containers", "--check", state=state, **ask)
        assert (planned["changed"], ansible.fleet.states()) == (True, before), state
        done = ansible.task("containers", state=state, **ask)
        assert (done["changed"], words(done)) == (True, [word]), state
        assert ansible.fleet.states().get(name) == after
        again = ansible.task("containers", state=state, **ask)
        assert not again["changed"], state


def test_what_can_not_be_is_said_as_lxcfleet_says_it(ansible: Ansible) -> None:
    bad = ansible.task("containers", name=ansible.fleet.name("a"), command=["/no/such/program"])
    assert bad["failed"]
    assert bad["msg"].startswith("the command '/no/such/program' can't be run")
    assert bad["rc"] == 2
    assert ansible.task("containers", name="Not A Name")["failed"]
    assert ansible.task("containers", name="x", executable="/no/such/lxcfleet")["failed"]
    assert ansible.fleet.states() == {}


def test_some_that_failed_are_counted(ansible: Ansible) -> None:
    fleet = ansible.fleet
    fleet.create(fleet.name(1), fleet.name(2))
    # Its work directory is gone: it can't start again.
    fleet.ok("stop", fleet.name(2), "--timeout", "0")
    work = fleet.paths.container(fleet.name(2)).work
    work.rename(work.with_name("moved"))
    try:
        result = ansible.task("restart", names=[fleet.name("*")], timeout=0)
    finally:
        work.with_name("moved").rename(work)
    assert (result["failed"], result["changed"]) == (True, True)
    assert result["msg"].startswith("1 of 2 containers failed; the first:")
    assert sorted(words(result)) == ["failed", "restarted"]


def test_restart(ansible: Ansible) -> None:
    fleet = ansible.fleet
    fleet.create(fleet.name(1), options=("-l", "role=web"))
    fleet.create(fleet.name(2))
    before = {name: fleet.pid(fleet.name(name)) for name in (1, 2)}
    planned = ansible.task("restart", "--check", "--diff", labels={"role": "web"})
    assert (planned["changed"], words(planned)) == (True, ["planned"])
    assert planned["diff"] == {"before": {fleet.name(1): "running"}, "after": {fleet.name(1): "restarted"}}
    done = ansible.task("restart", "--diff", labels={"role": "web"}, timeout=0)
    assert (done["changed"], words(done), done["diff"]) == (True, ["restarted"], planned["diff"])
    assert fleet.pid(fleet.name(1)) != before[1]
    assert fleet.pid(fleet.name(2)) == before[2]
    assert ansible.task("restart")["failed"]
    assert not ansible.task("restart", labels={"role": "nobody"})["changed"]


def test_info(ansible: Ansible) -> None:
    fleet = ansible.fleet
    fleet.create(fleet.name(1), options=("-l", "role=web"))
    fleet.create(fleet.name(2), options=("--no-start",))
    found = ansible.task("containers_info")
    assert (found["changed"], found["states"]) == (False, {"running": 1, "stopped": 1})
    assert [container["name"] for container in ansible.task("containers_info", labels={"role": "web"})["containers"]] == [
        fleet.name(1)
    ]


def test_the_plain_command_works_too(ansible: Ansible) -> None:
    name = ansible.fleet.name("p")
    command = f"lxcfleet create {name} -n 5 --ensure -f json -- sleep infinity"
    task = {
        "ansible.builtin.command": command,
        "register": "made",
        "changed_when": "(made.stdout | from_json).changed",
    }
    first, second = ansible.play(task, task).tasks
    assert [result["changed"] for task in (first, second) for result in task.values()] == [True, False]


def test_the_playbook_of_a_hundred(ansible: Ansible) -> None:
    prefix = ansible.fleet.name("h")
    values = {"name_prefix": prefix, "count": 10, "ansible_python_interpreter": "/usr/bin/python3"}
    options = ("-i", "localhost,", "-c", "local", "-e", json.dumps(values))

    for changed in (1, 0):
        ran = ansible.run("ansible-playbook", "lxcfleet.fleet.hundred", *options)
        assert ran.status == 0, ran
        assert ran.stats["localhost"]["changed"] == changed
    assert list(ansible.fleet.states().values()) == ["running"] * 10
