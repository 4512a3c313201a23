"""The verbs ``stale`` and ``patch notify``: the calls, and the command line in front of them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lxcfleet.api.findings import OldFileRecord
from lxcfleet.cli import main
from lxcfleet.cli.session import Session
from lxcfleet.errors import NotFound
from lxcfleet.paths import Paths
from lxcfleet.spec.selection import Selection

from .conftest import Cli, Fleet
from .real_daemon import Daemon

OLD: OldFileRecord = {
    "path": "/usr/lib/x86_64-linux-gnu/libssl.so.3",
    "why": "replaced",
    "layer": "base",
    "package": "libssl3:amd64",
    "version": "3.0.22-1",
    "processes": [{"pid": pid, "command": "worker"} for pid in range(6)],
}


def test_fresh_containers_are_not_stale(fleet: Fleet) -> None:
    fleet.create("", count=2)
    records = fleet.client.stale(fleet.all)
    assert [record["name"] for record in records] == [fleet.name(1), fleet.name(2)]
    for record in records:
        assert not record["stale"]
        assert record["files"] == []
        assert record["problem"] is None
        assert record["processes"] > 0
        assert record["mappings"] > 0


def test_a_stopped_container_is_not_stale(fleet: Fleet) -> None:
    fleet.create("a", start=False)
    (record,) = fleet.client.stale(fleet.all)
    assert (record["state"], record["stale"], record["processes"]) == ("stopped", False, 0)


def test_an_unknown_name_is_not_found(fleet: Fleet) -> None:
    with pytest.raises(NotFound):
        fleet.client.stale(Selection((fleet.name("none"),)))


@pytest.fixture
def web(daemon: Daemon) -> Callable[[str], None]:
    for name in ("web1", "web2", "web3"):
        daemon.fleet.add(name)
    return lambda name: daemon.fleet[name].runs_old(OLD)


def test_nothing_stale(cli: Cli, web: Callable[[str], None]) -> None:
    ran = cli("stale")
    assert (ran.status, ran.out) == (0, "")
    assert ran.err == "lxcfleet: nothing stale: 6 processes in 3 containers looked at\n"
    assert cli("stale", "web1").err == "lxcfleet: nothing stale: 2 processes in 1 container looked at\n"
    assert cli("stale", "nix*").err == "lxcfleet: no container is chosen by that\n"


def test_stale_containers_are_shown(cli: Cli, web: Callable[[str], None]) -> None:
    web("web2")
    ran = cli("stale")
    assert (ran.status, ran.err) == (4, "")
    header, line = ran.out.splitlines()
    assert header.split() == ["NAME", "PROCESSES", "FILE", "WHY", "PACKAGE", "VERSION", "ON", "THE", "HOST"]
    assert line.split("  ") == [
        "web2", "worker 0, worker 1, worker 2 and 3 more", OLD["path"], "replaced", "libssl3:amd64", "3.0.22-1",
    ]  # fmt: skip
    assert (cli("stale", "-q").out, cli("stale", "-q").status) == ("web2\n", 4)
    assert [record["stale"] for record in json.loads(cli("stale", "-f", "json").out)] == [False, True, False]
    assert cli("stale", "web3").status == 0
    rows = list(csv.DictReader(io.StringIO(cli("stale", "-f", "csv").out)))
    assert [(row["name"], row["stale"], row["package"]) for row in rows] == [
        ("web1", "false", ""), ("web2", "true", "libssl3:amd64"), ("web3", "false", ""),
    ]  # fmt: skip


def test_a_container_that_can_not_be_looked_at_is_told(cli: Cli, daemon: Daemon, web: Callable[[str], None]) -> None:
    daemon.fleet["web1"].can_not_be_looked_at("/proc/1/maps: Permission denied")
    ran = cli("stale", "-q")
    assert (ran.status, ran.out) == (3, "")
    assert ran.err == "lxcfleet: web1: not all of it could be looked at\n  /proc/1/maps: Permission denied\n"
    web("web2")
    assert cli("stale").status == 4


def test_stale_as_a_monitoring_plugin(cli: Cli, daemon: Daemon, web: Callable[[str], None]) -> None:
    ran = cli("stale", "--nagios")
    assert ran.status == 0
    assert ran.out == "LXCFLEET OK - no old code in 3 containers | stale=0;;0;0;3 unread=0;0;;0;3\n"
    daemon.fleet["web1"].can_not_be_looked_at("no")
    assert cli("stale", "--nagios").status == 1
    web("web2")
    ran = cli("stale", "--nagios")
    assert ran.status == 2
    assert ran.out.startswith("LXCFLEET CRITICAL - old code runs in 1 of 3 containers: web2 | stale=1;;0;0;3 unread=1")
    ran = cli("stale", "--nagios", "none")
    assert ran.status == 3
    assert ran.out.startswith("LXCFLEET UNKNOWN - no container named none")


# patch notify


def test_the_daemon_can_be_told_of_changed_packages(fleet: Fleet) -> None:
    assert fleet.client.notice()["policy"] in ("auto", "window", "notify", "manual")
    notice = fleet.client.notify()
    assert notice["phase"] in ("quiet", "busy")


def test_notify_shows_the_progress_of_the_change(cli: Cli, daemon: Daemon) -> None:
    ran = cli("patch", "notify")
    assert (ran.status, ran.out) == (0, "waiting until packages stop changing (packages changed 0 s ago)\n")
    assert json.loads(cli("patch", "notify", "-f", "json").out)["phase"] == "quiet"
    assert cli("patch", "notify", "-q").out == ""
    assert "host:     waiting until packages stop changing" in cli("patch", "status").out


def test_notify_without_a_daemon_leaves_a_note_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = Paths(run=tmp_path / "run")
    assert main.run(["patch", "notify"], Session(paths)) == 0
    assert not paths.run.exists()
    paths.run.mkdir()
    assert main.run(["patch", "notify"], Session(paths)) == 0
    assert paths.notice.exists()
    assert capsys.readouterr().err == "lxcfleet: noted; the daemon is down, and acts once it is started\n"
