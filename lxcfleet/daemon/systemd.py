"""The daemon's dealings with systemd: passed sockets, messages of readiness, the watchdog."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import socket
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

from lxcfleet.host.process.proc import RAN_ANEW
from lxcfleet.runtime.pace import sleep_in_step
from lxcfleet.runtime.tasks import Tasks

log = logging.getLogger(__name__)

_FIRST = 3
"""The descriptor of the first passed socket; sd_listen_fds(3)."""


def activated() -> bool:
    """Whether systemd opened the sockets: then a socket that answers does not prove that another daemon runs."""
    return os.environ.get("LISTEN_PID") == str(os.getpid())


def sockets() -> list[socket.socket]:
    """The sockets of the socket unit; sd_listen_fds(3)."""
    if not activated():
        return []
    count = int(os.environ.pop("LISTEN_FDS", "0"))
    for name in ("LISTEN_PID", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    return [socket.socket(fileno=_FIRST + number) for number in range(count)]


ANEW = 75
"""The exit status of a daemon that is to be started anew; the unit has it, too. sysexits.h: EX_TEMPFAIL."""

START_SECONDS = 1800.0
"""The longest time, in seconds, that a start may take."""
MORE_SECONDS = 90
"""How many seconds more a start asks for; it does so again long before these are over."""


def restarts() -> bool:
    """Whether systemd started the daemon, and so starts it anew when it ends with the status ``ANEW``."""
    return "NOTIFY_SOCKET" in os.environ and "INVOCATION_ID" in os.environ


def run_anew(sockets: Sequence[int]) -> NoReturn:
    """Start the daemon's program anew, as it is on disk now. ``sockets``: those that it listens on, where clients wait.

    systemd keeps these sockets. Without systemd, this process runs the program anew and hands them over as systemd would.
    """
    if restarts():
        sys.exit(ANEW)
    spare = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, _FIRST + len(sockets)) for each in sockets]
    for number, each in enumerate(spare):
        os.dup2(each, _FIRST + number)
    passed = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(spare)), RAN_ANEW: f"{time.time():f}"}
    os.execve(sys.executable, sys.orig_argv, {**os.environ, **passed})


def notify(state: str) -> None:
    """Tell systemd the daemon's state; sd_notify(3). Does not block: the message is lost while systemd reads none."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            try:
                sender.sendto(state.encode(), socket.MSG_DONTWAIT, address.replace("@", "\0", 1))
            except BlockingIOError:
                log.warning("systemd could not be told %s: it reads nothing", state)


async def ask_for_time(longest: float = START_SECONDS) -> None:
    """Tell systemd regularly that the start goes on, until cancelled, or for ``longest`` seconds.

    On a busy host a start may take longer than the unit's TimeoutStartSec=. Without this systemd would break it off, and
    each one after it. A start that hangs, so that the event loop does not run, is still broken off.
    """
    deadline = time.monotonic() + longest
    while time.monotonic() < deadline:
        notify(f"EXTEND_TIMEOUT_USEC={MORE_SECONDS * 1_000_000}")
        await asyncio.sleep(MORE_SECONDS / 9)


def watchdog_seconds() -> float | None:
    """Seconds between two signs of life that systemd wants; None: it wants none. See sd_watchdog_enabled(3)."""
    limit = os.environ.get("WATCHDOG_USEC", "")
    return int(limit) / 3e6 if limit.isdigit() else None


async def feed_watchdog(seconds: float, tasks: Tasks) -> None:
    """Tell systemd regularly that the event loop runs; never returns.

    It tells nothing while a background task keeps failing, so that systemd ends the daemon and starts it anew.
    """
    while True:
        if not tasks.hopeless():
            notify("WATCHDOG=1")
        await sleep_in_step(seconds)
