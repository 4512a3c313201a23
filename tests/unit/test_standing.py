"""Programs that outlive the daemon, whose pid file is lost or damaged."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lxcfleet.host.process.standing import Standing

pytestmark = pytest.mark.reaches("processes", reason="a real process is looked for")

_ENDLESS = "import time; print('up', flush=True); time.sleep(1000)"

_SLOW = """
import ctypes, os, signal, socket, sys, threading, time

def end(*_):
    def rest():
        time.sleep(1.5)
        os._exit(0)
    threading.Thread(target=rest).start()
    ctypes.CDLL(None).syscall(60, 0)  # exit: this thread alone; the process has no command line from now on

listening = socket.create_server(("127.0.0.1", 0))
child = os.fork() if sys.argv[1] == "child" else 0
if child:
    listening.close()
    signal.signal(signal.SIGTERM, lambda *_: (os.kill(child, signal.SIGTERM), os._exit(0)))
else:
    signal.signal(signal.SIGTERM, end)
    print(listening.getsockname()[1], flush=True)
while True:
    signal.pause()
"""
"""A program that has its socket for a while after it no longer has a command line, itself or a child of its."""


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Standing]:
    """A program that runs; its pid file is right."""
    argv = [sys.executable, "-c", _ENDLESS, str(tmp_path / "settings")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (tmp_path / "program.pid").write_text(f"{process.pid}\n")
        yield Standing("the program", argv, tmp_path / "program.pid")
        process.kill()


def pid_of(program: Standing) -> int:
    return int(program.pid_file.read_text())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's processes count")
@pytest.mark.parametrize("text", ["", "nonsense\n", "1\n", "\udcff", None])
def test_a_program_is_found_without_its_pid_file(program: Standing, text: str | None) -> None:
    """A full disk had left the file empty: the program was never ended, and every other one found its port in use."""
    pid = pid_of(program)
    assert (program.present(), program.running()) == (pid, pid)
    if text is None:
        program.pid_file.unlink()
    else:
        program.pid_file.write_text(text, errors="surrogateescape")
    assert (program.present(), program.running()) == (pid, pid)
    newer = Standing(program.title, [*program.argv, "2.0"], program.pid_file)
    assert newer.running() is None


def test_a_program_of_another_fleet_is_not_ours(program: Standing, tmp_path: Path) -> None:
    program.pid_file.unlink()
    other = Standing("another", [*program.argv[:3], str(tmp_path / "other" / "settings")], tmp_path / "other" / "program.pid")
    assert other.present() is None
    assert Standing("any", (), program.pid_file).present() is None


def test_another_users_process_does_not_pass_for_it(program: Standing, monkeypatch: pytest.MonkeyPatch) -> None:
    program.pid_file.unlink()
    monkeypatch.setattr(Standing, "_is_own", lambda *_: False)
    assert program.present() is None


@pytest.mark.reaches("loopback", reason="the port that a program leaves is taken")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the number of a system call is this processor's")
@pytest.mark.parametrize("who", ["itself", "child"])
def test_a_program_that_was_stopped_leaves_its_port_to_the_next(tmp_path: Path, who: str) -> None:
    """On a busy host its successor found the port in use, and containers had no names for five seconds."""
    argv = [sys.executable, "-c", _SLOW, who, str(tmp_path / "settings")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        (tmp_path / "program.pid").write_text(f"{process.pid}\n")
        Standing("the program", argv, tmp_path / "program.pid").stop()
        socket.create_server(("127.0.0.1", port)).close()
