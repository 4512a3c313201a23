"""Drains of a host by the command line, over the real daemon and a fake launcher."""

from __future__ import annotations

import json
import os

import pytest

from lxcfleet.containers.drain import Drain, parse

from .conftest import Cli, soon
from .real_daemon import Daemon

SLEEP = ("--", "sleep", "infinity")


def states(cli: Cli) -> dict[str, str]:
    return {each["name"]: each["state"] for each in json.loads(cli("list", "-f", "json").out)}


def test_a_drained_host_s_fleet_is_down_and_comes_up_as_it_was(cli: Cli, daemon: Daemon) -> None:
    assert cli("create", "db", *SLEEP).status == 0
    assert cli("create", "web", "--depends-on", "db=started", *SLEEP).status == 0
    assert cli("create", "old", "--no-start", *SLEEP).status == 0
    assert json.loads(cli("drain", "--status", "-f", "json").out) is None
    assert cli("drain", "--dry-run").status == 0
    assert (states(cli)["db"], daemon.paths.drained.exists()) == ("running", False)

    drained = cli("drain", "--why", "new disks", "-f", "json")
    results = [each["name"] for each in json.loads(drained.out)["results"] if each["changed"]]
    assert (drained.status, sorted(results)) == (0, ["db", "web"])
    events = [line.split()[1:3] for line in cli("events").out.splitlines()]
    assert events.index(["stopped", "web"]) < events.index(["stopped", "db"]), "web depends on db"
    assert set(states(cli).values()) == {"stopped"}
    record = json.loads(cli("drain", "--status", "-f", "json").out)
    assert (record["why"], sorted(record["containers"]), record["running"]) == ("new disks", ["db", "web"], [])
    assert "this host is drained since" in cli("list").err
    findings = json.loads(cli("doctor", "-f", "json").out)["findings"]
    assert any("this host is drained" in each["message"] for each in findings)

    for words in (("start", "db"), ("restart", "db"), ("create", "new", *SLEEP)):
        refused = cli(*words)
        assert (refused.status, "this host is drained" in refused.err) == (1, True), words
    assert cli("create", "new", "--no-start", *SLEEP).status == 0
    assert cli("start", "old", "--force").status == 0
    assert states(cli)["old"] == "running"
    assert cli("drain").status == 0
    assert states(cli)["old"] == "stopped"

    assert cli("drain", "--end", "--dry-run").status == 0
    ended = cli("drain", "--end")
    assert ended.status == 0
    assert states(cli) == {"db": "running", "web": "running", "old": "running", "new": "stopped"}
    assert not daemon.paths.drained.exists()
    assert "drained" not in cli("list").err
    assert cli("drain", "--end").status == 1


def test_what_has_ended_by_itself_goes_on_to_say_so(cli: Cli) -> None:
    """A job that has completed would have been stopped, and what depends on it blocked for ever."""
    cli("create", "job", "--", "true")
    cli("create", "bad", "--", "sh", "-c", "exit 3")
    soon(lambda: [states(cli)[each] for each in ("job", "bad")] == ["exited", "failed"])
    assert cli("create", "web", "--depends-on", "job=completed", *SLEEP).status == 0
    assert cli("drain").status == 0
    assert states(cli) == {"job": "exited", "bad": "failed", "web": "stopped"}
    assert cli("drain", "--end").status == 0
    assert states(cli) == {"job": "exited", "bad": "failed", "web": "running"}


def test_what_is_to_run_by_itself_waits_for_the_end_of_the_drain(cli: Cli, daemon: Daemon) -> None:
    """As after a boot: it is blocked, and starts once the drain ends, also where the drain does not know of it."""
    assert cli("create", "web", "--no-start", *SLEEP).status == 0
    assert cli("drain").status == 0
    daemon.call(lambda: daemon.parts.fleet.boot.start_again(["web"]))
    soon(lambda: states(cli)["web"] == "blocked")
    assert json.loads(cli("list", "-f", "json").out)[0]["blocked"] == "this host is drained"
    assert cli("drain", "--end").status == 0
    soon(lambda: states(cli)["web"] == "running")


def test_the_next_daemon_knows_of_it(cli: Cli, daemon: Daemon) -> None:
    assert cli("create", "web", *SLEEP).status == 0
    assert cli("drain", "--why", "disks").status == 0
    now = Drain(daemon.paths).now
    assert now is not None
    assert (now.why, now.names) == ("disks", ("web",))
    daemon.paths.drained.write_text("{")
    broken = Drain(daemon.paths).now
    assert broken is not None
    assert "can't be read" in broken.why


def test_nothing_is_stopped_if_it_can_t_be_noted(cli: Cli, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("create", "web", *SLEEP).status == 0

    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("lxcfleet.containers.drain.tree.write", full)
    refused = cli("drain")
    assert (refused.status, "so nothing is stopped" in refused.err) == (1, True)
    assert states(cli) == {"web": "running"}


@pytest.mark.parametrize("words", [("--end", "--status"), ("--end", "--why", "x"), ("--status", "--timeout", "3")])
def test_options_that_would_do_nothing_are_refused(words: tuple[str, ...], cli: Cli) -> None:
    assert cli("drain", *words).status == 2


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"since": "x", "why": "", "names": []}',
                                  '{"since": "2026-01-01T00:00:00Z", "why": 3, "names": []}'])  # fmt: skip
def test_what_is_no_record_of_a_drain_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        parse(text)


def test_an_empty_host_can_be_drained(cli: Cli) -> None:
    assert "this host would be drained" in cli("drain", "--dry-run").err
    begun = cli("drain")
    assert (begun.status, begun.err) == (0, "lxcfleet: this host is drained; no container has to be stopped or started\n")
    ended = cli("drain", "--end")
    assert (ended.status, "this host is not drained any more" in ended.err) == (0, True)
