"""What the launcher's children take as long for as it takes."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lxcfleet.children import containers
from lxcfleet.errors import HostError
from lxcfleet.host import quota, tree
from lxcfleet.names import Paths


@pytest.fixture(autouse=True)
def _alarm() -> Iterator[None]:
    """As the launcher sets one for each child."""
    signal.alarm(100)
    yield
    signal.alarm(0)


def left() -> float:
    """Seconds until the alarm; 0: there is none."""
    return signal.getitimer(signal.ITIMER_REAL)[0]


def test_removing_takes_as_long_as_there_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def remove(path: Path) -> None:
        seen.append((path.name, left()))
        if path.name == "b":
            raise HostError("it can't be removed")

    monkeypatch.setattr(tree, "remove", remove)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        containers.remove(["a", "b", "c"], theirs, Paths(lxc=tmp_path, run=tmp_path, etc=tmp_path))
        answers = [json.loads(ours.recv(65536)) for _ in range(3)]
    assert seen == [("a", 0.0), ("b", 0.0), ("c", 0.0)]
    assert [(each["name"], each["error"] is None) for each in answers] == [("a", True), ("b", False), ("c", True)]
    assert left() > 0


def test_limits_are_forgotten_before_the_first_file_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another container may have the number before the last one does."""
    done = []
    monkeypatch.setattr(tree, "remove", lambda path: done.append(path.name))
    monkeypatch.setattr(quota, "own_project", lambda delta: int(delta.parent.name))
    monkeypatch.setattr(quota, "forget", lambda _, project: done.append(project))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        containers.remove(["1", "2"], theirs, Paths(lxc=tmp_path, run=tmp_path, etc=tmp_path))
    assert done == [1, 2, "1", "2"]


def test_marking_takes_as_long_as_there_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(quota, "check", lambda _: None)
    monkeypatch.setattr(quota, "mark", lambda *_: None)
    monkeypatch.setattr(quota, "_mark_tree", lambda *_: seen.append(left()))
    monkeypatch.setattr(quota, "_control", lambda *_: seen.append(left()))
    assert quota.keep([tmp_path], 7, 1 << 20) == 7
    assert seen[0] == 0
    assert min(seen[1], left()) > 0
