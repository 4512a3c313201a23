"""A reboot of the host, as the daemon sees it: the record is of another boot, and no container runs."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from .harness import SLEEP, TIMEOUT, Fleet, processes_in, until

pytestmark = pytest.mark.system


def record(fleet: Fleet) -> dict[str, Any]:
    try:
        return dict(json.loads(fleet.paths.running_record.read_text()))
    except FileNotFoundError:
        return {"boot": "", "running": [], "resting": []}


def reboot(fleet: Fleet) -> None:
    """Start a daemon that finds the record of an earlier boot."""
    fleet.stop_daemon()
    old = {**record(fleet), "boot": "another"}
    fleet.paths.running_record.write_text(json.dumps(old))
    fleet.start_daemon()


def test_the_record_names_the_containers_that_run(fleet: Fleet) -> None:
    fleet.ok("create", fleet.name("a"), "-n", "2", *SLEEP)
    both = [fleet.name("a1"), fleet.name("a2")]
    until(lambda: record(fleet)["running"] == both)
    os.kill(fleet.pid(both[0]), signal.SIGKILL)
    until(lambda: record(fleet)["running"] == both[1:])
    fleet.ok("stop", "--until-boot", both[1])
    until(lambda: (record(fleet)["running"], record(fleet)["resting"]) == ([], both[1:]))
    fleet.ok("start", both[1])
    until(lambda: (record(fleet)["running"], record(fleet)["resting"]) == (both[1:], []))


def test_containers_that_ran_start_again_in_order(fleet: Fleet) -> None:
    first, second, last, never, idle = (fleet.name(word) for word in ("z", "y", "x", "never", "idle"))
    fleet.create(first, options=["--boot-order", "-1"])
    fleet.create(second)
    fleet.create(last, options=["--boot-order", "5"])
    fleet.create(never, options=["--no-autostart"])
    fleet.create(idle)
    fleet.ok("stop", idle)
    assert fleet.json("stop", "--all", "--until-boot")["changed"]
    ended = [event["container"] for event in fleet.events("stopped")]
    assert ended.index(last) < ended.index(second) < ended.index(first)
    reboot(fleet)
    until(lambda: [fleet.state(name) for name in (first, second, last)] == ["running"] * 3, 20)
    began = [event["container"] for event in fleet.events("started")]
    assert began == [first, second, last]
    assert (fleet.state(never), fleet.state(idle)) == ("stopped", "stopped")


def test_a_shutdown_during_the_autostart_loses_no_container(fleet: Fleet) -> None:
    """Containers whose turn has not come do not run when the host goes down. The next boot must start them all the same."""
    first, later, last = (fleet.name(word) for word in ("a", "b", "c"))
    check = ["--health-exec", "false", "--health-interval", "1"]
    fleet.create(first, options=["--boot-order", "-1", *check])
    fleet.create(later)
    fleet.create(last, options=["--boot-order", "1"])
    fleet.ok("stop", "--all", "--until-boot", "--timeout", "1")
    reboot(fleet)
    until(lambda: fleet.state(first) == "running", 20)
    assert (fleet.state(later), fleet.state(last)) == ("stopped", "stopped")  # these two wait until the first is healthy
    fleet.ok("stop", "--all", "--until-boot", "--timeout", "1")
    until(lambda: record(fleet)["resting"] == [first, later, last])
    until(lambda: not any(each["status"] == "running" for each in fleet.client().operations()), 15, "the autostart ends")
    assert set(fleet.states().values()) == {"stopped"}
    fleet.ok("destroy", first)
    reboot(fleet)
    until(lambda: fleet.states() == {later: "running", last: "running"}, 20)


def test_a_daemon_that_is_stopped_during_the_autostart_does_not_wait_for_its_end(fleet: Fleet) -> None:
    first, later = fleet.name("a"), fleet.name("b")
    fleet.create(first, options=["--boot-order", "-1", "--health-exec", "false", "--health-interval", "1"])
    fleet.create(later)
    fleet.ok("stop", "--all", "--until-boot", "--timeout", "1")
    reboot(fleet)
    until(lambda: fleet.state(first) == "running", 20)
    fleet.stop_daemon()
    # The autostart waits a minute for the first container, and then starts the other one.
    assert not processes_in(later), "the daemon waited for the end of the autostart"
    fleet.start_daemon()
    until(lambda: fleet.states() == {first: "running", later: "running"}, 20)


def test_a_new_daemon_in_the_same_boot_starts_no_container(fleet: Fleet) -> None:
    fleet.ok("create", fleet.name("a"), "-n", "2", *SLEEP)
    fleet.ok("stop", "--until-boot", fleet.name("a1"))
    fleet.ok("stop", fleet.name("a2"))
    fleet.stop_daemon()
    fleet.start_daemon()
    time.sleep(0.5)
    assert set(fleet.states().values()) == {"stopped"}
    reboot(fleet)
    until(lambda: fleet.states() == {fleet.name("a1"): "running", fleet.name("a2"): "stopped"}, 20)


def test_all_containers_start_again_after_a_crash_of_the_host(fleet: Fleet) -> None:
    """The daemon and all containers are killed at the same moment."""
    fleet.create(fleet.name("s"), command=())
    fleet.ok("create", fleet.name("a"), "-n", "5", *SLEEP)
    names = [*(fleet.name(f"a{number}") for number in range(1, 6)), fleet.name("s")]
    until(lambda: record(fleet)["running"] == names)
    pids = [fleet.pid(name) for name in names]
    fleet.stop_daemon(signal.SIGKILL)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not fleet.processes(), what="nothing runs any more, as after a boot")
    reboot_record = {**record(fleet), "boot": "another"}
    fleet.paths.running_record.write_text(json.dumps(reboot_record))
    fleet.start_daemon()
    until(lambda: set(fleet.states().values()) == {"running"}, 20)


def test_a_new_daemon_completes_the_autostart_of_a_killed_one(fleet: Fleet) -> None:
    fleet.ok("create", fleet.name("a"), "-n", "3", *SLEEP)
    fleet.ok("stop", "--all", "--until-boot")
    fleet.stop_daemon()
    fleet.paths.running_record.write_text(json.dumps({**record(fleet), "boot": "another"}))
    killed = fleet.start_daemon(f"daemon:{fleet.name('a2')}:boot", may_die=True)
    assert killed.wait(TIMEOUT) == -signal.SIGKILL
    fleet.start_daemon()
    until(lambda: set(fleet.states().values()) == {"running"}, 20)


def test_a_start_that_fails_at_the_boot_is_tried_until_it_goes(fleet: Fleet, tmp_path: Path) -> None:
    """A directory that is mounted late: before, the container stayed down for good, though it was to run."""
    data, away = tmp_path / "data", tmp_path / "away"
    data.mkdir()
    (data / "file").write_text("here")
    late, other, stopped = (fleet.name(word) for word in ("late", "other", "stopped"))
    fleet.create(late, stopped, options=("-v", f"{data}:/srv/data:ro"))
    fleet.create(other)
    fleet.ok("stop", "--all", "--until-boot")
    data.rename(away)
    reboot(fleet)
    until(lambda: all(fleet.record(name)["start_error"] for name in (late, stopped)), 20)
    until(lambda: fleet.state(other) == "running", 20)
    until(lambda: (fleet.state(late), fleet.record(late)["health"]) == ("backoff", "unhealthy"), 20)  # between two tries
    assert str(data) in fleet.record(late)["start_error"]
    assert "start failed" in fleet.ok("list", late)
    assert f"{late}: its start failed, and is tried again" in fleet.run("doctor").out
    fleet.ok("stop", stopped)
    # The next daemon goes on, whether or not it was killed in between.
    fleet.stop_daemon(signal.SIGKILL)
    fleet.start_daemon()
    until(lambda: fleet.record(late)["start_error"], 20)
    until(lambda: late in record(fleet)["running"], 20, "the next boot starts it, too")
    away.rename(data)
    until(lambda: fleet.state(late) == "running", 150)  # the pauses between two tries grow to a minute
    assert fleet.inside(late, "cat /srv/data/file") == "here"
    assert (fleet.state(stopped), fleet.record(late)["start_error"]) == ("stopped", None)
    until(lambda: [event["container"] for event in fleet.events("restarted")][-1:] == [late], what="that it started is told")


def test_an_unreadable_record_costs_the_autostart_and_nothing_else(fleet: Fleet) -> None:
    fleet.create(fleet.name("a"))
    fleet.ok("stop", "--until-boot", fleet.name("a"))
    fleet.stop_daemon()
    fleet.paths.running_record.write_text("{")
    fleet.start_daemon()
    assert fleet.states() == {fleet.name("a"): "stopped"}
    fleet.ok("start", fleet.name("a"))
