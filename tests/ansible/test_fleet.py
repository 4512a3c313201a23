"""The module that applies fleet files: idempotent, true in check mode, and telling what changes."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Ansible

pytestmark = pytest.mark.system

FILE = """\
lxcfleet: 1
fleet: shop
groups:
  {group}:
    count: 2
    command: [sleep, infinity]
    memory: 256M
"""


def test_a_fleet_file_is_applied_once(ansible: Ansible) -> None:
    fleet = ansible.fleet
    one, two = fleet.name("w1"), fleet.name("w2")
    ask: dict[str, Any] = {"content": FILE.format(group=fleet.name("w"))}

    planned = ansible.task("fleet", "--check", "--diff", **ask)
    assert (planned["changed"], planned["diff"]["before"]) == (True, {one: {"state": "absent"}, two: {"state": "absent"}})
    assert planned["diff"]["after"] == {one: {"state": "running"}, two: {"state": "running"}}
    assert fleet.states() == {}
    made = ansible.task("fleet", "--diff", **ask)
    assert (made["diff"], [each["status"] for each in made["containers"]]) == (planned["diff"], ["created"] * 2)
    assert not ansible.task("fleet", **ask)["changed"]

    ask["content"] = ask["content"].replace("256M", "192M").replace("count: 2", "count: 1")
    changed = ansible.task("fleet", "--diff", prune="some", **ask)
    assert changed["diff"]["before"] == {one: {"memory": "256M"}, two: {"state": "there"}}
    assert changed["diff"]["after"] == {one: {"memory": "192M"}, two: {"state": "absent"}}
    assert fleet.states() == {one: "running"}
    assert not ansible.task("fleet", "--check", **ask)["changed"]
    fleet.ok("destroy", one, "--force")
    fleet.ok("fleet", "rm", "shop")
