"""A fleet as a file, on real containers: applied, changed in waves, broken off by kills of the daemon, undone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from .harness import Fleet, Ran, until

pytestmark = pytest.mark.system

FILE = """\
lxcfleet: 1
fleet: shop
volumes:
  {group}-data:
groups:
  {group}:
    count: 3
    command: [sleep, infinity]
    environment: {{MODE: one}}
    memory: 256M
    volumes: ["{group}-data:/srv/data"]
"""
ONE = ("--max-unavailable", "1", "--canaries", "0", "--min-healthy-time", "0")

Apply = Callable[..., Ran]


@pytest.fixture
def file(fleet: Fleet, tmp_path: Path) -> Path:
    path = tmp_path / "fleet.yaml"
    path.write_text(FILE.format(group=fleet.name("w")))
    return path


def change(file: Path, old: str, new: str) -> None:
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def modes(fleet: Fleet) -> list[str]:
    """What runs in each container, as its process 1 has it."""
    files = [Path(f"/proc/{fleet.pid(name)}/environ") for name in sorted(fleet.states())]
    # It is empty for the moment in which the kernel exchanges the program.
    return [until(file.read_text).split("MODE=")[1].split("\0")[0] for file in files]


def applied(fleet: Fleet, file: Path) -> bool:
    """Whether an apply now comes to its end; it is refused while a rollout that was resumed is under way."""
    return fleet.run("apply", "-f", str(file), *ONE).status == 0


def ended(fleet: Fleet) -> bool:
    """Whether the last rollout is done."""
    return bool(json.loads(fleet.ok("rollout", "status", "-f", "json"))["status"] == "done")


def survive(fleet: Fleet, kill: str, *arguments: str) -> None:
    """Run a verb on a daemon that is killed at a step, and start another one."""
    fleet.stop_daemon()
    daemon = fleet.start_daemon(kill)
    ran = fleet.run(*arguments)
    until(lambda: daemon.poll() is not None, 30, "the daemon is killed")
    assert ran.status != 0
    until(lambda: not fleet.helpers() or fleet.daemon_pid() is None, 30, "its launcher ends")
    fleet.reap()
    fleet.start_daemon()


def test_an_apply_that_is_killed_anywhere_is_gone_on_with_by_the_next(fleet: Fleet, file: Path) -> None:
    one, two, three = (fleet.name(f"w{number}") for number in (1, 2, 3))
    apply = ("apply", "-f", str(file), *ONE)
    fleet.settings(f"{fleet.usual}alive_time: 0\n")
    survive(fleet, f"daemon:{two}:boot", *apply)
    until(lambda: applied(fleet, file), 30, "the rest is created")
    until(lambda: fleet.states() == dict.fromkeys((one, two, three), "running"), 30, "all run")
    assert fleet.run("diff", "-f", str(file)).status == 0
    assert modes(fleet) == ["one"] * 3
    assert fleet.inside(one, "echo x >/srv/data/file && stat -c %u /srv/data/file") == "0"
    assert fleet.inside(two, "cat /srv/data/file") == "x"
    pids = {name: fleet.pid(name) for name in (one, two, three)}

    change(file, "256M", "192M")
    assert applied(fleet, file)
    assert {name: fleet.pid(name) for name in pids} == pids

    change(file, "MODE: one", "MODE: two")
    survive(fleet, f"daemon:{two}:write", *apply)
    until(lambda: applied(fleet, file), 60, "the rest is restarted")
    assert modes(fleet) == ["two"] * 3
    assert fleet.run("diff", "-f", str(file)).status == 0

    survive(fleet, f"daemon:{two}:write", "rollout", "undo")
    until(lambda: ended(fleet), 60, "the rest goes back")
    assert modes(fleet) == ["one"] * 3

    pids = {name: fleet.pid(name) for name in (one, two, three)}
    survive(fleet, f"daemon:{two}:write", "set", one, two, three, "memory=160M", "--gate-live", "all", *ONE)
    until(lambda: ended(fleet), 60, "the rest is changed")
    assert [fleet.record(name)["memory_limit_bytes"] for name in (one, two, three)] == [160 << 20] * 3
    assert {name: fleet.pid(name) for name in pids} == pids

    change(file, "count: 3", "count: 1")
    assert applied(fleet, file)
    assert fleet.states() == {one: "running", two: "stopped", three: "stopped"}
    assert json.loads(fleet.ok("scale", fleet.name("w"), "2", "-f", "json"))["changed"]
    assert fleet.states() == {one: "running", two: "running", three: "stopped"}
    fleet.ok("destroy", "--all", "--force", "-q")
    fleet.ok("fleet", "rm", "shop")
    fleet.ok("volume", "rm", f"{fleet.name('w')}-data")
