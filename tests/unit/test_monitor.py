"""The process that listens on the address of a container's monitor."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from lxcfleet.errors import HostError, WrongState
from lxcfleet.host.lxc import monitor
from lxcfleet.host.process import proc

pytestmark = pytest.mark.reaches("abstract sockets", "processes", reason="monitors are such processes")

Listen = Callable[[str], socket.socket]


@pytest.fixture
def lxc_path() -> str:
    """A path that no other process uses."""
    return f"/nowhere/{os.getpid()}"


@pytest.fixture
def bind(lxc_path: str) -> Iterator[Listen]:
    """A function that takes the address of a monitor."""
    taken = []

    def act(name: str) -> socket.socket:
        taken.append(socket.socket(socket.AF_UNIX))
        taken[-1].bind(f"\0{lxc_path}/{name}/command")
        return taken[-1]

    yield act
    for each in taken:
        each.close()


def test_the_kernel_tells_who_listens(lxc_path: str, bind: Listen) -> None:
    assert monitor.listener("a", lxc_path) is None
    taken = bind("a")
    assert monitor.listener("a", lxc_path) is None
    assert monitor.claimed(lxc_path) == {"a"}
    taken.listen()
    assert monitor.listener("a", lxc_path) == os.geteuid()
    assert monitor.listener("b", lxc_path) is None
    taken.close()
    assert monitor.claimed(lxc_path) == set()


def test_a_listener_without_accept_is_not_waited_for(lxc_path: str, bind: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "_PATIENCE", 0.01)
    bind("a").listen(0)
    with socket.socket(socket.AF_UNIX) as waits:
        waits.connect(f"\0{lxc_path}/a/command")
        with pytest.raises(HostError, match="who answers for a"):
            monitor.runs("a", lxc_path)
        with pytest.raises(HostError), monitor.held("a", lxc_path):
            pass


def test_a_path_that_is_too_long_for_an_address() -> None:
    with pytest.raises(HostError, match="who answers for a"):
        monitor.runs("a", "/" + "x" * 120)


def test_the_end_of_a_monitor_is_noticed(lxc_path: str, bind: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "ROOT", os.geteuid())
    for accepts in (False, True):
        taken = bind("a")
        taken.listen()
        with monitor.held("a", lxc_path) as lives:
            connection = taken.accept()[0] if accepts else None
            assert lives()
            taken.close()
            if connection is not None:
                connection.close()
            assert not lives()


def test_an_impostor_is_refused(lxc_path: str, bind: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "ROOT", os.geteuid() + 1)
    monitor.refuse_impostor("a", lxc_path)
    with pytest.raises(WrongState) as caught, monitor.held("a", lxc_path):
        pass
    assert "lxcfleet start a" in caught.value.hint
    taken = bind("a")
    with pytest.raises(WrongState, match="some process"):
        monitor.refuse_impostor("a", lxc_path)
    taken.listen()
    with pytest.raises(WrongState, match=f"uid {os.geteuid()}") as caught:
        monitor.refuse_impostor("a", lxc_path)
    assert f"@{lxc_path}/a/command" in caught.value.hint
    with pytest.raises(WrongState, match=f"uid {os.geteuid()}"), monitor.held("a", lxc_path):
        pass
    assert not monitor.runs("a", lxc_path)


def test_a_process_of_roots_is_no_impostor(lxc_path: str, bind: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "ROOT", os.geteuid())
    bind("a").listen()
    monitor.refuse_impostor("a", lxc_path)
    assert monitor.runs("a", lxc_path)
    with monitor.held("a", lxc_path) as lives:
        assert lives()


@pytest.mark.skipif(os.geteuid() != 0, reason="monitors are root's")
def test_a_monitor_that_hangs_is_killed_with_what_it_forked(lxc_path: str) -> None:
    def titled(name: str) -> list[str]:
        return ["bash", "-c", f"exec -a '[lxc monitor] {lxc_path} {name}' sh -c 'sleep 1000; :' x"]

    with subprocess.Popen(titled("one")) as hung, subprocess.Popen(titled("oneself")) as other:
        try:
            until = time.monotonic() + 30
            while not (forked := proc.children(hung.pid)) and time.monotonic() < until:
                time.sleep(0.01)
            assert forked
            assert monitor.end_hung("one", lxc_path)
            assert hung.wait(30) == -signal.SIGKILL
            assert other.poll() is None
            while not proc.has_ended(forked[0], hung.pid) and time.monotonic() < until:
                time.sleep(0.01)
            assert proc.has_ended(forked[0], hung.pid)
            assert not monitor.end_hung("one", lxc_path)
        finally:
            for each in (*proc.children(other.pid), other.pid, hung.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)
