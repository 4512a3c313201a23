"""How often monitors are looked at, and what the log says of strangers."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from lxcfleet.containers.ends import monitor_guard
from lxcfleet.containers.ends.monitor_guard import MonitorGuard, crowded, pause
from lxcfleet.host.lxc import liblxc, strangers
from lxcfleet.paths import Paths


@pytest.mark.parametrize(
    ("limits", "sockets", "seconds"),
    [
        ([1 << 20], 500, 1.0),
        ([1 << 20, 20_000], 500, 0.0725),
        ([20_000], 10_000, 0.025),
        ([20_000], 19_999, 0.02),
        ([1024], 10, 0.02),
        ([], None, 0.75),
    ],
)
def test_no_monitor_runs_out_of_descriptors_between_two_counts(
    limits: list[int], sockets: int | None, seconds: float
) -> None:
    assert pause(limits, sockets) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("limits", "sockets", "answer"),
    [
        ([1 << 20, 20_000], 9_999, False),
        ([1 << 20, 20_000], 10_000, True),
        ([1024], 600, True),
        ([], 600, False),
        ([1 << 20], None, True),
    ],
)
def test_monitors_are_looked_at_when_there_are_sockets_enough_to_crowd_one(
    limits: list[int], sockets: int | None, answer: bool
) -> None:
    assert crowded(limits, sockets) is answer


def test_an_attack_is_logged_when_it_begins_and_when_it_is_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    guard = MonitorGuard(Paths(lxc=tmp_path))
    for moment in range(100):
        guard._note({"a": Counter({1000: 10})}, float(moment))
    assert len(caplog.messages) == 1
    assert "a: processes of uid 1000 crowd its monitor's socket" in caplog.messages[0]
    guard._note({}, 105.0)
    assert len(caplog.messages) == 1
    guard._note({}, 110.0)
    assert caplog.messages[1:] == ["a: 1000 connections of uid 1000 to its monitor were closed"]


def test_the_kernel_s_table_gives_the_number_of_unix_sockets() -> None:
    """Of streams, and of the others, which are a protocol of their own or not by the version of Linux."""
    with contextlib.closing(strangers.SocketCount()) as count:
        before = count.now()
        kinds = [socket.SOCK_STREAM, socket.SOCK_DGRAM] * 100
        pairs = [socket.socketpair(socket.AF_UNIX, kind) for kind in kinds]
        after = count.now()
        for pair in pairs:
            for each in pair:
                each.close()
    assert before is not None
    assert after is not None
    assert after - before > 200  # others may close some of theirs meanwhile


def test_the_number_of_all_sockets_is_taken_while_that_is_small() -> None:
    with contextlib.closing(strangers.SocketCount()) as count:
        exact, most = count.now(), count.most(1 << 30)
        assert exact is not None
        assert most is not None
        assert most > exact // 2  # others may open and close theirs meanwhile
        few = count.most(0)
        assert few is not None
        assert abs(few - exact) < 200
    assert count.now() is None
    assert count.most(1 << 30) is None


@pytest.mark.parametrize("told", [True, False], ids=["the-kernel-tells", "the-kernel-can't-tell"])
def test_a_log_that_grows_is_emptied_and_the_others_are_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    logs = monitor_guard._Logs()
    looked: list[str] = []
    monkeypatch.setattr(liblxc, "cut_log", looked.append)
    if told:
        logs.begin()
        if logs._watches is None:
            pytest.skip("all of this user's inotify instances are taken by what else runs")
    files = {name: tmp_path / name for name in ("a", "b")}
    for name, file in files.items():
        file.touch()
        logs.add(name, str(file))
    logs.add("without", str(tmp_path / "nowhere"))  # it is looked at whenever it is time to
    assert looked == [*map(str, files.values()), str(tmp_path / "nowhere")], "each may have grown while no daemon ran"
    looked.clear()
    logs.cut(100.0)
    assert looked == [*([] if told else map(str, files.values())), str(tmp_path / "nowhere")]
    looked.clear()
    logs.remove("without")
    with files["a"].open("a") as log:
        log.write("a line\n")
    logs.cut(100.1)
    assert looked == []  # twice a second is enough
    logs.cut(101.0)
    assert looked == ([str(files["a"])] if told else [str(file) for file in files.values()])
    looked.clear()
    logs.remove("a")
    with files["a"].open("a") as log:
        log.write("a line\n")
    logs.cut(102.0)
    assert looked == ([] if told else [str(files["b"])])


@contextlib.contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(f"\0{address}")
        server.listen()
        yield server


@pytest.mark.reaches("abstract sockets", reason="monitors have such, and the kernel is asked of them")
def test_the_kernel_tells_of_a_connection_and_keeps_nothing_of_the_socket(tmp_path: Path) -> None:
    address = f"{tmp_path}/a/command"
    with contextlib.closing(strangers.Callers(None)) as callers:
        with listening(address), listening(f"{tmp_path}/b/command") as other:
            assert callers.add(os.getpid(), address)
            assert callers.add(os.getpid(), address), "once more changes nothing"
            assert not callers.add(os.getpid(), f"{tmp_path}/c/command"), "nobody listens there"
            assert not callers.wait(0.0, read=False)
            for one in (address, other.getsockname()[1:].decode()):
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                    client.connect(f"\0{one}")
                    assert callers.wait(0.0, read=False) is (one == address)
        with listening(address):
            pass  # the address is free: the former socket ended with the process that had it


def test_a_wait_ends_for_a_file_only_if_that_is_wanted() -> None:
    readable, writable = os.pipe()
    with contextlib.closing(strangers.Callers(readable)) as callers:
        os.write(writable, b"x")
        assert not callers.wait(0.0, read=False)
        assert not callers.wait(60.0, read=True), "it returns at once, and nobody has connected"
        callers.poke()
        assert callers.wait(60.0, read=False)
    os.close(readable)
    os.close(writable)


class Calls:
    """Instead of the kernel: somebody connects in the wait with the number ``at``."""

    def __init__(self, clock: list[float], over: threading.Event, at: int) -> None:
        self.waits: list[float] = []
        self._clock, self._over, self._at = clock, over, at

    def wait(self, seconds: float, *, read: bool) -> bool:
        self.waits.append(seconds)
        self._clock[0] += seconds
        if len(self.waits) > self._at + 20:
            self._over.set()
        return len(self.waits) == self._at


@pytest.mark.parametrize("heard", [True, False], ids=["the-kernel-tells", "the-kernel-can't-tell-of-one"])
def test_sockets_are_counted_often_only_after_somebody_connected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heard: bool
) -> None:
    clock, over, guard = [1000.0], threading.Event(), MonitorGuard(Paths(lxc=tmp_path))
    calls = Calls(clock, over, at=20)

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr(monitor_guard, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep))
    monkeypatch.setattr(guard, "_callers", calls)
    monkeypatch.setattr(guard._logs, "wait", sleep)
    monkeypatch.setattr(monitor_guard, "pause", lambda *_: 1.0)
    if not heard:
        guard._unheard.add("a")
    guard._watch(over)
    # Five seconds long until it is calm, and after the connection. The kernel is asked after each sleep of a second.
    often, seldom = calls.waits.count(0.0), calls.waits.count(5.0)
    assert (often, seldom) == ((10, 31) if heard else (41, 0))


def test_it_wakes_up_together_with_the_daemon_s_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nobody connects, it looks at whole multiples of its pause, as they do."""
    clock, over, guard = [1002.5], threading.Event(), MonitorGuard(Paths(lxc=tmp_path))
    calls = Calls(clock, over, at=0)
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    def look(_: object) -> dict[str, object]:
        looks.append(clock[0])
        return {}

    monkeypatch.setattr(monitor_guard, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep))
    monkeypatch.setattr(guard, "_callers", calls)
    monkeypatch.setattr(guard._logs, "wait", sleep)
    monkeypatch.setattr(monitor_guard, "pause", lambda *_: 1.0)
    monkeypatch.setattr(guard, "_look", look)
    guard._watch(over)
    assert looks[1] <= looks[0] + 5.0
    later = looks[2:]
    assert later == [later[0] + 5.0 * number for number in range(len(later))]
    assert all(moment % 5.0 == 0.0 for moment in later)
