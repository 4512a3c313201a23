"""The daemon's own life: it is started once, reloaded, ended and replaced, while containers run on."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .harness import DAEMON, SLEEP, TIMEOUT, Fleet, alive, command_lines, until

pytestmark = pytest.mark.system


def daemons(fleet: Fleet) -> list[int]:
    """The pids of this fleet's daemons."""
    mark = f"LXCFLEET_RUN={fleet.paths.run}\0".encode()
    found = []
    for pid, line in command_lines():
        if "lxcfleet.daemon" in line or "lxcfleetd" in line:
            try:
                environment = Path(f"/proc/{pid}/environ").read_bytes()
            except OSError:
                continue
            found += [pid] if mark in environment else []
    return found


def assert_one_daemon(fleet: Fleet) -> None:
    """Check that one daemon runs. A process that it has forked looks like it until it is another program."""
    until(lambda: daemons(fleet) == [fleet.daemon_pid()], what="there is one daemon")


def test_ten_clients_at_once_start_one_daemon(fleet: Fleet) -> None:
    fleet.stop_daemon()
    clients = [fleet.spawn("create", fleet.name(f"a{number}"), *SLEEP) for number in range(10)]
    for client in clients:
        _, err = client.communicate(timeout=TIMEOUT)
        assert (client.returncode, err) == (0, b"")
    assert_one_daemon(fleet)
    assert len(fleet.states()) == 10


def opened(pid: int | None) -> set[str]:
    """What a process has open, but for what it closes just now."""
    found = set()
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(f"/proc/{pid}/fd/{number}"))
    return found


def test_a_daemon_that_a_client_starts_inherits_no_descriptor(fleet: Fleet) -> None:
    fleet.stop_daemon()
    read, write = os.pipe()
    with fleet.spawn("list", "-q", pass_fds=(write,)) as client:
        client.communicate(timeout=TIMEOUT)
    os.close(write)
    daemon = fleet.daemon_pid()
    pipe = os.readlink(f"/proc/self/fd/{read}")
    for pid in (daemon, *fleet.servants().values()):
        assert pipe not in opened(pid)
    os.set_blocking(read, False)
    assert os.read(read, 1) == b""
    os.close(read)


def test_ten_clients_after_a_crash_start_one_daemon(fleet: Fleet) -> None:
    fleet.create(fleet.name("a"))
    before = fleet.pid(fleet.name("a"))
    daemon = fleet.daemon_pid()
    assert daemon is not None
    os.kill(daemon, signal.SIGKILL)
    clients = [fleet.spawn("list", "-q") for _ in range(10)]
    for client in clients:
        out, _ = client.communicate(timeout=TIMEOUT)
        assert client.returncode in (0, 1)  # a client may have spoken to the daemon as it died
        assert client.returncode == 1 or out.decode().split() == [fleet.name("a")]
    assert fleet.pid(fleet.name("a")) == before
    assert_one_daemon(fleet)


def test_a_second_daemon_is_refused(fleet: Fleet) -> None:
    first = fleet.daemon_pid()
    second = subprocess.run([DAEMON], capture_output=True, text=True, env=fleet.environment(), timeout=TIMEOUT, check=False)
    assert second.returncode == 1
    assert "runs already" in second.stderr
    assert fleet.daemon_pid() == first


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_containers_run_on_without_the_daemon(fleet: Fleet, number: signal.Signals) -> None:
    fleet.ok("create", fleet.name("a"), "-n", "3", *SLEEP)
    fleet.create(fleet.name("s"), command=())
    fleet.ok("freeze", fleet.name("a2"))
    before = {record["name"]: (record["pid"], record["state"]) for record in fleet.records()}
    fleet.stop_daemon(number)
    time.sleep(0.2)
    assert all(pid and alive(pid) for pid, _ in before.values())
    fleet.start_daemon()
    assert {record["name"]: (record["pid"], record["state"]) for record in fleet.records()} == before
    fleet.ok("unfreeze", fleet.name("a2"))
    assert fleet.inside(fleet.name("a2"), "echo ok") == "ok"
    fleet.ok("stop", "--all")
    assert set(fleet.states().values()) == {"stopped"}


def test_a_container_that_ended_while_no_daemon_ran_is_stopped(fleet: Fleet) -> None:
    name = fleet.name("a")
    fleet.create(name)
    pid = fleet.pid(name)
    fleet.stop_daemon()
    os.kill(pid, signal.SIGKILL)
    until(lambda: not fleet.processes(), what="its monitor has ended, too")
    fleet.start_daemon()
    assert fleet.states() == {name: "stopped"}
    fleet.ok("start", name)


def test_sigterm_during_a_create_leaves_whole_containers(fleet: Fleet) -> None:
    client = fleet.spawn("create", fleet.name("m"), "-n", "60", *SLEEP)
    until(lambda: len(fleet.directories()) > 3, 20, "the create has begun")
    fleet.stop_daemon()
    client.communicate(timeout=TIMEOUT)
    fleet.start_daemon()
    states = fleet.states()
    assert set(states.values()) == {"running"}
    assert len(states) >= 3
    assert fleet.half_done() == []


def test_sighup_reloads_the_settings_and_disturbs_no_container(fleet: Fleet) -> None:
    name = fleet.name("a")
    fleet.create(name)
    before, daemon = fleet.pid(name), fleet.daemon_pid()
    assert daemon is not None
    for _ in range(20):
        os.kill(daemon, signal.SIGHUP)
    until(lambda: "settings taken over" in fleet.log())
    assert (fleet.daemon_pid(), fleet.pid(name)) == (daemon, before)


def test_only_root_and_its_group_may_open_the_sockets(fleet: Fleet) -> None:
    for path in (fleet.paths.socket, fleet.paths.attach_socket):
        found = path.stat()
        assert stat.S_IMODE(found.st_mode) == 0o660
        assert found.st_uid == 0


@pytest.mark.parametrize("verb", [["list"], ["create", "x1"], ["exec", "x1", "--", "id"], ["destroy", "--all"]])
def test_a_user_without_rights_is_told_so(fleet: Fleet, verb: list[str]) -> None:
    name = fleet.name("a")
    fleet.create(name)
    ran = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-P", "-m",
         "lxcfleet.cli.main", *verb],
        capture_output=True, text=True, timeout=TIMEOUT, check=False, cwd="/",
        env=fleet.environment(PYTHONPATH=str(Path(DAEMON).parents[1])),
    )  # fmt: skip
    assert ran.returncode == (125 if verb[0] == "exec" else 1), ran
    assert "lxcfleet: you may not use" in ran.stderr
    assert "group lxcfleet" in ran.stderr
    assert fleet.states() == {name: "running"}


def test_a_daemon_needs_root(fleet: Fleet) -> None:
    ran = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-P", "-m",
         "lxcfleet.daemon.main"],
        capture_output=True, text=True, timeout=TIMEOUT, check=False, cwd="/",
        env=fleet.environment(PYTHONPATH=str(Path(DAEMON).parents[1])),
    )  # fmt: skip
    assert ran.returncode == 1
    assert "must be started by root" in ran.stderr


def garbage(fleet: Fleet, data: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(60)
        connection.connect(str(fleet.paths.socket))
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            return connection.recv(65536)
        except (BrokenPipeError, ConnectionResetError):
            return b""


NONSENSE = [
    b"", b"\0" * 1000, b"GET / HTTP/1.1\r\n\r\n", b"GET /1.0/containers HTTP/9.9\r\n\r\n", b"A" * 100_000,
    b"POST /1.0/containers HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{\"na",
    b"POST /1.0/containers HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n[]",
    b"POST /1.0/actions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n{}",
    b"GET /1.0/containers/..%2F..%2Fetc HTTP/1.1\r\nHost: x\r\n\r\n",
]  # fmt: skip


def test_nonsense_on_the_sockets_does_not_stop_the_daemon(fleet: Fleet) -> None:
    name = fleet.name("a")
    fleet.create(name)
    daemon = fleet.daemon_pid()
    for data in NONSENSE:
        garbage(fleet, data)
    for data in (b"", b"{}", b"[1]", b"\xff", b'{"name": "x"}', b"{" * 10000):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(str(fleet.paths.attach_socket))
            connection.send(data)
            null = os.open(os.devnull, os.O_RDONLY)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may have hung up by now
                socket.send_fds(connection, [data or b"x"], [null] * 5)
            os.close(null)
    assert fleet.daemon_pid() == daemon
    assert fleet.inside(name, "echo ok") == "ok"


def test_the_daemon_leaks_no_descriptors(fleet: Fleet) -> None:
    name = fleet.name("a")
    fleet.create(name)
    daemon = fleet.daemon_pid()

    def count() -> int:
        return len(os.listdir(f"/proc/{daemon}/fd")) + sum(
            len(os.listdir(f"/proc/{pid}/fd")) for pid in fleet.servants().values()
        )

    def exercise() -> None:
        fleet.ok("create", fleet.name("m"), "-n", "5", *SLEEP)
        fleet.ok("restart", f"{fleet.name('m')}*")
        fleet.ok("exec", "--all", "--", "true")
        fleet.run("logs", name)
        fleet.ok("destroy", f"{fleet.name('m')}*", "--force")

    exercise()
    before = count()
    for _ in range(3):
        exercise()
    until(lambda: count() <= before, 5, "all descriptors are closed")


def test_the_client_needs_no_home_and_no_terminal(fleet: Fleet) -> None:
    run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run
    bare = {"PATH": "/usr/bin:/bin", **fleet.paths.environment()}
    ran = run([str(Path(DAEMON).with_name("lxcfleet")), "list"], env=bare, capture_output=True, text=True, timeout=TIMEOUT)
    assert (ran.returncode, ran.stderr) == (0, "lxcfleet: no containers\n")
