"""The verbs of the command line: their output, their requests and their exit statuses."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shlex
from pathlib import Path

import pytest
import yaml

from lxcfleet.api.requests import WaitRequest
from lxcfleet.spec.container.fields import stored
from lxcfleet.spec.container.health import CheckKind, HealthCheck
from lxcfleet.spec.reading.terms import Init, NetworkMode
from lxcfleet.spec.selection import Selection
from lxcfleet.spec.states import State

from .conftest import Cli, Spawn, rows, soon
from .real_daemon import Daemon

# start, stop, …


@pytest.mark.parametrize(
    ("verb", "change", "word", "step"),
    [
        ("start", (State.STOPPED, State.RUNNING), "started", "start its init"),
        ("stop", (State.RUNNING, State.STOPPED), "stopped", "ask its init to end, and wait; kill it when the time is up"),
        ("restart", (State.RUNNING, State.RUNNING), "restarted", "start its init"),
        ("freeze", (State.RUNNING, State.FROZEN), "frozen", "freeze its processes"),
        ("unfreeze", (State.FROZEN, State.RUNNING), "unfrozen", "unfreeze its processes"),
    ],
)
def test_actions(cli: Cli, daemon: Daemon, verb: str, change: tuple[State, State], word: str, step: str) -> None:
    before, after = change
    container = daemon.fleet.add("web1", state=before)
    planned = cli(verb, "web1", "--dry-run")
    assert (planned.status, container.state) == (0, before)
    assert f"web1: {step}" in planned.out.splitlines()
    ran = cli(verb, "web1")
    assert (ran.status, ran.out, ran.err) == (0, f"web1  {word}\n", "")
    assert container.state is after


def test_a_frozen_container_is_not_healthy(cli: Cli, daemon: Daemon) -> None:
    daemon.fleet.add("web1")
    assert cli("wait", "web1", "--for", "healthy").status == 0
    assert cli("freeze", "web1").status == 0
    waited = cli("wait", "web1", "--for", "healthy", "--timeout", "0.1")
    assert (waited.status, "it is frozen and unhealthy: it is frozen" in waited.err) == (1, True)
    assert cli("unfreeze", "web1").status == 0
    assert cli("wait", "web1", "--for", "healthy").status == 0


@pytest.mark.parametrize("verb", ["destroy", "rm"])
def test_destroy(cli: Cli, daemon: Daemon, verb: str) -> None:
    daemon.fleet.add("a")
    daemon.fleet.add("b", state=State.STOPPED)
    assert cli(verb, "a", "b").status == 3
    assert daemon.fleet.names == {"a"}
    assert cli(verb, "a").status == 1
    assert cli(verb, "--all", "--force").status == 0
    assert daemon.fleet.names == set()


def test_selections(cli: Cli, daemon: Daemon) -> None:
    for name, tier in [("web1", "front"), ("web2", "back"), ("db1", "back")]:
        daemon.fleet.add(name, labels={"tier": tier})
    assert cli("stop", "web*", "-l", "tier=back", "-q").out == "web2\n"
    assert cli("stop", "-l", "tier=back", "-q").out == "db1\n"
    assert cli("stop", "--all", "-q").out == "web1\n"
    assert cli("start", "db1", "web[2]", "-q").out == "db1\nweb2\n"


def test_a_glob_that_matches_nothing_says_so(cli: Cli, daemon: Daemon) -> None:
    ran = cli("stop", "web*")
    assert (ran.status, ran.out) == (0, "")
    assert "nothing to do" in ran.err
    assert json.loads(cli("stop", "web*", "-f", "json").out) == {
        "changed": False,
        "operation": daemon.operation.id,
        "results": [],
    }
    assert cli("stop", "web*", "--dry-run").err == ran.err


def test_with_one_unknown_name_the_status_is_1_and_nothing_is_done(cli: Cli, daemon: Daemon) -> None:
    daemon.fleet.add("a")
    ran = cli("stop", "a", "nix")
    assert ran.status == 1
    assert ran.err.splitlines()[0] == "lxcfleet: no container named nix"
    assert daemon.fleet["a"].state is State.RUNNING


@pytest.mark.parametrize("style", ["json", "yaml", "csv"])
def test_results_in_every_format(cli: Cli, daemon: Daemon, style: str) -> None:
    daemon.fleet.add("a", state=State.STOPPED)
    daemon.fleet.add("b", problem="b is broken\nno spec", state=State.BROKEN)
    ran = cli("start", "a", "b", "-f", style)
    assert ran.status == 3
    assert ran.err == "lxcfleet: b is broken\n  no spec\n"
    if style == "csv":
        assert list(csv.reader(io.StringIO(ran.out))) == [
            ["name", "status", "changed", "error"],
            ["a", "started", "true", ""],
            ["b", "failed", "false", "b is broken"],
        ]
        return
    data = json.loads(ran.out) if style == "json" else yaml.safe_load(ran.out)
    assert data["changed"] is True
    assert [result["name"] for result in data["results"]] == ["a", "b"]
    assert data["results"][1]["error"]["code"] == "broken"


# list, info


QUOTED = "sleep 100; echo 'a b'"


@pytest.fixture
def mixed(daemon: Daemon) -> Daemon:
    daemon.fleet.add("web10", command=("sh", "-c", QUOTED), privileged=True, network=NetworkMode.NONE)
    daemon.fleet.add("web2", init=Init.SYSTEM, labels={"tier": "front", "x": ""})
    daemon.fleet.add("bad", state=State.BROKEN, problem="lxcfleet.yaml: line 3: \x1b[31mcut off")
    daemon.fleet.add("off", state=State.STOPPED, network=NetworkMode.NONE)
    daemon.client.wait(WaitRequest(Selection(("web2",)), "healthy", 60))
    return daemon


def test_list(cli: Cli, mixed: Daemon) -> None:
    ran = cli("list")
    assert (ran.status, ran.err) == (0, "")
    addresses = ",".join(mixed.client.info("web2")["addresses"])
    head, *lines = (line.split(maxsplit=6) for line in ran.out.splitlines())
    assert head == ["NAME", "STATE", "HEALTH", "KIND", "ADDRESSES", "LABELS", "COMMAND"]
    assert lines == [
        ["bad", "broken", "-", "-", "-", "-", "! lxcfleet.yaml: line 3: \\x1b[31mcut off"],
        ["off", "stopped", "-", "app", "-", "-", "sleep infinity"],
        ["web2", "running", "healthy", "system", addresses, "tier=front,x=", "-"],
        ["web10", "running", "healthy", "app,privileged", "-", "-", f"sh -c {shlex.quote(QUOTED)}"],
    ]


@pytest.mark.usefixtures("mixed")
def test_list_narrows(cli: Cli) -> None:
    assert cli("ls", "-q").out == "bad\noff\nweb2\nweb10\n"
    assert cli("ls", "-q", "web*").out == "web2\nweb10\n"
    assert cli("ls", "-q", "-l", "tier=front").out == "web2\n"
    assert cli("ls", "-q", "--state", "stopped", "--state", "broken").out == "bad\noff\n"
    assert cli("ls", "-q", "--all").out == cli("ls", "-q").out
    assert cli("ls", "nix").status == 1
    nothing = cli("ls", "nix*")
    assert (nothing.status, nothing.out) == (0, "")
    assert "chosen" in nothing.err


def test_list_without_containers(cli: Cli) -> None:
    ran = cli("list")
    assert (ran.status, ran.out, ran.err) == (0, "", "lxcfleet: no containers\n")
    assert json.loads(cli("list", "-f", "json").out) == []
    assert yaml.safe_load(cli("list", "-f", "yaml").out) == []
    assert len(cli("list", "-f", "csv").out.splitlines()) == 1


@pytest.mark.usefixtures("mixed")
def test_list_formats_agree(cli: Cli) -> None:
    as_json = json.loads(cli("list", "-f", "json").out)
    assert as_json == yaml.safe_load(cli("list", "-f", "yaml").out)
    table = list(csv.DictReader(io.StringIO(cli("list", "-f", "csv").out)))
    assert [row["name"] for row in table] == [record["name"] for record in as_json]
    assert [row["privileged"] for row in table] == ["false", "false", "false", "true"]
    assert set(table[0]) == set(as_json[0])


@pytest.mark.usefixtures("mixed")
def test_list_fits_the_terminal(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lxcfleet.cli.ui.output.terminal_width", lambda: 60)
    lines = cli("list").out.splitlines()
    assert max(map(len, lines)) == 60
    assert lines[-1].endswith("…")


@pytest.mark.usefixtures("mixed")
def test_info(cli: Cli) -> None:
    ran = cli("info", "web10")
    assert ran.status == 0
    fields = dict(line.split(maxsplit=1) for line in ran.out.splitlines() if not line.startswith("uids"))
    assert fields["name:"] == "web10"
    assert fields["privileged:"] == "PRIVILEGED"
    assert fields["memory:"] == "1.4 MiB"
    assert json.loads(cli("info", "web10", "-f", "json").out) == yaml.safe_load(
        cli("info", "web10", "-f", "yaml").out
    )
    ((row),) = csv.DictReader(io.StringIO(cli("info", "web10", "-f", "csv").out))
    assert row["command"] == f"sh -c {shlex.quote(QUOTED)}"
    assert cli("info", "nix").status == 1


def test_info_has_a_line_for_each_field_of_the_spec(cli: Cli, daemon: Daemon) -> None:
    check = HealthCheck(CheckKind.EXEC, command=("/bin/sh", "-c", "test -e /up"), interval=2.0)
    daemon.fleet.add("web", health=check, memory=512 << 20, stop_timeout=2.5, boot_order=-3)
    told = [(name, value) for name, _, value in (line.partition(":") for line in cli("info", "web").out.splitlines())]
    lines = dict(told)
    assert len(lines) == len(told), "two lines with one name"
    other = {"memory": "memory limit", "cpus": "cpu limit", "disk": "disk limit", "pids": "process limit", "health": "check"}
    other |= {"first_id": "uids and gids", "hardware": "mac address"}
    for key in set(stored()) - {"address", "address6"}:
        assert other.get(key, key.replace("_", " ")) in lines
    assert lines["check"].strip() == "exec='test -e /up' interval=2 timeout=5 retries=3 start_period=30"
    assert [lines[key].strip() for key in ("memory limit", "cpu limit", "stop timeout", "boot order")] == [
        "512M", "none", "2.5", "-3",
    ]  # fmt: skip


def test_info_of_a_broken_container_leaves_its_spec_out(cli: Cli, daemon: Daemon) -> None:
    daemon.fleet.add("b", problem="its spec can't be used\nline 3: oops")
    fields = [line.partition(":")[0] for line in cli("info", "b").out.splitlines()]
    assert {"name", "problem", "delta", "pid"} <= {*fields}
    assert not {"uids and gids", "privileged", "autostart", "process limit"} & {*fields}
    assert cli("list").out.splitlines()[1].endswith("! its spec can't be used")


# logs, wait, doctor, events, config


def test_logs(cli: Cli, daemon: Daemon) -> None:
    daemon.fleet.add("a")
    daemon.fleet["a"].say(b"one\r\ntwo\r\n\xff\x00\rthree\r\n")
    daemon.fleet["a"].say(b"lxc\r\nlog\n", lxc=True)
    assert cli("logs", "a").out.encode("utf-8", "surrogateescape") == b"one\ntwo\n\xff\x00\rthree\n"
    assert cli("logs", "a", "-n", "1").out.endswith("three\n")
    assert cli("logs", "a", "--lxc").out == "lxc\r\nlog\n"
    assert cli("logs", "nix").status == 1


def test_liblxc_s_log_commands_no_terminal(cli: Cli, spawn: Spawn, daemon: Daemon) -> None:
    daemon.fleet.add("a")
    daemon.fleet["a"].say(b"ok \xc3\xa4\r\n\x1b]0;x\x07 \x9b\ttail", lxc=True)
    assert cli("logs", "a", "--lxc").out.encode("utf-8", "surrogateescape").count(b"\x1b") == 1, "a file has it as it is"
    master, slave = os.openpty()
    process = spawn("logs", "a", "--lxc", stdout=slave)
    os.close(slave)
    seen = b""
    with contextlib.suppress(OSError):  # the other side is closed
        while more := os.read(master, 1000):
            seen += more
    os.close(master)
    assert (process.wait(60), seen) == (0, b"ok \xc3\xa4\r\n\\x1b]0;x\\x07 \\x9b\ttail")


def test_logs_of_several(cli: Cli, daemon: Daemon) -> None:
    for name, said in (("a1", b"one\r\n\x1b[31mtwo\x1b[0m\x07\r\n"), ("a10", b"three\r\nfour"), ("b", b"none\r\n")):
        daemon.fleet.add(name)
        daemon.fleet[name].say(said)
    assert cli("logs", "a*").out == "a1 | one\na1 | two\\x07\na10 | three\na10 | four\n"
    assert cli("logs", "a1", "a10", "-n", "1").out == "a1 | two\\x07\na10 | four\n"
    assert cli("logs", "a1", "-t").out == f"{'-':<24} one\n{'-':<24} two\\x07\n"
    record = {"time": None, "container": "a10", "text": "four"}
    assert json.loads(cli("logs", "a10", "--format", "json").out.splitlines()[-1]) == record
    assert cli("logs", "--all", "--since", "10m").out == "", "when they were printed is not known"
    assert cli("logs", "-l", "no=such").out == ""
    for wrong in (("a*", "--lxc"), ("a1", "--since", "tomorrow"), ("a1", "--lxc", "-t"), ("--all", "a1")):
        assert cli("logs", *wrong).status == 2, wrong
    assert cli("logs", "nix", "a1").status == 1


def test_events_since_a_time(cli: Cli, daemon: Daemon) -> None:
    ran = cli("events")
    assert (ran.status, ran.out, "earlier ones: lxcfleet events --since yesterday" in ran.err) == (0, "", True)
    daemon.fleet.add("a", state=State.STOPPED)
    cli("start", "a")
    assert "started" in cli("events", "--since", "yesterday").out
    ran = cli("events", "--since", "2100-01-01")
    assert (ran.out, ran.err) == ("", "lxcfleet: nothing happened since then\n")
    assert cli("events", "--since", "soon").status == 2


def test_wait(cli: Cli, daemon: Daemon) -> None:
    daemon.fleet.add("a")
    daemon.fleet.add("b", state=State.STOPPED)
    assert cli("wait", "a").out == "a  running\n"
    assert cli("wait", "b", "--for", "stopped", "-q").out == ""
    ran = cli("wait", "--all", "--timeout", "0.05")
    assert ran.status == 3
    assert ran.err.startswith("lxcfleet: b is not running after 0.05 s\n  it is stopped\n")
    late = cli("wait", "b", "--timeout", "0", "-f", "json")
    assert late.status == 1
    assert json.loads(late.out)["results"][0]["error"]["code"] == "wrong-state"
    daemon.fleet.add("c", state=State.BROKEN, problem="its spec can't be used")
    broken = cli("wait", "c", "-f", "json")
    assert (broken.status, json.loads(broken.out)["results"][0]["error"]["code"]) == (1, "broken")


def test_what_to_do_is_told_once_where_many_fail_alike(cli: Cli, daemon: Daemon) -> None:
    for name in ("a", "b", "c"):
        daemon.fleet.add(name)
    ran = cli("destroy", "--all")
    assert [line for line in ran.err.splitlines() if "lxcfleet: " in line] == [
        f"lxcfleet: {name} is running and was not destroyed" for name in ("a", "b", "c")
    ]
    assert ran.err.count("stop it first, or use --force") == 1


def test_a_wait_in_vain_says_how_a_container_ended_and_not_why_it_is_ill(cli: Cli) -> None:
    cli("create", "job", "--", "sh", "-c", "exit 3")
    assert cli("wait", "job", "--for", "stopped").status == 0
    assert "  it is failed: exit status 3\n" in cli("wait", "job", "--timeout", "0").err
    cli("create", "ill", "--health-exec", "false", "--health-interval", "0.1", "--", "sleep", "infinity")
    assert "  it is running\n" in cli("wait", "ill", "--for", "stopped", "--timeout", "1").err


def test_doctor(cli: Cli) -> None:
    good = cli("doctor", "-n", "10")
    assert (good.status, good.err) == (0, "")
    assert rows(good.out)[0][:2] == ["ok", "memory"]
    assert good.out.splitlines()[-1] == "asked: 10 more system containers; room for 4000 more"
    warned = cli("doctor", "-n", "1000")
    assert warned.status == 0
    assert rows(warned.out)[0][:2] == ["warning", "neighbours"]
    assert "(doctor --fix does it)" in warned.out
    assert "warning" not in cli("doctor", "-n", "1000", "--fix").out
    bad = cli("doctor", "-n", "4096", "--init", "app")
    assert bad.status == 4
    assert rows(bad.out)[0][:2] == ["FAIL", "uid-ranges"]
    as_json = cli("doctor", "-n", "4096", "-f", "json")
    assert as_json.status == 4
    assert json.loads(as_json.out)["fits"] == 4000
    assert next(csv.DictReader(io.StringIO(cli("doctor", "-f", "csv").out)))["fixable"] == "false"


def test_events(cli: Cli) -> None:
    cli("create", "a")
    ((_, *words), *_) = rows(cli("events").out)
    assert words == ["created", "a"]
    line, *_ = cli("events", "--format", "json").out.splitlines()
    assert json.loads(line)["what"] == "created"


def test_config(cli: Cli, daemon: Daemon, tmp_path: Path) -> None:
    pytest.importorskip("lxcfleet.spec.files.settings")
    assert cli("config", "check").out == f"{daemon.paths.config_file}: ok\n"
    assert isinstance(yaml.safe_load(cli("config", "show").out), dict)
    missing = cli("config", "check", str(tmp_path / "nix"))
    assert missing.status == 2
    bad = tmp_path / "bad.yaml"
    bad.write_text("no_such_setting: 1\nneither_this: 2\n")
    ran = cli("config", "check", str(bad))
    assert (ran.status, ran.out) == (2, "")
    assert "no_such_setting" in ran.err
    assert "neither_this" in ran.err
    daemon.paths.config_file.unlink()
    assert "defaults" in cli("config", "check").out


def test_info_says_why_a_container_is_not_healthy(cli: Cli, daemon: Daemon) -> None:
    daemon.model.sick["web"] = "connection refused"
    daemon.fleet.add("web", health=HealthCheck(CheckKind.EXEC, command=("true",), retries=1, start_period=0))
    soon(lambda: "unhealthy" in cli("list").out)
    assert "connection refused" in cli("info", "web").out
