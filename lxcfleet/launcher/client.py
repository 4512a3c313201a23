"""The daemon's end of the launcher, the booter and the attacher: starts them, sends requests, receives replies; see there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar, cast

from lxcfleet.errors import ErrorBody, HostError, from_body
from lxcfleet.host.lxc import BOOTER
from lxcfleet.host.packages import dpkg
from lxcfleet.host.process import descriptors, outdated, passing
from lxcfleet.host.process.servant import Servant, readable, send_datagram
from lxcfleet.launcher.operations import CHILD_SECONDS, OF_ATTACHER, Ask, Each, Large, LauncherOperation, RunProgram
from lxcfleet.paths import Paths

log = logging.getLogger(__name__)

A = TypeVar("A")
R = TypeVar("R")

LAUNCHER, BOOTER_NAME, ATTACHER = "launcher", "booter", "attacher"
SERVANTS = (LAUNCHER, BOOTER_NAME, ATTACHER)
_MAX_DATAGRAM = 65536
_MAX_REPLY = 65536
_PATH = "/usr/sbin:/sbin"
"""If newuidmap can't be found, liblxc writes the id maps itself, as root may: that saves two programs per start."""
_DIED = "the process that did it ended before it was done"
_SEE_LOG = "`journalctl -u lxcfleet` may have the reason"
_MORE_SECONDS = 5.0
"""The seconds from the alarm that ends a child to the moment when its answer is given up."""
HANGS_SECONDS = 100.0
"""A boot whose process ended after more than so many seconds was ended by its own alarm (see booter), not by somebody."""
LOOK_SECONDS = 1.0
"""Seconds between two checks whether the booter runs old code; they are made before a boot."""
TRIES = 2
"""How often a request without an answer is made: the first time, somebody may have killed the launcher."""


class Died(HostError):
    """The process that got a request ended without an answer. It may have done the work."""


class Hung(Died):
    """A boot took longer than any may, and its process ended. Its monitor may still be there, and hang."""


@dataclass(frozen=True)
class Reply(Generic[R]):
    """One answer of a child, with the descriptor that came along. The caller closes that."""

    body: R
    descriptor: int | None

    def close(self) -> None:
        """Close the descriptor, if one came along."""
        if self.descriptor is not None:
            os.close(self.descriptor)

    def file(self) -> BinaryIO:
        """The memory file that came along. Raises HostError if none did."""
        if self.descriptor is None:
            raise _unreadable("it came without its file, as where the daemon has no file descriptor left")
        return open(self.descriptor, "rb")


class Conversation(Generic[A, R]):
    """The exchange with a child that does an operation."""

    def __init__(self, sock: socket.socket, generation: int) -> None:
        self._socket = sock
        self.generation = generation
        """The generation of the launcher that forked the child."""

    async def say(self, argument: A) -> None:
        """Send the child a further argument; raises OSError if it is gone."""
        message = json.dumps(argument).encode()
        if len(message) <= _MAX_DATAGRAM:
            await send_datagram(self._socket, message, [])
            return
        with _memory(message) as memory:
            await send_datagram(self._socket, b"", [memory])

    async def hear(self) -> Reply[R] | None:
        """The child's next reply; None if there will be no more. Raises HostError if it can't be read."""
        await readable(self._socket)
        try:
            message, passed = passing.received(self._socket, _MAX_REPLY, 1)
        except ConnectionError:
            return None
        reply: Reply[Any] = Reply(None, passed[0] if passed else None)
        try:
            if message:
                return replace(reply, body=json.loads(message))
        except (ValueError, RecursionError) as error:
            reply.close()
            raise _unreadable(type(error).__name__) from None
        reply.close()
        return None

    def close(self) -> None:
        """End the requests: the child ends once it has done its present work."""
        self._socket.close()

    async def end(self) -> None:
        """The same, and return once the child has ended: then its work is done, undone, or left by half if it was killed."""
        with contextlib.suppress(OSError):  # it has ended already
            self._socket.shutdown(socket.SHUT_WR)
        while (reply := await self.hear()) is not None:
            reply.close()


class Launcher(ABC):
    """Does what the daemon must not do itself: each operation runs in a process of its own."""

    @property
    @abstractmethod
    def generation(self) -> int:
        """Grows with each launcher started: everything that the former one had mounted is gone."""

    @property
    @abstractmethod
    def processes(self) -> dict[str, int]:
        """The pids of the processes that run, by the name of each."""

    @abstractmethod
    def start(self) -> None:
        """Make sure that the launcher runs."""

    @abstractmethod
    def close(self) -> None:
        """Let the launcher end."""

    @abstractmethod
    async def renew(self, names: Collection[str]) -> None:
        """End those processes; each is started anew for the next request."""

    @abstractmethod
    async def boot(self, name: str, namespace: int, command: Sequence[str] = ()) -> int | None:
        """Start a container whose root is mounted in the mount namespace that the descriptor stands for. Closes that as soon
        as the booter has it: whoever closes the last one unmounts the layers, which may wait for the host's disk.

        ``command``: of its process 1; empty: the one in its configuration, which must have the same effect.

        Returns the pid of its process 1 (-1 if it has ended already), or None if it could not be started. Raises Died if
        the process that tried was killed: then the container may run all the same; Hung if that took too long.
        """

    @abstractmethod
    async def send(self, operation: LauncherOperation[Any, Any], argument: bytes, descriptors: Sequence[int]) -> None:
        """Have a child begin an operation; it answers on the first descriptor."""

    # -- what is made of these -------------------------------------------------------------------------------

    async def converse(
        self, operation: LauncherOperation[A, R], argument: A | None = None, *descriptors: int
    ) -> Conversation[A, R]:
        """Have a child begin an operation; it gets copies of ``descriptors``. The caller closes the conversation."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            with theirs:
                await self.send(operation, json.dumps(argument).encode(), [theirs.fileno(), *descriptors])
        except BaseException:
            ours.close()
            raise
        return Conversation(ours, self.generation)

    async def ask(self, operation: Ask[A, R], argument: A) -> R:
        """The answer to a request that may be made twice; raises Died if no child lived to answer it.

        Nothing after the first answer counts. A child that ran a hostile program is not waited for, nor listened to for ever.
        """
        for _ in range(TRIES):
            conversation = await self.converse(operation, argument)
            try:
                async with asyncio.timeout(_longest(operation, argument)):
                    reply = await conversation.hear()
                if reply is not None:
                    reply.close()
                    if not isinstance(operation, RunProgram):  # what the child held is free once it has ended
                        await conversation.end()
                    return cast(R, _checked(operation, reply.body))
            except TimeoutError:
                raise Died(f"{operation} failed", why="it took longer than it may", hint=_SEE_LOG) from None
            finally:
                conversation.close()
        raise Died(f"{operation} failed", why=_DIED, hint=_SEE_LOG)

    async def each(self, operation: Each[A, R], argument: A) -> AsyncIterator[R]:
        """The answers in the order in which they come. If the child dies, some are missing."""
        conversation = await self.converse(operation, argument)
        try:
            while (reply := await conversation.hear()) is not None:
                reply.close()
                yield reply.body
        finally:
            conversation.close()

    async def ask_large(self, operation: Large[A, R], argument: A) -> R:
        """Like ``ask``, for an answer that comes in a memory file. Raises the child's error, or Died."""
        for _ in range(TRIES):
            conversation = await self.converse(operation, argument)
            try:
                reply = await conversation.hear()
            finally:
                conversation.close()
            if reply is not None:
                with reply.file() as file:
                    text = file.read()
                said: Any = reply.body
                if said["error"]:
                    raise from_body(said["error"])
                return cast(R, json.loads(text))
        raise Died(f"{operation} failed", why=_DIED, hint=_SEE_LOG)


class HostLauncher(Launcher):
    """The launcher, the booter and the attacher of this host: three processes."""

    def __init__(self, paths: Paths, lock: int) -> None:
        package = str(Path(__file__).resolve().parent.parent.parent)
        environment = {**os.environ, **paths.environment(), "PYTHONPATH": package, "PATH": _PATH}
        self._launcher, self._attacher = (
            Servant(name, ["-P", "-s", "-m", f"lxcfleet.launcher.{module}", "{requests}", "{lock}"], lock, environment)
            for name, module in ((LAUNCHER, "main"), (ATTACHER, "attacher"))
        )
        # Monitors get many descriptors from their first moment on, if liblxc may give containers their usual limits back.
        # Otherwise monitor_guard does that some milliseconds later.
        wide = descriptors.may_raise()
        soft, hard = descriptors.usual()
        boots = ["-I", "-S", str(BOOTER), "{requests}", str(paths.lxc), f"{soft}:{hard}" if wide else ""]
        self._looked = -LOOK_SECONDS
        self._booter = Servant("booter", boots, lock, environment, wide=wide)
        self._servants = {LAUNCHER: self._launcher, BOOTER_NAME: self._booter, ATTACHER: self._attacher}

    @property
    def generation(self) -> int:
        """Grows with each launcher started: everything that the former one had mounted is gone."""
        return self._launcher.generation

    @property
    def processes(self) -> dict[str, int]:
        """The pids of the processes that run, by the name of each."""
        return {name: pid for name, each in self._servants.items() if (pid := each.pid) is not None}

    def start(self) -> None:
        """Make sure that the launcher and the booter run. The attacher is started for the first command."""
        self._launcher.start()
        self._booter.start()

    def close(self) -> None:
        """Let all of them end."""
        for servant in self._servants.values():
            servant.close()

    async def renew(self, names: Collection[str]) -> None:
        """End those processes; each is started anew for the next request. Containers and their monitors run on."""
        for name in names:
            await self._servants[name].end()

    async def boot(self, name: str, namespace: int, command: Sequence[str] = ()) -> int | None:
        """The same, by the booter. Raises Died if the process that tried was killed: then the container may run all the same;
        Hung if that took too long.
        """
        began = time.monotonic()
        try:
            ours = await self._ask_booter(name, namespace, command)
        finally:
            os.close(namespace)
        with ours:
            await readable(ours)
            answer = ours.recv(64)
        if not answer:
            kind = Hung if time.monotonic() - began > HANGS_SECONDS else Died
            raise kind(f"{name} did not start", why=_DIED)
        pid: int | None = json.loads(answer)
        return pid

    async def _ask_booter(self, name: str, namespace: int, command: Sequence[str]) -> socket.socket:
        """The socket on which the booter's child will answer."""
        await self._freshen()
        message = "\0".join((name, *command)).encode()
        if len(message) > _MAX_DATAGRAM:
            message = name.encode()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            with theirs:
                await self._booter.send(message, [theirs.fileno(), namespace])
        except BaseException:
            ours.close()
            raise
        return ours

    async def _freshen(self) -> None:
        """Renew a booter that runs old code, whatever the policy for patches is, as monitors would have that code, too.

        This does nothing while dpkg is at work, as no process should be started from half-installed packages.
        """
        moment = time.monotonic()
        if moment - self._looked < LOOK_SECONDS:
            return
        self._looked = moment
        pid = self._booter.pid
        if pid is not None and _runs_old_code(pid) and dpkg.holder() is None:
            log.info("the booter ran old code and is started anew")
            await self._booter.end()

    async def send(self, operation: LauncherOperation[Any, Any], argument: bytes, descriptors: Sequence[int]) -> None:
        """Send a request to the launcher or the attacher; its child answers on the first descriptor."""
        servant = self._attacher if operation in OF_ATTACHER else self._launcher
        message = operation.encode() + b" " + argument
        if len(message) <= _MAX_DATAGRAM:
            await servant.send(message, descriptors)
            return
        with _memory(message) as memory:
            await servant.send(b"", [descriptors[0], memory, *descriptors[1:]])


def _longest(operation: Ask[Any, Any], argument: Any) -> float | None:
    """The seconds after which no answer comes any more, though somebody may still hold the other end of the socket: a copy
    of the child that was frozen with the container, on its way into that. None: only the child has the other end."""
    return argument["timeout"] + CHILD_SECONDS + _MORE_SECONDS if isinstance(operation, RunProgram) else None


def _checked(operation: Ask[Any, Any], body: Any) -> Any:
    """``body``, if it has the form of an answer. Raises HostError."""
    if not isinstance(body, dict):
        raise _unreadable("it is no object")
    error = body.get("error")
    if error is not None:
        if not isinstance(error, dict) or any(not isinstance(error.get(key), str) for key in ErrorBody.__annotations__):
            raise _unreadable("its error has no such form")
    elif isinstance(operation, RunProgram):
        status = body.get("status", "")
        if not (status is None or type(status) is int) or not isinstance(body.get("output"), str):
            raise _unreadable("it lacks the exit status or the output")
    return body


def _unreadable(why: str) -> HostError:
    return HostError("the answer of a process of the launcher can't be read", why=why, hint=_SEE_LOG)


@contextmanager
def _memory(message: bytes) -> Iterator[int]:
    """A descriptor from which ``message`` can be read, for a request that is too large for a datagram."""
    memory = os.memfd_create("request", os.MFD_CLOEXEC)
    try:
        with open(memory, "wb", closefd=False) as file:
            file.write(message)
        os.lseek(memory, 0, os.SEEK_SET)
        yield memory
    finally:
        os.close(memory)


def _runs_old_code(pid: int) -> bool:
    """Whether a process of the host maps a file that was replaced or removed.

    One of the same content counts, as it does for monitors, which are its copies: they would be stale from their start on.
    """
    return outdated.any_replaced(pid)
