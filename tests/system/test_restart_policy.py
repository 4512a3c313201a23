"""Restart policies with real LXC: deaths, stops by others, and kills of the daemon in between."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from .harness import Fleet, alive, until

pytestmark = pytest.mark.system

EATS = "x = []\nwhile True: x.append(bytearray(1 << 20))"


def test_what_is_to_run_runs_and_what_was_stopped_stays_down(fleet: Fleet) -> None:
    always, failing, by_lxc, meanwhile, by_operator = (fleet.name(word) for word in ("a", "f", "l", "m", "o"))
    for name in (always, by_lxc, meanwhile, by_operator):
        fleet.create(name, options=("--restart", "always delay=0.1 max_delay=0.5"))
    pid = fleet.pid(always)
    os.kill(pid, signal.SIGKILL)
    until(lambda: fleet.record(always)["pid"] not in (None, pid), 20, "the one that died runs again")
    lxc_stop = ["lxc-stop", "-P", str(fleet.paths.lxc), "-n"]
    subprocess.run([*lxc_stop, by_lxc], check=True, timeout=60)
    fleet.ok("stop", by_operator, "--timeout", "0")
    assert fleet.run("create", failing, "--restart", "on-failure delay=100 max_delay=100", "--", "false").status == 1
    until(lambda: fleet.state(failing) == "backoff", 20)
    # The daemon is killed, and the container dies before there is another one.
    pid = fleet.pid(always)
    fleet.stop_daemon(signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid), 20)
    subprocess.run([*lxc_stop, meanwhile], check=True, timeout=60)
    fleet.start_daemon()
    until(lambda: fleet.record(always)["pid"] not in (None, pid), 20, "the next daemon starts it again")
    assert fleet.record(always)["exit"]["status"] is None  # nobody heard it, and nobody makes one up
    states = {by_lxc: "stopped", meanwhile: "stopped", by_operator: "stopped", failing: "backoff", always: "running"}
    assert fleet.states() == states
    assert 0 < fleet.record(failing)["starts_in"] <= 100
    fleet.ok("stop", failing)
    assert fleet.state(failing) == "stopped"


def test_that_memory_ran_out_is_told(fleet: Fleet) -> None:
    """Before, events said "stopped", and nothing else said more."""
    name = fleet.name("m")
    fleet.run("create", name, "--memory", "32M", "--", "python3", "-c", EATS)
    fleet.run("wait", name, "--for", "stopped")
    record = fleet.record(name)
    assert (record["state"], record["exit"]["status"], record["exit"]["out_of_memory"]) == ("failed", 137, True)
    (event,) = [event for event in fleet.events("stopped") if event["container"] == name]
    assert "memory ran out (its limit is 32M)" in event["message"]
    assert "memory ran out" in fleet.ok("info", name)


def test_a_container_that_was_shut_down_from_inside_stays_down(fleet: Fleet) -> None:
    name = fleet.name("s")
    fleet.create(name, command=(), options=("--restart", "always"))
    fleet.ok("wait", name, "--for", "healthy", "-q")
    fleet.run("exec", name, "--", "systemctl", "poweroff")
    fleet.ok("wait", name, "--for", "stopped", "-q")
    assert (fleet.state(name), fleet.record(name)["exit"]["asked"]) == ("stopped", True)
    assert fleet.events("restarted") == [event for event in fleet.events("restarted") if event["container"] != name]
