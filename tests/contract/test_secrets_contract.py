"""Secrets by the command line, over the real daemon and a fake launcher."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lxcfleet.spec.files.settings import load

from .conftest import Cli, rows, soon
from .real_daemon import SETTINGS, Daemon

SLEEP = ("--", "sleep", "infinity")


@pytest.fixture
def source(daemon: Daemon, tmp_path: Path) -> Path:
    """The file of the secret db-pw; api is a command, and tls a file that is not there."""
    file = tmp_path / "pw"
    file.write_text("hunter2")
    own = f"secrets: {{db-pw: {{file: {file}}}, api: {{command: [/bin/vault, token-x]}}, tls: {{file: {tmp_path}/nope}}}}\n"
    daemon.paths.config_file.write_text(SETTINGS + own)
    daemon.call(lambda: daemon.parts.secrets.take_over(load(daemon.paths.config_file).secrets))
    return file


def test_secrets_are_listed_without_what_they_are(cli: Cli, daemon: Daemon, source: Path) -> None:
    assert cli("create", "web", "-n", "2", "--secret", "db-pw:pw,uid=33,mode=0440", "--secret", "api", *SLEEP).status == 0
    listed = cli("secret", "list")
    assert [row[0] for row in rows(listed.out)] == ["NAME", "api", "db-pw", "tls"]
    assert "token-x" not in listed.out
    record = {each["name"]: each for each in json.loads(cli("secret", "list", "-f", "json").out)}
    assert (record["db-pw"]["containers"], record["tls"]["containers"]) == (["web1", "web2"], [])
    assert (record["db-pw"]["source"], record["api"]["source"]) == (f"file {source}", "command /bin/vault")
    assert cli("secret", "list", "-q").out == "api\ndb-pw\ntls\n"
    assert json.loads(cli("list", "web1", "-f", "json").out)[0]["secrets"] == ["db-pw:pw,uid=33,mode=0440", "api"]
    assert "hunter2" not in daemon.paths.container("web1").spec.read_text()


def test_a_refresh_says_what_changed(cli: Cli, source: Path) -> None:
    cli("create", "web", "--secret", "db-pw", *SLEEP)
    same = cli("secret", "refresh", "db-pw", "-f", "json")
    assert (same.status, json.loads(same.out)["changed"]) == (0, False)
    source.write_text("other")
    planned = cli("secret", "refresh", "db-pw", "--dry-run")
    assert (planned.status, "of 1 container" in planned.out + planned.err) == (0, True)
    other = cli("secret", "refresh", "--all", "-f", "json")
    results = {each["name"]: each["status"] for each in json.loads(other.out)["results"]}
    assert (results["db-pw"], results["tls"]) == ("changed", "failed")
    assert other.status == 3
    assert cli("create", "cert", "--secret", "tls", *SLEEP).status == 0
    assert "  cert ! it can't be read" in cli("secret", "list").out, "what is wrong takes no container's place"


def test_what_is_not_said_or_not_there_is_refused(cli: Cli, source: Path) -> None:
    assert cli("secret", "refresh").status == 2
    assert cli("secret", "refresh", "--all", "db-pw").status == 2
    assert cli("secret", "refresh", "nope").err.splitlines()[0] == "lxcfleet: no secret named nope"
    made = cli("create", "web", "--secret", "nope", *SLEEP)
    assert (made.status, made.err.splitlines()[0]) == (1, "lxcfleet: web: there is no secret nope")
    assert cli("create", "web", "--secret", "db-pw,mode=4755", *SLEEP).status == 2
    assert cli("create", "web", "--secret", "db-pw,on_change=signal:HUP").status == 2
    assert source.exists()


def test_a_missing_secret_blocks_its_container_and_no_other(cli: Cli, daemon: Daemon, source: Path) -> None:
    cli("create", "web", "--secret", "tls", *SLEEP)
    listed = json.loads(cli("list", "web", "-f", "json").out)[0]
    assert (listed["state"], listed["blocked"][:12]) == ("blocked", "secret tls: ")
    assert cli("create", "api", "--secret", "db-pw", *SLEEP).status == 0
    assert daemon.parts.registry["api"].running is not None
    assert "tls can't be fetched" in cli("events").out
    (source.parent / "nope").write_text("now")
    assert cli("secret", "refresh", "tls").out == "tls  changed\n"
    soon(lambda: daemon.parts.registry["web"].running is not None)
    (source.parent / "nope").unlink()
    assert cli("secret", "refresh", "tls").status == 1  # the former value stays
    assert cli("restart", "web").status == 0
    assert daemon.parts.registry["web"].running is not None


def test_a_secret_that_is_declared_no_more_keeps_a_container_from_its_next_start(
    cli: Cli, daemon: Daemon, source: Path
) -> None:
    cli("create", "web", "--secret", "db-pw", *SLEEP)
    declared = load(daemon.paths.config_file).secrets
    daemon.call(lambda: daemon.parts.secrets.take_over({}))
    refused = cli("restart", "web")
    assert (refused.status, "there is no secret db-pw" in refused.err) == (1, True)
    assert daemon.parts.registry["web"].running is not None
    cli("stop", "web")
    cli("start", "web")
    assert json.loads(cli("list", "web", "-f", "json").out)[0]["blocked"] == "there is no secret db-pw"
    daemon.call(lambda: daemon.parts.secrets.take_over(declared))
    soon(lambda: daemon.parts.registry["web"].running is not None)
    assert source.exists()


def test_programs_are_told_as_their_specs_say(cli: Cli, daemon: Daemon, source: Path, tmp_path: Path) -> None:
    told = tmp_path / "told"
    cli("create", "web", "-n", "3", "--secret", f"db-pw,on_change=exec:/bin/sh -c 'echo told >>{told}'", *SLEEP)
    cli("create", "db", "--secret", "db-pw,on_change=restart", *SLEEP)
    cli("create", "quiet", "--secret", "db-pw", *SLEEP)
    runs = {name: daemon.parts.registry[name].starts for name in ("web1", "db", "quiet")}
    source.write_text("other")
    assert cli("secret", "refresh", "db-pw").status == 0
    soon(lambda: told.exists() and told.read_text() == "told\n" * 3)
    soon(lambda: daemon.parts.registry["db"].starts == runs["db"] + 1 and daemon.parts.registry["db"].running is not None)
    assert (daemon.parts.registry["web1"].starts, daemon.parts.registry["quiet"].starts) == (runs["web1"], runs["quiet"])
    soon(lambda: daemon.parts.rollouts.ledger.active is None)
    assert json.loads(cli("rollout", "status", "-f", "json").out)["kind"] == "restart", "it came after the waves of commands"
    telling = daemon.parts.secret_changes.telling
    assert telling is not None
    assert (telling.record()["status"], telling.waves) == ("done", {"web1": 1, "web2": 2, "web3": 3})
    daemon.call(daemon.parts.secret_changes.kick)
    assert cli("secret", "refresh", "db-pw").out == "db-pw  unchanged\n"
    assert told.read_text() == "told\n" * 3
    assert daemon.parts.registry["db"].starts == runs["db"] + 1


def test_a_command_that_fails_stops_the_waves(cli: Cli, daemon: Daemon, source: Path, tmp_path: Path) -> None:
    told = tmp_path / "told"
    cli("create", "web", "-n", "8", "--secret", f"db-pw,on_change=exec:/bin/sh -c 'echo x >>{told}; exit 7'", *SLEEP)
    source.write_text("other")
    cli("secret", "refresh", "db-pw")
    soon(lambda: "ended with status 7" in cli("events").out)
    assert told.read_text() == "x\n" * 2  # a quarter of them
    status = cli("rollout", "status", "--follow", "-f", "json")
    record = json.loads(status.out)
    assert (status.status, record["kind"], record["status"], record["about"]) == (4, "secret", "halted", "secrets: db-pw")
    assert sorted(each["phase"] for each in record["containers"]) == ["done", "failed", *["waiting"] * 6]
    assert "ended with status 7" in record["halted"]["why"]
    assert "lxcfleet secret refresh" in status.err
    halted = daemon.parts.secret_changes.telling
    daemon.call(lambda: daemon.parts.secrets.take_over(load(daemon.paths.config_file).secrets))  # as at a reload
    cli("create", "one", "--secret", "db-pw,on_change=exec:/bin/true", *SLEEP)
    assert daemon.parts.secret_changes.telling is halted, "no value has changed"
    assert told.read_text() == "x\n" * 2
    assert cli("secret", "refresh", "db-pw").out == "db-pw  unchanged\n"
    soon(lambda: told.read_text() == "x\n" * 4)
