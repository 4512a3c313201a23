"""Connections of users other than root to containers' monitors.

Any user of the host, and root of any container in the host's network, can connect to the monitor's abstract socket. liblxc
refuses what they ask, but keeps a connection that asks nothing, for ever and without a limit. If the monitor has no
descriptor left for the next one, it ends, and its container with it (liblxc's commands.c, lxc_cmd_accept). So a monitor gets
all descriptors that the host allows, and connections of others are shut down long before they are used up.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from lxcfleet.host.kernel import syscalls
from lxcfleet.host.lxc.monitor import ROOT
from lxcfleet.host.process import proc
from lxcfleet.host.process.peer import uid_of

_POKES = 4096
_COUNTS = re.compile(rb"^UNIX\S* +\d+ +(\d+) ", re.MULTILINE)
"""The third column of a line such as ``UNIX 1024 547 -1 NI 0 yes kernel …``; UNIX-STREAM is one of its own."""


def shut_out(monitor: int, address: str) -> Counter[int]:
    """Shut down all connections of users other than root to the abstract socket ``address`` of the process ``monitor``.

    The process then sees their end, and closes them. Meanwhile it is stopped: it can accept three times as many in a second
    as can be shut down. Returns how many each user had. Raises OSError if the process is gone.
    """
    shut: Counter[int] = Counter()
    name = b"\0" + os.fsencode(address)
    process = os.pidfd_open(monitor)
    try:
        signal.pidfd_send_signal(process, signal.SIGSTOP)
        for connection, _ in _sockets(process, monitor):
            with connection, contextlib.suppress(OSError):  # no Unix socket
                # Of the listening socket, this is the uid of the process that listens.
                uid = uid_of(connection)
                if uid != ROOT and connection.getsockname() == name:
                    connection.shutdown(socket.SHUT_RDWR)
                    shut[uid] += 1
    finally:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGCONT)
        os.close(process)
    return shut


def was_called(monitor: int, address: str) -> bool | None:
    """Whether anybody has a connection to the abstract socket ``address`` of the process ``monitor``; None: nobody can tell.

    liblxc's monitor keeps a connection until its client closes it, and all of them once its container has ended.
    """
    name, listens = b"\0" + os.fsencode(address), False
    try:
        process = os.pidfd_open(monitor)
    except OSError:  # it has ended
        return None
    try:
        for connection, _ in _sockets(process, monitor):
            with connection, contextlib.suppress(OSError):  # no Unix socket
                if connection.getsockname() == name:
                    if not connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                        return True
                    listens = True
    except OSError:  # it ends at this moment
        return None
    finally:
        os.close(process)
    return False if listens else None


class SocketCount:
    """Tells how many Unix sockets there are in this network namespace, with those that nobody has accepted yet.

    Each connection to a monitor is one of them, so no monitor has more connections. The kernel tells the number without
    looking at each socket (/proc/net/protocols; net/core/sock.c, proto_seq_printf), and that of all sockets, which are at
    least as many, in a tenth of the time (/proc/net/sockstat). The files stay open: to open them anew takes several times as
    long as to read them.
    """

    _MOST_BYTES = 65536

    def __init__(self) -> None:
        self._exact, self._all = (_opened(f"/proc/thread-self/net/{name}") for name in ("protocols", "sockstat"))

    def now(self) -> int | None:
        """The present number; None: the kernel does not tell it."""
        if self._exact is None:
            return None
        try:
            text = os.pread(self._exact, self._MOST_BYTES, 0)
            return sum(map(int, _COUNTS.findall(text))) if b"UNIX" in text else None
        except OSError:
            return None

    def most(self, few: int) -> int | None:
        """A number that is not less than the present one, nor more if it is above ``few``; None: the kernel tells none."""
        if self._all is not None:
            with contextlib.suppress(OSError, ValueError):
                total = int(os.pread(self._all, self._MOST_BYTES, 0).removeprefix(b"sockets: used ").partition(b"\n")[0])
                if total <= few:
                    return total
        return self.now()

    def close(self) -> None:
        """Count no more."""
        for descriptor in (self._exact, self._all):
            if descriptor is not None:
                os.close(descriptor)
        self._exact = self._all = None


class Callers:
    """Tells when somebody connects to a monitor, and when a file can be read, so that nobody need look all the time.

    A listening socket is waited for by a copy of its descriptor, which is closed at once. The kernel goes on for as long as
    the monitor itself has the socket (epoll(7), question 6), so nothing here keeps a socket from ending with its monitor. It
    may not tell of a connection that the monitor accepts before this process runs. Of a few thousand it tells of some.
    """

    def __init__(self, readable: int | None) -> None:
        """``readable``: a descriptor that is waited for, too. Raises OSError."""
        self._epoll = select.epoll()
        self._readable = readable
        self._likely: int | None = None
        """The number that the socket had in the monitor before: liblxc opens the same files in each."""
        self._poked, self._poke = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._epoll.register(self._poked, select.EPOLLIN)
        if readable is not None:
            self._epoll.register(readable, select.EPOLLONESHOT)

    def add(self, monitor: int, address: str) -> bool:
        """Wait also for connections to the abstract socket ``address`` of the process ``monitor``. False: that can't be."""
        try:
            process = os.pidfd_open(monitor)
        except OSError:  # it has ended, and nobody connects to it any more
            return True
        try:
            return self._add(process, monitor, b"\0" + os.fsencode(address))
        except OSError:  # it ends at this moment, or the kernel tells no more
            return False
        finally:
            os.close(process)

    def _add(self, process: int, monitor: int, name: bytes) -> bool:
        likely = () if self._likely is None else (self._likely,)
        for connection, number in chain(_copies(process, likely), _sockets(process, monitor)):
            with connection, contextlib.suppress(OSError):  # no Unix socket
                if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) and connection.getsockname() == name:
                    with contextlib.suppress(FileExistsError):  # it is waited for already
                        self._epoll.register(connection.fileno(), select.EPOLLIN | select.EPOLLET)
                    self._likely = number
                    return True
        return False

    def poke(self) -> None:
        """End the present wait, or the next one, as if somebody had connected. Any thread may call this."""
        with contextlib.suppress(BlockingIOError):  # nobody has waited since many others of these
            os.write(self._poke, b"\0")

    def wait(self, seconds: float, *, read: bool) -> bool:
        """Wait until somebody connects, for so long at most; returns whether somebody did. ``read``: return also once the
        file can be read."""
        if self._readable is not None and read:
            self._epoll.modify(self._readable, select.EPOLLIN | select.EPOLLONESHOT)
        came = {number for number, _ in self._epoll.poll(seconds)} - {self._readable}
        if self._poked in came:
            os.read(self._poked, _POKES)
        return bool(came)

    def close(self) -> None:
        """Wait no more."""
        self._epoll.close()
        os.close(self._poked)
        os.close(self._poke)


def _opened(path: str) -> int | None:
    with contextlib.suppress(OSError):
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return None


def let_go_on(lxc_path: str) -> None:
    """Let monitors go on that a daemon stopped and, as that was killed, did not let go on: they would answer nobody."""
    title = f"[lxc monitor] {lxc_path} ".encode()
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and proc.is_stopped(int(entry)):
            with contextlib.suppress(OSError):  # it has ended
                root = os.stat(f"/proc/{entry}").st_uid == ROOT
                if root and Path(f"/proc/{entry}/cmdline").read_bytes().startswith(title):
                    os.kill(int(entry), signal.SIGCONT)


def _sockets(process: int, pid: int) -> Iterator[tuple[socket.socket, int]]:
    """Copies of the sockets of a process, with their numbers there. Raises OSError if it is gone."""
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):  # closed meanwhile
            if os.readlink(f"/proc/{pid}/fd/{number}").startswith("socket:"):
                yield from _copies(process, (int(number),))


def _copies(process: int, numbers: Iterable[int]) -> Iterator[tuple[socket.socket, int]]:
    for number in numbers:
        with contextlib.suppress(OSError):  # there is none, or not any more
            copy = syscalls.descriptor_of(process, number)
            yield socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=copy), number
