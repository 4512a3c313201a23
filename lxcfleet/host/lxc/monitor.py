"""Containers' monitors, and how to tell them from impostors.

A monitor listens on the abstract socket @LXCPATH/NAME/command (liblxc's commands.c). While the container is stopped,
any user of the host can listen there, and liblxc believes the answers: which process is the container's first, whose
namespaces to enter. So before liblxc is asked, the kernel is asked who called listen(2); unix(7), SO_PEERCRED.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lxcfleet.errors import HostError, WrongState
from lxcfleet.host.process import proc
from lxcfleet.host.process.peer import peer

ROOT = 0
_PATIENCE = 5.0
"""Seconds that a monitor may take until it has served earlier clients."""


def claimed(lxc_path: str) -> set[str]:
    """Names of the containers below ``lxc_path`` for which some process has the monitor's address, whoever owns it.

    The kernel removes the address with the process, so this is never out of date. unix(7) on /proc/net/unix.
    """
    prefix = f"@{lxc_path}/"
    found = set()
    with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            _, at, address = line.rstrip("\n").partition(prefix)
            name, slash, rest = address.partition("/")
            if at and slash and rest == "command":
                found.add(name)
    return found


def listener(name: str, lxc_path: str) -> int | None:
    """The uid of the process that listens on the monitor's address; None if none does.

    Does not wait. Raises HostError if too many other clients wait, so that this can't be told.
    """
    try:
        with _connected(name, lxc_path, 0.0) as connection:
            return peer(connection).uid
    except ConnectionRefusedError:
        return None


def runs(name: str, lxc_path: str) -> bool:
    """Whether the container has a monitor: a process of root's. Raises HostError as ``listener``."""
    return listener(name, lxc_path) == ROOT


def refuse_impostor(name: str, lxc_path: str) -> None:
    """Raise WrongState if a user other than root has the address of the container's monitor, as then it can't start."""
    uid = listener(name, lxc_path)
    if uid != ROOT and (uid is not None or name in claimed(lxc_path)):
        raise WrongState(f"{name} can't start", why=posing(name, lxc_path, uid), hint=_hint(name, lxc_path))


def posing(name: str, lxc_path: str, uid: int | None) -> str:
    """The complaint about a process of ``uid`` that has a monitor's address; None: it does not even listen."""
    who = "some process" if uid is None else f"a process of uid {uid}"
    return f"{who}, which is not its monitor, has the socket @{lxc_path}/{name}/command"


def _hint(name: str, lxc_path: str) -> str:
    return f"find and end it: ss -xap | grep -F @{lxc_path}/{name}/command"


def end_hung(name: str, lxc_path: str) -> bool:
    """Kill the monitor of a container whose start hangs, and what it has forked; returns whether there was one.

    It answers nobody, so liblxc can't be asked. Its title tells it: only root's processes count, as anybody may take one.
    """
    title = f"[lxc monitor] {lxc_path} {name}\0".encode()
    hung = [pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if _has_title(pid, title)]
    for pid in hung:
        for each in (pid, *proc.children(pid)):  # the monitor first, so that it does not go on once its child has ended
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
    return bool(hung)


def _has_title(pid: int, title: bytes) -> bool:
    try:
        return os.stat(f"/proc/{pid}").st_uid == ROOT and Path(f"/proc/{pid}/cmdline").read_bytes().startswith(title)
    except OSError:  # it has ended
        return False


@contextmanager
def held(name: str, lxc_path: str) -> Iterator[Callable[[], bool]]:
    """Keep a connection to the container's monitor while liblxc speaks to it.

    The returned function tells whether the monitor has been there all the time: as soon as a monitor ends, another process
    can take its place. Raises WrongState if there is no monitor, HostError if it accepts no connection.
    """
    start = f"start it: lxcfleet start {name}"
    try:
        with _connected(name, lxc_path, _PATIENCE) as connection:
            uid = peer(connection).uid
            if uid != ROOT:
                raise WrongState(f"{name} is not running", why=posing(name, lxc_path, uid), hint=_hint(name, lxc_path))
            end = select.poll()
            end.register(connection, 0)  # POLLHUP and POLLERR are always told
            yield lambda: not end.poll(0)
    except ConnectionRefusedError:
        raise WrongState(f"{name} is not running", hint=start) from None


@contextmanager
def _connected(name: str, lxc_path: str, patience: float) -> Iterator[socket.socket]:
    """A connection without a request, which a monitor does not mind. Raises ConnectionRefusedError, HostError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        if patience:  # Python's own timeout makes the socket non-blocking, and connect would not wait here.
            wait = struct.pack("ll", int(patience), int(patience % 1 * 1e6))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, wait)
        else:
            connection.setblocking(False)
        try:
            connection.connect(f"\0{lxc_path}/{name}/command")
        except ConnectionRefusedError:
            raise
        except OSError as error:
            raise HostError.from_os_error(f"who answers for {name} can't be told", error) from error
        yield connection
