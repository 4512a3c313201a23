"""The inventory and the connection: containers are hosts for Ansible."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import Ansible

pytestmark = pytest.mark.system


def inventory(ansible: Ansible, **options: Any) -> str:
    """A file for the inventory plugin."""
    file = ansible.directory / "t.lxcfleet.yml"
    file.write_text(json.dumps({"plugin": "lxcfleet.fleet.containers", **options}))
    return file.name


def listed(ansible: Ansible, **options: Any) -> dict[str, Any]:
    """What the inventory says."""
    ran = ansible.run("ansible-inventory", "-i", inventory(ansible, **options), "--list")
    assert ran.status == 0, ran
    return dict(json.loads(ran.out, object_hook=_plain))


def _plain(data: dict[str, Any]) -> Any:
    """What ansible-core from 2.19 on says of texts that come from outside."""
    return data["__ansible_unsafe"] if data.keys() == {"__ansible_unsafe"} else data


def test_containers_are_hosts_in_groups(ansible: Ansible) -> None:
    fleet = ansible.fleet
    one, two = fleet.name(1), fleet.name(2)
    fleet.create(one, options=("-l", "role=web"))
    fleet.create(two, options=("--no-start",))
    keyed = [{"key": "lxcfleet_labels", "prefix": "label"}]
    found = listed(ansible, keyed_groups=keyed)
    for group in ("lxcfleet", "lxcfleet_on_localhost", "label_role_web"):
        assert found[group]["hosts"] == [one], group
    variables = found["_meta"]["hostvars"][one]
    assert variables["lxcfleet_labels"] == {"role": "web"}
    assert (variables["lxcfleet_host"], variables["lxcfleet_state"]) == ("localhost", "running")

    assert listed(ansible, states=["stopped"])["lxcfleet"]["hosts"] == [two]
    assert "hosts" not in listed(ansible, labels={"role": "db"}).get("lxcfleet", {})
    assert listed(ansible, patterns=[f"{fleet.prefix}*"], states=["running", "stopped"])["lxcfleet"]["hosts"] == [one, two]


def test_of_several_hosts_names_are_apart_and_one_that_is_down_is_an_error(ansible: Ansible) -> None:
    name = ansible.fleet.name(1)
    ansible.fleet.create(name)
    both = ["localhost", "no-such-host.invalid"]
    strict = {"ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1"}
    ran = ansible.run("ansible-inventory", "-i", inventory(ansible, hosts=both), "--list", **strict)
    assert ran.status != 0
    assert "the containers of no-such-host.invalid can't be listed" in ran.err
    found = listed(ansible, hosts=both, unreachable="warn")
    assert found["lxcfleet"]["hosts"] == [f"{name}.localhost"]


def check_tasks(ansible: Ansible, name: str, **options: Any) -> None:
    """Ansible does in a container what it does on a host: run, copy there, copy back, with any bytes."""
    data = bytes(range(256)) * 500
    (ansible.directory / "data").write_bytes(data)
    tasks: list[dict[str, Any]] = [
        {"ansible.builtin.ping": {}},
        {"ansible.builtin.setup": {"gather_subset": ["!all", "min"]}},
        {"ansible.builtin.copy": {"src": "data", "dest": "/opt/it's data", "mode": "0640"}},
        {"ansible.builtin.copy": {"src": "data", "dest": "/opt/it's data", "mode": "0640"}},
        {"ansible.builtin.fetch": {"src": "/opt/it's data", "dest": "back", "flat": True}},
        {"ansible.builtin.shell": "cat; hostname; echo \"$A\"; exit 125", "args": {"stdin": "in $HOME"},
         "environment": {"A": "it's \"quoted\" $HOME"}, "failed_when": False},
        {"ansible.builtin.command": "/no/such/program", "ignore_errors": True},
        {"ansible.builtin.raw": "echo $((6 * 7))"},
        {"ansible.builtin.script": "script.sh one"},
    ]  # fmt: skip
    (ansible.directory / "script.sh").write_text('#!/bin/sh\necho "script $1 $(id -u)"\n')
    file = inventory(ansible, **options)
    ran = ansible.play(*tasks, hosts="lxcfleet", options=("-i", file))
    assert ran.status == 0, ran
    assert len(ran.stats) == 1
    (host,) = ran.stats
    ping, setup, first, second, _, shell, missing, raw, script = (task[host] for task in ran.tasks)
    assert ping["ping"] == "pong"
    assert setup["ansible_facts"]["ansible_hostname"] == name
    assert (first["changed"], second["changed"]) == (True, False)
    assert (ansible.fleet.delta(name) / "opt/it's data").read_bytes() == data
    assert (ansible.directory / "back").read_bytes() == data
    assert shell["stdout_lines"] == ["in $HOME", name, "it's \"quoted\" $HOME"]
    assert shell["rc"] == 125
    assert missing["failed"]
    assert raw["stdout"].strip() == "42"
    assert script["stdout"].strip() == "script one 0"


@pytest.mark.parametrize("pipelining", ["0", "1"])
def test_tasks_in_containers(ansible: Ansible, pipelining: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANSIBLE_PIPELINING", pipelining)
    name = ansible.fleet.name(1)
    ansible.fleet.create(name)
    check_tasks(ansible, name)


FAKE_SSH = """#!/usr/bin/python3
import os, sys
options, _, (host, text) = sys.argv[1:-3], sys.argv[-3], sys.argv[-2:]
assert "BatchMode=yes" in options and sys.argv[-3] == "--", sys.argv
with open(os.environ["SSH_LOG"], "a") as log:
    print(*options, host, file=log)
os.execv("/bin/sh", ["sh", "-c", text])
"""


def test_tasks_in_containers_of_a_remote_host(ansible: Ansible, monkeypatch: pytest.MonkeyPatch) -> None:
    """ssh gives a shell one text: a stand-in for it does the same on this machine."""
    name = ansible.fleet.name(1)
    ansible.fleet.create(name)
    programs = ansible.directory / "programs"
    programs.mkdir()
    (programs / "ssh").write_text(FAKE_SSH)
    (programs / "ssh").chmod(0o755)
    ansible.path.insert(0, programs)
    log = ansible.directory / "ssh.log"
    monkeypatch.setenv("SSH_LOG", str(log))
    check_tasks(ansible, name, hosts=["h1.example"], user="admin", port=2222, key_file="/key")
    assert all(line.endswith("-l admin -p 2222 -i /key h1.example") for line in log.read_text().splitlines())


def test_a_container_that_is_gone_is_unreachable(ansible: Ansible) -> None:
    name = ansible.fleet.name(1)
    ran = ansible.run(
        "ansible-playbook", "-i", f"{name},", "-c", "lxcfleet.fleet.lxcfleet", str(_ping(ansible.directory)),
    )  # fmt: skip
    assert ran.stats[name]["unreachable"] == 1
    assert "no container named" in ran.tasks[0][name]["msg"]


def _ping(directory: Path) -> Path:
    file = directory / "ping.yml"
    file.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": [{"ansible.builtin.ping": {}}]}]))
    return file


def test_tasks_as_another_user(ansible: Ansible) -> None:
    name = ansible.fleet.name(1)
    ansible.fleet.create(name)
    task = {
        "ansible.builtin.command": "id -un",
        "become": True,
        "become_user": "nobody",
        "become_method": "ansible.builtin.su",
        "vars": {"ansible_become_flags": "-s /bin/sh"},
    }
    ran = ansible.play(task, hosts="lxcfleet", options=("-i", inventory(ansible)))
    assert ran.tasks[0][name].get("stdout") == "nobody", ran
