"""The verbs ``du`` and ``diff NAME``: the calls over a fake launcher and over real LXC, and the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lxcfleet.api.disk import DiffRequest, DiskRequest
from lxcfleet.base.changes import Changed, ChangeKind
from lxcfleet.errors import NotFound
from lxcfleet.spec.selection import Selection

from .conftest import Cli, Fleet
from .real_daemon import Daemon

MODE = Changed("/etc/a", ChangeKind.MODE, "file", 3, 0o600, 0o644, layer="base")
NEW = Changed("/srv/\x1b[31m\udcff", ChangeKind.ADDED, "file", 3)


def test_each_chosen_delta_has_a_record(fleet: Fleet) -> None:
    fleet.create("", count=2)
    records = fleet.client.du(DiskRequest(fleet.all))
    assert [(record["name"], record["kind"], record["cut"]) for record in records] == [
        (fleet.name(1), "container", False), (fleet.name(2), "container", False),
    ]  # fmt: skip
    assert all(record["problem"] is None and record["paths"] == [] for record in records)
    with pytest.raises(NotFound):
        fleet.client.du(DiskRequest(Selection((fleet.name("none"),))))


def test_a_new_container_changed_nothing_at_a_path_of_its_own(fleet: Fleet) -> None:
    fleet.create("a")
    record = fleet.client.diff(DiffRequest(fleet.name("a"), "/srv/none"))
    assert (record["changed"], record["changes"], record["counts"], record["path"]) == (False, [], {}, "/srv/none")
    with pytest.raises(NotFound):
        fleet.client.diff(DiffRequest(fleet.name("none")))


def write(daemon: Daemon, name: str, path: str, size: int) -> Path:
    file: Path = daemon.paths.container(name).delta / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x" * size)
    return file


def test_what_takes_most_comes_first(cli: Cli, daemon: Daemon) -> None:
    for name in ("web1", "web2"):
        daemon.fleet.add(name)
    write(daemon, "web2", "var/log/big\x1b[31m", 1 << 20)
    write(daemon, "web1", "srv/a", 1 << 12)
    ran = cli("du")
    assert ran.status == 0
    assert [line.split()[0] for line in ran.out.splitlines()] == ["NAME", "web2", "web1"]
    assert cli("du", "-q").out == "web2\nweb1\n"
    one = cli("du", "web2")
    assert [line.split()[0] for line in one.out.splitlines()[2:4]] == ["/var", "/var/log"]
    deep = cli("du", "web2", "--depth", "3")
    assert "\x1b" not in deep.out
    assert "/var/log/big\\x1b[31m" in deep.out
    assert "/var" not in cli("du", "web2", "--depth", "0").out
    (record,) = json.loads(cli("du", "web2", "--depth", "9", "--top", "1", "-f", "json").out)
    assert (len(record["paths"]), record["items"]) == (1, 3)
    rows = cli("du", "web*", "--depth", "1", "-f", "csv").out.splitlines()
    assert rows[0] == "name,kind,path,disk_bytes,apparent_bytes,items,cut"
    assert rows[1].startswith("web2,container,/,")
    assert rows[2].startswith("web2,container,/var,")
    assert cli("du", "nix*").err == "lxcfleet: no container is chosen by that\n"
    assert cli("du", "none").status == 1
    assert cli("du", "-q", "-f", "json").status == 2


def test_volumes_are_told_if_asked_for(cli: Cli, daemon: Daemon) -> None:
    assert cli("volume", "create", "data").status == 0
    assert cli("volume", "create", "other").status == 0
    assert cli("create", "web", "-v", "data:/srv", "--", "sleep", "infinity").status == 0
    (daemon.paths.volume("data").data / "file").write_bytes(b"x" * 9000)
    records = json.loads(cli("du", "--volumes", "-f", "json").out)
    assert {(record["kind"], record["name"]) for record in records} == {
        ("container", "web"), ("volume", "data"), ("volume", "other"),
    }  # fmt: skip
    assert "volume data" in cli("du", "web", "--volumes").out
    assert "other" not in cli("du", "web", "--volumes").out
    assert "data" not in cli("du", "web").out


def test_a_look_that_is_killed_costs_only_that_container(cli: Cli, daemon: Daemon) -> None:
    for name in ("a", "b", "victim", "d"):
        daemon.fleet.add(name)
    daemon.model.killed.add("victim")
    ran = cli("du", "-f", "json")
    assert ran.status == 3
    assert {record["name"]: record["problem"] is None for record in json.loads(ran.out)} == {
        "a": True, "b": True, "victim": False, "d": True,
    }  # fmt: skip
    assert "victim: it could not be looked at" in ran.err


def test_changes_are_shown(cli: Cli, daemon: Daemon) -> None:
    daemon.fleet.add("web")
    assert (cli("diff", "web").status, cli("diff", "web").err) == (0, "lxcfleet: web: nothing is changed\n")
    daemon.model.changes["web"] = [MODE, NEW]
    ran = cli("diff", "web")
    assert ran.status == 4
    assert [line.split() for line in ran.out.splitlines()] == [
        ["CHANGE", "TYPE", "PATH", "WAS"], ["mode", "file", "/etc/a", "0644", "->", "0600"],
        ["added", "file", "/srv/\\x1b[31m\\udcff", "-"],
    ]  # fmt: skip
    assert ran.err == "lxcfleet: web: 1 mode, 1 added\n"
    for way in (("-f", "json"), ("--format", "json")):
        record = json.loads(cli("diff", "web", *way).out)
        assert (record["changed"], record["counts"]) == (True, {"mode": 1, "added": 1})
        assert record["changes"][1]["path"] == NEW.path
    assert cli("diff", "web", "/etc", "-q").out == "/etc/a\n"
    assert cli("diff", "web", "/usr").status == 0
    few = cli("diff", "web", "--most", "1")
    assert "not all is listed" in few.err
    assert cli("diff", "none").status == 1


@pytest.mark.parametrize(
    "words",
    [
        ("web", "-f", "fleet.yaml"), ("web", "/etc", "-f", "-"), ("web", "--prune"), ("web", "--adopt"), (), ("web", "etc"),
        ("web", "-f", "json", "--format", "yaml"), ("web", "-q", "-f", "json"), ("-f", "fleet.yaml", "--most", "3"),
    ],
)  # fmt: skip
def test_the_two_forms_of_diff_exclude_each_other(cli: Cli, daemon: Daemon, words: tuple[str, ...]) -> None:
    daemon.fleet.add("web")
    ran = cli("diff", *words)
    assert (ran.status, ran.out) == (2, "")


