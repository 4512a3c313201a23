"""Wrong arguments, help and failures of a verb: the messages and the exit status."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from lxcfleet.cli import main
from lxcfleet.cli.main import VERBS
from lxcfleet.cli.ui import follow
from lxcfleet.errors import HostError
from lxcfleet.spec.states import State

from .conftest import Cli, Spawn
from .real_daemon import Daemon

BAD_NAMES = ["", "a" * 64, "a/b", "a:b", "a,b", "a\nb", ".", "..", "A", "a b", "a\x00b", "c1-"]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("verb", ["create", "info", "start", "logs", "destroy", "list", "wait"])
def test_bad_names_give_status_2(cli: Cli, daemon: Daemon, verb: str, name: str) -> None:
    ran = cli(verb, name)
    assert (ran.status, ran.out) == (2, "")
    assert "can't be a container's name" in ran.err
    assert ran.err.isascii()
    assert len(ran.err.splitlines()) <= 3
    assert daemon.requests == []


@pytest.mark.parametrize("verb", ["create", "info", "start", "list"])
def test_a_leading_dash_gives_status_2(cli: Cli, daemon: Daemon, verb: str) -> None:
    assert cli(verb, "-web").status == 2
    assert daemon.requests == []


@pytest.mark.parametrize(
    "count", ["0", "-1", "1000000000", "99999999999999999999", "many", "", "1.5", "0x10"]
)
@pytest.mark.parametrize("verb", ["create", "doctor"])
def test_bad_counts_give_status_2(cli: Cli, daemon: Daemon, verb: str, count: str) -> None:
    ran = cli(verb, "-n", count)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("lxcfleet: ")
    assert daemon.requests == []


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
def test_usage_errors_give_status_2(cli: Cli, daemon: Daemon, arguments: tuple[str, ...]) -> None:
    daemon.fleet.add("z")
    ran = cli(*arguments)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("lxcfleet: ")
    assert "Traceback" not in ran.err
    assert daemon.fleet.names == {"z"}
    assert daemon.fleet["z"].state is State.RUNNING


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
def test_a_bad_amount_names_the_option_and_the_allowed_form(
    cli: Cli, daemon: Daemon, arguments: tuple[str, ...], form: str
) -> None:
    ran = cli("create", "a", *arguments)
    assert ran.status == 2
    assert arguments[0] in ran.err.splitlines()[0]
    assert form in ran.err
    assert daemon.requests == []


@pytest.mark.parametrize("option", ["--max-unavailable", "--canaries"])
def test_a_bad_share_names_the_option(cli: Cli, option: str) -> None:
    ran = cli("patch", "apply", option, "200%")
    assert (ran.status, ran.err.splitlines()[0].split()[1]) == (2, f"{option}:")


@pytest.mark.parametrize(("arguments", "said"), [
    (("set", "web1", "memory"), "memory alone says no value"), (("set", "web1", "memory"), "for example memory=VALUE"),
    (("move", "web1"), "last the host to which they go"),
])  # fmt: skip
def test_what_is_missing_is_said(cli: Cli, arguments: tuple[str, ...], said: str) -> None:
    ran = cli(*arguments)
    assert (ran.status, said in ran.err) == (2, True), ran.err


def test_a_dry_run_of_set_says_what_a_value_would_be_and_is(cli: Cli, daemon: Daemon) -> None:
    daemon.fleet.add("web")
    ran = cli("set", "web", "drain=1m", "--dry-run")
    assert (ran.status, "lxcfleet: web: drain: would be 60 (is: " in ran.err) == (0, True), ran.err
    assert "would be" not in cli("set", "web", "drain=1m", "--dry-run", "-f", "json").err


def test_an_unknown_profile_gives_status_2(cli: Cli) -> None:
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
    cli: Cli, daemon: Daemon, arguments: tuple[str, ...], option: str
) -> None:
    ran = cli(*arguments)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith(f"lxcfleet: {option} ")
    assert "leave" in ran.err
    assert daemon.requests == []


@pytest.mark.parametrize(
    ("typed", "meant"),
    [(["lisst"], "list"), (["ps"], "list"), (["delete"], "destroy"), (["help"], "--help"), (["patch", "staus"], "status")],
)
def test_for_an_unknown_verb_a_similar_one_is_suggested(cli: Cli, typed: list[str], meant: str) -> None:
    assert f"Did you mean {meant!r}?" in cli(*typed).err


def test_for_an_unknown_option_a_similar_one_is_suggested(cli: Cli) -> None:
    assert "lxcfleet: No such option '--memroy'. Did you mean '--memory'?\n" in cli("create", "z", "--memroy", "5M").err
    assert "lxcfleet: No such option '--bogus'.\n" in cli("create", "z", "--bogus").err


def test_the_list_of_fields_fits_into_lines(cli: Cli, daemon: Daemon) -> None:
    daemon.fleet.add("a")
    told = cli("set", "a", "memroy=5M").err
    assert "did you mean 'memory'?" in told
    assert "boot_order" in told
    assert max(map(len, told.splitlines())) < 80


def test_for_a_verb_of_a_group_that_is_typed_without_the_group_the_groups_are_named(cli: Cli) -> None:
    assert "Did you mean 'patch rehearse'?" in cli("rehearse").err
    assert "Did you mean 'app undo' or 'rollout undo'?" in cli("undo").err
    assert "Did you mean" not in cli("patch", "create").err


@pytest.mark.parametrize(
    "typed",
    [
        ("info", "web*"), ("diff", "web*"), ("shell", "web[12]"), ("backup", "run", "web*", "--", "true"),
        ("snapshot", "restore", "web?", "a"), ("snapshot", "rm", "web*", "a"), ("snapshot", "rm", "web*"),
    ],
)  # fmt: skip
def test_a_glob_for_a_verb_of_one_container_is_refused_as_such(cli: Cli, typed: tuple[str, ...]) -> None:
    ran = cli(*typed)
    assert ran.out == ""
    assert "is a glob, and one container has to be named" in ran.err
    assert "`lxcfleet list 'web" in ran.err


@pytest.mark.parametrize(
    "words",
    [
        ("app", "use", "x*", "shop@1"), ("rollback", "x*", "--to", "host"), ("generation", "release", "x*"),
        ("generation", "hold", "x*", "--until", "30d"), ("patch", "apply", "x*"), ("patch", "apply", "x*", "--dry-run"),
        ("restart", "--rolling", "x*"), ("restart", "x*"), ("set", "x*", "memory=1G"), ("exec", "x*", "--", "true"),
        ("destroy", "-l", "a=b"), ("snapshot", "create", "x*"),
    ],
)  # fmt: skip
def test_a_glob_that_chooses_nothing_is_the_reason_why_nothing_is_done(
    cli: Cli, daemon: Daemon, words: tuple[str, ...]
) -> None:
    daemon.fleet.add("a")
    ran = cli(*words)
    assert (ran.status, ran.out, ran.err) == (0, "", "lxcfleet: nothing to do: no container is chosen by that\n")


def test_verbs_of_other_tools_lead_to_existing_verbs() -> None:
    assert all(meant in VERBS or meant.startswith("-") for meant in main.MEANT.values())
    assert not {*VERBS, *main.ALIASES} & {*main.MEANT}


@pytest.mark.parametrize("typed", [("create", "a", "sleep", "900"), ("exec", "a", "ls", "-l")])
def test_for_a_command_without_dashes_the_error_says_where_they_go(cli: Cli, typed: tuple[str, ...]) -> None:
    ran = cli(*typed)
    assert "a command to run goes after --" in ran.err
    assert f"`lxcfleet {typed[0]} -h`" in ran.err
    assert "--" not in cli("create", "a", "sleep", "--", "9").err


# help, errors


@pytest.mark.parametrize("verb", [*VERBS, "ls", "rm"])
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_every_verb_has_help(cli: Cli, daemon: Daemon, verb: str, option: str) -> None:
    ran = cli(verb, option)
    assert (ran.status, ran.err) == (0, "")
    name = {"ls": "list", "rm": "destroy"}.get(verb, verb)
    assert verb == "config" or f"  lxcfleet {name}" in ran.out
    assert daemon.requests == []


def test_help_names_every_verb(cli: Cli) -> None:
    ran = cli("-h")
    assert ran.status == 0
    told = {verb for verb in VERBS if f"\n  {verb} " in ran.out}
    assert VERBS.keys() - told == {"receive"}, "only what other hosts call, and no people, is left out"
    assert "..." not in ran.out.split("Commands:")[1], "a summary does not fit into its line"


GROUPS = [name for name in VERBS if isinstance(main.cli.get_command(click.Context(main.cli), name), click.Group)]


@pytest.mark.parametrize("group", GROUPS)
def test_help_of_a_group_has_whole_sentences(cli: Cli, group: str) -> None:
    told = cli(group, "-h").out.split("Commands:")[1]
    assert "..." not in told
    assert told.rstrip().endswith(".")


def test_help_tells_the_bounds_of_a_time_in_words(cli: Cli) -> None:
    assert "[0 to 86400 s]" in " ".join(cli("restart", "-h").out.split())
    assert "<=" not in cli("restart", "-h").out


CLOSED = (
    "import os, sys; [os.close(int(number)) for number in sys.argv[1]];"
    "os.execv(sys.executable, [sys.executable, '-m', 'lxcfleet.cli.main', *sys.argv[2:]])"
)


@pytest.mark.parametrize(
    ("closed", "arguments", "status", "told"),
    [
        ("1", ("-h",), 1, "Bad file descriptor"), ("1", ("patch", "-h"), 1, "Bad file descriptor"),
        ("1", ("--version",), 1, "Bad file descriptor"), ("1", ("list",), 1, "Bad file descriptor"),
        ("1", ("exec", "a", "--", "echo"), 1, ""), ("2", ("list", "--bogus"), 2, ""), ("2", ("list", "nosuch"), 1, ""),
        ("2", ("create", "b", "--no-start"), 0, ""), ("012", ("stop", "nosuch"), 1, ""), ("0", ("list",), 0, ""),
    ],
)  # fmt: skip
def test_what_the_caller_closed_is_no_internal_error(
    daemon: Daemon, spawn: Spawn, closed: str, arguments: tuple[str, ...], status: int, told: str
) -> None:
    daemon.fleet.add("a")
    process = spawn(closed, *arguments, program=("-c", CLOSED))
    _, error = process.communicate(timeout=60)
    assert (process.returncode, "internal error" in error.decode()) == (status, False)
    assert told in error.decode()


def test_version(cli: Cli) -> None:
    assert cli("--version").out == "lxcfleet 0.1.0\n"


def test_without_a_daemon_the_status_is_1_and_the_error_says_what_to_do(cli: Cli, daemon: Daemon) -> None:
    daemon.paths.socket.rename(daemon.paths.run / "away")
    ran = cli("list")
    (daemon.paths.run / "away").rename(daemon.paths.socket)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("lxcfleet: the daemon lxcfleetd does not answer\n")
    assert len(ran.err.splitlines()) == 3
    assert "systemctl status lxcfleet" in ran.err


def test_the_error_names_the_log_of_a_daemon_without_systemd(cli: Cli, daemon: Daemon) -> None:
    (daemon.paths.run / "daemon.log").touch()
    daemon.paths.socket.rename(daemon.paths.run / "away")
    ran = cli("list")
    (daemon.paths.run / "away").rename(daemon.paths.socket)
    assert ran.err.splitlines()[-1] == f"  more is in: {daemon.paths.run}/daemon.log"


def test_debug_shows_the_traceback(cli: Cli) -> None:
    assert "Traceback" in cli("--debug", "info", "nix").err
    assert "Traceback" not in cli("info", "nix").err


def test_without_debug_a_bug_shows_no_traceback(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise KeyError("oops")

    monkeypatch.setattr("lxcfleet.api.client.Client.containers", broken)
    ran = cli("list")
    assert ran.status == 1
    assert ran.err.startswith("lxcfleet: internal error: KeyError: 'oops'\n")
    assert "Traceback" in cli("--debug", "list").err


def test_a_follow_that_ends_early_names_the_operation(cli: Cli, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lxcfleet.api.client.Client.follow", lambda *_: iter([]))
    ran = cli("create", "a")
    assert ran.status == 1
    assert f"went away before operation {daemon.operation.id} had ended" in ran.err


def test_control_characters_do_not_reach_the_terminal(cli: Cli, daemon: Daemon) -> None:
    daemon.fleet.add("a")
    daemon.model.fails["a"] = HostError("a: \x1b]0;title\x07", why="first\n\x1b[2Jsecond")
    ran = cli("restart", "a")
    assert "\x1b" not in ran.err
    assert "  \\x1b[2Jsecond\n" in ran.err


def test_exit_status_of_an_interrupt(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lxcfleet.api.client.Client.containers", interrupted)
    assert cli("list").status == main.INTERRUPTED == follow.INTERRUPTED == 130


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("audit", "shadow", "--fix"), "`lxcfleet audit shadow -h` shows how"),
        (("scale", "web", "x"), "'x' is not a whole number."),
        (("events", "-f", "json"), "-f is --follow here"),
        (("create", "web", "--depends-on", "db", "--", "true"), "write it as NAME=CONDITION: started, healthy, completed"),
        (("restart", "web", "--rolling", "--max-unavailable", "0"), "--max-unavailable: with none nothing could"),
        (("cve", "cve-2026-1234"), "lxcfleet verify --cve CVE-2026-1234"),
    ],
)
def test_a_wrong_argument_is_told_with_what_is_right(cli: Cli, arguments: tuple[str, ...], told: str) -> None:
    ran = cli(*arguments)
    assert (ran.status, told in ran.err) == (2, True), ran.err


def test_a_format_after_the_follow_of_logs_is_no_containers_name(cli: Cli, daemon: Daemon) -> None:
    daemon.fleet.add("web")
    ran = cli("logs", "web", "-f", "json")
    assert (ran.status, "-f is --follow here" in ran.err) == (1, True), ran.err


@pytest.mark.parametrize("words", [("list",), ("fleet", "list"), ("volume", "list"), ("app", "list"), ("move", "--list"),
                                   ("snapshot", "list"), ("secret", "list"), ("generation", "list")])  # fmt: skip
def test_a_list_of_nothing_says_so_and_prints_no_table(cli: Cli, words: tuple[str, ...]) -> None:
    ran = cli(*words)
    assert (ran.status, ran.out, ran.err.startswith("lxcfleet: no ")) == (0, "", True), ran


def test_a_fleet_file_that_is_taken_for_settings_is_told_where_it_goes(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "fleet.yaml"
    file.write_text("lxcfleet: 1\nfleet: shop\ngroups: {}\n")
    ran = cli("config", "check", str(file))
    assert (ran.status, f"`lxcfleet diff -f {file}`" in ran.err) == (2, True), ran.err
