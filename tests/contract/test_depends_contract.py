"""Dependencies, from the command line to the start of what was blocked."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from lxcfleet.api.queries import EventsRequest
from lxcfleet.api.requests import CreateRequest
from lxcfleet.containers.ends import firsts
from lxcfleet.containers.events import Began, Exited

from .conftest import Cli, rows, soon
from .real_daemon import Daemon

FOREVER = ("--", "sleep", "infinity")
CHECKED = ("--health-exec", "true", "--health-interval", "0.1", "--health-retries", "1", "--health-start-period", "0")


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who runs the tests may have no processor to spare."""
    monkeypatch.setattr(firsts, "LONGEST_SECONDS", 30.0)


def state(daemon: Daemon, name: str) -> str:
    record = daemon.client.info(name)
    return f"{record['state']}: {record['blocked']}" if record["blocked"] else record["state"]


def result(ran: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = {each["name"]: each for each in json.loads(ran.out)["results"]}[name]
    return found


def told(daemon: Daemon, name: str) -> list[str]:
    return [event["what"] for event in daemon.client.events(EventsRequest()) if event["container"] == name]


def test_what_depends_on_another_is_blocked_until_that_is_healthy(daemon: Daemon, cli: Cli) -> None:
    daemon.model.sick["db"] = "no answer"
    assert cli("create", "db", *CHECKED, *FOREVER).status == 0
    soon(lambda: daemon.client.info("db")["health"] == "unhealthy")
    made = cli("create", "web", "--depends-on", "db=healthy", *FOREVER)
    assert made.status == 0, made
    assert rows(made.out) == [["web", "created"]]
    assert "web: blocked: db not healthy; it starts by itself after that" in made.err
    record = daemon.client.info("web")
    assert (record["state"], record["blocked"], record["health"]) == ("blocked", "db not healthy", "unhealthy")
    assert record["health_reason"] == "blocked: db not healthy"
    assert "blocked: db not healthy" in cli("list").out
    assert cli("list", "-q", "--state", "blocked").out == "web\n"
    again = cli("start", "web", "-f", "json")
    assert (again.status, result(again, "web")["status"], result(again, "web")["changed"]) == (0, "blocked", False)
    late = cli("wait", "web", "--for", "running", "--timeout", "0.1")
    assert (late.status, "it is blocked and unhealthy" in late.err or "db not healthy" in late.err) == (1, True), late
    daemon.model.sick.clear()
    assert cli("wait", "web", "--for", "running").status == 0
    assert told(daemon, "web")[:2] == ["blocked", "created"]
    assert told(daemon, "web")[-1] == "resumed"
    daemon.model.sick["db"] = "no answer"
    soon(lambda: daemon.client.info("db")["health"] == "unhealthy")
    assert state(daemon, "web") == "running"
    refused = cli("restart", "web")
    assert refused.status == 1
    assert "web is not stopped, as it could not start again" in refused.err
    assert "db not healthy" in refused.err
    assert state(daemon, "web") == "running"
    assert cli("restart", "web", "--no-deps").status == 0
    assert state(daemon, "web") == "running"


def test_a_stop_ends_the_waiting_and_no_deps_too(daemon: Daemon, cli: Cli) -> None:
    cli("create", "db", "--no-start", *FOREVER)
    cli("create", "web", "--depends-on", "db=started", *FOREVER)
    assert state(daemon, "web") == "blocked: db not started"
    stopped = cli("stop", "web", "-f", "json")
    assert (stopped.status, json.loads(stopped.out)["changed"], state(daemon, "web")) == (0, True, "stopped")
    assert cli("start", "db").status == 0
    assert state(daemon, "web") == "stopped"
    cli("stop", "db")
    planned = cli("start", "web", "--dry-run")
    assert "web: wait with its start: db not started" in planned.out
    noted = cli("start", "web", "-f", "json")
    assert (result(noted, "web")["status"], result(noted, "web")["changed"]) == ("blocked", True)
    assert cli("start", "web", "--no-deps").status == 0
    assert state(daemon, "web") == "running"


def test_a_job_has_to_end_well(daemon: Daemon, cli: Cli) -> None:
    cli("create", "job", "--no-start", "--", "sh", "-c", "exit 3")
    cli("create", "web", "--depends-on", "job=completed", *FOREVER)
    assert state(daemon, "web") == "blocked: job not completed"
    cli("start", "job")
    soon(lambda: state(daemon, "web") == "blocked: job not completed: exit status 3")
    assert cli("set", "job", "command=sleep infinity").status == 0
    cli("start", "job")
    soon(lambda: state(daemon, "web") == "blocked: job not completed")
    cli("stop", "job")
    assert state(daemon, "web") == "blocked: job not completed"
    cli("set", "job", "command=true")
    cli("start", "job")
    soon(lambda: state(daemon, "web") == "running")


def test_what_vanishes_blocks_those_that_name_it_and_nobody_else(daemon: Daemon, cli: Cli) -> None:
    cli("create", "db", "--no-start", *FOREVER)
    cli("create", "web", "--no-start", "--depends-on", "db=started", *FOREVER)
    cli("create", "other", *FOREVER)
    cli("destroy", "db")
    cli("start", "--all")
    assert (state(daemon, "web"), state(daemon, "other")) == ("blocked: db does not exist", "running")
    assert cli("set", "web", "depends_on.db=").status == 0
    soon(lambda: state(daemon, "web") == "running")


def test_what_does_not_exist_and_what_makes_a_circle_is_refused(daemon: Daemon, cli: Cli) -> None:
    refused = cli("create", "web", "--depends-on", "db=healthy", *FOREVER)
    assert (refused.status, "there is no container and no group named db" in refused.err) == (2, True), refused
    assert cli("list", "-q").out == ""
    assert cli("create", "web", "-n", "2", "--depends-on", "web1=started", *FOREVER).status == 2
    cli("create", "a", "--no-start", *FOREVER)
    cli("create", "b", "--no-start", "--depends-on", "a=started", *FOREVER)
    cli("create", "c", "--no-start", "--depends-on", "b=started", *FOREVER)
    circle = cli("set", "a", "depends_on.c=completed")
    assert (circle.status, "a waits for c waits for b waits for a" in circle.err) == (2, True), circle
    assert daemon.client.info("a")["spec"]["depends_on"] == {}
    assert cli("set", "a", "depends_on.x=started").status == 2
    assert cli("set", "c", "depends_on=").status == 0
    assert cli("set", "a", "depends_on.c=completed").status == 0
    wrong = cli("set", "b", "depends_on.c=ready")
    assert (wrong.status, "none of started, healthy, completed" in wrong.err) == (2, True), wrong


def test_a_restart_policy_waits_for_what_is_lacking(daemon: Daemon, cli: Cli) -> None:
    cli("create", "db", *FOREVER)
    cli("create", "web", "--depends-on", "db=started", "--restart", "always delay=0.1", *FOREVER)
    soon(lambda: state(daemon, "web") == "running")
    cli("stop", "db")
    pid = daemon.client.info("web")["pid"]
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    soon(lambda: state(daemon, "web") == "blocked: db not started")
    cli("start", "db")
    soon(lambda: state(daemon, "web") == "running")


def test_one_without_a_check_is_healthy_by_its_age_and_that_is_no_event(daemon: Daemon, cli: Cli) -> None:
    cli("create", "db", "--no-start", *FOREVER)
    cli("create", "web", "--depends-on", "db=healthy", *FOREVER)
    daemon.call(lambda: daemon.parts.prober.take_over(0.5, 0.0))
    cli("start", "db")
    soon(lambda: state(daemon, "web") == "running")


def test_a_spec_of_a_former_version_depends_on_nothing(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:
        daemon.create(CreateRequest("web", start=False, said={"command": FOREVER[1:]}))
        file = daemon.paths.container("web").spec
    file.write_text("".join(line for line in file.read_text().splitlines(True) if "depends_on" not in line))
    with Daemon(tmp_path) as daemon:
        assert state(daemon, "web") == "stopped"
        assert daemon.client.info("web")["spec"]["depends_on"] == {}


def order(daemon: Daemon, what: str, *names: str) -> list[str]:
    """The containers in the order in which that was last told of them."""
    last = {each["container"]: number for number, each in enumerate(daemon.client.events(EventsRequest()))
            if each["what"] == what and each["container"] in names}  # fmt: skip
    return sorted(last, key=lambda name: last[name])


@pytest.fixture
def chain(daemon: Daemon, cli: Cli) -> None:
    """web waits for api, and api for db; their names sort in another order."""
    cli("create", "db", *CHECKED, *FOREVER)
    cli("create", "api", "--depends-on", "db=healthy", *CHECKED, *FOREVER)
    cli("create", "a-web", "--depends-on", "api=healthy", *FOREVER)
    cli("create", "x", *FOREVER)
    for name in ("db", "api", "a-web", "x"):
        assert cli("wait", name, "--for", "running").status == 0


@pytest.mark.usefixtures("chain")
def test_a_selection_stops_and_starts_in_order(daemon: Daemon, cli: Cli) -> None:
    assert cli("stop", "--all").status == 0
    assert [name for name in order(daemon, "stopped", "db", "api", "a-web", "x") if name != "x"] == ["a-web", "api", "db"]
    started = cli("start", "--all", "-f", "json")
    assert started.status == 0
    assert {each["name"]: each["status"] for each in json.loads(started.out)["results"]} == dict.fromkeys(
        ("db", "api", "a-web", "x"), "started"
    )
    assert "blocked" not in started.err
    assert daemon.client.info("db")["health"] == "healthy"
    assert cli("destroy", "--all", "--force").status == 0
    assert [name for name in order(daemon, "destroyed", "db", "api", "a-web", "x") if name != "x"] == ["a-web", "api", "db"]


@pytest.mark.usefixtures("chain")
def test_a_restart_of_a_selection_stops_and_starts_in_order(daemon: Daemon, cli: Cli) -> None:
    runs: list[tuple[str, str]] = []
    bus = daemon.parts.bus
    daemon.call(lambda: bus.subscribe("test", Began, lambda event: runs.append(("began", event.container.name))))
    daemon.call(lambda: bus.subscribe("test", Exited, lambda event: runs.append(("ended", event.container.name))))
    restarted = cli("restart", "--all", "-f", "json")
    assert restarted.status == 0, restarted
    assert {each["status"] for each in json.loads(restarted.out)["results"]} == {"restarted"}
    assert [each for each in runs if each[1] != "x"] == [
        ("ended", "a-web"), ("ended", "api"), ("ended", "db"), ("began", "db"), ("began", "api"), ("began", "a-web"),
    ]  # fmt: skip
    daemon.model.sick["db"] = "no answer"
    soon(lambda: daemon.client.info("db")["health"] == "unhealthy")
    again = cli("restart", "--all", "-f", "json")
    assert (again.status, result(again, "a-web")["status"], result(again, "db")["status"]) == (0, "blocked", "restarted")
    assert state(daemon, "api") == "blocked: db not healthy"
    assert state(daemon, "a-web") == "blocked: api not healthy"
    daemon.model.sick.clear()
    soon(lambda: state(daemon, "a-web") == "running")


@pytest.mark.usefixtures("chain")
def test_until_the_next_boot_they_stop_in_order_too(daemon: Daemon, cli: Cli) -> None:
    cli("set", "a-web", "boot_order=-5")
    cli("set", "db", "boot_order=5")
    assert cli("stop", "--all", "--until-boot", "--timeout", "5").status == 0
    assert [name for name in order(daemon, "stopped", "db", "api", "a-web", "x") if name != "x"] == ["a-web", "api", "db"]


@pytest.mark.usefixtures("chain")
def test_a_rollout_restarts_what_others_wait_for_before_them(daemon: Daemon, cli: Cli) -> None:
    cli("set", "db", "boot_order=50")
    planned = json.loads(cli("restart", "--all", "--rolling", "--max-unavailable", "4", "--dry-run", "-f", "json").out)
    assert [wave for wave in planned["waves"] if wave != ["x"]][-3:] == [["db"], ["api"], ["a-web"]]
    rolled = cli("restart", "--all", "--rolling", "--max-unavailable", "4", "-f", "json")
    assert rolled.status == 0, rolled
    waves = {each["name"]: each["wave"] for each in json.loads(rolled.out)["containers"]}
    assert waves["db"] < waves["api"] < waves["a-web"]
    assert cli("restart", "--all", "--rolling", "--no-deps").status == 2


def test_a_fleet_file_brings_them_up_in_order_and_knows_circles(daemon: Daemon, cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "fleet.yaml"
    health = "{exec: ['true'], interval: 0.1, start_period: 0}"
    text = f"""lxcfleet: 1
fleet: shop
groups:
  a-web: {{count: 2, command: [sleep, infinity], depends_on: {{db: healthy, job: completed}}}}
  db: {{count: 2, command: [sleep, infinity], health: {health}}}
  job: {{command: ['true'], depends_on: {{db: healthy}}}}
"""
    file.write_text(text)
    applied = cli("apply", "-f", str(file))
    assert applied.status == 0, applied
    assert [state(daemon, name) for name in ("db1", "db2", "job", "a-web1", "a-web2")] == [
        "running", "running", "exited", "running", "running"
    ]  # fmt: skip
    assert cli("diff", "-f", str(file)).status == 0
    daemon.model.sick["db2"] = "no answer"
    soon(lambda: daemon.client.info("db2")["health"] == "unhealthy")
    cli("stop", "a-web1")
    cli("start", "a-web1")
    assert state(daemon, "a-web1") == "blocked: db2 not healthy"
    assert cli("diff", "-f", str(file)).status == 0
    file.write_text(text.replace("job: {command", "job: {memory: 1G, command").replace("{db: healthy}}", "{a-web: started}}"))
    refused = cli("apply", "-f", str(file))
    assert refused.status == 2
    assert "fleet.yaml:4: groups: a-web: depends_on.job: a circle: a-web1 waits for job waits for a-web" in refused.err
    file.write_text(text.replace("{db: healthy}}", "{nobody: started}}"))
    refused = cli("apply", "-f", str(file))
    assert (refused.status, "depends_on.nobody: there is no container and no group of this name" in refused.err) == (2, True)
    file.write_text("lxcfleet: 1\nfleet: shop\ngroups: {}\n")
    assert cli("apply", "-f", str(file), "--prune=all").status == 0
    gone = order(daemon, "destroyed", "db1", "db2", "job", "a-web1", "a-web2")
    assert {*gone[:2]} == {"a-web1", "a-web2"}
    assert {*gone[3:]} == {"db1", "db2"}
