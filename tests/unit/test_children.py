"""Time limits of the launcher's children: work that depends on the number of files has none."""

from __future__ import annotations

import errno
import gc
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lxcfleet.errors import HostError
from lxcfleet.host.kernel import quota, syscalls, tree
from lxcfleet.host.lxc import attach
from lxcfleet.launcher import forking, main
from lxcfleet.launcher.children import commands, containers
from lxcfleet.paths import Paths


@pytest.fixture(autouse=True)
def _alarm() -> Iterator[None]:
    """An alarm, as the launcher sets one for each child."""
    signal.alarm(100)
    yield
    signal.alarm(0)


def left() -> float:
    """Seconds until the alarm; 0: there is none."""
    return signal.getitimer(signal.ITIMER_REAL)[0]


@pytest.mark.parametrize("large", [False, True])
def test_a_large_request_brings_the_same_descriptors(
    large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that is too large for a datagram comes in a memory file, which must not become a stream of the command."""
    seen = []
    monkeypatch.setattr(attach, "run", lambda request, descriptors, _: seen.append((request, list(descriptors))))
    opened = [os.open(os.devnull, os.O_RDWR) for _ in range(6)]
    message, rights = b'attach {"name": "a"}', opened[:4]
    if large:
        memory = os.memfd_create("request")
        os.write(memory, message)
        os.lseek(memory, 0, os.SEEK_SET)
        message, rights = b"", [opened[0], memory, *opened[1:4]]
    try:
        paths = Paths(lxc=tmp_path, run=tmp_path, etc=tmp_path)
        commands.run(*forking.whole(message, rights), paths, (opened[4], opened[5]))
    finally:
        for descriptor in opened[:4]:
            os.close(descriptor)
    assert seen == [({"name": "a"}, opened[:4])]


@pytest.mark.reaches("processes", reason="the answer comes from a child")
def test_a_command_whose_container_ends_as_it_begins_is_answered_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """liblxc may return the pid of a process that no longer exists."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    monkeypatch.setattr(attach, "_start", lambda *_: child)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        opened = [theirs.detach(), *(os.open(os.devnull, os.O_RDWR) for _ in range(3))]
        attach.run({"name": "web"}, opened, "/nowhere")
        answer = json.loads(ours.recv(65536))
        for descriptor in opened[1:]:
            os.close(descriptor)
    assert answer["error"]["code"] == "wrong-state"


def test_the_launcher_outlives_a_fork_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request gets no answer and is made again. The launcher lives, so its mounts stay."""
    monkeypatch.setattr(syscalls, "unshare_mounts", lambda: None)
    for name in ("disable", "freeze"):
        monkeypatch.setattr(gc, name, lambda: None)
    forks: list[int] = []

    def fork() -> int:
        forks.append(1)
        if len(forks) == 1:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return 4711

    monkeypatch.setattr(os, "fork", fork)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    answers, passed = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    monkeypatch.setattr(sys, "argv", ["launcher", str(theirs.detach()), "0"])
    before = {number: signal.getsignal(number) for number in (signal.SIGCHLD, signal.SIGINT)}
    try:
        with ours, answers, passed:
            for _ in range(2):
                socket.send_fds(ours, [b"inspect []"], [passed.fileno()])
            ours.shutdown(socket.SHUT_WR)
            main.main()
            passed.close()
            assert answers.recv(1) == b""  # no other process has a copy
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert len(forks) == 2


def test_removing_has_no_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    """Another container may get the number before the last file is removed."""
    done = []
    monkeypatch.setattr(tree, "remove", lambda path: done.append(path.name))
    monkeypatch.setattr(quota, "own_project", lambda delta: int(delta.parent.name))
    monkeypatch.setattr(quota, "forget", lambda _, project: done.append(project))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        containers.remove(["1", "2"], theirs, Paths(lxc=tmp_path, run=tmp_path, etc=tmp_path))
    assert done == [1, 2, "1", "2"]


def test_marking_has_no_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(quota, "check", lambda _: None)
    monkeypatch.setattr(quota, "mark", lambda *_: None)
    monkeypatch.setattr(quota, "_mark_tree", lambda *_: seen.append(left()))
    monkeypatch.setattr(quota, "_control", lambda *_: seen.append(left()))
    assert quota.keep([tmp_path], 7, 1 << 20) == 7
    assert seen[0] == 0
    assert min(seen[1], left()) > 0
