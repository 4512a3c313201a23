"""Apps by the command line, over the real daemon and a fake launcher."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lxcfleet.errors import Broken, HostError

from .conftest import Cli, rows
from .real_daemon import Daemon

SLEEP = ("--", "sleep", "infinity")


@pytest.fixture
def build(tmp_path: Path) -> str:
    """A directory to seal."""
    (tmp_path / "build").mkdir()
    (tmp_path / "build/serve").write_text("one")
    return str(tmp_path / "build")


def test_a_release_is_sealed_listed_and_removed(cli: Cli, daemon: Daemon, build: str) -> None:
    planned = cli("app", "add", "shop", build, "--version", "1.4", "--dry-run")
    assert (planned.status, daemon.paths.apps.exists()) == (0, False)
    made = cli("app", "add", "shop", build, "--version", "1.4", "-f", "json")
    assert (made.status, json.loads(made.out)["changed"]) == (0, True)
    again = cli("app", "add", "shop", build, "--version", "1.4")
    assert (again.status, again.err.splitlines()[0]) == (1, "lxcfleet: the app shop@1.4 exists already")
    assert cli("app", "list", "-q").out == "shop@1.4\n"
    assert rows(cli("app", "list", "shop").out)[1][:3] == ["shop", "1.4", "3"]
    assert cli("app", "list", "other", "-q").out == ""
    record = json.loads(cli("app", "info", "shop@1.4", "-f", "json").out)
    assert (record["release"], record["containers"], record["problem"], record["source"]) == ("shop@1.4", [], None, build)
    assert (cli("app", "info", "shop@1.5").status, cli("app", "rm", "shop@1.5").status) == (1, 1)
    assert cli("app", "rm", "shop@1.4", "--dry-run").status == 0
    removed = cli("app", "rm", "shop@1.4")
    assert (removed.status, removed.out) == (0, "shop@1.4  removed\n")
    assert cli("app", "list", "-q").out == ""


def test_a_container_gets_a_release_and_keeps_it_from_being_removed(cli: Cli, build: str) -> None:
    refused = cli("create", "web", "--app", "shop@1.4", *SLEEP)
    assert (refused.status, refused.err.splitlines()[0]) == (2, "lxcfleet: there is no app shop@1.4")
    for version in ("1.4", "1.5"):
        cli("app", "add", "shop", build, "--version", version)
    assert cli("create", "web", "-n", "2", "--app", "shop@1.4", *SLEEP).status == 0
    assert json.loads(cli("list", "web1", "-f", "json").out)[0]["app"] == "shop@1.4"
    assert "shop@1.4" in cli("info", "web1").out
    kept = cli("app", "rm", "shop@1.5", "shop@1.4")
    assert (kept.status, cli("app", "list", "-q").out) == (1, "shop@1.4\nshop@1.5\n")
    assert "web1, web2" in kept.err
    changed = cli("set", "web1", "app=shop@1.5", "-f", "json")
    assert (changed.status, json.loads(changed.out)["restarts"]) == (0, ["web1"])
    assert cli("set", "web1", "app=shop@1.6").status == 2
    assert cli("set", "web2", "app=").status == 0
    assert cli("app", "rm", "shop@1.4").status == 0


def test_a_container_waits_for_a_release_that_is_gone(cli: Cli, daemon: Daemon, build: str) -> None:
    cli("app", "add", "shop", build, "--version", "1.4")
    cli("create", "web", "--app", "shop@1.4", *SLEEP)
    cli("stop", "web")
    own = daemon.paths.release("shop", "1.4").directory
    own.rename(own.with_name("1.0"))
    started = cli("start", "web")
    assert started.status == 0
    assert "blocked: app shop@1.4 is not on this host" in cli("list").out
    cli("app", "add", "shop", build, "--version", "1.4")
    assert cli("wait", "web", "--for", "running", "--timeout", "20").status == 0


def test_old_releases_are_removed_but_for_those_in_use(cli: Cli, build: str) -> None:
    for version in ("1", "2", "3"):
        cli("app", "add", "shop", build, "--version", version)
    cli("create", "web", "--app", "shop@1", *SLEEP)
    added = cli("app", "add", "shop", build, "--version", "4", "--keep", "1")
    assert added.status == 0
    assert "old releases were removed: 2, 3" in added.err
    assert cli("app", "list", "-q").out == "shop@1\nshop@4\n"


def test_altered_releases_are_named(cli: Cli, daemon: Daemon, build: str) -> None:
    for version in ("1", "2"):
        cli("app", "add", "shop", build, "--version", version)
    assert cli("app", "verify").status == 0
    daemon.model.fails["shop@2"] = Broken("the app shop@2 was altered since it was sealed", why="serve is gone")
    found = cli("app", "verify", "shop")
    assert (found.status, "shop@2: the app shop@2 was altered since it was sealed" in found.out) == (4, True)
    assert "serve is gone" in found.out
    assert cli("app", "verify", "-q").out == "shop@2\n"
    assert cli("app", "verify", "shop@1").status == 0
    assert cli("app", "verify", "other").status == 1
    refused = cli("create", "web", "--app", "shop@2", *SLEEP)
    assert (refused.status, "altered" in refused.err) == (1, True)


def test_a_release_that_can_not_be_sealed_leaves_nothing(cli: Cli, daemon: Daemon, build: str) -> None:
    daemon.model.fails["shop@1"] = HostError("there is no room for this release")
    assert cli("app", "add", "shop", build, "--version", "1").status == 1
    assert cli("app", "list", "-q").out == ""
    for name, source, version in (("Shop", build, "1"), ("shop", build, "../1"), ("shop", "/no/such", "1")):
        assert cli("app", "add", name, source, "--version", version).status == 2
