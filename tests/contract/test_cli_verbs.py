"""Every verb of the command line: what it prints, asks for, and exits with."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lxcfleet.cli import follow, main
from lxcfleet.cli.main import VERBS
from lxcfleet.errors import HostError
from lxcfleet.model import Init, State

from .conftest import Cli
from .fake_server import FakeDaemon

BAD_NAMES = ["", "a" * 64, "a/b", "a:b", "a,b", "a\nb", ".", "..", "A", "a b", "a\x00b", "c1-"]


def rows(text: str) -> list[list[str]]:
    """A table as words; its columns must be aligned."""
    lines = text.splitlines()
    return [line.split() for line in lines]


# create


def test_create_one(cli: Cli, fake: FakeDaemon) -> None:
    ran = cli(
        "create", "web", "-l", "tier=front", "-e", "MODE=a=b", "--", "sh", "-c", "exec sleep 1", "--", "-n"
    )
    assert (ran.status, ran.out, ran.err) == (0, "web  created\n", "")
    container = fake.fleet.containers["web"]
    assert container.command == ("sh", "-c", "exec sleep 1", "--", "-n")
    assert (container.labels, container.environment) == ({"tier": "front"}, {"MODE": "a=b"})
    assert (container.init, container.state, container.first_id is None) == (Init.APP, State.RUNNING, False)


def test_create_without_a_name_makes_c1(cli: Cli, fake: FakeDaemon) -> None:
    cli("create")
    assert set(fake.fleet.containers) == {"c1"}
    assert fake.fleet.containers["c1"].init is Init.SYSTEM


def test_create_many_sums_up(cli: Cli, fake: FakeDaemon) -> None:
    ran = cli("create", "-n", "21")
    assert ran.status == 0
    assert ran.out.startswith("21 created in 0.")
    assert set(fake.fleet.containers) == {f"c{number}" for number in range(1, 22)}


def test_create_lists_what_is_few_in_natural_order(cli: Cli) -> None:
    assert [row[0] for row in rows(cli("create", "web", "-n", "20").out)] == [f"web{n}" for n in range(1, 21)]


def test_create_ensure_twice(cli: Cli) -> None:
    assert json.loads(cli("create", "-n", "2", "--ensure", "-f", "json").out)["changed"] is True
    ran = cli("create", "-n", "2", "--ensure", "-f", "json")
    data = json.loads(ran.out)
    assert (ran.status, data["changed"]) == (0, False)
    assert [result["status"] for result in data["results"]] == ["unchanged", "unchanged"]
    assert cli("create", "-n", "3", "--ensure", "-q").out == "c3\n"


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_create_ensure_says_what_differs(cli: Cli, more: tuple[str, ...]) -> None:
    cli("create", "-n", "8", "--", "sleep", "9")
    ran = cli("create", "-n", "8", "--ensure", *more, "--", "sleep", "10")
    told = "lxcfleet: c1, c2, c3, c4, c5 and 3 more: not as asked, and left so: command: sleep 9 (asked: sleep 10)\n"
    assert (ran.status, ran.err) == (0, told)
    data = json.loads(cli("create", "c1", "--ensure", "-f", "json", *more, "--", "sleep", "10").out)
    assert (data["changed"], data["results"][0]["differs"]) == (False, {"command": ["sleep 9", "sleep 10"]})
    assert cli("create", "c1", "--ensure", "-q", *more, "--", "sleep", "10").err == ""
    assert cli("create", "c1", "--ensure", *more, "--", "sleep", "9").err == ""


def test_create_options(cli: Cli, fake: FakeDaemon) -> None:
    cli("create", "a", "--privileged", "--no-start", "--init", "app", "--", "true")
    container = fake.fleet.containers["a"]
    assert (container.first_id, container.state) == (None, State.STOPPED)


def test_create_takes_a_variable_from_here(
    cli: Cli, fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_HERE", "x")
    cli("create", "a", "-e", "FROM_HERE", "--", "true")
    assert fake.fleet.containers["a"].environment == {"FROM_HERE": "x"}
    monkeypatch.delenv("FROM_HERE")
    assert cli("create", "b", "-e", "FROM_HERE", "--", "true").status == 2


def test_create_that_exists(cli: Cli, fake: FakeDaemon) -> None:
    fake.fleet.add("web", labels={"old": "yes"})
    ran = cli("create", "web")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err == "lxcfleet: web exists\n  choose another name, or --ensure\n"
    assert fake.fleet.containers["web"].labels == {"old": "yes"}


def test_create_more_than_fits(cli: Cli, fake: FakeDaemon) -> None:
    fake.fleet.containers = {f"x{n}": fake.fleet.add(f"x{n}") for n in range(2000)}
    ran = cli("create", "-n", "4096")
    assert ran.status == 1
    assert "no room" in ran.err
    assert len(fake.fleet.containers) == 2000


def test_create_dry_run(cli: Cli, fake: FakeDaemon) -> None:
    ran = cli("create", "web", "-n", "2", "--dry-run")
    assert (ran.status, ran.out) == (0, "create web1\ncreate web2\n")
    data = json.loads(cli("create", "web", "-n", "2", "--dry-run", "-f", "json").out)
    assert (data["changed"], data["plan"]) == (True, ["create web1", "create web2"])
    assert fake.fleet.containers == {}


def test_one_failure_of_many_is_3_and_leaves_the_rest(cli: Cli, fake: FakeDaemon) -> None:
    fake.fleet.fails["c2"] = HostError(
        "c2 did not start", why="/bin/nix: No such file (errno 2)", hint="look"
    )
    ran = cli("create", "-n", "3")
    assert ran.status == 3
    assert ran.err == "lxcfleet: c2 did not start\n  /bin/nix: No such file (errno 2)\n  look\n"
    assert rows(ran.out) == [["c1", "created"], ["c2", "failed"], ["c3", "created"]]
    assert set(fake.fleet.containers) == {"c1", "c3"}


def test_all_failing_is_1(cli: Cli, fake: FakeDaemon) -> None:
    fake.fleet.fails = {f"c{n}": HostError("no") for n in (1, 2)}
    ran = cli("create", "-n", "2", "-f", "json")
    assert ran.status == 1
    data = json.loads(ran.out)
    assert data["changed"] is False
    assert [result["error"]["code"] for result in data["results"]] == ["host-error", "host-error"]
    assert ran.err == "lxcfleet: c1: no\nlxcfleet: c2: no\n"


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("verb", ["create", "info", "start", "logs", "destroy", "list", "wait"])
def test_bad_names_are_2(cli: Cli, fake: FakeDaemon, verb: str, name: str) -> None:
    ran = cli(verb, name)
    assert (ran.status, ran.out) == (2, "")
    assert "can't be a container's name" in ran.err
    assert ran.err.isascii()
    assert len(ran.err.splitlines()) <= 3
    assert fake.requests == []


@pytest.mark.parametrize("verb", ["create", "info", "start", "list"])
def test_a_leading_dash_is_2(cli: Cli, fake: FakeDaemon, verb: str) -> None:
    assert cli(verb, "-web").status == 2
    assert fake.requests == []


@pytest.mark.parametrize(
    "count", ["0", "-1", "1000000000", "99999999999999999999", "many", "", "1.5", "0x10"]
)
@pytest.mark.parametrize("verb", ["create", "doctor"])
def test_bad_counts_are_2(cli: Cli, fake: FakeDaemon, verb: str, count: str) -> None:
    ran = cli(verb, "-n", count)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("lxcfleet: ")
    assert fake.requests == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "a", "b"),
        ("create", "a", "--"),
        ("create", "a", "--", ""),
        ("create", "a", "--init", "system", "--", "true"),
        ("create", "a", "--init", "app"),
        ("create", "a", "--init", "sysv"),
        ("create", "a", "-l", "x"),
        ("create", "a", "-l", "=x"),
        ("create", "a", "-l", "k=a b"),
        ("create", "a", "-e", "=x"),
        ("create", "a", "-f", "xml"),
        ("create", "a" * 63, "-n", "10"),
        ("start",),
        ("stop",),
        ("destroy",),
        ("destroy", "--force"),
        ("rm",),
        ("wait",),
        ("start", "--all", "a"),
        ("stop", "a", "--timeout", "-1"),
        ("stop", "a", "--timeout", "nan"),
        ("stop", "a", "--timeout", "inf"),
        ("wait", "a", "--for", "ever"),
        ("list", "--state", "odd"),
        ("list", "-l", "x"),
        ("logs", "a", "-n", "0"),
        ("logs",),
        ("info",),
        ("info", "a", "b"),
        ("events", "a"),
        ("nix",),
        ("--nix",),
        ("config", "nix"),
    ],
)
def test_usage_errors_are_2(cli: Cli, fake: FakeDaemon, arguments: tuple[str, ...]) -> None:
    fake.fleet.add("a")
    ran = cli(*arguments)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("lxcfleet: ")
    assert "Traceback" not in ran.err
    assert set(fake.fleet.containers) == {"a"}
    assert fake.fleet.containers["a"].state is State.RUNNING


@pytest.mark.parametrize(
    ("arguments", "form"),
    [
        (("--memory", "x"), "512M"),
        (("--memory", "-1"), "512M"),
        (("--disk", "1.5G"), "512M"),
        (("--disk", "1K"), "4 MiB"),
        (("--cpus", "-1"), "0<=x<=8192"),
        (("--pids", "-1"), "0<=x<=4194304"),
        (("--port", "http"), "SERVICE=PORT"),
        (("--publish", "80"), "HOST:CONTAINER"),
        (("--health-http", "https://x"), "--health-exec"),
    ],
)
def test_a_bad_amount_names_the_option_and_what_may_be(
    cli: Cli, fake: FakeDaemon, arguments: tuple[str, ...], form: str
) -> None:
    ran = cli("create", "a", *arguments)
    assert ran.status == 2
    assert arguments[0] in ran.err.splitlines()[0]
    assert form in ran.err
    assert fake.requests == []


@pytest.mark.parametrize("option", ["--max-unavailable", "--canaries"])
def test_a_bad_share_names_the_option(cli: Cli, option: str) -> None:
    ran = cli("patch", "apply", option, "200%")
    assert (ran.status, ran.err.splitlines()[0].split()[1]) == (2, f"{option}:")


def test_an_unknown_profile_is_2(cli: Cli) -> None:
    ran = cli("create", "a", "--profile", "nix")
    assert ran.status == 2
    assert "'nix'" in ran.err


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("list", "-q", "-f", "json"), "-q"),
        (("wait", "a", "-f", "yaml", "-q"), "-q"),
        (("restart", "--all", "-qf", "csv"), "-q"),
        (("audit", "shadow", "--yes"), "--yes"),
        (("audit", "shadow", "a", "--dry-run"), "--dry-run"),
        (("stale", "--nagios", "-q"), "-q"),
        (("stale", "--nagios", "-f", "json"), "-f"),
        (("stop", "--all", "--until-boot", "--drain", "5"), "--drain"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(
    cli: Cli, fake: FakeDaemon, arguments: tuple[str, ...], option: str
) -> None:
    ran = cli(*arguments)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith(f"lxcfleet: {option} ")
    assert "leave" in ran.err
    assert fake.requests == []


@pytest.mark.parametrize(
    ("typed", "meant"),
    [(["lisst"], "list"), (["ps"], "list"), (["delete"], "destroy"), (["help"], "--help"), (["patch", "staus"], "status")],
)
def test_an_unknown_verb_is_guessed(cli: Cli, typed: list[str], meant: str) -> None:
    assert f"Did you mean {meant!r}?" in cli(*typed).err


def test_words_of_other_tools_lead_to_what_is_there() -> None:
    assert all(meant in VERBS or meant.startswith("-") for meant in main.MEANT.values())
    assert not {*VERBS, *main.ALIASES} & {*main.MEANT}


@pytest.mark.parametrize("typed", [("create", "a", "sleep", "9"), ("exec", "a", "ls", "-l")])
def test_a_command_without_dashes_is_told_where_they_go(cli: Cli, typed: tuple[str, ...]) -> None:
    ran = cli(*typed)
    assert "a command to run goes after --" in ran.err
    assert f"`lxcfleet {typed[0]} -h`" in ran.err
    assert "--" not in cli("create", "a", "sleep", "--", "9").err


# start, stop, …


@pytest.mark.parametrize(
    ("verb", "change", "word"),
    [
        ("start", (State.STOPPED, State.RUNNING), "started"),
        ("stop", (State.RUNNING, State.STOPPED), "stopped"),
        ("restart", (State.RUNNING, State.RUNNING), "restarted"),
        ("freeze", (State.RUNNING, State.FROZEN), "frozen"),
        ("unfreeze", (State.FROZEN, State.RUNNING), "unfrozen"),
    ],
)
def test_actions(cli: Cli, fake: FakeDaemon, verb: str, change: tuple[State, State], word: str) -> None:
    before, after = change
    container = fake.fleet.add("web1", state=before)
    planned = cli(verb, "web1", "--dry-run")
    assert (planned.status, planned.out, container.state) == (0, f"{verb} web1\n", before)
    ran = cli(verb, "web1")
    assert (ran.status, ran.out, ran.err) == (0, f"web1  {word}\n", "")
    assert container.state is after


@pytest.mark.parametrize("verb", ["destroy", "rm"])
def test_destroy(cli: Cli, fake: FakeDaemon, verb: str) -> None:
    fake.fleet.add("a")
    fake.fleet.add("b", state=State.STOPPED)
    assert cli(verb, "a", "b").status == 3
    assert set(fake.fleet.containers) == {"a"}
    assert cli(verb, "a").status == 1
    assert cli(verb, "--all", "--force").status == 0
    assert fake.fleet.containers == {}


def test_selections(cli: Cli, fake: FakeDaemon) -> None:
    for name, tier in [("web1", "front"), ("web2", "back"), ("db1", "back")]:
        fake.fleet.add(name, labels={"tier": tier})
    assert cli("stop", "web*", "-l", "tier=back", "-q").out == "web2\n"
    assert cli("stop", "-l", "tier=back", "-q").out == "db1\n"
    assert cli("stop", "--all", "-q").out == "web1\n"
    assert cli("start", "db1", "web[2]", "-q").out == "db1\nweb2\n"


def test_a_glob_that_matches_nothing_says_so(cli: Cli) -> None:
    ran = cli("stop", "web*")
    assert (ran.status, ran.out) == (0, "")
    assert "nothing to do" in ran.err
    assert json.loads(cli("stop", "web*", "-f", "json").out) == {
        "changed": False,
        "operation": "op2",
        "results": [],
    }
    assert cli("stop", "web*", "--dry-run").err == ran.err


def test_a_name_that_is_missing_is_1_and_nothing_is_done(cli: Cli, fake: FakeDaemon) -> None:
    fake.fleet.add("a")
    ran = cli("stop", "a", "nix")
    assert ran.status == 1
    assert ran.err.splitlines()[0] == "lxcfleet: no container named nix"
    assert fake.fleet.containers["a"].state is State.RUNNING


@pytest.mark.parametrize("style", ["json", "yaml", "csv"])
def test_results_in_every_format(cli: Cli, fake: FakeDaemon, style: str) -> None:
    fake.fleet.add("a", state=State.STOPPED)
    fake.fleet.add("b", problem="no spec", state=State.BROKEN)
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


@pytest.fixture
def mixed(fake: FakeDaemon) -> FakeDaemon:
    fake.fleet.add("web10", init=Init.APP, command=("sh", "-c", "echo 'a b'"), first_id=None)
    fake.fleet.add("web2", labels={"tier": "front", "x": ""}, addresses=("10.0.0.2", "fd00::2"))
    fake.fleet.add("bad", state=State.BROKEN, problem="lxcfleet.yaml: line 3: \x1b[31mcut off")
    fake.fleet.add("off", state=State.STOPPED)
    return fake


@pytest.mark.usefixtures("mixed")
def test_list(cli: Cli) -> None:
    ran = cli("list")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == (
        "NAME   STATE    HEALTH   KIND            ADDRESSES         LABELS         COMMAND\n"
        "bad    broken   -        system          -                 -              "
        "! lxcfleet.yaml: line 3: \\x1b[31mcut off\n"
        "off    stopped  -        system          -                 -              -\n"
        "web2   running  healthy  system          10.0.0.2,fd00::2  tier=front,x=  -\n"
        "web10  running  healthy  app,privileged  -                 -              sh -c 'echo '\"'\"'a b'\"'\"''\n"
    )


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


def test_list_of_nothing(cli: Cli) -> None:
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
    monkeypatch.setattr("lxcfleet.cli.output.terminal_width", lambda: 60)
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
    assert fields["delta:"] == "104 KiB"
    assert json.loads(cli("info", "web10", "-f", "json").out) == yaml.safe_load(
        cli("info", "web10", "-f", "yaml").out
    )
    ((row),) = csv.DictReader(io.StringIO(cli("info", "web10", "-f", "csv").out))
    assert row["command"] == "sh -c 'echo '\"'\"'a b'\"'\"''"
    assert cli("info", "nix").status == 1


def test_info_of_a_broken_one_says_nothing_of_its_spec(cli: Cli, fake: FakeDaemon) -> None:
    fake.fleet.add("b", problem="its spec can't be used\nline 3: oops", first_id=None)
    fields = [line.partition(":")[0] for line in cli("info", "b").out.splitlines()]
    assert {"name", "problem", "delta", "pid"} <= {*fields}
    assert not {"uids and gids", "privileged", "autostart", "process limit"} & {*fields}
    assert cli("list").out.splitlines()[1].endswith("! its spec can't be used")


# logs, wait, doctor, events, config


def test_logs(cli: Cli, fake: FakeDaemon) -> None:
    fake.fleet.add("a")
    fake.fleet.logs["a", "console"] = b"one\r\ntwo\r\n\xff\x00\rthree\r\n"
    fake.fleet.logs["a", "lxc"] = b"lxc\r\nlog\n"
    assert cli("logs", "a").out.encode("utf-8", "surrogateescape") == b"one\ntwo\n\xff\x00\rthree\n"
    assert cli("logs", "a", "-n", "1").out.endswith("three\n")
    assert cli("logs", "a", "--lxc").out == "lxc\r\nlog\n"
    assert cli("logs", "nix").status == 1


def test_wait(cli: Cli, fake: FakeDaemon) -> None:
    fake.fleet.add("a")
    fake.fleet.add("b", state=State.STOPPED)
    assert cli("wait", "a").out == "a  running\n"
    assert cli("wait", "b", "--for", "stopped", "-q").out == ""
    ran = cli("wait", "--all", "--timeout", "0.05")
    assert ran.status == 3
    assert ran.err == "lxcfleet: b: not running after 0.05 s\n"
    late = cli("wait", "b", "--timeout", "0", "-f", "json")
    assert late.status == 1
    assert json.loads(late.out)["results"][0]["error"]["code"] == "wrong-state"
    fake.fleet.add("c", state=State.BROKEN, problem="its spec can't be used")
    broken = cli("wait", "c", "-f", "json")
    assert (broken.status, json.loads(broken.out)["results"][0]["error"]["code"]) == (1, "broken")


def test_doctor(cli: Cli, fake: FakeDaemon) -> None:
    good = cli("doctor", "-n", "10")
    assert (good.status, good.err) == (0, "")
    assert rows(good.out)[0][:2] == ["ok", "keys"]
    assert good.out.splitlines()[-1] == "asked: 10 more system containers; room for 5000 more"
    warned = cli("doctor", "-n", "100")
    assert warned.status == 0
    assert "raise it (doctor --fix does it)" in warned.out
    assert "warning" not in cli("doctor", "-n", "100", "--fix").out
    for number in range(2000):
        fake.fleet.add(f"x{number}")
    bad = cli("doctor", "-n", "4000", "--init", "app")
    assert bad.status == 4
    assert rows(bad.out)[0][:2] == ["FAIL", "keys"]
    as_json = cli("doctor", "-n", "4000", "-f", "json")
    assert as_json.status == 4
    assert json.loads(as_json.out)["fits"] == 3000
    assert next(csv.DictReader(io.StringIO(cli("doctor", "-f", "csv").out)))["fixable"] == "false"


def test_events(cli: Cli) -> None:
    cli("create", "a")
    assert rows(cli("events").out) == [["2026-11-21T06:00:00Z", "created", "a", "a", "created"]]
    (line,) = cli("events", "--format", "json").out.splitlines()
    assert json.loads(line)["what"] == "created"


def test_config(cli: Cli, fake: FakeDaemon, tmp_path: Path) -> None:
    pytest.importorskip("lxcfleet.config")
    assert "defaults" in cli("config", "check").out
    assert isinstance(yaml.safe_load(cli("config", "show").out), dict)
    missing = cli("config", "check", str(tmp_path / "nix"))
    assert missing.status == 2
    bad = tmp_path / "bad.yaml"
    bad.write_text("no_such_setting: 1\nneither_this: 2\n")
    ran = cli("config", "check", str(bad))
    assert (ran.status, ran.out) == (2, "")
    assert "no_such_setting" in ran.err
    assert "neither_this" in ran.err
    fake.paths.etc.mkdir()
    fake.paths.config_file.write_text("{}\n")
    assert cli("config", "check").out == f"{fake.paths.config_file}: ok\n"


# help, errors


@pytest.mark.parametrize("verb", [*VERBS, "ls", "rm"])
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_every_verb_explains_itself(cli: Cli, fake: FakeDaemon, verb: str, option: str) -> None:
    ran = cli(verb, option)
    assert (ran.status, ran.err) == (0, "")
    name = {"ls": "list", "rm": "destroy"}.get(verb, verb)
    assert verb == "config" or f"  lxcfleet {name}" in ran.out
    assert fake.requests == []


def test_help_names_every_verb(cli: Cli) -> None:
    ran = cli("-h")
    assert ran.status == 0
    assert all(f"\n  {verb} " in ran.out for verb in VERBS)
    assert "..." not in ran.out.split("Commands:")[1], "a summary does not fit into its line"


def test_version(cli: Cli) -> None:
    assert cli("--version").out == "lxcfleet 0.1.0\n"


def test_no_daemon_is_1_and_says_what_to_do(cli: Cli, fake: FakeDaemon) -> None:
    fake.paths.socket.rename(fake.paths.run / "away")
    ran = cli("list")
    (fake.paths.run / "away").rename(fake.paths.socket)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("lxcfleet: the daemon lxcfleetd does not answer\n")
    assert len(ran.err.splitlines()) == 3
    assert "systemctl status lxcfleet" in ran.err


def test_a_daemon_without_systemd_has_a_log_of_its_own(cli: Cli, fake: FakeDaemon) -> None:
    (fake.paths.run / "daemon.log").touch()
    fake.paths.socket.rename(fake.paths.run / "away")
    ran = cli("list")
    (fake.paths.run / "away").rename(fake.paths.socket)
    assert ran.err.splitlines()[-1] == f"  more is in: {fake.paths.run}/daemon.log"


def test_debug_shows_where(cli: Cli) -> None:
    assert "Traceback" in cli("--debug", "info", "nix").err
    assert "Traceback" not in cli("info", "nix").err


def test_a_bug_is_not_a_traceback(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise KeyError("oops")

    monkeypatch.setattr("lxcfleet.api.client.Client.containers", broken)
    ran = cli("list")
    assert ran.status == 1
    assert ran.err.startswith("lxcfleet: internal error: KeyError: 'oops'\n")
    assert "Traceback" in cli("--debug", "list").err


def test_a_daemon_that_dies_meanwhile(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lxcfleet.api.client.Client.follow", lambda *_: iter([]))
    ran = cli("create", "a")
    assert ran.status == 1
    assert "went away before operation op1 had ended" in ran.err


def test_control_characters_do_not_reach_the_terminal(cli: Cli, fake: FakeDaemon) -> None:
    fake.fleet.add("a")
    fake.fleet.fails["a"] = HostError("a: \x1b]0;title\x07", why="first\n\x1b[2Jsecond")
    ran = cli("restart", "a")
    assert "\x1b" not in ran.err
    assert "  \\x1b[2Jsecond\n" in ran.err


def test_exit_status_of_an_interrupt(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lxcfleet.api.client.Client.containers", interrupted)
    assert cli("list").status == main.INTERRUPTED == follow.INTERRUPTED == 130


@pytest.mark.parametrize(
    ("options", "check"),
    [
        (["--health-tcp", "80"], {"tcp": 80}),
        (["--health-http", "8080/ready", "--health-interval", "2.5"], {"http": "8080/ready", "interval": 2.5}),
        (["--health-exec", "test -e /up", "--health-retries", "1"], {"exec": ["/bin/sh", "-c", "test -e /up"], "retries": 1}),
    ],
)
def test_create_takes_a_health_check(cli: Cli, fake: FakeDaemon, options: list[str], check: dict[str, object]) -> None:
    assert cli("create", "web", *options, "--", "sleep", "1").status == 0
    told = json.loads(cli("info", "web", "-f", "json").out)["check"]
    usual: dict[str, object] = {"interval": 10.0, "timeout": 5.0, "retries": 3, "start_period": 30.0}
    assert told == {**usual, **check}


@pytest.mark.parametrize(
    "options",
    [
        ["--health-interval", "2"],
        ["--health-tcp", "80", "--health-exec", "true"],
        ["--health-tcp", "0"],
        ["--health-http", "https://web/"],
        ["--health-http", "up"],
        ["--health-tcp", "80", "--health-timeout", "100000"],
    ],
)
def test_a_health_check_that_makes_no_sense_is_refused(cli: Cli, fake: FakeDaemon, options: list[str]) -> None:
    ran = cli("create", "web", *options, "--", "sleep", "1")
    assert (ran.status, fake.fleet.containers) == (2, {})
    assert "health" in ran.err or "check" in ran.err


def test_info_says_why_a_container_is_not_healthy(cli: Cli, fake: FakeDaemon) -> None:
    fake.fleet.add("web", health="unhealthy")
    assert "connection refused" in cli("info", "web").out
    assert "unhealthy" in cli("list").out
