"""Following an operation: Ctrl-C, the bar, a daemon or a reader of the output that goes away; following logs and events."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from typing import Any

import pytest

from lxcfleet.api.records import RolloutRecord
from lxcfleet.cli.ui import follow, progress
from lxcfleet.containers.requests import creation
from lxcfleet.errors import HostError
from lxcfleet.patch.rollout import ledger, records
from lxcfleet.runtime.operations import Operation
from lxcfleet.spec.states import State

from .conftest import Cli, Spawn, soon
from .real_daemon import Daemon


@pytest.fixture(autouse=True)
def _one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers are made one after the other, so that a test knows which ones have begun."""
    monkeypatch.setattr(creation, "AT_ONCE", 1)


class Stuck:
    """Holds the daemon's work on one container until it is let go."""

    def __init__(self, daemon: Daemon, name: str) -> None:
        self._name = name
        self.reached = threading.Event()
        self.go = threading.Event()
        daemon.model.during = self._hold

    def _hold(self, name: str) -> None:
        if name == self._name:
            self.reached.set()
            assert self.go.wait(60)


def cancelled(daemon: Daemon) -> Operation:
    """The operation, once it is cancelled."""
    soon(lambda: daemon.operation.cancelled)
    return daemon.operation


def followed(daemon: Daemon) -> None:
    """Return once the client follows the operation."""
    soon(lambda: any(line.endswith("/follow") for line in daemon.requests))


def passed_on(daemon: Daemon) -> None:
    """Return once the daemon has sent what it has to tell by now: the client reads that, whatever becomes of the daemon."""
    for _ in range(20):  # a turn of its loop each
        daemon.call(lambda: None)


def drain(master: int) -> bytes:
    """All that is on a terminal which nobody else has any more: it may come in pieces."""
    seen = b""
    with contextlib.suppress(OSError):  # its end
        while more := os.read(master, 1000):
            seen += more
    os.close(master)
    return seen


def test_ctrl_c_cancels_the_containers_that_have_not_begun(spawn: Spawn, daemon: Daemon) -> None:
    stuck = Stuck(daemon, "c3")
    process = spawn("create", "-n", "5")
    assert stuck.reached.wait(60)
    followed(daemon)
    process.send_signal(signal.SIGINT)
    operation = cancelled(daemon)
    stuck.go.set()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == b"lxcfleet: cancelled: 3 done, 2 not begun"
    assert [line.split() for line in out.splitlines()][3:] == [[b"c4", b"cancelled"], [b"c5", b"cancelled"]]
    assert operation.record()["status"] == "cancelled"


def test_a_ctrl_c_before_anything_is_followed_cancels_too(
    cli: Cli, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, one that came in the moment after the daemon's answer left all of it to go on."""
    stuck, before = Stuck(daemon, "c1"), signal.getsignal(signal.SIGINT)

    def let_go() -> None:
        cancelled(daemon)
        stuck.go.set()

    letting_go = threading.Thread(target=let_go)

    def interrupt(_: object) -> None:
        assert stuck.reached.wait(60)
        os.kill(os.getpid(), signal.SIGINT)
        letting_go.start()

    monkeypatch.setattr(follow, "tell_notes", interrupt)
    ran = cli("create", "-n", "3", "-f", "json")
    letting_go.join()
    assert ran.status == 130
    assert [each["status"] for each in json.loads(ran.out)["results"]] == ["created", "cancelled", "cancelled"]
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_counts_failures(spawn: Spawn, daemon: Daemon) -> None:
    stuck = Stuck(daemon, "c3")
    daemon.model.fails["c1"] = HostError("c1: no")
    process = spawn("create", "-n", "5", "-q")
    assert stuck.reached.wait(60)
    followed(daemon)
    process.send_signal(signal.SIGINT)
    cancelled(daemon)
    stuck.go.set()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, b"c2\nc3\n")
    assert err.splitlines()[0] == b"lxcfleet: c1: no"
    assert err.count(b"c1: no") == 1
    assert err.splitlines()[-1] == b"lxcfleet: cancelled: 2 done, 1 failed, 2 not begun"


def test_a_second_ctrl_c_leaves_at_once(spawn: Spawn, daemon: Daemon) -> None:
    stuck = Stuck(daemon, "c2")
    process = spawn("create", "-n", "3")
    assert stuck.reached.wait(60)
    followed(daemon)
    process.send_signal(signal.SIGINT)
    operation = cancelled(daemon)
    soon(lambda: sum(line.endswith("/follow") for line in daemon.requests) == 2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"operation {operation.id} goes on in the daemon".encode() in err
    stuck.go.set()
    soon(lambda: operation.record()["status"] == "cancelled")
    assert daemon.fleet.names == {"c1", "c2"}


def test_a_client_that_is_killed_stops_nothing(spawn: Spawn, daemon: Daemon) -> None:
    stuck = Stuck(daemon, "c2")
    process = spawn("create", "-n", "3")
    assert stuck.reached.wait(60)
    process.kill()
    process.wait()
    stuck.go.set()
    soon(lambda: daemon.operation.record()["status"] == "done")


def test_the_bar_comes_after_a_moment(spawn: Spawn, daemon: Daemon) -> None:
    stuck = Stuck(daemon, "c2")
    master, slave = os.openpty()
    process = spawn("create", "-n", "3", stderr=slave)
    os.close(slave)
    assert stuck.reached.wait(60)
    seen = b""
    while b"1/3" not in seen:
        seen += os.read(master, 1000)
    assert b"create [##########..." in seen
    stuck.go.set()
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out.count(b"created")) == (0, 3)
    assert drain(master).endswith(b"\r\x1b[K")


def test_no_bar_for_quick_work(spawn: Spawn, daemon: Daemon) -> None:
    """On a busy machine no work is quick, so a moment is long here."""
    daemon.fleet.add("a", state=State.STOPPED)
    master, slave = os.openpty()
    program = "from lxcfleet.cli import main; from lxcfleet.cli.ui import progress; progress.MOMENT = 60.0; main.main()"
    process = spawn("stop", "a", stderr=slave, program=("-c", program))
    os.close(slave)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out, drain(master)) == (0, b"a  unchanged\n", b"")
    assert progress.MOMENT >= 0.3


def test_no_bar_without_a_terminal(cli: Cli, daemon: Daemon) -> None:
    daemon.model.during = lambda _: time.sleep(0.25)
    assert cli("create", "-n", "2").err == ""


# a daemon that goes away in the middle


def test_a_daemon_that_dies_during_an_operation(spawn: Spawn, daemon: Daemon) -> None:
    """The client once said only that the daemon does not answer: neither which operation was lost nor how to go on."""
    stuck = Stuck(daemon, "c2")
    process = spawn("create", "-n", "2")
    assert stuck.reached.wait(60)
    followed(daemon)
    soon(lambda: daemon.operation.record()["done"] == 1)
    passed_on(daemon)
    daemon.hang_up()
    _, err = process.communicate(timeout=60)
    stuck.go.set()
    assert process.returncode == 1
    lost, why, *hint = err.decode().splitlines()
    assert lost == f"lxcfleet: the daemon went away before operation {daemon.operation.id} had ended"
    assert why.endswith("; of the create, 1 of 2 were told to be done")
    assert "`lxcfleet events -f` follows that" in "".join(hint)
    assert "`create` with -n and how many are missing does the rest" in "".join(hint), "the same again would create two more"


def test_a_daemon_that_dies_before_a_cancel(spawn: Spawn, daemon: Daemon) -> None:
    stuck = Stuck(daemon, "c1")
    process = spawn("create", "-n", "2")
    assert stuck.reached.wait(60)
    followed(daemon)
    daemon.paths.socket.unlink()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    stuck.go.set()
    assert process.returncode == 1
    assert f"the daemon went away before operation {daemon.operation.id} had ended".encode() in err


def test_a_daemon_that_dies_during_a_rollout(spawn: Spawn, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon.fleet.add("a", "b")
    stuck, told = Stuck(daemon, "b"), list[int]()

    def record_of(*rollout: Any, **more: Any) -> RolloutRecord:
        record = records.record_of(*rollout, **more)
        told.append(record["done"])
        return record

    monkeypatch.setattr(ledger, "record_of", record_of)
    process = spawn("restart", "--all", "--rolling", "--max-unavailable", "1")
    assert stuck.reached.wait(60)
    soon(lambda: 1 in told)  # nobody but the client asks
    passed_on(daemon)
    daemon.hang_up()
    _, err = process.communicate(timeout=60)
    rollout = daemon.client.rollout()
    stuck.go.set()
    assert rollout is not None
    lost, why, hint = err.decode().splitlines()
    assert lost == f"lxcfleet: the daemon went away before rollout {rollout['id']} had ended"
    assert why.endswith("; 1 of 2 containers were told to be done")
    assert "`lxcfleet rollout status --follow`" in hint


@pytest.mark.parametrize(
    ("typed", "call", "lost", "again"),
    [
        (("events", "-f"), "/events", "the daemon went away: no more events come", "lxcfleet events -f"),
        (("logs", "a", "-f"), "/logs", "the daemon went away in the middle of the log of a", "lxcfleet logs -f a"),
        (
            ("wait", "a", "--for", "stopped"), "/wait", "the daemon went away while it waited for containers to be stopped",
            "the same command again goes on waiting",
        ),
    ],
)  # fmt: skip
def test_a_daemon_that_dies_during_a_call(
    spawn: Spawn, daemon: Daemon, typed: tuple[str, ...], call: str, lost: str, again: str
) -> None:
    daemon.fleet.add("a")
    daemon.fleet["a"].say(b"one\r\n")
    process = spawn(*typed)
    assert process.stdout is not None
    if call == "/wait":
        soon(lambda: any(line.endswith(call) for line in daemon.requests))
        time.sleep(0.2)
    else:
        process.stdout.readline()
    daemon.hang_up()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    said = err.decode().splitlines()
    assert said[0] == f"lxcfleet: {lost}"
    assert again in said[-1]


def test_a_daemon_that_dies_while_a_command_runs(spawn: Spawn, daemon: Daemon) -> None:
    daemon.fleet.add("a")
    process = spawn("exec", "a", "--", "sh", "-c", "echo ready; sleep 30")
    assert process.stdout is not None
    process.stdout.readline()
    daemon.hang_up()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 125
    said = err.decode().splitlines()
    assert said[0] == "lxcfleet: how the command in a ended can't be told"
    assert "the exit status is lost" in said[1]
    assert "lxcfleet exec a -- ps aux" in said[2]


READ_BY_NOBODY = [
    ("-h",), ("--version",), ("create", "b", "--dry-run"), ("restart", "a"), ("list",), ("list", "-f", "json"), ("info", "a"),
    ("logs", "a"), ("logs", "a", "-f"), ("events",), ("doctor",), ("config", "show"), ("wait", "a"), ("stale", "--nagios"),
    ("exec", "--all", "--", "echo"), ("exec", "--all", "-f", "json", "--", "true"), ("exec", "-t", "a", "--", "echo"),
]  # fmt: skip


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("typed", READ_BY_NOBODY)
def test_a_reader_that_goes_away_ends_the_verb_silently(
    spawn: Spawn, daemon: Daemon, monkeypatch: pytest.MonkeyPatch, typed: tuple[str, ...], unbuffered: str
) -> None:
    """The verb ends like any program: silently, and with status 141 as after SIGPIPE."""
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    daemon.fleet.add("a")
    daemon.fleet["a"].say(b"one\n")
    reader, writer = os.pipe()
    os.close(reader)
    process = spawn(*typed, stdout=writer)
    os.close(writer)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (141, b"")


def test_a_reader_of_many_commands_output_goes_away(spawn: Spawn, daemon: Daemon) -> None:
    daemon.fleet.add("a")
    daemon.fleet.add("b")
    process = spawn("exec", "--all", "--", "sh", "-c", "while echo y; do sleep 0.01; done")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(60) == 141


@pytest.mark.parametrize("typed", [("nix",), ("list", "nix"), ("restart", "--all"), ("exec", "--all", "--", "nix")])
def test_the_work_is_done_though_nobody_reads_the_messages(spawn: Spawn, daemon: Daemon, typed: tuple[str, ...]) -> None:
    """As with ``2>&1 | head -1``: the daemon still does all that it was asked for."""
    daemon.fleet.add("a")
    daemon.model.fails["a"] = HostError("a has no luck")
    reader, writer = os.pipe()
    os.close(reader)
    process = spawn(*typed, stdout=writer, stderr=writer)
    os.close(writer)
    assert process.wait(60) == 141


@pytest.mark.parametrize("typed", [("list",), ("logs", "a"), ("events",)])
def test_a_full_disk_is_reported(spawn: Spawn, daemon: Daemon, typed: tuple[str, ...]) -> None:
    daemon.fleet.add("a")
    daemon.fleet["a"].say(b"one\n")
    spawn("restart", "a").communicate(timeout=60)
    with open("/dev/full", "wb") as full:
        process = spawn(*typed, stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"stdout: No space left on device" in err
    assert b"Traceback" not in err
    assert b"daemon" not in err


def test_logs_are_followed(spawn: Spawn, daemon: Daemon) -> None:
    daemon.fleet.add("a")
    daemon.fleet["a"].say(b"one\r\n")
    process = spawn("logs", "a", "-f")
    assert process.stdout is not None
    assert process.stdout.readline() == b"one\n"
    daemon.fleet["a"].say(b"two\r\n")
    assert process.stdout.readline() == b"two\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.read() == b""
    assert process.wait(60) == 0


def test_events_are_followed(spawn: Spawn, daemon: Daemon, cli: Cli) -> None:
    process = spawn("events", "-f")
    soon(lambda: any("events" in line for line in daemon.requests))
    cli("create", "late")
    assert process.stdout is not None
    assert b"late" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0


def test_wait_can_be_interrupted(spawn: Spawn, daemon: Daemon) -> None:
    daemon.fleet.add("a")
    process = spawn("wait", "a", "--for", "stopped")
    soon(lambda: any(line.endswith("/wait") for line in daemon.requests))
    time.sleep(0.1)  # by now the daemon waits for the container
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
