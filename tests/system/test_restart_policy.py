"""Restart policies with real LXC: deaths, stops by others, and kills of the daemon in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest

from . import statuses
from .harness import Fleet, alive, parent_of, until

pytestmark = pytest.mark.system



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
    monitor = parent_of(pid)
    fleet.stop_daemon(signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid) and not alive(monitor), 20, "it has ended, and is tidied up")
    subprocess.run([*lxc_stop, meanwhile], check=True, timeout=60)
    fleet.start_daemon()
    until(lambda: fleet.record(always)["pid"] not in (None, pid), 20, "the next daemon starts it again")
    assert fleet.record(always)["exit"]["status"] is None  # nobody heard it, and nobody makes one up
    states = {by_lxc: "stopped", meanwhile: "stopped", by_operator: "stopped", failing: "backoff", always: "running"}
    assert fleet.states() == states
    assert 0 < fleet.record(failing)["starts_in"] <= 100
    fleet.ok("stop", failing)
    assert fleet.state(failing) == "stopped"


FORKS = """
import os, time
if os.fork() == 0:
    x = [bytearray(1 << 20) for _ in range(1000)]
time.sleep(1000)
"""


def test_that_memory_ran_out_is_told(fleet: Fleet) -> None:
    """The event, the record of its end, `list`, `info` and the metrics name limit and process. An app ends as a whole, though
    its first process was not the one that the kernel chose; with oom=process it goes on."""
    name, goes_on = fleet.name("memory"), fleet.name("p")  # that no test before has: its events stay
    fleet.run("create", name, "--memory", "32M", "--", "python3", "-c", FORKS)
    fleet.run("wait", name, "--for", "stopped")
    how = "killed for memory: limit 32M, process python3"
    record = fleet.record(name)
    assert (record["state"], record["exit"]["status"], record["exit"]["out_of_memory"]) == ("failed", 137, True)
    assert record["exit"]["words"].startswith(f"{how} (")
    assert [event["message"] for event in fleet.events("oom") if event["container"] == name] == [how]
    (event,) = [event for event in fleet.events("stopped") if event["container"] == name]
    assert event["message"].startswith(how)
    assert how in fleet.ok("info", name)
    assert "killed for memory · " in fleet.ok("list", name)
    fleet.ok("create", goes_on, "--memory", "32M", "--oom", "process", "--", "python3", "-c", FORKS)
    until(lambda: [event for event in fleet.events("oom") if event["container"] == goes_on], 20, "the kill is told")
    assert fleet.state(goes_on) == "running"
    info = json.loads(fleet.ok("info", goes_on, "-f", "json"))
    assert (info["memory_kills"], info["last_memory_kill"], info["exit"]) == (1, how, None)
    metrics = "".join(part.decode() for part in fleet.client().metrics())
    assert f'lxcfleet_container_memory_kills_total{{container="{goes_on}"}} 1.0' in metrics


def test_a_container_that_was_shut_down_from_inside_stays_down(fleet: Fleet) -> None:
    name = fleet.name("s")
    fleet.create(name, command=(), options=("--restart", "always"))
    fleet.ok("wait", name, "--for", "healthy", "-q")
    fleet.run("exec", name, "--", "systemctl", "poweroff")
    fleet.ok("wait", name, "--for", "stopped", "-q")
    assert (fleet.state(name), fleet.record(name)["exit"]["asked"]) == ("stopped", True)
    assert fleet.events("restarted") == [event for event in fleet.events("restarted") if event["container"] != name]


def test_every_end_is_told_with_its_status(fleet: Fleet) -> None:
    """`make endurance` tries all statuses and signals."""
    statuses.check(fleet, statuses.SOME)


def test_a_stop_that_a_kill_of_the_daemon_interrupts_is_a_stop_all_the_same(fleet: Fleet) -> None:
    name = fleet.name("s")
    fleet.create(name, options=("--restart", "always delay=0.1"))
    pid = fleet.pid(name)
    fleet.stop_daemon()
    fleet.start_daemon(kill=f"daemon:{name}:halt")
    assert fleet.spawn("stop", name).wait(60) != 0
    os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid), 20)
    fleet.reap()
    fleet.start_daemon()
    until(lambda: not fleet.half_done(), 20, "what was owed is done")
    assert (fleet.state(name), fleet.record(name)["exit"]["asked"]) == ("stopped", True)
    assert not [event for event in fleet.events("restarted") if event["container"] == name]
