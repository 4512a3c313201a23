"""Following an operation: Ctrl-C, the bar, a daemon or reader that goes away; logs and events that go on."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from lxcfleet.errors import HostError

from .conftest import Cli, Spawn
from .fake_server import FakeDaemon


def soon(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)


class Stuck:
    """Holds the fake's work on one container until it is let go."""

    def __init__(self, fake: FakeDaemon, name: str) -> None:
        self._name = name
        self.reached = threading.Event()
        self.go = threading.Event()
        fake.fleet.during = self._hold

    def _hold(self, name: str) -> None:
        if name == self._name:
            self.reached.set()
            assert self.go.wait(20)


def test_ctrl_c_takes_back_what_has_not_begun(spawn: Spawn, fake: FakeDaemon) -> None:
    stuck = Stuck(fake, "c3")
    process = spawn("create", "-n", "5")
    assert stuck.reached.wait(10)
    time.sleep(0.1)  # it follows by now
    process.send_signal(signal.SIGINT)
    assert fake.fleet.operations["op1"].cancelled.wait(10)
    stuck.go.set()
    out, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert err.splitlines()[-1] == b"lxcfleet: cancelled: 3 done, 2 not begun"
    assert [line.split() for line in out.splitlines()][3:] == [[b"c4", b"cancelled"], [b"c5", b"cancelled"]]
    assert fake.fleet.operations["op1"].record()["status"] == "cancelled"


def test_ctrl_c_counts_failures(spawn: Spawn, fake: FakeDaemon) -> None:
    stuck = Stuck(fake, "c3")
    fake.fleet.fails["c1"] = HostError("c1: no")
    process = spawn("create", "-n", "5", "-q")
    assert stuck.reached.wait(10)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert fake.fleet.operations["op1"].cancelled.wait(10)
    stuck.go.set()
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out) == (130, b"c2\nc3\n")
    assert err.splitlines()[0] == b"lxcfleet: c1: no"
    assert err.count(b"c1: no") == 1
    assert err.splitlines()[-1] == b"lxcfleet: cancelled: 2 done, 1 failed, 2 not begun"


def test_a_second_ctrl_c_leaves_at_once(spawn: Spawn, fake: FakeDaemon) -> None:
    stuck = Stuck(fake, "c2")
    process = spawn("create", "-n", "3")
    assert stuck.reached.wait(10)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert fake.fleet.operations["op1"].cancelled.wait(10)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"operation op1 goes on in the daemon" in err
    stuck.go.set()
    soon(lambda: fake.fleet.operations["op1"].status == "cancelled")
    assert set(fake.fleet.containers) >= {"c1", "c2"}


def test_a_client_that_is_killed_stops_nothing(spawn: Spawn, fake: FakeDaemon) -> None:
    stuck = Stuck(fake, "c2")
    process = spawn("create", "-n", "3")
    assert stuck.reached.wait(10)
    process.kill()
    process.wait()
    stuck.go.set()
    soon(lambda: fake.fleet.operations["op1"].status == "done")


def test_the_bar_comes_after_a_moment(spawn: Spawn, fake: FakeDaemon) -> None:
    stuck = Stuck(fake, "c2")
    master, slave = os.openpty()
    process = spawn("create", "-n", "3", stderr=slave)
    os.close(slave)
    assert stuck.reached.wait(10)
    seen = b""
    while b"1/3" not in seen:
        seen += os.read(master, 1000)
    assert b"create [##########..." in seen
    stuck.go.set()
    out, _ = process.communicate(timeout=10)
    assert (process.returncode, out.count(b"created")) == (0, 3)
    assert os.read(master, 1000).endswith(b"\r\x1b[K")
    os.close(master)


def test_no_bar_for_quick_work(spawn: Spawn) -> None:
    master, slave = os.openpty()
    process = spawn("create", "-n", "3", stderr=slave)
    process.communicate(timeout=10)
    os.set_blocking(master, False)
    with pytest.raises(BlockingIOError):
        os.read(master, 1000)
    os.close(slave)
    os.close(master)


def test_no_bar_without_a_terminal(cli: Cli, fake: FakeDaemon) -> None:
    fake.fleet.during = lambda _: time.sleep(0.25)
    assert cli("create", "-n", "2").err == ""


def test_a_daemon_that_dies(spawn: Spawn, fake: FakeDaemon) -> None:
    stuck = Stuck(fake, "c2")
    process = spawn("create", "-n", "2")
    assert stuck.reached.wait(10)
    time.sleep(0.1)
    fake.hang_up()
    _, err = process.communicate(timeout=10)
    stuck.go.set()
    assert process.returncode == 1
    assert b"the daemon went away before operation op1 had ended" in err


READ_BY_NOBODY = [
    ("-h",), ("--version",), ("create", "b", "--dry-run"), ("restart", "a"), ("list",), ("list", "-f", "json"), ("info", "a"),
    ("logs", "a"), ("logs", "a", "-f"), ("events",), ("doctor",), ("config", "show"), ("wait", "a"), ("stale", "--nagios"),
    ("exec", "--all", "--", "echo"), ("exec", "--all", "-f", "json", "--", "true"), ("exec", "-t", "a", "--", "echo"),
]  # fmt: skip


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("typed", READ_BY_NOBODY)
def test_a_reader_that_goes_away_is_no_drama(
    spawn: Spawn, fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch, typed: tuple[str, ...], unbuffered: str
) -> None:
    """The end is that of any program: silent, and 141 as by SIGPIPE."""
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    fake.fleet.add("a")
    fake.fleet.logs["a", "console"] = b"one\n"
    fake.fleet.events.append({"time": "now", "what": "started", "container": "a", "message": ""})
    reader, writer = os.pipe()
    os.close(reader)
    process = spawn(*typed, stdout=writer)
    os.close(writer)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (141, b"")


def test_a_reader_of_many_that_goes_away(spawn: Spawn, fake: FakeDaemon) -> None:
    fake.fleet.add("a")
    fake.fleet.add("b")
    process = spawn("exec", "--all", "--", "sh", "-c", "while echo y; do sleep 0.01; done")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(30) == 141


@pytest.mark.parametrize("typed", [("nix",), ("list", "nix"), ("restart", "--all"), ("exec", "--all", "--", "nix")])
def test_messages_that_nobody_reads(spawn: Spawn, fake: FakeDaemon, typed: tuple[str, ...]) -> None:
    """As with ``2>&1 | head -1``. It does not keep the daemon from what was asked of it."""
    fake.fleet.add("a")
    fake.fleet.fails["a"] = HostError("a has no luck")
    reader, writer = os.pipe()
    os.close(reader)
    process = spawn(*typed, stdout=writer, stderr=writer)
    os.close(writer)
    assert process.wait(30) == 141


@pytest.mark.parametrize("typed", [("list",), ("logs", "a"), ("events",)])
def test_a_full_disk_is_said(spawn: Spawn, fake: FakeDaemon, typed: tuple[str, ...]) -> None:
    fake.fleet.add("a")
    fake.fleet.logs["a", "console"] = b"one\n"
    spawn("restart", "a").communicate(timeout=10)
    with open("/dev/full", "wb") as full:
        process = spawn(*typed, stdout=full)
        _, err = process.communicate(timeout=10)
    assert process.returncode == 1
    assert b"No space left on device" in err
    assert b"Traceback" not in err
    assert b"daemon" not in err


def test_logs_that_go_on(spawn: Spawn, fake: FakeDaemon) -> None:
    fake.fleet.add("a")
    fake.fleet.logs["a", "console"] = b"one\r\n"
    process = spawn("logs", "a", "-f")
    assert process.stdout is not None
    assert process.stdout.readline() == b"one\n"
    fake.fleet.logs["a", "console"] += b"two\r\n"
    assert process.stdout.readline() == b"two\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.read() == b""
    assert process.wait(30) == 0


def test_events_that_go_on(spawn: Spawn, fake: FakeDaemon, cli: Cli) -> None:
    process = spawn("events", "-f")
    soon(lambda: any("events" in line for line in fake.requests))
    cli("create", "late")
    assert process.stdout is not None
    assert b"late" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0


def test_wait_can_be_interrupted(spawn: Spawn, fake: FakeDaemon) -> None:
    fake.fleet.add("a")
    process = spawn("wait", "a", "--for", "stopped")
    soon(lambda: fake.requests)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
