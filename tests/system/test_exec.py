"""exec and shell: streams, exit status, terminals, signals, and many containers at once."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import shlex
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Sequence

import pytest

from .harness import CLIENT, LEAST, SLEEP, TIMEOUT, Fleet, processes_in, until

pytestmark = pytest.mark.system


@pytest.fixture
def name(fleet: Fleet) -> str:
    name = fleet.name("a")
    fleet.create(name)
    return name


def test_exec_passes_streams_on_unchanged(fleet: Fleet, name: str) -> None:
    data = bytes(range(256)) * 4096 + os.urandom(100_000)
    with fleet.spawn("exec", name, "--", "cat", stdin=subprocess.PIPE) as client:
        out, err = client.communicate(data, timeout=TIMEOUT)
    assert (client.returncode, err) == (0, b"")
    assert out == data


def test_stdout_and_stderr_stay_apart(fleet: Fleet, name: str) -> None:
    ran = fleet.run("exec", name, "--", "sh", "-c", "echo out; echo err >&2")
    assert (ran.out, ran.err) == ("out\n", "err\n")


@pytest.mark.parametrize(("script", "status"), [("true", 0), ("exit 1", 1), ("exit 42", 42), ("exit 255", 255)])
def test_exec_ends_with_the_commands_exit_status(fleet: Fleet, name: str, script: str, status: int) -> None:
    ran = fleet.run("exec", name, "--", "sh", "-c", script)
    assert (ran.status, ran.err) == (status, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_exec_tells_of_a_signal_as_128_plus_its_number(fleet: Fleet, name: str, number: signal.Signals) -> None:
    assert fleet.run("exec", name, "--", "sh", "-c", f"kill -{int(number)} $$").status == 128 + number


def test_a_command_that_does_not_run_has_an_exit_status_that_says_so(fleet: Fleet, name: str) -> None:
    missing = fleet.run("exec", name, "--", "no-such-program")
    assert (missing.status, "not found" in missing.err) == (127, True)
    assert fleet.run("exec", name, "--", "/etc/passwd").status == 126
    assert fleet.run("exec", name, "--", "/etc").status == 126
    assert fleet.run("exec", fleet.name("none"), "--", "true").status == 125
    assert fleet.run("exec", name).status == 125
    assert fleet.run("exec", "--", "true").status == 125
    fleet.ok("freeze", name)
    frozen = fleet.run("exec", name, "--", "true")
    assert (frozen.status, "unfreeze" in frozen.err) == (125, True)
    fleet.ok("unfreeze", name)
    fleet.ok("stop", name)
    stopped = fleet.run("exec", name, "--", "true")
    assert (stopped.status, "start it" in stopped.err) == (125, True)


def test_arguments_and_environment_reach_the_command(fleet: Fleet, name: str) -> None:
    words = ["", "a b", "$HOME", "\\", "new\nline", "ü", "'\""]
    assert fleet.ok("exec", name, "--", "printf", "%s\\0", *words).split("\0")[:-1] == words
    lines = fleet.ok("exec", "-e", "X=a b", "-e", "HOME=/tmp", name, "--", "env", TOKEN="secret").splitlines()
    seen = dict(line.split("=", 1) for line in lines)
    assert (seen["X"], seen["HOME"], seen["container"]) == ("a b", "/tmp", "lxc")
    assert not {"TOKEN", "LXCFLEET_RUN", "SUDO_USER"} & set(seen)
    assert fleet.inside(name, "id -u; pwd") == "0\n/root"


@pytest.mark.parametrize("size", [60_000, 70_000, 120_000])
def test_long_variables_and_stdin_reach_the_command(fleet: Fleet, name: str, size: int) -> None:
    """A request that is too long for one datagram reaches the launcher in another way."""
    ran = fleet.run("exec", "-e", f"X={'x' * size}", name, "--", "sh", "-c", "echo ${#X}; cat; exit 5", input=b"and stdin")
    assert (ran.status, ran.out, ran.err) == (5, f"{size}\nand stdin", "")


def test_too_long_arguments_are_refused_with_numbers(fleet: Fleet, name: str) -> None:
    ran = fleet.run("exec", name, "--", "true", *["x" * 1000] * 220)
    assert (ran.status, "200000" in ran.err) == (125, True)


def test_a_command_inherits_no_descriptor_of_the_daemon(fleet: Fleet, name: str) -> None:
    """A descriptor on the host's file system would be a way out of the container."""
    assert fleet.inside(name, "ls /proc/self/fd | tr '\\n' ' '") in ("0 1 2 3", "0 1 2")  # 3: ls reads the directory
    links = fleet.inside(name, "ls -l /proc/self/fd /proc/1/fd | grep -o '[^ ]*$'")
    assert "lxcfleet" not in links
    status = fleet.inside(name, "grep -E '^(Sig(Ign|Blk)|Seccomp:)' /proc/self/status")
    assert dict(line.split(":\t") for line in status.splitlines())["SigBlk"] == "0" * 16


def test_a_command_has_the_containers_uids_cgroup_and_namespaces(fleet: Fleet, name: str) -> None:
    first = fleet.record(name)["first_id"]
    client = fleet.spawn("exec", name, "--", "sleep", "77")
    try:
        found = until(
            lambda: [pid for pid in processes_in(name) if _line(pid) == b"sleep\x0077\x00"], 10, "the command runs"
        )
        assert os.stat(f"/proc/{found[0]}").st_uid == first
        assert f"lxc.payload.{name}" in open(f"/proc/{found[0]}/cgroup").read()  # noqa: SIM115
        for kind in ("mnt", "pid", "uts", "ipc", "net", "user"):
            assert os.readlink(f"/proc/{found[0]}/ns/{kind}") == os.readlink(f"/proc/{fleet.pid(name)}/ns/{kind}")
    finally:
        client.kill()
        client.communicate()


def _line(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


HUP = "trap 'echo hup >/var/got; exit' HUP TERM INT; echo ready; while :; do sleep 0.05; done"


@pytest.mark.parametrize(("number", "word"), [(signal.SIGKILL, "HUP"), (signal.SIGTERM, "TERM"), (signal.SIGINT, "INT")])
def test_signals_reach_the_command(fleet: Fleet, name: str, number: signal.Signals, word: str) -> None:
    """When the client is killed, the command gets SIGHUP, as from a terminal that hung up."""
    script = HUP.replace("HUP TERM INT", word)
    client = fleet.spawn("exec", name, "--", "sh", "-c", script)
    assert client.stdout is not None
    assert client.stdout.readline() == b"ready\n"  # the client prints it, so it passes signals on by now
    client.send_signal(number)
    client.communicate(timeout=TIMEOUT)
    until((fleet.delta(name) / "var/got").exists, 10, "the command got the signal")
    until(lambda: fleet.record(name)["processes"] <= 3, 10, "the command ended")


def test_a_command_that_ignores_the_hangup_is_killed(fleet: Fleet, name: str) -> None:
    client = fleet.spawn("exec", name, "--", "sh", "-c", "trap '' HUP; touch /var/ready; while :; do sleep 0.05; done")
    until((fleet.delta(name) / "var/ready").exists, 10, "the command runs")
    client.kill()
    client.communicate()
    until(lambda: fleet.record(name)["processes"] <= 3, 10, "the command is killed")


def test_a_command_ends_with_its_container(fleet: Fleet, name: str) -> None:
    client = fleet.spawn("exec", name, "--", "sh", "-c", "touch /var/ready; exec sleep infinity")
    until((fleet.delta(name) / "var/ready").exists, 10, "the command runs")
    fleet.ok("stop", name)
    assert client.wait(TIMEOUT) == 128 + signal.SIGKILL
    client.communicate()


def test_a_command_survives_the_daemon(fleet: Fleet, name: str) -> None:
    script = "touch /var/ready; read line; echo got $line"
    client = fleet.spawn("exec", name, "--", "sh", "-c", script, stdin=subprocess.PIPE)
    until((fleet.delta(name) / "var/ready").exists, 10, "the command runs")
    fleet.stop_daemon(signal.SIGKILL)
    fleet.start_daemon()
    out, _ = client.communicate(b"it\n", timeout=TIMEOUT)
    assert (client.returncode, out) == (0, b"got it\n")


def test_exec_runs_a_command_in_many_containers(fleet: Fleet) -> None:
    fleet.ok("create", fleet.name("c"), "-n", "12", *SLEEP)
    lines = fleet.ok("exec", "--all", "--", "hostname").splitlines()
    names = [fleet.name(f"c{number}") for number in range(1, 13)]
    assert sorted(lines) == sorted(f"{name + ':':{len(max(names, key=len)) + 1}} {name}" for name in names)
    some = fleet.run("exec", f"{fleet.prefix}*", "--", "sh", "-c", f"test $(hostname) != {names[0]}")
    assert some.status == 3
    assert names[0] in some.err
    same = fleet.run("exec", f"{fleet.prefix}*", "--", "sh", "-c", "exit 9")
    assert same.status == 9
    records = fleet.run("exec", "--all", "-f", "json", "--", "sh", "-c", "echo $((1+1)); echo e >&2").json
    assert {(record["exit"], record["stdout"], record["stderr"]) for record in records} == {(0, "2\n", "e\n")}
    fleet.ok("stop", names[3])
    stopped = fleet.run("exec", "--all", "--", "true")
    assert stopped.status == 3
    assert f"{names[3]} is not running" in stopped.err


def _set_size(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))


class Terminal:
    """A terminal with a client on it."""

    def __init__(
        self, fleet: Fleet, *arguments: str, program: Sequence[str] = (CLIENT,), rows: int = 33, columns: int = 101
    ) -> None:
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            _set_size(0, rows, columns)  # before the client can ask for it
            os.execve(program[0], [*program, *arguments], fleet.environment())
        self.seen = b""

    def resize(self, rows: int, columns: int) -> None:
        _set_size(self.master, rows, columns)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def expect(self, text: str) -> None:
        deadline = time.monotonic() + LEAST
        while text.encode() not in self.seen:
            ready, _, _ = select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{text!r} is not in {self.seen!r}"
            try:
                self.seen += os.read(self.master, 4096)
            except OSError:
                raise AssertionError(f"{text!r} is not in {self.seen!r}, which is all") from None
        self.seen = self.seen.partition(text.encode())[2]

    def end(self) -> int:
        """Wait for the client's end, but not for ever. Return its exit status."""
        deadline = time.monotonic() + LEAST
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self.master], [], [], 0.05)
            if ready:
                with contextlib.suppress(OSError):
                    self.seen += os.read(self.master, 4096)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._read_the_rest()
                os.close(self.master)
                return os.waitstatus_to_exitcode(status)
        os.kill(self.pid, signal.SIGKILL)
        raise AssertionError(f"the client does not end: {self.seen!r}")

    def _read_the_rest(self) -> None:
        """What came between the last look and the client's end."""
        with contextlib.suppress(OSError):  # EIO: that was all
            while select.select([self.master], [], [], 0)[0]:
                self.seen += os.read(self.master, 4096)


def test_a_shell_on_a_terminal_follows_its_size_and_keys(fleet: Fleet, name: str) -> None:
    terminal = Terminal(fleet, "shell", name)
    terminal.expect("#")
    terminal.type("stty size; tty; echo $((6*7))-$TERM\n")
    terminal.expect("33 101")
    terminal.expect("/dev/pts/")
    terminal.expect("42-vt100")
    terminal.resize(44, 99)
    terminal.type("until test \"$(stty size)\" = '44 99'; do sleep 0.05; done; echo foll''ows\n")
    terminal.expect("follows")
    terminal.type("sh -c \"echo sle''eps; exec sleep 1000\"\n")
    terminal.expect("sleeps")
    terminal.type("\x03")  # Ctrl-C interrupts the command, not the client
    terminal.type("echo st''ill\n")
    terminal.expect("still")
    terminal.type("exit 5\n")
    assert terminal.end() == 5


def test_ctrl_d_ends_a_shell(fleet: Fleet, name: str) -> None:
    terminal = Terminal(fleet, "shell", name)
    terminal.expect("#")
    terminal.type("\x04")
    assert terminal.end() == 0


def test_exec_gives_the_command_a_terminal_if_the_client_has_one(fleet: Fleet, name: str) -> None:
    script = "test -t 0 && test -t 1 && test -t 2 && stty size && ps -o tty= -p $$ && exit 3"
    terminal = Terminal(fleet, "exec", name, "--", "sh", "-c", script)
    terminal.expect("33 101")
    assert terminal.end() == 3
    assert fleet.run("exec", name, "--", "test", "-t", "0").status == 1


@pytest.mark.parametrize("script", ["{} exec {} -- echo out | cat", "echo in | {} exec {} -- cat", "{} exec -T {} -- echo x"])
def test_exec_in_a_pipe_gives_the_command_no_terminal(fleet: Fleet, name: str, script: str) -> None:
    """Some of the client's streams are a terminal then, but the command gets none of its own."""
    ran = Terminal(fleet, program=["/bin/sh", "-c", script.format(CLIENT, name)])
    assert ran.end() == 0
    assert ran.seen.split()[0] in (b"out", b"in", b"x")


KEEPS = """
import os, sys, time
if os.fork(): os._exit(0)
os.setsid()
found = []
for number in range(3):
    try:
        found.append(os.isatty(number) and os.ttyname(number))
    except OSError as error:
        found.append(str(error))
open("/found", "w").write(repr(found))
time.sleep(2)
try:
    os.write(1, b"[sudo] password")
    os.write(2, b"[sudo] password")
except OSError:
    pass
open("/read", "wb").write(os.read(0, 100))
"""


@pytest.mark.parametrize("streams", [">/dev/null", "</dev/null", "2>/dev/null | cat"])
def test_no_process_inside_has_the_operators_terminal(fleet: Fleet, name: str, streams: str) -> None:
    """A process that a command leaves behind reads nothing that is typed later, and prints nothing."""
    line = f"{CLIENT} exec {name} -- python3 -c {shlex.quote(KEEPS)} {streams}; echo back; read word; echo got $word; sleep 3"
    terminal = Terminal(fleet, program=["/bin/sh", "-c", line])
    terminal.expect("back")
    terminal.type("hunter2\n")
    terminal.expect("got hunter2")
    assert terminal.end() == 0
    assert b"sudo" not in terminal.seen
    assert fleet.inside(name, "cat /found; rm /found") == "[False, False, False]"
    assert fleet.inside(name, "cat /read 2>/dev/null; rm -f /read") == ""


def test_all_output_of_a_command_on_a_terminal_arrives(fleet: Fleet, name: str) -> None:
    terminal = Terminal(fleet, "exec", name, "--", "sh", "-c", "seq 20000; echo the end")
    terminal.expect("19999\r\n20000\r\nthe end\r\n")
    assert terminal.end() == 0


def test_a_background_process_does_not_keep_the_terminal(fleet: Fleet, name: str) -> None:
    terminal = Terminal(fleet, "exec", name, "--", "sh", "-c", "trap '' HUP; yes & sleep 0.1; exit 6")
    assert terminal.end() == 6


def test_a_command_on_a_terminal_ends_when_its_client_is_killed(fleet: Fleet, name: str) -> None:
    terminal = Terminal(fleet, "exec", name, "--", "sleep", "infinity")
    until(lambda: fleet.record(name)["processes"] > 2, 10, "the command runs")
    os.kill(terminal.pid, signal.SIGKILL)
    terminal.end()
    until(lambda: fleet.record(name)["processes"] <= 2, 10, "the command is gone")


def test_shell_reads_a_script_from_stdin(fleet: Fleet, name: str) -> None:
    ran = fleet.run("shell", name, input=b"echo from a script; exit 4\n")
    assert (ran.status, ran.out) == (4, "from a script\n")
