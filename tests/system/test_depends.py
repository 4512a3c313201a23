"""Dependencies with real LXC: a database with a check, a job that runs once, and what needs both."""

from __future__ import annotations

import json
import os
import signal

import pytest

from .harness import SLEEP, Fleet, until

pytestmark = pytest.mark.system


def database(seconds: float) -> tuple[str, ...]:
    """The command of one that is ready after so many seconds."""
    return ("--", "sh", "-c", f"rm -f /tmp/ready; sleep {seconds}; touch /tmp/ready; exec sleep infinity")


CHECK = ("--health-exec", "test -e /tmp/ready", "--health-interval", "0.2", "--health-retries", "1")


def blocked(fleet: Fleet, name: str) -> str | None:
    reason = fleet.record(name)["blocked"]
    return None if reason is None else str(reason)


def order(fleet: Fleet, what: str, *names: str) -> list[str]:
    """These containers in the order in which that was last told of them."""
    last = {event["container"]: number for number, event in enumerate(fleet.events(what)) if event["container"] in names}
    return sorted(last, key=last.__getitem__)


def began(fleet: Fleet, name: str) -> float:
    """When its process 1 began, in ticks since the machine booted; proc(5), field 22."""
    with open(f"/proc/{fleet.pid(name)}/stat") as file:
        return float(file.read().rpartition(")")[2].split()[19])


def test_a_database_its_migration_and_what_needs_both(fleet: Fleet) -> None:
    db, job, web = (fleet.name(word) for word in ("x-db", "b-job", "a-web"))
    fleet.create(db, command=database(0.5), options=CHECK)
    ran = fleet.run("create", job, "--depends-on", f"{db}=healthy", "--", "sh", "-c", "sleep 0.3")
    assert (ran.status, "blocked" in ran.err) == (0, False), "it waits for what is on its way"
    fleet.ok("create", web, "--depends-on", f"{db}=healthy", "--depends-on", f"{job}=completed", *SLEEP)
    assert fleet.state(web) == "running"
    assert (fleet.state(job), fleet.record(job)["exit"]["status"]) == ("exited", 0)

    # The daemon is killed while something is blocked; the next one knows that it is to run, and by what it is blocked.
    fleet.ok("stop", web)
    fleet.inside(db, "rm /tmp/ready")
    until(lambda: fleet.record(db)["health"] == "unhealthy" and "unhealthy" in fleet.paths.health.read_text())
    assert fleet.json("start", web)["results"][0]["status"] == "blocked"
    pid = fleet.pid(db)
    fleet.stop_daemon(signal.SIGKILL)
    fleet.start_daemon()
    until(lambda: blocked(fleet, web) == f"{db} not healthy")
    assert fleet.state(web) == "blocked"
    fleet.inside(db, "touch /tmp/ready")
    until(lambda: fleet.state(web) == "running", 20)
    assert fleet.pid(db) == pid

    # A reboot of the host: what depends on others ends before them, and starts after them.
    fleet.ok("set", web, "boot_order=-3")
    assert fleet.json("stop", "--all", "--until-boot")["changed"]
    assert order(fleet, "stopped", db, web) == [web, db]
    fleet.stop_daemon()
    record = json.loads(fleet.paths.running_record.read_text())
    fleet.paths.running_record.write_text(json.dumps({**record, "boot": "another"}))
    fleet.start_daemon()
    until(lambda: fleet.state(web) == "running", 20)
    assert began(fleet, db) + 0.5 * os.sysconf("SC_CLK_TCK") <= began(fleet, web), "it was ready first"
    assert fleet.state(job) == "exited", "it has run, and does so no more"

    # All at once, and one after the other.
    fleet.ok("restart", "--all", "--timeout", "0")
    assert order(fleet, "restarted", db, web) == [db, web]
    assert began(fleet, db) + 0.5 * os.sysconf("SC_CLK_TCK") <= began(fleet, web)


def test_a_restart_that_is_broken_off_starts_what_it_has_stopped(fleet: Fleet) -> None:
    """It has stopped what waits for the database, and the daemon is killed before the database is up again."""
    db, web = fleet.name("x-db"), fleet.name("a-web")
    fleet.create(db, command=database(2), options=CHECK)
    fleet.create(web, options=("--depends-on", f"{db}=healthy"))
    until(lambda: fleet.state(web) == "running", 20)
    restart = fleet.spawn("restart", "--all", "--timeout", "0")
    until(lambda: fleet.record(web)["pid"] is None)
    fleet.stop_daemon(signal.SIGKILL)
    restart.communicate()
    fleet.start_daemon()
    until(lambda: fleet.states() == {db: "running", web: "running"}, 30)
