"""The guard that keeps the unit tests off the host."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostguard
import pytest
from hostguard import HostReached

NOWHERE = "/etc/lxcfleet-nowhere"


def datagram() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", ("192.0.2.1", 9))


def bound(family: int, address: tuple[Any, ...] | str) -> Callable[[], None]:
    def bind() -> None:
        with socket.socket(family, socket.SOCK_STREAM) as made:
            made.bind(address)

    return bind


REACHES: dict[str, Callable[[], object]] = {
    "a file": lambda: Path(NOWHERE).write_text("x"),
    "os.open": lambda: os.open(NOWHERE, os.O_CREAT | os.O_WRONLY),
    "a directory": lambda: Path(NOWHERE).mkdir(),
    "up and out": lambda: Path("/tmp/../etc/lxcfleet-nowhere").mkdir(),
    "a removal": lambda: Path(NOWHERE).unlink(),
    "a rename": lambda: os.rename("/tmp/lxcfleet-nowhere", NOWHERE),
    "a link": lambda: os.symlink("x", NOWHERE),
    "rmdir": lambda: os.rmdir(NOWHERE),
    "a mode": lambda: os.chmod(NOWHERE, 0o600),
    "a program": lambda: subprocess.run(["true"], check=True),
    "a shell": lambda: os.system("true"),
    "a fork": os.fork,
    "a signal": lambda: os.kill(os.getpid(), signal.SIGURG),
    "a port": bound(socket.AF_INET, ("0.0.0.0", 0)),
    "loopback": bound(socket.AF_INET, ("127.0.0.1", 0)),
    "a socket": bound(socket.AF_UNIX, "/run/lxcfleet-nowhere"),
    "an abstract socket": bound(socket.AF_UNIX, "\0lxcfleet-nowhere"),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).bind((0, 0)),
    "a datagram": datagram,
}


@pytest.mark.parametrize("reach", REACHES.values(), ids=REACHES)
def test_an_attempt_to_reach_the_host_is_refused(reach: Callable[[], object]) -> None:
    told = pytest.raises(AssertionError, match="the host was reached")
    with told, hostguard.guarded(frozenset()), pytest.raises(HostReached):
        reach()


def test_an_attempt_whose_error_is_swallowed_fails_the_test_all_the_same() -> None:
    told = pytest.raises(AssertionError, match="the host was reached")
    with told, hostguard.guarded(frozenset()), contextlib.suppress(Exception):
        Path(NOWHERE).write_text("x")


def test_a_tests_own_files_and_sockets_are_allowed(tmp_path: Path) -> None:
    with hostguard.guarded(frozenset()):
        (tmp_path / "file").write_text("x")
        (tmp_path / "directory").mkdir()
        os.symlink("/etc", tmp_path / "link")
        os.rename(tmp_path / "file", tmp_path / "other")
        Path("relative").touch()
        descriptor = os.open(tmp_path, os.O_RDONLY)
        os.mkdir("below", dir_fd=descriptor)
        os.close(descriptor)
        shutil.rmtree(tmp_path / "directory")
        os.kill(os.getpid(), 0)
        Path("/etc/passwd").read_text()
        with open(os.devnull, "w") as file:
            file.write("x")


def test_a_mark_opens_the_way_that_it_names() -> None:
    with hostguard.guarded(frozenset({"processes", "loopback"})):
        subprocess.run([sys.executable, "-c", ""], check=True)
        bound(socket.AF_INET, ("127.0.0.1", 0))()


def test_a_mark_with_an_unknown_way_is_an_error() -> None:
    with pytest.raises(AssertionError, match="none of"), hostguard.guarded(frozenset({"loopbak"})):
        pass
