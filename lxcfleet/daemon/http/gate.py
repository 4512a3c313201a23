"""The gate before HTTP: how many connections there may be, what each may send, and how long it may take.

aiohttp reads all that a client sends ahead, and keeps each answer until the client reads it. So whoever may only ask could
take all of the daemon's memory, or its descriptors. Here a connection carries one request: its head within some seconds, a
body of the length that the head gives, and nothing after that. Root, and who may do everything, have no limits.

Where all places are taken, a new connection gets that of one that has asked for nothing, or reads no answer: who holds many
keeps nobody else away, not even from the same address, as Prometheus is often one of several programs on this host.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import re
import termios
from array import array
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import cast

from aiohttp import web

from lxcfleet.daemon.http.access import Access, Role
from lxcfleet.errors import Busy, FleetError, InvalidInput
from lxcfleet.host.process import peer

_HEADERS = 1 << 15
"""Bytes that a request's headers may have."""
_LINE_BYTES = 1 << 19
"""Bytes that its line may have. It names the containers that are asked about: all of the largest fleet's fit."""
_LIMITED_LINE_BYTES = 1 << 17
"""The same for those who have limits."""
_AHEAD = 1 << 16
"""Bytes that a client may send after its request; they are dropped."""
_SWEEP_SECONDS = 1.0
_STALLED_SECONDS = 2.0
"""A client that has read nothing of an answer for so long can lose its place to another one."""
_END = re.compile(rb"\r?\n\r?\n")
_LINE = re.compile(rb"[A-Z]{1,16} [^\r\n]+ HTTP/1\.[01]\r?\n")
_LENGTH = re.compile(rb"\ncontent-length:[ \t]*(\d{1,18})[ \t]*\r?\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\ntransfer-encoding:", re.IGNORECASE)
_PACKED = re.compile(rb"\ncontent-encoding[ \t]*:", re.IGNORECASE)


@dataclass(frozen=True)
class Bounds:
    """The limits."""

    each: int
    """Connections that one user, or one address, may have."""
    total: int
    """Connections that all of these may have together."""
    head: float = 10.0
    """Seconds until the request's head is there."""
    body: float = 60.0
    """Seconds until all of the request is there."""
    unread: float = 60.0
    """Seconds for which a client may read nothing of an answer."""


READERS = Bounds(each=32, total=256)
"""For those who may only read. They may have that many calls answered, too: access.AT_ONCE."""
SCRAPERS = Bounds(each=16, total=64, unread=15.0)
"""For those who reach the metrics' port."""


def _body_wrong(head: bytearray, end: int) -> tuple[InvalidInput, int] | None:
    """Why a body that is announced so is not read, and the status that says it; None: it is read. Its bytes are counted
    here, so it comes with its length and as it is: packed, a few bytes would become very many."""
    if _CHUNKED.search(head, 0, end):
        return InvalidInput("a request's body must have a length", hint="give Content-Length"), 411
    if _PACKED.search(head, 0, end):
        hint = "send it without Content-Encoding"
        return InvalidInput("a request's body is read as it is, and not unpacked", hint=hint), 415
    return None


class Gate:
    """Makes the protocol of each new connection, and knows all that there are."""

    def __init__(
        self, runner: web.AppRunner, bounds: Bounds, owner: Callable[[asyncio.BaseTransport], Hashable | None]
    ) -> None:
        """``owner``: for whom a connection counts; None: it is not limited."""
        self._runner = runner
        self.bounds = bounds
        self._owner = owner
        self._counts: Counter[Hashable] = Counter()
        self._connections: set[_Connection] = set()
        self._sweeping: asyncio.TimerHandle | None = None

    def __call__(self) -> asyncio.Protocol:
        """The protocol of a new connection."""
        return _Connection(self)

    def admit(self, connection: _Connection, transport: asyncio.BaseTransport) -> asyncio.Protocol:
        """The protocol that serves an admitted connection. Raises Busy."""
        owner = self._owner(transport)
        connection.limited = owner is not None
        if owner is not None:
            if self._counts[owner] >= self.bounds.each:
                self._make_room({each for each in self._connections if each.owner == owner})
            elif self._counts.total() >= self.bounds.total:
                self._make_room(self._connections)
            self._counts[owner] += 1
            connection.owner = owner
            self._connections.add(connection)
            if self._sweeping is None:
                self._sweep()
        if self._runner.server is None:
            raise Busy("the daemon ends", hint="the same command again asks the next daemon")
        return cast(asyncio.Protocol, self._runner.server())

    def _make_room(self, among: set[_Connection]) -> None:
        """End the oldest connection that is of no use. Raises Busy if all of them are at work."""
        useless = next((each for each in sorted(among, key=lambda each: each.began) if each.is_useless), None)
        if useless is None:
            raise Busy("too many connections", hint="close some, or try again in a moment")
        self.gone(useless)
        useless.end()

    def gone(self, connection: _Connection) -> None:
        """A connection has ended."""
        if connection in self._connections:
            self._connections.discard(connection)
            self._counts[connection.owner] -= 1
            if not self._counts[connection.owner]:
                del self._counts[connection.owner]

    def _sweep(self) -> None:
        """End the connections that take too long; again while there are some."""
        loop = asyncio.get_running_loop()
        for connection in list(self._connections):
            connection.check(loop.time())
        self._sweeping = loop.call_later(_SWEEP_SECONDS, self._sweep) if self._connections else None


class _Connection(asyncio.Protocol):
    """Hands one request on to aiohttp, and what aiohttp must know of the connection."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.owner: Hashable = None
        self.limited = False
        self._inner: asyncio.Protocol | None = None
        self._transport: asyncio.Transport | None = None
        self._head: bytearray | None = bytearray()
        """As much of the request's head as has come; None: it is complete."""
        self._line = 0
        """Bytes of the head's line; 0: it is not complete."""
        self._left = 0
        """Bytes of the body that are still to come."""
        self._ahead = 0
        self.began = self._moved = asyncio.get_running_loop().time()
        """When it began, and when the client last read something, or had nothing to read."""
        self._unread = 0
        self._stalled = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol; likewise the others."""
        self._transport = cast(asyncio.Transport, transport)
        try:
            self._inner = self._gate.admit(self, transport)
        except Busy as error:
            self._refuse(error)
        else:
            self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gate.gone(self)
        if self._inner is not None:
            self._inner.connection_lost(exc)
        # asyncio's transport keeps a method of its own, and so itself, until Python looks for garbage. By then thousands
        # of them can take some megabytes.
        getattr(self._transport, "__dict__", {}).pop("_read_ready_cb", None)

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._inner is not None else None

    def data_received(self, data: bytes) -> None:
        if self._inner is None or self._transport is None or self._transport.is_closing():
            return
        if self._head is not None:
            looked_at = len(self._head)
            self._head += data if looked_at else data.lstrip(b"\r\n")
            data = self._split(self._head, max(0, looked_at - 3))
        body, rest = data[: self._left], data[self._left :]
        if body:
            self._left -= len(body)
            self._hand_on(body)
        self._ahead += len(rest)
        if self._ahead > _AHEAD and self.limited:
            self._transport.abort()

    def _split(self, head: bytearray, begin: int) -> bytes:
        """Hand the head on, if it is complete; returns what follows it. ``begin``: no end of a line lies before it that
        was not looked at."""
        end = _END.search(head, begin)
        if not self._line:
            self._line = head.find(b"\n", begin) + 1
        most = _LIMITED_LINE_BYTES if self.limited else _LINE_BYTES
        if (self._line or len(head)) > most:
            self._head = None
            why = f"its line takes more than {most} bytes"
            hint = "choose by a glob or a label: -l KEY=VALUE"
            self._refuse(InvalidInput("the request is too long", why=why, hint=hint), 414)
            return b""
        fits = not self._line or (_LINE.match(head) and (end.end() if end else len(head)) - self._line <= _HEADERS)
        if end is None and fits:
            return b""
        self._head = None
        if end is None or not fits:  # aiohttp says what is wrong with it
            self._hand_on(bytes(head))
            return b""
        if wrong := _body_wrong(head, end.end()):
            self._refuse(*wrong)
            return b""
        length = _LENGTH.search(head, 0, end.end())
        self._left = int(length[1]) if length else 0
        self._hand_on(bytes(head[: end.end()]))
        return bytes(head[end.end() :])

    def _hand_on(self, data: bytes) -> None:
        """Give aiohttp a part of the request. Its parser raises at some addresses, such as `http://[`, without an answer."""
        assert self._inner is not None
        try:
            self._inner.data_received(data)
        except ValueError as error:
            self._refuse(InvalidInput("the request can't be read", why=str(error)))

    def _refuse(self, error: FleetError, status: int = 0) -> None:
        assert self._transport is not None
        body = json.dumps({"error": error.body()}).encode()
        head = (
            f"HTTP/1.1 {status or error.http_status} Refused\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self._transport.write(head.encode() + body)
        self._transport.close()

    def check(self, moment: float) -> None:
        """End the connection if it takes too long."""
        assert self._transport is not None
        bounds = self._gate.bounds
        unread = self._transport.get_write_buffer_size()
        if not unread or unread < self._unread:
            self._moved = moment
        self._unread = unread
        self._stalled = moment - self._moved > _STALLED_SECONDS
        age = moment - self.began
        slow = age > bounds.head if self._head is not None else self._left > 0 and age > bounds.body
        if slow or moment - self._moved > bounds.unread:
            self.end()

    @property
    def is_useless(self) -> bool:
        """Whether it has not asked for anything yet, or reads nothing of its answer."""
        return self._stalled or ((self._head is not None or self._left > 0) and not self._has_sent())

    def _has_sent(self) -> bool:
        """Whether the client has sent something that nobody has read yet. Of many who come at once all are let in first."""
        if self._transport is None:
            return False
        waiting = array("i", [0])
        try:
            fcntl.ioctl(self._transport.get_extra_info("socket").fileno(), termios.FIONREAD, waiting)
        except OSError:
            return False
        return waiting[0] > 0

    def end(self) -> None:
        """End it, whatever is under way."""
        assert self._transport is not None
        self._transport.abort()


async def _close(_: web.Request, response: web.StreamResponse) -> None:
    response.force_close()
    response.headers["Connection"] = "close"


def runner_of(application: web.Application) -> web.AppRunner:
    """The runner that serves ``application`` behind a gate: one request on each connection."""
    application.on_response_prepare.append(_close)
    return web.AppRunner(application, access_log=None, max_line_size=_LINE_BYTES)


def for_callers(runner: web.AppRunner, access: Access, bounds: Bounds = READERS) -> Gate:
    """The gate of the API's socket: each uid that may only read has so many connections."""

    def owner(transport: asyncio.BaseTransport) -> Hashable | None:
        try:
            caller = peer.peer(transport.get_extra_info("socket"))
        except OSError:
            return "unknown"
        return None if access.judge(caller) is Role.ALL else caller.uid

    return Gate(runner, bounds, owner)


def for_network(runner: web.AppRunner, bounds: Bounds = SCRAPERS) -> Gate:
    """The gate of a port: each address has so many connections."""

    def owner(transport: asyncio.BaseTransport) -> Hashable:
        return (transport.get_extra_info("peername") or ("unknown",))[0]

    return Gate(runner, bounds, owner)
