"""A process of ours that takes requests on a socket; and sending datagrams in the event loop."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence

from lxcfleet.errors import HostError
from lxcfleet.host.process import descriptors

log = logging.getLogger(__name__)

_NO_LIMIT = resource.RLIM_INFINITY
_LIMITS = {
    resource.RLIMIT_AS: (_NO_LIMIT, _NO_LIMIT),
    resource.RLIMIT_CORE: (0, _NO_LIMIT),
    resource.RLIMIT_CPU: (_NO_LIMIT, _NO_LIMIT),
    resource.RLIMIT_DATA: (_NO_LIMIT, _NO_LIMIT),
    resource.RLIMIT_FSIZE: (_NO_LIMIT, _NO_LIMIT),
    resource.RLIMIT_MEMLOCK: (8 << 20, 8 << 20),
    resource.RLIMIT_RSS: (_NO_LIMIT, _NO_LIMIT),
    resource.RLIMIT_RTPRIO: (0, 0),
    resource.RLIMIT_STACK: (8 << 20, _NO_LIMIT),
}
"""The limits of a login of systemd's; systemd-system.conf(5). Containers inherit it, whatever the daemon was started with or
needs for itself. The limit of open files is in host.process.descriptors."""
_END_SECONDS = 5.0
"""Seconds that a servant which is let go may take to end before it is killed."""


def _set_limits(pid: int) -> None:
    """Give a process the usual limits, as far as this one may."""
    for which, limits in [*_LIMITS.items(), (resource.RLIMIT_NOFILE, descriptors.usual())]:
        _set_limit(pid, which, limits)


def _set_limit(pid: int, which: int, limits: tuple[int, int]) -> None:
    """To raise a hard limit takes a capability."""
    soft, most = limits[0], resource.getrlimit(which)[1]
    try:
        resource.prlimit(pid, which, limits)
    except (PermissionError, ValueError):
        reachable = soft if most == _NO_LIMIT else most if soft == _NO_LIMIT else min(soft, most)
        resource.prlimit(pid, which, (reachable, most))


class Servant:
    """A process of ours that takes requests on a socket; it is started again whenever it is gone."""

    def __init__(
        self, name: str, arguments: Sequence[str], lock: int, environment: Mapping[str, str], *, wide: bool = False
    ) -> None:
        """``wide``: it may have as many descriptors as the host allows, and not only the usual ones."""
        self._name = name
        self._wide = wide
        self._arguments = arguments
        self._lock = lock
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None
        self._sending = asyncio.Lock()
        self._in_use: socket.socket | None = None
        """The socket on which a request is being sent."""
        self.generation = 0
        """Counts the processes that were started."""

    @property
    def pid(self) -> int | None:
        """The process id, while the process runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> socket.socket:
        """Make sure that the process runs; returns the socket for requests."""
        if self._requests is not None and self.pid is not None:
            return self._requests
        self.close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        arguments = [word.format(requests=theirs.fileno(), lock=self._lock) for word in self._arguments]
        # A program gets the limit of the stack that its process had when execve(2) was called, whatever was set meanwhile
        # (finalize_exec() in Linux's fs/exec.c). So the process inherits the right one from this one.
        _set_limit(os.getpid(), resource.RLIMIT_STACK, _LIMITS[resource.RLIMIT_STACK])
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                pass_fds=(theirs.fileno(), self._lock),
                stdin=subprocess.DEVNULL,
                cwd="/",
                env=self._environment,
                start_new_session=True,
            )
            _set_limits(self._process.pid)
            if self._wide:
                descriptors.widen(self._process.pid)
        ours.setblocking(False)
        self._requests = ours
        self.generation += 1
        log.debug("%s started, pid %d", self._name, self._process.pid)
        return ours

    def close(self) -> None:
        """Let the process end, and wait some seconds for that; then it is killed. Its children finish their work."""
        process = self._let_go()
        if process is not None:
            _wait(process)

    async def end(self) -> None:
        """The same, while the event loop goes on. Requests that arrive meanwhile go to a new process."""
        process = self._let_go()
        if process is not None:
            await asyncio.to_thread(_wait, process)

    def _let_go(self) -> subprocess.Popen[bytes] | None:
        if self._requests is not None:
            if self._requests is self._in_use:
                # The loop hears nothing of a closed socket, so who waits there for room would wait for ever.
                self._requests.shutdown(socket.SHUT_RDWR)
            else:
                self._requests.close()
            self._requests = None
        process, self._process = self._process, None
        return process

    async def send(self, message: bytes, descriptors: Sequence[int]) -> None:
        """Send one request; the process gets copies of ``descriptors``. Raises HostError."""
        for attempt in (1, 2):
            try:
                async with self._sending:
                    await self._send(message, descriptors)
            except OSError as error:
                if attempt == 2:
                    raise HostError(f"the {self._name} can't be reached", why=str(error)) from error
            else:
                return

    async def _send(self, message: bytes, descriptors: Sequence[int]) -> None:
        requests = self._in_use = self.start()
        try:
            await send_datagram(requests, message, descriptors)
        except ConnectionError:
            if requests is self._requests:
                await self.end()  # it is about to end, though it is still there
            raise
        finally:
            self._in_use = None
            if requests is not self._requests:
                requests.close()


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


async def readable(sock: socket.socket) -> None:
    """Return when there is something to read."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    descriptor = sock.fileno()  # of the socket itself, asyncio would make a text, with two questions to the kernel
    loop.add_reader(descriptor, _set, ready)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def send_datagram(sock: socket.socket, message: bytes, descriptors: Sequence[int]) -> None:
    """Send one datagram, waiting for room. One sender at a time: a socket has one writer in the loop."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            socket.send_fds(sock, [message], descriptors)
            return
        except BlockingIOError:
            ready = asyncio.Event()
            loop.add_writer(sock, ready.set)
            try:
                await ready.wait()
            finally:
                loop.remove_writer(sock)
