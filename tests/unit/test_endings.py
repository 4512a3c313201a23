"""How containers end, as liblxc's monitors tell it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lxcfleet.containers.ends.endings import NOT_KNOWN, RUNS, Endings, words
from lxcfleet.containers.ends.memory import MemoryKills
from lxcfleet.containers.events import Ends, KilledForMemory
from lxcfleet.containers.exits import Ending
from lxcfleet.daemon.uses import findings
from lxcfleet.host.lxc import monitor_fifo, monitord, stopping
from lxcfleet.host.lxc.monitor_fifo import EXIT, RECORD, STARTING, STATE, MonitorRecord
from lxcfleet.host.process import cgroup, kernel_log, peer
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus, Told


def record(kind: int, name: str, value: int) -> bytes:
    return RECORD.pack(kind, name.encode(), value)


@pytest.mark.parametrize(
    ("status", "number", "text"),
    [
        (0, 0, "exit status 0"),
        (37 << 8, 37, "exit status 37"),
        (137 << 8, 137, "exit status 137 (killed by SIGKILL)"),
        (255 << 8, 255, "exit status 255"),
        (signal.SIGKILL, 137, "killed by SIGKILL"),
        (signal.SIGSEGV | 0x80, 139, "killed by SIGSEGV"),
        (signal.SIGINT, 130, "its init shut it down"),
        (signal.SIGHUP, 129, "its init rebooted it"),
        (40, 168, "killed by signal 40"),
    ],
)
def test_an_ending_in_words_and_as_a_shell_has_it(status: int, number: int, text: str) -> None:
    assert (Ending(status).exit_status, Ending(status).words) == (number, text)


def test_every_status_has_a_number_and_words() -> None:
    assert [Ending(status << 8).exit_status for status in range(256)] == list(range(256))
    assert [Ending(number).exit_status for number in range(1, 65)] == list(range(129, 193))
    assert all(Ending(status).words for status in [*range(1, 65), *(status << 8 for status in range(256))])


def test_records_are_those_of_liblxc() -> None:
    assert RECORD.size == 264
    assert RECORD.size < 4096  # so a record is written as a whole; pipe(7)
    data = record(STATE, "web", 0) + record(EXIT, "web", 9472)
    assert monitor_fifo.parse(data + data[:100]) == [MonitorRecord(STATE, "web", 0), MonitorRecord(EXIT, "web", 9472)]


def test_processes_that_were_killed_for_memory_are_counted() -> None:
    assert cgroup.out_of_memory("low 0\nhigh 0\nmax 17\noom 1\noom_kill 2\noom_group_kill 0\n") == 2
    assert cgroup.out_of_memory("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n") == 1
    assert cgroup.out_of_memory("") is None


class Box:
    """A container that runs until ``running`` is None."""

    def __init__(self, name: str, kills: int | None) -> None:
        self.name = name
        self.busy = None
        self.spec = None
        self.memory_kills, self.last_memory_kill = 0, ""
        payload = SimpleNamespace(out_of_memory_kills=kills, directories={"": Path(f"/sys/fs/cgroup/lxc.payload.{name}")})
        self.running: Any = SimpleNamespace(payload=payload, monitor=0)


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory in the place of /run/lxc."""
    monkeypatch.setattr(monitor_fifo, "_ROOT", tmp_path / "lxc")
    monkeypatch.setattr(kernel_log.KernelLog, "begin", lambda _: None)


class Monitors:
    """Writes records, as monitors do."""

    def __init__(self, tmp_path: Path) -> None:
        self.boxes = {name: Box(name, kills) for name, kills in (("a", 0), ("b", 1))}
        self.paths = Paths(lxc=tmp_path / "containers", run=tmp_path, etc=tmp_path)
        self.bus = Bus()
        self.endings = Endings(self.paths, cast(Any, self.boxes), MemoryKills(cast(Any, self.boxes), self.bus), self.bus)

    def write(self, *records: bytes) -> None:
        descriptor = os.open(monitor_fifo.path_of(self.paths.lxc), os.O_WRONLY | os.O_NONBLOCK)
        os.write(descriptor, b"".join(records))
        os.close(descriptor)

    def end(self, name: str, status: int) -> Ending | None:
        self.write(record(STATE, name, 3), record(EXIT, name, status))
        self.endings._fifo.drain()
        self.boxes[name].running = None
        return self.of(name)

    def of(self, name: str) -> Ending | None:
        return self.endings.of(cast(Any, self.boxes[name]))


def test_the_moment_of_an_end_is_that_of_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not when its monitor had tidied up, some ten milliseconds later."""
    now = [1000.0]
    monkeypatch.setattr("lxcfleet.containers.ends.endings.time.time", lambda: now[0])

    async def run() -> None:
        monitors = Monitors(tmp_path)
        monitors.endings.check()
        monitors.end("a", 9472)
        now[0] = 1000.5
        assert (monitors.endings.heard_at("a"), monitors.endings.heard_at("b")) == (1000.0, 1000.5)
        monitors.write(record(STATE, "a", STARTING))
        monitors.endings._fifo.drain()
        assert monitors.endings.heard_at("a") == 1000.5
        monitors.endings.close()

    asyncio.run(run())


def test_statuses_of_containers_that_ended_are_known(tmp_path: Path) -> None:
    async def run() -> None:
        monitors = Monitors(tmp_path)
        monitors.endings.check()
        assert monitors.end("a", 9472) == Ending(9472)
        told: list[Told | None] = []
        monitors.bus.subscribe("test", KilledForMemory, lambda event: told.append(event.told()))
        assert monitors.end("b", signal.SIGKILL) == Ending(signal.SIGKILL, "killed for memory")
        assert told == [("oom", "b", "killed for memory")]
        assert Ending(137 << 8, "killed for memory").words == "killed for memory (exit status 137)"
        monitors.write(record(EXIT, "stranger", 1), record(STATE, "a", STARTING))
        assert monitors.of("a") is None
        monitors.endings.close()
        assert not (tmp_path / "lxc" / tmp_path.relative_to("/")).exists()

    asyncio.run(run())


def test_one_that_runs_has_not_ended(tmp_path: Path) -> None:
    box = cast(Any, Box("a", 0))
    assert words(box, None) == RUNS
    box.running = None
    assert (words(box, None), words(box, Ending(256))) == (NOT_KNOWN, "exit status 1")


def test_what_ended_before_is_not_known_to_a_daemon_that_starts(tmp_path: Path) -> None:
    async def run() -> None:
        monitors = Monitors(tmp_path)
        monitors.endings.check()
        assert monitors.end("a", 256) is not None
        monitors.endings.close()
        with pytest.raises(FileNotFoundError):  # nobody reads, so nobody has to wait
            monitors.write(record(EXIT, "a", 512))
        monitors.endings.check()
        assert monitors.of("a") is None
        monitors.endings.close()

    asyncio.run(run())


@pytest.fixture
def looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An lxc-stop of a waits. Has an item for each look at all processes of the host."""
    found: list[int] = []

    def asking() -> list[list[str]]:
        found.append(1)
        return [["-P", str(tmp_path / "containers"), "a"]]

    monkeypatch.setattr(stopping, "asking", asking)
    return found


def test_the_records_of_300_ends_wait_for_a_daemon_that_is_stopped(tmp_path: Path, looks: list[int]) -> None:
    """All processes of the host are looked at for lxc-stop once for what is read at once, and not for each end."""
    async def run() -> None:
        monitors = Monitors(tmp_path)
        monitors.endings.check()
        for number in range(300):  # without a turn of the event loop
            monitors.write(*[record(STATE, "a", 3)] * 4, record(EXIT, "a", number % 256 << 8))
        monitors.boxes["a"].running = None
        assert monitors.of("a") == Ending(299 % 256 << 8)
        assert monitors.endings.asked("a")
        assert len(looks) < 5
        monitors.endings.close()

    asyncio.run(run())


@pytest.mark.reaches("abstract sockets", reason="a monitor listens on one")
def test_processes_are_looked_at_for_lxc_stop_only_if_somebody_has_called_the_monitor(
    tmp_path: Path, looks: list[int]
) -> None:
    async def run() -> None:
        monitors = Monitors(tmp_path)
        ends: list[bool] = []
        monitors.bus.subscribe("test", Ends, lambda event: ends.append(event.failed))
        monitors.endings.check()
        monitors.boxes["a"].running.monitor = os.getpid()
        address = f"\0{monitors.paths.lxc}/a/command"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
            server.bind(address)
            server.listen()
            monitors.end("a", 256)
            assert (looks, monitors.endings.asked("a")) == ([], False)
            monitors.boxes["a"].running = SimpleNamespace(payload=monitors.boxes["b"].running.payload, monitor=os.getpid())
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.connect(address)
                called, _ = server.accept()
            with called:  # lxc-stop may be quicker than this daemon; its monitor keeps the connection
                monitors.end("a", 256)
        assert (looks, monitors.endings.asked("a")) == ([1], True)
        assert ends == [True], "what lxc-stop stops is not started again"
        monitors.endings.close()

    asyncio.run(run())


def put(path: Path, instead: str) -> None:
    """Put something else in the place of the FIFO, as another program may."""
    path.unlink()
    if instead == "a file":
        path.touch()
    elif instead == "another FIFO":
        os.mkfifo(path)


@pytest.mark.parametrize("instead", ["a file", "another FIFO", "nothing"])
def test_a_fifo_that_is_replaced_is_noticed(tmp_path: Path, instead: str, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        monitors = Monitors(tmp_path)
        monitors.endings.check()
        path = monitor_fifo.path_of(monitors.paths.lxc)
        put(path, instead)
        monitors.endings.check()
        monitors.endings.check()
        if instead == "a file":
            assert [line.count("is no FIFO; remove it") for line in caplog.messages] == [1]
            (finding,) = findings.of_ends(monitors.endings.problem)
            assert (finding.level, finding.hint) == ("fail", f"remove it: rm {path}")
            assert "how containers end is not known" in finding.message
            assert "is no FIFO" in finding.message
            path.unlink()
            monitors.endings.check()
        assert findings.of_ends(monitors.endings.problem) == []
        assert monitors.end("a", 256) == Ending(256)
        monitors.endings.close()

    asyncio.run(run())


@pytest.mark.parametrize("looked", [False, True])
@pytest.mark.parametrize("instead", ["a file", "another FIFO", "nothing"])
def test_a_run_that_was_not_heard_has_not_the_end_of_the_run_before(tmp_path: Path, instead: str, looked: bool) -> None:
    """The record of its start was lost, so what was known was still that of the run before: `start` told it as this one's."""
    async def run() -> None:
        monitors = Monitors(tmp_path)
        monitors.endings.check()
        assert monitors.end("a", 9472) == Ending(9472)
        path = monitor_fifo.path_of(monitors.paths.lxc)
        put(path, instead)
        if looked:
            monitors.endings.check()
        assert (monitors.endings.heard("a"), monitors.of("a")) == (None, None)
        monitors.endings.close()

    asyncio.run(run())


READER = """
import fcntl, sys
fifo = open(sys.argv[1], "r+b", 0)
fcntl.lockf(fifo, fcntl.LOCK_EX)
print(flush=True)
sys.stdin.read()
"""


MONITORD = """
import fcntl, os, socket, sys
sys.path.insert(0, os.getcwd())
from pathlib import Path
from lxcfleet.host.lxc import monitord
fifo = open(sys.argv[1], "r+b", 0)
fcntl.lockf(fifo, fcntl.LOCK_EX)
server = socket.socket(socket.AF_UNIX)
server.bind(monitord._address(Path(sys.argv[2])))
server.listen()
print(flush=True)
client, _ = server.accept()
while True:
    for byte in fifo.read(264):
        client.send(bytes([byte]))
"""


@pytest.mark.reaches("processes", "abstract sockets", reason="a process of its own stands for lxc-monitord")
def test_records_come_from_lxc_monitord_where_it_reads_the_fifo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "uid_of", lambda _: 0)
    monitors = Monitors(tmp_path)
    path = monitor_fifo.path_of(monitors.paths.lxc)
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    command = [sys.executable, "-c", MONITORD, str(path), str(monitors.paths.lxc)]
    with subprocess.Popen(command, stdin=-1, stdout=-1, cwd=Path(__file__).parents[2]) as other:
        assert other.stdout is not None
        other.stdout.read(1)

        async def look() -> None:
            endings = monitors.endings
            endings.check()
            endings.check()
            assert endings._fifo.reads
            monitors.write(record(EXIT, "a", 9472))
            monitors.boxes["a"].running = None
            async with asyncio.timeout(60):
                while monitors.of("a") is None:
                    await asyncio.sleep(0.01)
            assert monitors.of("a") == Ending(9472)
            other.kill()
            other.wait()
            async with asyncio.timeout(60):
                while monitors.endings._fifo.reads:
                    await asyncio.sleep(0.01)
            endings.check()  # nobody reads the FIFO any more, so the daemon does
            assert monitors.end("b", 256) == Ending(256)
            endings.close()

        asyncio.run(look())


@pytest.mark.reaches("abstract sockets", reason="lxc-monitord listens on one")
def test_another_user_can_not_stand_for_lxc_monitord(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "uid_of", lambda _: 1000)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(monitord._address(tmp_path))
        server.listen()
        with pytest.raises(PermissionError, match="another user"):
            monitord.connect(tmp_path)


@pytest.mark.reaches("processes", "abstract sockets", reason="a process of its own holds the lock")
def test_no_record_is_taken_from_lxc_monitor(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    monitors = Monitors(tmp_path)
    path = monitor_fifo.path_of(monitors.paths.lxc)
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    with subprocess.Popen([sys.executable, "-c", READER, path], stdin=-1, stdout=-1) as other:
        assert other.stdout is not None
        other.stdout.read(1)

        async def look() -> None:
            monitors.endings.check()
            assert "lxc-monitor" in caplog.text
            fifo = monitors.endings._fifo
            assert not fifo.reads
            other.kill()
            other.wait()
            monitors.endings.check()
            assert monitors.endings._fifo.reads
            monitors.endings.close()

        asyncio.run(look())
