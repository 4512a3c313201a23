"""Snapshots by the command line, over the real daemon and a fake launcher."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lxcfleet.api.client import Client
from lxcfleet.api.snapshots import CreateSnapshotsRequest
from lxcfleet.cli.verbs import backup
from lxcfleet.containers.copies import copy_cost
from lxcfleet.errors import HostError
from lxcfleet.spec.selection import Selection

from .conftest import Cli, rows, soon
from .real_daemon import Daemon

SLEEP = ("--", "sleep", "infinity")


def create(cli: Cli, daemon: Daemon, name: str = "web", *options: str, text: str = "one") -> None:
    assert cli("create", name, *options, *SLEEP).status == 0
    write(daemon, text, name)


def write(daemon: Daemon, text: str, name: str = "web") -> None:
    daemon.paths.container(name).delta.joinpath("f").write_text(text)


def read(daemon: Daemon, name: str = "web") -> str:
    return daemon.paths.container(name).delta.joinpath("f").read_text()


def listed(cli: Cli, *chosen: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(cli("snapshot", "list", *chosen, "-f", "json").out)
    return found


def left_over(daemon: Daemon) -> list[str]:
    return [each.name for each in daemon.paths.snapshots.glob("*/.*")]


def test_a_snapshot_is_made_listed_restored_and_removed(cli: Cli, daemon: Daemon) -> None:
    create(cli, daemon)
    planned = cli("snapshot", "create", "web", "--name", "a", "--dry-run")
    assert planned.status == 0
    assert "web: snapshot a: " in planned.out
    assert not list(daemon.paths.snapshots.glob("web/a"))
    made = cli("snapshot", "create", "web", "--name", "a", "--why", "try it", "-f", "json")
    result = json.loads(made.out)
    assert (made.status, result["changed"]) == (0, True)
    assert "it was frozen for" in result["results"][0]["notes"][0]
    (record,) = listed(cli)
    assert (record["container"], record["name"], record["why"], record["made_by"]) == ("web", "a", "try it", "asked")
    assert record["exists"]
    assert record["frozen_ms"] is not None
    assert rows(cli("snapshot", "list").out)[0][:3] == ["CONTAINER", "NAME", "CREATED"]
    assert cli("snapshot", "list", "-q").out == "web a\n"
    assert cli("snapshot", "create", "web", "--name", "a").err.startswith("lxcfleet: web has a snapshot a already")

    write(daemon, "two")
    refused = cli("snapshot", "restore", "web", "a")
    assert (refused.status, "web is running" in refused.err) == (1, True)
    assert "keep its present delta" in cli("snapshot", "restore", "web", "a", "--stop", "--dry-run").out
    assert read(daemon) == "two"
    assert cli("snapshot", "restore", "web", "a", "--stop").status == 0
    assert read(daemon) == "one"
    assert json.loads(cli("list", "-f", "json").out)[0]["state"] == "running"
    kept = [each for each in listed(cli) if each["made_by"] == "restore"]
    assert len(kept) == 1
    assert daemon.paths.snapshot("web", kept[0]["name"]).delta.joinpath("f").read_text() == "two"

    assert cli("stop", "web").status == 0
    assert cli("snapshot", "restore", "web", kept[0]["name"], "--discard-present").status == 0
    assert (read(daemon), len(listed(cli))) == ("two", 2)
    assert not daemon.paths.container("web").restoring.exists()

    assert cli("snapshot", "rm", "web", "a", "nix").status == 1
    assert len(listed(cli)) == 2
    assert cli("snapshot", "rm", "web", "a", "--dry-run").status == 0
    removed = cli("snapshot", "rm", "web", "a")
    assert (removed.status, removed.out) == (0, "a  removed\n")
    assert cli("snapshot", "rm", "web", "--all").status == 0
    assert listed(cli) == []
    none = cli("snapshot", "rm", "web", "--all", "-f", "json")
    assert (none.status, json.loads(none.out)["changed"]) == (0, False)
    assert left_over(daemon) == []


@pytest.mark.parametrize(
    "words", [("rm", "web"), ("rm", "web", "a", "--all"), ("create",), ("create", "web", "--name", "A/b")]
)
def test_what_makes_no_sense_is_refused(words: tuple[str, ...], cli: Cli, daemon: Daemon) -> None:
    create(cli, daemon)
    assert cli("snapshot", *words).status == 2


def test_a_container_with_snapshots_is_destroyed_only_with_them(cli: Cli, daemon: Daemon) -> None:
    create(cli, daemon)
    create(cli, daemon, "db")
    assert cli("snapshot", "create", "web", "--name", "a").status == 0
    assert cli("destroy", "--all", "--force", "--dry-run").status in (1, 3)
    refused = cli("destroy", "--all", "--force")
    assert refused.status == 3
    assert "web has snapshots and was not destroyed" in refused.err
    assert daemon.paths.container("web").delta.is_dir()
    assert cli("destroy", "web", "--force", "--with-snapshots").status == 0
    assert listed(cli) == []
    assert cli("start", "--all").status == 0


def test_snapshots_of_one_that_is_gone_are_told_and_not_given_to_its_namesake(cli: Cli, daemon: Daemon) -> None:
    create(cli, daemon)
    assert cli("snapshot", "create", "web", "--name", "a").status == 0
    aside = daemon.paths.snapshots.rename(daemon.paths.lxc / ".aside")
    assert cli("destroy", "web", "--force").status == 0
    aside.rename(daemon.paths.snapshots)
    assert rows(cli("snapshot", "list").out)[1][:3] == ["web", "(gone)", "a"]
    create(cli, daemon, "web", "--no-start")
    record = daemon.paths.snapshot("web", "a").record
    record.write_text(record.read_text().replace('"first_id": ', '"first_id": 1'))
    refused = cli("snapshot", "restore", "web", "a")
    assert (refused.status, "not one of this web" in refused.err) == (1, True)
    assert cli("snapshot", "rm", "web", "a").status == 0


def test_a_large_copy_is_made_only_if_that_is_said(
    cli: Cli, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(cli, daemon)
    daemon.model.place.shares = False
    monkeypatch.setattr(copy_cost, "FREELY", 10)
    refused = cli("snapshot", "create", "web", "--name", "a")
    assert refused.status == 1
    assert "would have to be copied" in refused.err
    assert "copied" in cli("snapshot", "create", "web", "--name", "a", "--dry-run").out
    assert cli("snapshot", "create", "web", "--name", "a", "--yes").status == 0
    assert cli("snapshot", "restore", "web", "a", "--stop").status == 1
    daemon.model.place.free = 1
    full = cli("snapshot", "create", "web", "--yes")
    assert (full.status, "no room" in full.err) == (1, True)


def test_a_copy_that_fails_leaves_nothing_and_the_container_runs(cli: Cli, daemon: Daemon) -> None:
    create(cli, daemon)
    create(cli, daemon, "db")
    froze = []

    def fail(name: str) -> None:
        froze.append(name)
        if name == "web" and froze.count("web") == 1:
            raise HostError("not all can be copied", why="No space left on device")

    daemon.model.during = fail
    failed = cli("snapshot", "create", "web", "db", "--name", "a")
    daemon.model.during = str
    assert (failed.status, "No space left" in failed.err) == (3, True), failed
    assert [each["container"] for each in listed(cli)] == ["db"]
    assert left_over(daemon) == []
    assert {each["state"] for each in json.loads(cli("list", "-f", "json").out)} == {"running"}
    assert not list(daemon.paths.stills.iterdir())


def test_hooks_run_around_the_copy(cli: Cli, daemon: Daemon) -> None:
    create(cli, daemon)
    log = daemon.paths.run / "hooks"
    hook = f"pre_freeze=\"sh -c 'echo before >>{log}'\" post_freeze=\"sh -c 'echo after >>{log}'\""
    assert cli("set", "web", f"hooks={hook}").status == 0
    assert cli("snapshot", "create", "web").status == 0
    assert log.read_text() == "before\nafter\n"
    assert cli("set", "web", "hooks=pre_freeze='sh -c \"echo no; exit 3\"'").status == 0
    refused = cli("snapshot", "create", "web", "--name", "b")
    assert (refused.status, "sh: exit status 3: no" in refused.err) == (1, True)
    assert "b" not in {each["name"] for each in listed(cli)}


def test_a_broken_record_is_told_and_in_nobodys_way(cli: Cli, daemon: Daemon) -> None:
    create(cli, daemon)
    assert cli("snapshot", "create", "web", "--name", "a").status == 0
    daemon.paths.snapshot("web", "a").record.write_text("{")
    assert listed(cli)[0]["problem"]
    assert cli("snapshot", "restore", "web", "a", "--stop").status == 1
    assert cli("snapshot", "create", "web", "--name", "b").status == 0
    assert cli("snapshot", "rm", "web", "a", "b").status == 0


def test_a_schedule_makes_one_when_it_is_due_and_removes_the_oldest(cli: Cli, daemon: Daemon) -> None:
    create(cli, daemon, "web", "--snapshots", "every=6h keep=1")
    create(cli, daemon, "db")

    def look() -> None:
        asyncio.run_coroutine_threadsafe(daemon.parts.fleet.schedules.look(), daemon._loop).result(20)

    look()
    assert listed(cli) == []
    assert cli("snapshot", "create", "web", "--name", "mine").status == 0
    container = daemon.parts.registry["web"]

    def age(hours: int) -> None:
        """Have it, and its snapshots, made so long ago."""
        spec = container.spec
        assert spec is not None
        moment = (datetime.now(UTC) - timedelta(hours=hours)).isoformat()
        daemon.call(lambda: setattr(container, "spec", replace(spec, created=moment)))
        for name in daemon.paths.snapshots_of("web").iterdir():
            record = json.loads((name / "snapshot.json").read_text())
            made = datetime.fromisoformat(record["created"]) - timedelta(hours=hours - 1)
            record |= {"born": moment, "created": made.isoformat()}
            (name / "snapshot.json").write_text(json.dumps(record))

    age(7)
    look()
    (first,) = [each["name"] for each in listed(cli) if each["made_by"] == "schedule"]
    assert first.startswith("auto-")
    look()
    assert len(listed(cli)) == 2
    age(15)
    renamed = daemon.paths.snapshot("web", "auto-old")
    daemon.paths.snapshot("web", first).directory.rename(renamed.directory)
    renamed.record.write_text(renamed.record.read_text().replace(first, "auto-old"))
    look()
    names = {each["name"] for each in listed(cli)}
    assert len(names) == 2
    assert "mine" in names
    assert "auto-old" not in names


def test_a_backup_program_gets_a_snapshot_that_is_removed_afterwards(
    cli: Cli, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(cli, daemon)
    ran: list[tuple[str, str, tuple[str, ...]]] = []

    def run(name: str, made: str, command: tuple[str, ...]) -> int:
        assert daemon.paths.snapshot(name, made).delta.joinpath("f").read_text() == "one"
        ran.append((name, made, command))
        return 7

    monkeypatch.setattr(backup, "_run", run)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    done = cli("backup", "run", "web", "--", "restic", "backup", ".")
    assert (done.status, "it was frozen for" in done.err) == (7, True)
    assert listed(cli) == []
    assert cli("snapshot", "create", "web", "--name", "a").status == 0
    assert cli("backup", "run", "web", "--snapshot", "a", "--", "restic").status == 7
    assert [each["name"] for each in listed(cli)] == ["a"]
    assert [(name, command) for name, _, command in ran] == [("web", ("restic", "backup", ".")), ("web", ("restic",))]
    assert cli("backup", "run", "web").status == 125
    assert cli("backup", "run", "nobody", "--", "restic").status == 125
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    refused = cli("backup", "run", "web", "--", "restic")
    assert (refused.status, "only root" in refused.err) == (125, True)
    assert len(ran) == 2


def test_a_daemon_that_ends_breaks_copies_off_and_leaves_no_container_frozen(cli: Cli, daemon: Daemon) -> None:
    create(cli, daemon)
    begun, over = threading.Event(), threading.Event()

    def wait(_: str) -> None:
        begun.set()
        over.wait(60)

    daemon.model.during = wait
    client = Client(daemon.paths)
    operation = client.create_snapshots(CreateSnapshotsRequest(Selection(("web",)), "a"))
    assert begun.wait(60)
    container = daemon.parts.registry["web"]
    assert daemon.call(lambda: container.running is not None and container.running.payload.frozen)
    daemon.model.during = str
    daemon.call(daemon.parts.fleet.snapshot_files.break_off)
    soon(lambda: daemon.call(lambda: container.running is not None and not container.running.payload.frozen))
    over.set()
    *_, ended = client.follow(operation["id"])
    assert "the copy was broken off" in json.dumps(ended)
    assert listed(cli) == []
