"""Verbs for many containers at once: one failure does not touch the others, and Ctrl-C cancels the rest."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest

from .harness import SLEEP, TIMEOUT, Fleet, Ran, until

pytestmark = pytest.mark.system

SOME, INTERRUPTED = 3, 130


def finished(client: subprocess.Popen[bytes]) -> Ran:
    out, err = client.communicate(timeout=TIMEOUT)
    return Ran(client.returncode, out.decode(), err.decode())


def test_a_hundred_containers_are_created_used_and_destroyed(fleet: Fleet) -> None:
    mounts = fleet.host_mounts()
    assert "100 created" in fleet.ok("create", fleet.name("m"), "-n", "100", *SLEEP)
    records = fleet.records()
    assert [record["name"] for record in records] == [fleet.name(f"m{number}") for number in range(1, 101)]
    assert {record["state"] for record in records} == {"running"}
    assert len(fleet.ok("exec", "--all", "--", "true").splitlines()) == 0
    assert fleet.host_mounts() == mounts
    # Tests that run beside this one change the host: then the mask is built anew, and containers stay on the former one.
    until(lambda: len([loop for loop in fleet.loops() if not loop.endswith("(deleted)")]) == 1, what="one mask is present")
    assert len(fleet.loops()) < 10
    assert "100 restarted" in fleet.ok("restart", "--all")
    after = {record["name"]: record["pid"] for record in fleet.records()}
    assert not {record["pid"] for record in records} & set(after.values())
    assert "100 stopped" in fleet.ok("stop", "--all")
    assert set(fleet.states().values()) == {"stopped"}
    assert "100 started" in fleet.ok("start", "--all")
    assert "100 destroyed" in fleet.ok("destroy", "--all", "--force")
    fleet.assert_no_traces()


def test_one_create_of_many_that_fails_leaves_nothing_and_the_others_run(fleet: Fleet) -> None:
    """The daemon looks for directories in the way. Another directory comes in one container's way after that."""
    names = [fleet.name(f"m{number}") for number in range(1, 41)]
    victim = fleet.paths.new(names[39]).directory
    victim.mkdir()
    # Nothing can be made in this directory nor removed from it.
    subprocess.run(["chattr", "+i", str(victim)], check=True)
    try:
        ran = fleet.run("create", fleet.name("m"), "-n", "40", "-f", "json", *SLEEP)
    finally:
        subprocess.run(["chattr", "-i", str(victim)], check=True)
        victim.rmdir()
    assert ran.status == SOME, ran
    assert {name for name, status in ran.results.items() if status == "failed"} == {names[39]}
    assert sorted(fleet.states()) == sorted(names[:39])
    assert set(fleet.states().values()) == {"running"}
    fleet.ok("create", names[39], *SLEEP)


@pytest.mark.parametrize("moment", [0.0, 0.15, 0.4])
def test_ctrl_c_cancels_the_creates_that_have_not_begun(fleet: Fleet, moment: float) -> None:
    client = fleet.spawn("create", fleet.name("m"), "-n", "200", "-f", "json", *SLEEP)
    until(lambda: len(fleet.directories()) > 1, 20, "the create has begun")
    time.sleep(moment)
    client.send_signal(signal.SIGINT)
    ran = finished(client)
    assert ran.status == INTERRUPTED
    results = ran.results
    assert len(results) == 200
    assert set(results.values()) <= {"created", "cancelled"}
    created = {name for name, status in results.items() if status == "created"}
    assert 0 < len(created) < 200
    assert f"cancelled: {len(created)} done, {200 - len(created)} not begun" in ran.err
    states = fleet.states()
    assert set(states) == created
    assert set(states.values()) == {"running"}
    assert {path.rpartition("/")[2] for path in fleet.directories()} == created
    assert fleet.half_done() == []
    # The names and ids of the cancelled containers are free again.
    fleet.ok("create", fleet.name("m"), "-n", "3", *SLEEP)


def test_a_second_ctrl_c_ends_the_client_at_once_and_the_daemon_goes_on(fleet: Fleet) -> None:
    client = fleet.spawn("create", fleet.name("m"), "-n", "100", *SLEEP)
    until(lambda: len(fleet.directories()) > 1, 20, "the create has begun")
    client.send_signal(signal.SIGINT)
    time.sleep(0.05)
    client.send_signal(signal.SIGINT)
    ran = finished(client)
    assert ran.status == INTERRUPTED
    under_way = fleet.client().operations
    until(lambda: not any(each["status"] == "running" for each in under_way()), 20, "the creates that have begun end")
    assert set(fleet.states().values()) == {"running"}
    assert fleet.half_done() == []


def test_ctrl_c_during_a_restart_leaves_all_containers_running(fleet: Fleet) -> None:
    fleet.ok("create", fleet.name("m"), "-n", "60", *SLEEP)
    before = {each["id"] for each in fleet.client().operations()}  # the daemon still lists those of other tests
    client = fleet.spawn("restart", "--all", "-f", "json")
    until(lambda: any(each["id"] not in before for each in fleet.client().operations()), what="the restart has begun")
    time.sleep(0.1)
    client.send_signal(signal.SIGINT)
    ran = finished(client)
    assert ran.status in (0, INTERRUPTED)
    assert list(fleet.states().values()) == ["running"] * 60
    assert fleet.half_done() == []


def test_actions_that_meet_on_one_container_succeed_or_say_why_not(fleet: Fleet) -> None:
    name = fleet.name("a")
    fleet.create(name)
    clients = [fleet.spawn(verb, name) for verb in ("restart", "stop", "restart", "freeze", "start", "stop")]
    for client in clients:
        ran = finished(client)
        assert ran.status in (0, 1)
        assert ran.status == 0 or "busy" in ran.err or "not running" in ran.err, ran
    assert fleet.state(name) in ("running", "stopped", "frozen")
    fleet.ok("restart", name)
    assert fleet.inside(name, "echo ok") == "ok"


def test_create_and_destroy_in_turns_leave_nothing(fleet: Fleet) -> None:
    for _ in range(5):
        fleet.ok("create", fleet.name("m"), "-n", "10", *SLEEP)
        fleet.ok("destroy", "--all", "--force")
        fleet.assert_no_traces()
