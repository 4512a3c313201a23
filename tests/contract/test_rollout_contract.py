"""Rollouts: the calls over a fake launcher and over real LXC, and the command line."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

import pytest

from lxcfleet.api.findings import OldFileRecord
from lxcfleet.api.records import RolloutRecord
from lxcfleet.api.requests import ResumeRequest, RolloutRequest
from lxcfleet.cli.ui import rolling
from lxcfleet.errors import Busy, HostError, InvalidInput, NotFound, WrongState
from lxcfleet.spec.selection import Selection

from .conftest import Cli, Fleet
from .real_daemon import Daemon

QUICK = {"min_healthy_time": 0, "max_unavailable": "50%", "canaries": 0}
OLD: OldFileRecord = {
    "path": "/usr/lib/libssl.so.3", "why": "replaced", "layer": "base", "package": "libssl3", "version": "3",
    "processes": [],
}  # fmt: skip


def ended(fleet: Fleet) -> RolloutRecord:
    *_, last = fleet.client.rollout_follow()
    return last


def test_a_rolling_restart(fleet: Fleet) -> None:
    fleet.create("", count=2)
    begun = fleet.client.roll(RolloutRequest("restart", fleet.all, QUICK))
    assert set(begun) == set(RolloutRecord.__annotations__)
    assert begun["total"] == 2
    last = ended(fleet)
    assert (last["id"], last["status"], last["done"], last["changed"]) == (begun["id"], "done", 2, True)
    assert {each["phase"] for each in last["containers"]} == {"done"}
    assert fleet.client.rollout() == last
    assert set(fleet.states().values()) == {"running"}


def test_a_dry_run_shows_the_waves(fleet: Fleet) -> None:
    fleet.create("", count=2)
    planned = fleet.client.roll(RolloutRequest("restart", fleet.all, QUICK, dry_run=True))
    assert planned["waves"] == [[fleet.name(1)], [fleet.name(2)]]
    assert planned["policy"]["max_unavailable"] == "50%"


def test_a_patch_rollout_does_nothing_if_no_container_is_stale(fleet: Fleet) -> None:
    fleet.create("", count=1)
    record = fleet.client.roll(RolloutRequest("patch", fleet.all))
    assert (record["status"], record["total"], record["changed"]) == ("done", 0, False)
    with pytest.raises(NotFound):
        fleet.client.roll(RolloutRequest("patch", Selection((fleet.name("none"),))))


@pytest.mark.parametrize("policy", [{"max_unavailable": "0"}, {"canaries": "x"}, {"colour": 1}, {"min_healthy_time": -1}])
def test_a_policy_that_makes_no_sense_is_refused(fleet: Fleet, policy: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        fleet.client.roll(RolloutRequest("restart", fleet.all, policy))


def test_pause_resume_and_abort_need_a_rollout(fleet: Fleet) -> None:
    with pytest.raises(WrongState):
        fleet.client.rollout_pause()
    with pytest.raises(WrongState):
        fleet.client.rollout_resume(ResumeRequest())
    with pytest.raises(WrongState):
        fleet.client.rollout_abort()


# the command line


@pytest.fixture
def web(daemon: Daemon) -> Daemon:
    """Three containers, of which the last two are stale."""
    for name in ("web1", "web2", "web3"):
        container = daemon.fleet.add(name)
        if name != "web1":
            container.runs_old(OLD)
    return daemon


ONE = ("--max-unavailable", "1")


def test_status_names_containers_that_can_not_be_looked_at(cli: Cli, web: Daemon) -> None:
    web.fleet["web1"].can_not_be_looked_at("/proc/1/maps: Permission denied")
    ran = cli("patch", "status")
    assert ran.status == 4
    assert "web1: not all of it could be looked at\n  /proc/1/maps: Permission denied" in ran.err
    assert cli("patch", "apply", "web2", "web3").status == 0
    assert cli("patch", "status").status == 3


def test_patch_apply(cli: Cli, web: Daemon) -> None:
    ran = cli("patch", "apply", *ONE, "--dry-run")
    assert (ran.status, ran.out, ran.err) == (0, "wave 1: web2\nwave 2: web3\n", "")
    assert cli("patch", "apply", "--dry-run", "-q").out == "web2\nweb3\n"
    assert cli("patch", "status", "-q").out == "web2\nweb3\n"
    assert cli("patch", "status").status == 4
    ran = cli("patch", "apply", *ONE)
    assert (ran.status, ran.err) == (0, "")
    head, _, line, *_ = ran.out.splitlines()
    assert re.fullmatch(r"rollout [0-9a-z]+: done, wave 2: 2 done", head)
    assert line.split() == ["web2", "done", "1", "-"]
    again = cli("patch", "apply")
    assert (again.status, again.out) == (0, "")
    assert "no container is stale" in again.err
    assert cli("patch", "status").status == 0
    assert json.loads(cli("patch", "apply", "-f", "json").out)["changed"] is False


def test_patch_apply_to_some_containers(cli: Cli, web: Daemon) -> None:
    assert cli("patch", "apply", "web2", "-q").out == "web2\n"
    assert cli("patch", "apply", "web9").status == 1
    assert cli("patch", "apply", "--max-unavailable", "many").status == 2


def test_a_halt_names_the_container_the_reason_and_the_next_step(cli: Cli, web: Daemon) -> None:
    web.fleet["web3"].say(b"Traceback\x1b\r\n  oh\r\n")
    web.model.fails["web3"] = HostError("web3 did not start", why="status 500")
    ran = cli("patch", "apply", *ONE)
    assert ran.status == 3
    assert ran.err.splitlines() == [
        "lxcfleet: the rollout is halted at web3",
        "  web3 did not start: status 500",
        "  once that is mended: lxcfleet rollout resume (--accept: leave it as it is; it counts as down);"
        " or: lxcfleet rollout abort",
        "  its process 1: killed by SIGTERM",
        "  the end of its console:",
        "  | Traceback\\x1b",
        "  |   oh",
        "  which packages of the host changed since it was well is not known",
    ]
    ran = cli("rollout", "status")
    assert (ran.status, "web3  failed" in ran.out) == (4, True)
    rows = list(csv.DictReader(io.StringIO(cli("rollout", "status", "-f", "csv").out)))
    assert [(row["name"], row["phase"], row["wave"]) for row in rows] == [("web2", "done", "1"), ("web3", "failed", "2")]
    busy = cli("restart", "web1", "--rolling")
    assert (busy.status, "under way" in busy.err) == (Busy.exit_status, True)
    assert cli("rollout", "abort").status == 0
    assert cli("rollout", "abort").status == 1


@pytest.mark.parametrize(("kind", "begin"), [("patch", "patch apply"), ("restart", "restart … --rolling")])
def test_a_halt_because_of_an_earlier_failed_container_says_so(
    capsys: pytest.CaptureFixture[str], kind: str, begin: str
) -> None:
    why = "no more may be down, as web2 is not healthy"
    record: Any = {
        "id": "r1", "kind": kind, "status": "halted", "wave": 1, "total": 2, "done": 1, "killed": 0, "waits_for": "",
        "about": "", "rejected": "", "left_out": {}, "not_reverted": "",
        "halted": {"container": "web3", "why": why, "log": "", "exit_status": None, "ended": "",
                   "packages": None, "commands": []},
        "containers": [
            {"name": "web2", "phase": "failed", "wave": 1, "stale": False, "note": "", "tests": []},
            {"name": "web3", "phase": "waiting", "wave": None, "stale": False, "note": "", "tests": []},
        ],
    }  # fmt: skip
    rolling.show(record, "table")
    assert capsys.readouterr().err.splitlines() == [
        "lxcfleet: the rollout is halted at web3",
        "  no more may be down, as web2 is not healthy",
        "  what failed counts as down (web2): mend it, then: lxcfleet rollout resume",
        f"  or let more be down: lxcfleet rollout abort, then: lxcfleet {begin} --max-unavailable N",
    ]


def test_restart_rolling_takes_the_policy_s_options(cli: Cli, web: Daemon) -> None:
    ran = cli("restart", "--all", "--rolling", "--min-healthy-time", "0.5", "--canaries", "20%", "-f", "json")
    assert ran.status == 0
    policy = json.loads(ran.out)["policy"]
    assert (policy["min_healthy_time"], policy["canaries"], policy["max_unavailable"]) == (0.5, "20%", "25%")
    for wrong in (["--canaries", "1"], ["--no-wait"], ["--rolling", "--timeout", "3"], ["--rolling", "--drain", "1"]):
        assert cli("restart", "web1", *wrong).status == 2, wrong
    assert cli("restart", "none*", "--rolling").status == 0


def test_status_without_a_rollout(cli: Cli) -> None:
    ran = cli("rollout", "status")
    assert (ran.status, ran.out, ran.err) == (0, "", "lxcfleet: there was no rollout since the host was booted\n")
    assert json.loads(cli("rollout", "status", "-f", "json").out) is None
    assert cli("rollout", "resume").status == 1
