"""Volumes by the command line, over the real daemon and a fake launcher."""

from __future__ import annotations

import json

import pytest

from lxcfleet.containers.requests.changing import needs_restart
from lxcfleet.patch.verify import covers

from .conftest import Cli, rows
from .real_daemon import Daemon

SLEEP = ("--", "sleep", "infinity")


def test_a_volume_is_created_listed_and_removed(cli: Cli, daemon: Daemon) -> None:
    planned = cli("volume", "create", "data", "--dry-run")
    assert (planned.status, daemon.paths.volumes.exists()) == (0, False)
    made = cli("volume", "create", "data", "-l", "tier=db", "-f", "json")
    assert (made.status, json.loads(made.out)["changed"]) == (0, True)
    again = cli("volume", "create", "data")
    assert (again.status, again.err.splitlines()[0]) == (1, "lxcfleet: a volume named data exists already")
    there = cli("volume", "create", "data", "--ensure", "--label", "tier=web", "-f", "json")
    assert (there.status, json.loads(there.out)["changed"]) == (0, False)
    assert "labels: tier=db (asked: tier=web)" in there.err
    assert rows(cli("volume", "list").out) == [
        ["NAME", "SIZE", "USED", "CONTAINERS", "LABELS"], ["data", "-", "-", "-", "tier=db"],
    ]  # fmt: skip
    assert cli("volume", "list", "-q").out == "data\n"
    record = json.loads(cli("volume", "info", "data", "-f", "json").out)
    assert (record["name"], record["containers"], record["problem"]) == ("data", [], None)
    assert cli("volume", "rm", "data", "--dry-run").status == 0
    removed = cli("volume", "rm", "data")
    assert (removed.status, removed.out) == (0, "data  removed\n")
    assert cli("volume", "info", "data").status == 1
    assert not list(daemon.paths.volumes.iterdir())


def test_a_volume_that_a_spec_names_is_not_removed_and_destroy_leaves_it(cli: Cli, daemon: Daemon) -> None:
    assert cli("create", "web", "-v", "data:/srv", *SLEEP).err.splitlines() == [
        "lxcfleet: there is no volume data", "  lxcfleet volume create data",
    ]  # fmt: skip
    assert cli("volume", "create", "data", "-q").out == "data\n"
    assert cli("create", "web", "-n", "2", "-v", "data:/srv", *SLEEP).status == 0
    assert cli("stop", "web1").status == 0
    refused = cli("volume", "rm", "data")
    assert refused.status == 1
    assert "web1, web2" in refused.err
    assert json.loads(cli("list", "web1", "-f", "json").out)[0]["volumes"] == ["data:/srv"]
    assert json.loads(cli("volume", "list", "-f", "json").out)[0]["containers"] == ["web1", "web2"]
    assert cli("destroy", "--all", "--force").status == 0
    assert daemon.paths.volume("data").data.is_dir()
    assert cli("volume", "rm", "data").status == 0


def test_a_volume_counts_as_used_until_the_run_that_has_it_ends(cli: Cli, daemon: Daemon) -> None:
    cli("volume", "create", "data")
    cli("create", "web", "-v", "data:/srv", *SLEEP)
    assert cli("set", "web", "volumes=", "--no-restart").status == 0
    assert daemon.call(lambda: needs_restart(daemon.parts.registry["web"])) == ("volumes",)
    assert cli("volume", "rm", "data").status == 1
    assert cli("restart", "web").status == 0
    assert cli("volume", "rm", "data").status == 0


def test_a_broken_spec_that_may_name_a_volume_keeps_it(cli: Cli, daemon: Daemon) -> None:
    cli("volume", "create", "data")
    cli("create", "web", "-v", "data:/srv", "--no-start", *SLEEP)
    container = daemon.parts.registry["web"]
    with daemon.paths.container("web").spec.open("a") as file:
        file.write("colour: red\n")
    daemon.call(lambda: setattr(container, "spec", None))
    assert cli("volume", "rm", "data").status == 1
    daemon.paths.container("web").spec.write_text("colour: red\n")
    assert cli("volume", "rm", "data").status == 0


def test_what_a_mount_hides_is_told(cli: Cli, daemon: Daemon) -> None:
    daemon.model.hidden = ["the mount at /usr/share/nginx hides files of nginx"]
    made = cli("create", "web", "-n", "2", "-v", "tmpfs:/usr/share/nginx:size=64M", *SLEEP)
    assert (made.status, made.err) == (0, "lxcfleet: web1, web2: the mount at /usr/share/nginx hides files of nginx\n")
    changed = cli("set", "web1", "volumes=tmpfs:/usr/share/nginx:size=32M", "--no-restart")
    assert "lxcfleet: web1: the mount at /usr/share/nginx hides files of nginx\n" in changed.err


def test_several_are_removed_or_none(cli: Cli, daemon: Daemon) -> None:
    for name in ("a", "b"):
        cli("volume", "create", name)
    assert cli("volume", "rm", "a", "nope").status == 1
    assert daemon.paths.volume("a").directory.is_dir()
    assert cli("volume", "rm", "a", "b").out == "a  removed\nb  removed\n"


def test_a_broken_volume_is_listed_and_told_by_doctor(cli: Cli, daemon: Daemon) -> None:
    cli("volume", "create", "data")
    daemon.paths.volume("data").record.write_text("version: 1\n")
    listed = cli("volume", "list")
    assert "the volume data is broken" in listed.out
    assert "the volume data is broken" in cli("doctor").out
    assert cli("create", "web", "-v", "data:/srv", *SLEEP).status == 1
    assert cli("create", "api", *SLEEP).status == 0
    assert cli("volume", "rm", "data").status == 0


def test_a_mount_over_files_of_packages_is_told_by_audit_and_verify(
    cli: Cli, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(covers, "packages_below", lambda place: ("nginx-common",) if place == "/usr/share/nginx" else ())
    cli("volume", "create", "data")
    assert cli("create", "web", "-v", "tmpfs:/usr/share/nginx:size=64M", "-v", "data:/srv", *SLEEP).status == 0
    ran = cli("audit", "shadow")
    assert (ran.status, ran.out) == (4, "web: the mount at /usr/share/nginx hides files of nginx-common\n")
    (record,) = json.loads(cli("audit", "shadow", "-f", "json").out)
    assert record["mounts"] == {"/usr/share/nginx": ["nginx-common"]}
    (proof,) = json.loads(cli("verify", "web", "-f", "json").out)["containers"]
    assert proof["proven"]
    assert "files of nginx-common below /usr/share/nginx, where a mount hides them" in proof["not_compared"]


def test_ids_of_a_volume_that_is_being_made_are_given_to_nobody_else(daemon: Daemon) -> None:
    room = daemon.parts.fleet.room
    with room.ids() as take:
        first = take()
        room.reload()
        with room.ids() as another:
            assert another() != first
    with room.ids() as take:
        assert take() == first
