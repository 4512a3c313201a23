"""Keeps tests off the host: what reaches beyond their own files fails there and then.

It hears what Python does by sys.addaudithook. Writing anywhere but below the directory for temporary files, sockets of
the network, starting or signalling processes: all of that raises HostReached, and fails the test also where the code
under test takes that for an error and goes on. A test that needs one of the ways says so, and why:

    @pytest.mark.reaches("processes", reason="the signal of a real process is read")
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WAYS = {
    "processes": "start processes, and send signals",
    "loopback": "listen and connect at 127.0.0.1 and ::1",
    "abstract sockets": "sockets that have a name instead of a file",
    "devices": "open devices in /dev",
    "host sockets": "ask who listens where; bind a port of the host's that nobody has",
}

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_ROOT = Path(__file__).resolve().parents[1]
_ALLOWED = (tempfile.gettempdir(), str(_ROOT / ".hypothesis"), str(_ROOT / ".pytest_cache"), "/proc/self/")
_DEVICES = ("/dev/null", "/dev/tty", "/dev/ptmx", "/dev/pts/", "/dev/shm/")


class HostReached(AssertionError):
    """A test did something to the host."""


class _Guard:
    """What one test may do, and what it did all the same."""

    def __init__(self, ways: frozenset[str]) -> None:
        self.ways = ways
        self.found: list[str] = []

    def refuse(self, what: str) -> None:
        self.found.append(what)
        raise HostReached(f"a test must not reach the host: {what} (see tests/hostguard.py)")

    def need(self, way: str, what: str) -> None:
        if way not in self.ways:
            self.refuse(f"{what}, which takes the mark reaches({way!r}, reason=…)")


_guard: _Guard | None = None
_installed = False


@contextmanager
def guarded(ways: frozenset[str]) -> Iterator[None]:
    """Whoever runs in here is kept off the host, but for these ways."""
    global _guard, _installed  # noqa: PLW0603  # a hook can't be taken away, so there is one for the whole run
    unknown = ways - WAYS.keys()
    assert not unknown, f"reaches: {sorted(unknown)} is none of {sorted(WAYS)}"
    if not _installed:
        sys.addaudithook(_hear)
        _installed = True
    before = _guard
    guard = _guard = _Guard(ways)
    try:
        yield
    finally:
        _guard = before
    assert not guard.found, f"the host was reached: {guard.found}"


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _guard is not None and (check := _CHECKS.get(event)) is not None:
        check(_guard, event, arguments)


def _opened(guard: _Guard, _event: str, arguments: tuple[Any, ...]) -> None:
    path, _mode, flags = arguments
    if isinstance(path, str | bytes) and flags & _WRITES:
        name = os.fsdecode(path)
        if name.startswith("/") and not name.startswith(_DEVICES):  # others are relative to a directory that is open
            if name.startswith("/dev/"):
                guard.need("devices", f"open {name}")
            else:
                _check(guard, "open", name)


def _changed(count: int) -> Callable[[_Guard, str, tuple[Any, ...]], None]:
    """Of an event whose first ``count`` arguments are paths and whose last as many may be directories that are open."""

    def check(guard: _Guard, event: str, arguments: tuple[Any, ...]) -> None:
        for number in range(count):
            _check(guard, event, _whole(arguments[number], arguments[len(arguments) - count + number]))

    return check


def _whole(path: Any, directory: Any) -> str:
    if isinstance(path, int):
        return os.readlink(f"/proc/self/fd/{path}")
    name = os.fsdecode(path)
    if not name.startswith("/") and isinstance(directory, int) and directory >= 0:
        return os.path.join(os.readlink(f"/proc/self/fd/{directory}"), name)
    return os.path.abspath(name)


def _check(guard: _Guard, event: str, path: str) -> None:
    name = os.path.normpath(path)
    if not name.startswith(_ALLOWED) and "/__pycache__/" not in name and "(deleted)" not in name:
        guard.refuse(f"{event} {path}")


def _addressed(guard: _Guard, event: str, arguments: tuple[Any, ...]) -> None:
    address = arguments[1]
    if isinstance(address, str | bytes):
        name = os.fsdecode(address)
        if name.startswith("\0"):
            guard.need("abstract sockets", f"{event} {name!r}")
        elif name.startswith("/"):
            _check(guard, event, name)
    elif isinstance(address, tuple) and address and isinstance(address[0], str):
        if address[0].startswith("127.") or address[0] == "::1":
            guard.need("loopback", f"{event} {address}")
        else:
            guard.need("host sockets", f"{event} {address}")
    elif address is not None:
        guard.refuse(f"{event} {address!r}")


def _started(guard: _Guard, event: str, arguments: tuple[Any, ...]) -> None:
    guard.need("processes", f"{event} {arguments[0] if arguments else ''}")


def _signalled(guard: _Guard, event: str, arguments: tuple[Any, ...]) -> None:
    if arguments[1] != 0:
        guard.need("processes", f"{event} {arguments}")


_CHECKS: dict[str, Callable[[_Guard, str, tuple[Any, ...]], None]] = {
    "open": _opened,
    **dict.fromkeys(("socket.bind", "socket.connect", "socket.sendto", "socket.sendmsg"), _addressed),
    **dict.fromkeys(
        ("subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"), _started
    ),
    **dict.fromkeys(("os.kill", "os.killpg"), _signalled),
    **dict.fromkeys(
        ("os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.chown", "os.truncate", "os.utime", "os.setxattr", "os.mknod"),
        _changed(1),
    ),
    "os.symlink": lambda guard, event, arguments: _check(guard, event, _whole(arguments[1], arguments[2])),
    "os.rename": _changed(2),
    "os.link": _changed(2),
}
