"""run: containers in the foreground, with their streams, signals and exit status, whoever is killed meanwhile."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from lxcfleet.host.process import sessions

from .harness import CLIENT, Fleet, until

pytestmark = pytest.mark.system

WAITS = """
trap 'echo usr1' USR1; trap 'echo hup' HUP; trap 'echo int' INT; trap 'echo term; exit 5' TERM
echo ready; while :; do sleep 0.02; done
"""


@contextmanager
def running(fleet: Fleet, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """A `lxcfleet run` whose command has printed its first line, and its stdout."""
    with fleet.spawn("run", *arguments, stderr=subprocess.DEVNULL) as client:
        assert client.stdout is not None
        try:
            assert client.stdout.readline() == b"ready\n"
            yield client, client.stdout
        finally:
            client.kill()


def have_next_daemon(fleet: Fleet) -> None:
    """After the daemon was killed: start the next one where systemd would. Elsewhere `run` itself has to."""
    if os.path.isdir("/run/systemd/system"):
        fleet.start_daemon()


def keepers(fleet: Fleet) -> list[int]:
    return [each.pid for each in sessions.running(fleet.paths.keepers)]


def test_streams_are_passed_on_as_they_are_and_apart(fleet: Fleet) -> None:
    name = fleet.name("a")
    ran = fleet.run("run", name, "--", "sh", "-c", "printf 'out\\r\\n'; echo err >&2; cat; exit 7")
    assert (ran.status, ran.out, ran.err) == (7, "out\r\n", "err\n")
    assert fleet.record(name)["state"] == "failed"
    assert sorted(fleet.ok("logs", name).split()) == ["err", "out"]
    data = os.urandom(300_000)
    with fleet.spawn("run", "--rm", "-i", fleet.name("b"), "--", "cat", stdin=subprocess.PIPE) as client:
        assert client.communicate(data, timeout=60)[0] == data
    assert client.returncode == 0
    assert list(fleet.states()) == [name]


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 255", 255), ("kill -9 $$", 137), ("kill -SEGV $$", 139), ("exec no-such-program", 127)],
)
def test_the_exit_status_is_the_commands(fleet: Fleet, script: str, status: int) -> None:
    name = fleet.name("a")
    assert fleet.run("run", name, "--", "sh", "-c", script).status == status
    assert fleet.run("run", name).status == status  # it exists, and is run as it is


def test_signals_reach_the_command_and_nobody_else_runs_it_meanwhile(fleet: Fleet) -> None:
    name = fleet.name("a")
    with running(fleet, name, "--restart", "always", "--", "sh", "-c", WAITS) as (client, out):
        for number, word in ((signal.SIGUSR1, b"usr1"), (signal.SIGHUP, b"hup"), (signal.SIGINT, b"int")):
            client.send_signal(number)
            assert out.readline() == word + b"\n"
        second = fleet.run("run", name)
        assert (second.status, "runs already" in second.err) == (125, True)
        client.send_signal(signal.SIGTERM)
        assert (out.read(), client.wait(60)) == (b"term\n", 5)
    assert fleet.state(name) == "failed"  # its restart policy is off
    other = fleet.run("run", name, "--", "true")
    assert (other.status, "not as asked" in other.err) == (125, True)
    assert fleet.run("run", name, "--update", "--restart", "always", "--", "true").status == 0
    time.sleep(0.3)
    assert fleet.state(name) == "exited"


def test_a_stop_during_the_start_ends_it(fleet: Fleet) -> None:
    """Process 1 does not hear signals yet."""
    name = fleet.name("a")
    with fleet.spawn("run", name, "--", "sleep", "1000", stderr=subprocess.DEVNULL) as client:
        until(lambda: fleet.paths.foreground(name).exists(), what="its start has begun")
        client.terminate()
        try:
            assert client.wait(60) == 143
        finally:
            client.kill()


def test_a_restart_ends_the_run_with_the_status_that_asks_for_a_new_one(fleet: Fleet) -> None:
    name = fleet.name("a")
    with running(fleet, name, "--", "sh", "-c", WAITS) as (client, _):
        fleet.ok("restart", name)
        assert client.wait(60) == 75
    assert fleet.state(name) == "stopped"
    with running(fleet, name) as (client, _):
        fleet.ok("stop", name)
        assert client.wait(60) == 5
    fleet.ok("start", name)  # from now on it is the daemon's
    fleet.ok("restart", name)
    assert fleet.state(name) == "running"


def test_a_killed_run_takes_its_container_along_unless_it_is_to_stay(fleet: Fleet) -> None:
    name = fleet.name("a")
    with running(fleet, name, "--", "sh", "-c", WAITS) as (client, _):
        client.kill()
        until(lambda: fleet.state(name) == "failed", what="the container is stopped")
    assert fleet.record(name)["exit"]["status"] == 5  # it was asked to end
    slow = ("sh", "-c", "trap 'echo more; sleep 1; exit 3' TERM; echo ready; while :; do sleep 0.02; done")
    with running(fleet, name, "--update", "--", *slow) as (client, _):
        client.kill()
        with running(fleet, name, "--update", "--", "sh", "-c", WAITS):  # a new one waits for the end of the former
            pass
    until(lambda: fleet.state(name) == "failed")
    with running(fleet, name, "--detach-on-kill") as (client, _):
        client.kill()
        client.wait()
        time.sleep(0.3)
        os.kill(fleet.pid(name), signal.SIGUSR1)
        until(lambda: "usr1" in fleet.ok("logs", name), what="its output is read, and kept")
    fleet.ok("stop", name)
    until(lambda: not keepers(fleet))


def test_a_killed_keeper_ends_the_run_and_the_daemon_ends_the_container(fleet: Fleet) -> None:
    name = fleet.name("a")
    with running(fleet, "--rm", name, "--", "sh", "-c", WAITS) as (client, _):
        os.kill(keepers(fleet)[0], signal.SIGKILL)
        until(lambda: not fleet.states(), 30, "the container is stopped, and destroyed as --rm asked for")
        assert client.wait(60) == 125


@pytest.mark.parametrize("whose", ["daemon", "launcher"])
def test_who_is_killed_while_it_runs_makes_no_difference(fleet: Fleet, whose: str) -> None:
    name = fleet.name("a")
    with running(fleet, "--rm", name, "--", "sh", "-c", WAITS) as (client, out):
        if whose == "daemon":
            fleet.stop_daemon(signal.SIGKILL)
        else:
            os.kill(fleet.servants()["launcher"], signal.SIGKILL)
        client.send_signal(signal.SIGUSR1)
        assert out.readline() == b"usr1\n"
        client.send_signal(signal.SIGTERM)
        assert out.readline() == b"term\n"
        if whose == "daemon":
            until(lambda: not fleet.processes(), what="it has ended while no daemon ran")
            have_next_daemon(fleet)
        assert client.wait(60) == 5
    assert fleet.states() == {}


@pytest.mark.parametrize("step", ["make", "want", "mount", "boot", "settle"])
def test_a_daemon_that_is_killed_at_a_step_of_the_start_is_followed_by_one_that_goes_on(fleet: Fleet, step: str) -> None:
    name = fleet.name("a")
    fleet.stop_daemon()
    fleet.start_daemon(kill=f"daemon:{name}:{step}")
    with fleet.spawn("run", "--rm", name, "--", "sh", "-c", "echo once; exit 6") as client:
        try:
            until(lambda: fleet.daemons[-1].poll() is not None, 30, "the daemon is killed")
            fleet.reap()
            have_next_daemon(fleet)
            out, err = client.communicate(timeout=60)
        finally:
            client.kill()
    assert (client.returncode, out) == (6, b"once\n"), err
    assert fleet.states() == {}


def test_a_rollout_ends_it_and_waits_until_its_caller_has_begun_it_anew(fleet: Fleet) -> None:
    """The caller is a loop, as systemd's RestartForceExitStatus=75 is one."""
    names = [fleet.name("a"), fleet.name("b")]
    loop = "while echo $2 >>$1; $0 run $2 -- sleep 1000; test $? = 75; do sleep 0.3; done"
    log = fleet.paths.etc / "begun"
    script = [subprocess.Popen(["sh", "-c", loop, CLIENT, str(log), name], env=fleet.environment()) for name in names]
    try:
        until(lambda: set(fleet.states().values()) == {"running"} and len(fleet.states()) == 2, 30)
        before = {name: fleet.pid(name) for name in names}
        ran = fleet.run("restart", "--rolling", "--max-unavailable", "1", *names)
        assert ran.status == 0, ran
        assert set(fleet.states().values()) == {"running"}
        assert all(fleet.pid(name) != before[name] for name in names)
        assert sorted(log.read_text().split()) == sorted(names * 2)
        rollout = fleet.client().rollout()
        assert rollout is not None
        assert {member["phase"] for member in rollout["containers"]} == {"done"}
        fleet.ok("stop", *names)
        for each in script:
            assert each.wait(60) == 0
    finally:
        for each in script:
            each.kill()


def test_systemd_is_told_when_it_is_healthy(fleet: Fleet, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(60)
        environment = fleet.environment(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="300000")
        arguments = ["run", fleet.name("a"), "--", "sh", "-c", 'echo "[$NOTIFY_SOCKET]"; exec sleep 1000']
        with subprocess.Popen([CLIENT, *arguments], env=environment, stdout=subprocess.PIPE) as client:
            assert client.stdout is not None
            told: list[str] = []
            while told[-1:] != ["READY=1"]:  # read at once: what is not read in time is lost
                told.append(listener.recv(4096).decode())
            assert "STATUS=running, healthy" in told
            assert client.stdout.readline() == b"[]\n"
            while told[-1:] != ["WATCHDOG=1"]:
                told.append(listener.recv(4096).decode())
            client.terminate()
            while told[-1:] != ["STOPPING=1"]:
                told.append(listener.recv(4096).decode())
            assert client.wait(60) == 143


def test_a_terminal_has_job_control_and_our_size(fleet: Fleet) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            os.execve(CLIENT, [CLIENT, "run", "--rm", "-it", fleet.name("a"), "--", "sh", "-i"], fleet.environment())
        finally:
            os._exit(1)
    seen = b""

    def reads(text: bytes) -> None:
        nonlocal seen
        while text not in seen:
            seen += os.read(terminal, 4096)
        seen = seen.partition(text)[2]

    try:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 33, 101, 0, 0))
        reads(b"# ")
        os.write(terminal, b"stty size; echo $((3 + 4))x\n")
        reads(b"33 101\r\n7x\r\n")
        os.write(terminal, b"sleep 1000\n")
        reads(b"sleep 1000\r\n")
        time.sleep(0.2)
        os.write(terminal, b"\x03")
        reads(b"# ")
        os.write(terminal, b"exit 9\n")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    finally:
        os.close(terminal)


def test_a_system_container_shows_its_console_and_is_shut_down(fleet: Fleet) -> None:
    name = fleet.name("s")
    with fleet.spawn("run", name, "--init", "system", stderr=subprocess.DEVNULL) as client:
        assert client.stdout is not None
        while b"Queued start job" not in (line := client.stdout.readline()):
            assert line, "it has ended"
        client.send_signal(signal.SIGTERM)
        rest = client.stdout.read()
        assert client.wait(60) == 0
    assert b"\r" not in rest
    assert b"SIGTERM" in rest  # systemd says what it sends to its services
    assert fleet.state(name) == "stopped"
    with fleet.spawn("run", name) as client:
        until(lambda: fleet.state(name) == "running", 30)
        # The reboot may end the command before that can say so.
        reboot = ("exec", name, "--", "systemctl", "reboot")
        until(lambda: client.poll() is not None or fleet.run(*reboot).status == 0, 30, "it is rebooted from inside")
        assert client.wait(60) == 75
    assert fleet.state(name) == "stopped"


def test_pipes_are_for_the_containers_root_alone(fleet: Fleet) -> None:
    name = fleet.name("a")
    options = ("--user", "nobody", "--", "sh", "-c", f"echo ready; echo anew >/dev/stdout; {WAITS}")
    with running(fleet, name, *options) as (client, out):
        assert out.readline() == b"anew\n"
        directory = fleet.paths.foreground(name)
        found = directory.stat()
        assert (found.st_mode & 0o777, found.st_uid) == (0o700, fleet.record(name)["first_id"])
        client.send_signal(signal.SIGTERM)
        assert client.wait(60) == 5
    until(lambda: not fleet.paths.foreground(name).exists())
