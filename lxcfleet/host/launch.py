"""The daemon's end of the launcher: starts it, sends it requests, gets replies. See launcher for the protocol."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lxcfleet.errors import HostError
from lxcfleet.names import Paths

log = logging.getLogger(__name__)

_MAX_DATAGRAM = 65536
_MAX_REPLY = 65536
_DIED = "the process that did it ended before it was done"


class Reply(NamedTuple):
    """One answer of a child, with the descriptor that came along, which the caller closes."""

    body: Any
    descriptor: int | None


class Launcher:
    """The running launcher; started anew whenever it is gone."""

    def __init__(self, paths: Paths, lock: int) -> None:
        self._paths = paths
        self._lock = lock
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None
        self._sending = asyncio.Lock()
        self.generation = 0
        """Grows with each launcher started: what the last one had mounted is gone."""

    @property
    def pid(self) -> int | None:
        """The launcher's process id."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> socket.socket:
        """Make sure that a launcher runs; the socket for requests."""
        if self._requests is not None and self._process is not None and self._process.poll() is None:
            return self._requests
        self.close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        package = str(Path(__file__).resolve().parent.parent.parent)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-s", "-m", "lxcfleet.launcher", str(theirs.fileno()), str(self._lock)],
                pass_fds=(theirs.fileno(), self._lock),
                stdin=subprocess.DEVNULL,
                env={**os.environ, **self._paths.environment(), "PYTHONPATH": package},
                start_new_session=True,
            )
        ours.setblocking(False)
        self._requests = ours
        self.generation += 1
        log.debug("launcher %d started", self._process.pid)
        return ours

    def close(self) -> None:
        """Let the launcher end. Its children finish what they do."""
        if self._requests is not None:
            self._requests.close()
            self._requests = None
        if self._process is not None:
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def kill(self) -> None:
        """End the launcher the hard way; for tests of what survives that."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)

    async def send(self, operation: str, argument: bytes, descriptors: Sequence[int]) -> None:
        """Send one request. The launcher gets copies of ``descriptors``; the first is the reply socket."""
        message = operation.encode() + b" " + argument
        passed = list(descriptors)
        memory = -1
        if len(message) > _MAX_DATAGRAM:
            memory = os.memfd_create("request", os.MFD_CLOEXEC)
            with open(memory, "wb", closefd=False) as file:
                file.write(message)
            os.lseek(memory, 0, os.SEEK_SET)
            message, passed = b"", [passed[0], memory, *passed[1:]]
        try:
            for attempt in (1, 2):
                try:
                    async with self._sending:
                        await _send(self.start(), message, passed)
                except OSError as error:
                    if attempt == 2:
                        raise HostError("the launcher can't be reached", why=str(error)) from error
                else:
                    return
        finally:
            if memory >= 0:
                os.close(memory)

    async def stream(self, operation: str, argument: Any, descriptors: Sequence[int] = ()) -> AsyncIterator[Reply]:
        """Send a request and give its replies until the child is done. ``argument``: text as it is, else JSON."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with ours:
            with theirs:
                data = argument if isinstance(argument, str) else json.dumps(argument)
                await self.send(operation, data.encode(), [theirs.fileno(), *descriptors])
            while True:
                await _readable(ours)
                message, passed, _, _ = socket.recv_fds(ours, _MAX_REPLY, 1)
                if not message:
                    return
                yield Reply(json.loads(message), passed[0] if passed else None)

    async def ask(self, operation: str, argument: Any, descriptors: Sequence[int] = ()) -> Any:
        """The body of the one reply to a request; raises HostError if the child died unanswered."""
        answer: list[Any] = [reply.body async for reply in self.stream(operation, argument, descriptors)]
        if not answer:
            raise HostError(f"{operation} failed", why=_DIED, hint="`journalctl -u lxcfleet` may have the reason")
        return answer[0]


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sock)


async def _send(sock: socket.socket, message: bytes, descriptors: Sequence[int]) -> None:
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
