"""exec and shell: streams, statuses, signals, terminals, many at once."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lxcfleet.cli.ui import fanout
from lxcfleet.spec.states import State

from .conftest import Cli, Spawn
from .real_daemon import Daemon


@pytest.fixture(autouse=True)
def _three(daemon: Daemon) -> None:
    for name in ("web1", "web2", "db10"):
        daemon.fleet.add(name)


# one container


def test_output_without_end_is_cut_off_and_that_is_told(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client had grown to 2.2 GB."""
    monkeypatch.setattr(fanout, "MOST_OUTPUT", 100_000)
    ran = cli("exec", "web*", "-f", "json", "--", "yes")
    shown = json.loads(ran.out)
    assert [(each["exit"], len(each["stdout"])) for each in shown] == [(125, 100_000)] * 2
    assert ran.status == 125
    assert "web1: its output was cut off\n  at most" in ran.err


def test_output_and_exit_status_of_the_command_are_passed_on(cli: Cli) -> None:
    ran = cli("exec", "web1", "--", "sh", "-c", "echo $NAME; echo err >&2; exit 42")
    assert (ran.status, ran.out, ran.err) == (42, "web1\n", "err\n")


def test_arguments_pass_unharmed(cli: Cli) -> None:
    ran = cli("exec", "web1", "--", "printf", "%s|", "a b", "--", "-l", "", "*", "$HOME")
    assert ran.out == "a b|--|-l||*|$HOME|"


def test_bytes_pass_unharmed(cli: Cli) -> None:
    ran = cli("exec", "web1", "--", "printf", r"\377\000\n\r\n")
    assert ran.out.encode("utf-8", "surrogateescape") == b"\xff\x00\n\r\n"


def test_environment(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "x y")
    assert (
        cli("exec", "web1", "-e", "A=1", "-e", "HERE", "--", "sh", "-c", 'echo "$A $HERE"').out == "1 x y\n"
    )


def test_stdin_passes(spawn: Spawn) -> None:
    process = spawn("exec", "web1", "--", "wc", "-c", stdin=subprocess.PIPE)
    out, _ = process.communicate(b"x" * 1_000_000)
    assert (process.returncode, out.split()) == (0, [b"1000000"])


def test_closed_streams_do_no_harm(spawn: Spawn) -> None:
    process = spawn("exec", "web1", "--", "sh", "-c", "cat; exit 3", preexec_fn=lambda: os.close(0))
    process.communicate()
    assert process.returncode == 3


def test_a_shell_without_a_terminal(spawn: Spawn) -> None:
    process = spawn("shell", "web1", stdin=subprocess.PIPE)
    out, _ = process.communicate(b"echo $NAME\nexit 6\n")
    assert (process.returncode, out) == (6, b"web1\n")


def test_exit_statuses_of_commands_that_can_not_be_run(cli: Cli) -> None:
    assert cli("exec", "web1", "--", "/no/such").status == 127
    assert cli("exec", "web1", "--", "/etc/passwd").status == 126
    assert cli("exec", "web1", "--", "sh", "-c", "kill -9 $$").status == 137


@pytest.mark.parametrize(
    "arguments",
    [
        ("exec", "nix", "--", "true"),
        ("exec", "web1"),
        ("exec", "web1", "ls"),
        ("exec", "web1", "--"),
        ("exec", "--", "true"),
        ("exec", "a/b", "--", "true"),
        ("exec", "--nix", "web1", "--", "true"),
        ("exec", "--all", "web1", "--", "true"),
        ("exec", "-t", "web*", "--", "true"),
        ("exec", "-t", "web1", "-f", "json", "--", "true"),
        ("exec", "web1", "-e", "NO_SUCH_VARIABLE", "--", "true"),
        ("shell",),
        ("shell", "nix"),
        ("shell", ".."),
    ],
)
def test_failures_of_lxcfleet_itself_are_125(cli: Cli, arguments: tuple[str, ...]) -> None:
    ran = cli(*arguments)
    assert (ran.status, ran.out) == (125, "")
    assert ran.err.startswith("lxcfleet: ")


def test_a_stopped_container_is_125(cli: Cli, daemon: Daemon) -> None:
    daemon.fleet["web1"].become(State.STOPPED)
    ran = cli("exec", "web1", "--", "true")
    assert (ran.status, ran.err) == (125, "lxcfleet: web1 is not running\n  start it: lxcfleet start web1\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_are_passed_on(spawn: Spawn, number: signal.Signals) -> None:
    script = f"trap 'echo got; exit 9' {number.value}; echo ready; while :; do sleep 0.05; done"
    process = spawn("exec", "web1", "--", "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    assert process.stdout.read() == b"got\n"
    assert process.wait() == 9


# many containers


def test_many_are_prefixed_and_aligned(cli: Cli) -> None:
    ran = cli("exec", "--all", "--", "sh", "-c", "echo one; printf two; echo err >&2")
    assert ran.status == 0
    assert sorted(ran.out.splitlines()) == [
        "db10: one", "db10: two", "web1: one", "web1: two", "web2: one", "web2: two",
    ]  # fmt: skip
    assert sorted(ran.err.splitlines()) == ["db10: err", "web1: err", "web2: err"]
    fewer = cli("exec", "web1", "db10", "--", "echo", "")
    assert sorted(fewer.out.splitlines()) == ["db10: ", "web1: "]


def test_names_of_different_length_are_aligned(cli: Cli, daemon: Daemon) -> None:
    daemon.fleet.add("a-longer-name")
    ran = cli("exec", "--all", "--", "echo", "x")
    assert {line.index("x") for line in ran.out.splitlines()} == {len("a-longer-name: ")}


def test_a_glob_is_prefixed_even_if_it_matches_one(cli: Cli) -> None:
    assert cli("exec", "db*", "--", "echo", "x").out == "db10: x\n"


def test_lines_stay_whole(cli: Cli, daemon: Daemon) -> None:
    for number in range(10):
        daemon.fleet.add(f"c{number}")
    script = "for i in 1 2 3 4 5; do printf aaaa; sleep 0.01; printf 'bbbb\\n'; done"
    ran = cli("exec", "c*", "--", "sh", "-c", script)
    assert [line.split(": ")[1] for line in ran.out.splitlines()] == ["aaaabbbb"] * 50


def test_bytes_of_many_pass_unharmed(cli: Cli) -> None:
    ran = cli("exec", "web*", "--", "printf", r"\377\r\000x\n")
    assert set(ran.out.encode("utf-8", "surrogateescape").split(b"\n")) == {
        b"web1: \xff\r\x00x", b"web2: \xff\r\x00x", b"",
    }  # fmt: skip


def test_much_output_of_many_commands(cli: Cli) -> None:
    ran = cli("exec", "--all", "--", "sh", "-c", "yes 0123456789 | head -n 50000")
    assert ran.status == 0
    assert len(ran.out.splitlines()) == 150_000


def test_many_commands_get_an_empty_stdin(cli: Cli) -> None:
    assert cli("exec", "--all", "--", "cat").status == 0


def test_processes_that_a_command_leaves_behind_are_not_waited_for(cli: Cli) -> None:
    ran = cli("exec", "web1", "web2", "--", "sh", "-c", "sleep 600 & echo $!")
    assert ran.status == 0
    left = [int(line.split()[-1]) for line in ran.out.splitlines()]
    assert len(left) == 2
    for pid in left:
        os.kill(pid, signal.SIGKILL)  # raises if exec had waited for the process to end


def test_the_exit_status_of_many_commands(cli: Cli, daemon: Daemon) -> None:
    assert cli("exec", "--all", "--", "sh", "-c", "exit 7").status == 7
    ran = cli("exec", "--all", "--", "sh", "-c", "[ $NAME = web1 ] || exit 5")
    assert ran.status == 3
    assert ran.err == "lxcfleet: not 0 in 2 of 3: db10 (5), web2 (5)\n"
    daemon.fleet["web2"].become(State.STOPPED)
    ran = cli("exec", "--all", "--", "true")
    assert ran.status == 3
    assert ran.err.startswith("lxcfleet: web2 is not running\n  start it: lxcfleet start web2\n")
    assert ran.err.endswith("\nlxcfleet: not 0 in 1 of 3: web2 (125)\n")
    assert cli("exec", "web1", "nix", "--", "true").status == 125
    assert cli("exec", "no*", "--", "true").status == 0


def test_many_that_fail_are_not_all_named(cli: Cli, daemon: Daemon) -> None:
    for number in range(30):
        daemon.fleet.add(f"c{number}")
    ran = cli("exec", "c*", "--", "false")
    assert ran.status == 1
    assert ran.err.endswith("c8 (1), c9 (1) and 20 more\n")


def test_no_more_commands_run_at_once_than_the_limit(
    cli: Cli, daemon: Daemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("lxcfleet.cli.ui.fanout.AT_ONCE", 2)
    for number in range(6):
        daemon.fleet.add(f"c{number}")
    script = f"cd {tmp_path}; touch $NAME; ls | wc -l; sleep 0.1; rm $NAME"
    ran = cli("exec", "c*", "--", "sh", "-c", script)
    assert ran.status == 0
    assert max(int(line.split()[-1]) for line in ran.out.splitlines()) <= 2


def test_many_as_json(cli: Cli, daemon: Daemon) -> None:
    daemon.fleet["web2"].become(State.STOPPED)
    ran = cli("exec", "web*", "-f", "json", "--", "sh", "-c", "echo out; printf '\\377' >&2; exit 2")
    assert ran.status == 3
    assert json.loads(ran.out) == [
        {"name": "web1", "exit": 2, "stdout": "out\n", "stderr": "\udcff"},
        {"name": "web2", "exit": 125, "stdout": "", "stderr": ""},
    ]
    assert "web2 is not running" in ran.err
    one = cli("exec", "web1", "-f", "yaml", "--", "echo", "x")
    assert yaml.safe_load(one.out) == [{"name": "web1", "exit": 0, "stdout": "x\n", "stderr": ""}]


def test_ctrl_c_reaches_all_and_begins_no_more(spawn: Spawn, daemon: Daemon) -> None:
    for number in range(20):
        daemon.fleet.add(f"c{number}")
    script = "trap 'echo got; exit 9' INT; echo ready; while :; do sleep 0.05; done"
    process = spawn("exec", "c*", "--", "sh", "-c", script)
    assert process.stdout is not None
    for _ in range(16):
        assert process.stdout.readline().endswith(b"ready\n")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (out.count(b"got"), process.returncode) == (16, 130)
    assert err == b"lxcfleet: interrupted: 4 of 20 not begun\n"


def test_a_second_ctrl_c_leaves(spawn: Spawn) -> None:
    script = "trap 'echo got' INT; echo ready; while :; do sleep 0.05; done"
    process = spawn("exec", "--all", "--", "sh", "-c", script)
    assert process.stdout is not None
    for _ in range(3):
        assert process.stdout.readline().endswith(b"ready\n")
    process.send_signal(signal.SIGINT)
    for _ in range(3):  # a second one that comes before the first was dealt with is none
        assert process.stdout.readline().endswith(b"got\n")
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130


# terminal


class Terminal:
    """A terminal with a person in front of it."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        self.resize(40, 100)
        self.seen = b""

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def raw(self) -> bool:
        return not termios.tcgetattr(self.slave)[3] & termios.ICANON

    def await_(self, text: bytes) -> None:
        while text not in self.seen:
            self.seen += os.read(self.master, 65536)
        self.seen = self.seen.split(text, 1)[1]

    def type(self, text: bytes) -> None:
        os.write(self.master, text)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    os.close(made.master)
    os.close(made.slave)


def on(terminal: Terminal) -> dict[str, int]:
    return {"stdin": terminal.slave, "stdout": terminal.slave, "stderr": terminal.slave}


def test_a_terminal_works_both_ways(spawn: Spawn, terminal: Terminal) -> None:
    process = spawn(
        "exec", "web1", "--", "sh", "-c", "tty; echo $TERM; stty size; cat; exit 5", **on(terminal)
    )
    terminal.await_(b"/dev/pts/")
    terminal.await_(b"vt100\r\n")
    terminal.await_(b"40 100\r\n")
    assert terminal.raw()
    terminal.type(b"hello\r")
    terminal.await_(b"hello\r\nhello\r\n")
    terminal.type(b"\x04")
    assert process.wait(60) == 5
    assert not terminal.raw()


def test_ctrl_c_goes_to_the_command_inside(spawn: Spawn, terminal: Terminal) -> None:
    script = "trap 'echo got; exit 9' INT; echo ready; while :; do sleep 0.05; done"
    process = spawn("exec", "web1", "--", "sh", "-c", script, **on(terminal))
    terminal.await_(b"ready")
    terminal.type(b"\x03")
    terminal.await_(b"got")
    assert process.wait(60) == 9


def test_the_terminal_inside_follows_the_window_s_size(spawn: Spawn, terminal: Terminal) -> None:
    script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done"
    process = spawn("exec", "web1", "--", "sh", "-c", script, **on(terminal))
    terminal.await_(b"ready")
    terminal.resize(50, 120)
    process.send_signal(signal.SIGWINCH)
    terminal.await_(b"50 120")
    assert process.wait(60) == 0


def test_all_output_arrives(spawn: Spawn, terminal: Terminal) -> None:
    process = spawn("exec", "web1", "--", "sh", "-c", "seq 20000; printf END", **on(terminal))
    terminal.await_(b"20000\r\nEND")
    assert process.wait(60) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_terminal_is_always_restored(spawn: Spawn, terminal: Terminal, number: signal.Signals) -> None:
    process = spawn("exec", "web1", "--", "sh", "-c", "echo ready; sleep 30", **on(terminal))
    terminal.await_(b"ready")
    process.send_signal(number)
    assert process.wait(60) == 128 + number
    assert not terminal.raw()


def test_a_lost_daemon_restores_the_terminal(spawn: Spawn, terminal: Terminal, daemon: Daemon) -> None:
    process = spawn("exec", "web1", "--", "sh", "-c", "echo ready; sleep 30", **on(terminal))
    terminal.await_(b"ready")
    daemon.hang_up()
    assert process.wait(60) == 125
    terminal.await_(b"how the command in ")
    assert not terminal.raw()


def test_with_capital_t_the_command_gets_no_terminal(spawn: Spawn, terminal: Terminal) -> None:
    process = spawn("exec", "-T", "web1", "--", "sh", "-c", "tty; echo $TERM.", **on(terminal))
    assert process.wait(60) == 0
    terminal.await_(b".\r\n")
    assert not terminal.raw()


@pytest.mark.parametrize("streams", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)])
def test_no_terminal_of_ours_is_handed_over(
    spawn: Spawn, terminal: Terminal, tmp_path: Path, streams: tuple[int, ...]
) -> None:
    """A process that the command left behind read what was typed after its end, and turned the echo off."""
    seen = tmp_path / "seen"
    script = (
        "import os\n"
        f"with open({str(seen)!r}, 'w') as file:\n"
        "    print(*(os.isatty(n) or os.readlink(f'/proc/self/fd/{n}')[:5] == '/dev/p' for n in range(3)), file=file)\n"
        "os.write(1, b'out'), os.write(2, b'err')"
    )
    words = ("stdin", "stdout", "stderr")
    given = {word: terminal.slave if n in streams else subprocess.DEVNULL for n, word in enumerate(words)}
    process = spawn("exec", "-T", "web1", "--", "python3", "-c", script, **given)
    assert process.wait(60) == 0
    assert seen.read_text() == "False False False\n"
    for number, text in ((1, b"out"), (2, b"err")):
        if number in streams:
            terminal.await_(text)


def test_what_is_typed_reaches_a_command_whose_output_goes_elsewhere(spawn: Spawn, terminal: Terminal) -> None:
    process = spawn("exec", "web1", "--", "cat", stdin=terminal.slave, stdout=subprocess.PIPE, stderr=terminal.slave)
    terminal.type(b"hello\n")
    assert process.stdout is not None
    assert process.stdout.readline() == b"hello\n"
    assert not terminal.raw()
    terminal.type(b"\x04")
    assert process.wait(60) == 0


def test_a_command_that_reads_nothing_does_not_wait_for_what_is_typed(spawn: Spawn, terminal: Terminal) -> None:
    process = spawn("exec", "web1", "--", "sh", "-c", "exec <&-; sleep 0.2; seq 50000; exit 7", stdin=terminal.slave)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out.splitlines()[-1]) == (7, b"50000")


def test_a_command_that_leaves_a_process_behind_is_not_waited_for(spawn: Spawn, terminal: Terminal) -> None:
    process = spawn("exec", "-T", "web1", "--", "sh", "-c", "trap '' HUP; yes & sleep 0.1; echo 'the end'", **on(terminal))
    sink = threading.Thread(target=_swallow, args=(terminal, process))
    sink.start()
    assert process.wait(60) == 0
    sink.join()


def _swallow(terminal: Terminal, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        if select.select([terminal.master], [], [], 0.1)[0]:
            os.read(terminal.master, 65536)


def test_with_t_the_command_gets_a_terminal_though_there_is_none_here(spawn: Spawn) -> None:
    process = spawn("exec", "-t", "web1", "--", "sh", "-c", "tty >&2; cat", stdin=subprocess.PIPE)
    out, _ = process.communicate(b"typed\n", timeout=60)
    assert process.returncode == 0
    assert b"/dev/pts/" in out
    assert out.endswith(b"typed\r\n")


def test_t_takes_a_glob_that_matches_one(spawn: Spawn, terminal: Terminal) -> None:
    process = spawn("exec", "-t", "db*", "--", "sh", "-c", "echo name $NAME", **on(terminal))
    terminal.await_(b"name db10\r\n")
    assert process.wait(60) == 0


def test_a_shell(spawn: Spawn, terminal: Terminal) -> None:
    process = spawn("shell", "web1", **on(terminal))
    terminal.type(b"echo $NAME$NAME; exit 3\r")
    terminal.await_(b"web1web1")
    assert process.wait(60) == 3
