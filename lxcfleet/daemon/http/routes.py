"""From HTTP to handlers and back, by the declaration of each call: the only code that handles aiohttp's requests.

A handler takes the call's request and gives its reply. mypy compares a handler's types with those of its call; ``Routes``
does so again when the daemon starts.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar, Union, get_type_hints

from aiohttp import web

from lxcfleet.api.calls import CALLS
from lxcfleet.api.shape import AnyCall, Call, Sent, StreamCall, TextCall
from lxcfleet.daemon.http.access import HIDDEN, Role
from lxcfleet.errors import InvalidInput

log = logging.getLogger(__name__)

Q = TypeVar("Q")
R = TypeVar("R")
T = TypeVar("T")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

THERE_SECONDS = 1.0
"""Seconds between two checks that a waiting client is still there: aiohttp notices only at the next write."""


class Routes:
    """The handlers of calls."""

    def __init__(self) -> None:
        self._bound: dict[str, Handler] = {}

    def json(
        self, call: Call[Q, R], handler: Callable[[Q], Awaitable[R]], for_readers: Callable[[Q], Awaitable[R]] | None = None
    ) -> None:
        """Bind a call that is answered with one JSON value. ``for_readers``: what answers those who may only read."""

        async def answer(request: web.Request) -> web.Response:
            chosen = handler if for_readers is None or request["role"] is Role.ALL else for_readers
            work = chosen(await _read(call, request))
            reply = await (_while_there(request, work) if call.waits else work)
            if call.hides and request["role"] is not Role.ALL:
                reply = _hidden(reply, call.hides)
            return as_json(reply, call.status)

        self._bind(call, handler, answer, call.gives.type)

    def lines(self, call: StreamCall[Q, R], handler: Callable[[Q], AsyncIterator[Sequence[R]]]) -> None:
        """Bind a call that is answered with JSON lines; the handler gives some lines at a time."""

        async def answer(request: web.Request) -> web.StreamResponse:
            source = handler(await _read(call, request))  # an invalid request is refused before the reply begins

            async def pieces() -> AsyncIterator[bytes]:
                async for some in source:
                    yield b"".join(json.dumps(each).encode() + b"\n" for each in some)

            return await _stream(request, pieces(), "application/x-ndjson")

        kinds: Any = Union[tuple(each.type for each in call.gives)]  # noqa: UP007
        self._bind(call, handler, answer, AsyncIterator[Sequence[kinds]])

    def text(self, call: TextCall[Q], handler: Callable[[Q], AsyncIterator[bytes]]) -> None:
        """Bind a call that is answered with text, piece by piece."""

        async def answer(request: web.Request) -> web.StreamResponse:
            return await _stream(request, handler(await _read(call, request)), call.content)

        self._bind(call, handler, answer, AsyncIterator[bytes])

    def whole(self, call: TextCall[Q], handler: Callable[[Q], Awaitable[bytes]]) -> None:
        """Bind a call that is answered with text, all of it at once."""

        async def answer(request: web.Request) -> web.Response:
            text = await handler(await _read(call, request))
            return web.Response(body=text, headers={"Content-Type": call.content})

        self._bind(call, handler, answer, bytes)

    def _bind(self, call: AnyCall[Any], handler: Callable[..., Any], answer: Handler, gives: object) -> None:
        """Raises TypeError if the handler's types are not those of the call."""
        hints = get_type_hints(handler)
        found = hints.pop("return", None)
        if found != gives:
            raise TypeError(f"the handler of {call.name} gives {found}, and its call {gives}")
        if len(inspect.signature(handler).parameters) != 1 or call.takes.body not in (None, *hints.values()):
            raise TypeError(f"the handler of {call.name} must take the call's request and nothing else")
        if CALLS.get(call.name) is not call or call.name in self._bound:
            raise TypeError(f"{call.name} is not among the calls, or has a handler already")
        self._bound[call.name] = answer

    def add_to(self, application: web.Application, *only: AnyCall[Any]) -> None:
        """Route these calls, or all of them, to their handlers. Raises LookupError if a call has no handler."""
        for call in only or CALLS.values():
            if call.name not in self._bound:
                raise LookupError(f"nothing answers the call {call.name}")
            application.router.add_route(call.method, call.path, self._bound[call.name])


def as_json(data: object, status: int = 200) -> web.Response:
    """A reply with ``data`` as JSON."""
    return web.Response(text=json.dumps(data), status=status, content_type="application/json")


class Handlers(Protocol):
    """The handlers of the calls about one subject."""

    def bind(self, routes: Routes) -> None:
        """Have them answered."""


async def _read(call: AnyCall[Q], request: web.Request) -> Q:
    query = {key: request.query.getall(key) for key in request.query}
    body = await _body(request) if call.takes.body is not None else None
    return call.takes.read(Sent(request.match_info, query, body))


async def _body(request: web.Request) -> object:
    try:
        body = json.loads(await request.read(), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("the request's body is not JSON", why=str(error)) from error
    if not isinstance(body, dict):
        raise InvalidInput("the request's body is not a JSON object")
    return body


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A mapping of these pairs. Raises ValueError if a key stands there twice: readers differ in which of them they mean."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key in found if sum(key == other for other, _ in pairs) > 1)
        raise ValueError(f"the key {twice[:40]!r} stands there twice")
    return found


def _hidden(reply: Any, keys: Sequence[str]) -> Any:
    """The reply with the values of the mappings ``keys`` hidden."""
    hidden = dict(reply)
    for key in keys:
        outer, dot, inner = key.partition(".")
        values = hidden.get(outer) or {}
        if dot:
            hidden[outer] = _hidden(values, [inner]) if inner in values else values
        else:
            hidden[outer] = dict.fromkeys(values, HIDDEN)
    return hidden


async def _stream(request: web.Request, pieces: AsyncIterator[bytes], kind: str) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": kind})
    await response.prepare(request)

    async def write() -> None:
        async for piece in pieces:
            await response.write(piece)
        await response.write_eof()

    try:
        await _while_there(request, write())
    except ConnectionError:
        log.debug("a client went away before the end")
    return response


async def _while_there(request: web.Request, work: Awaitable[T]) -> T:
    """The result of ``work``. Once the client is gone, ``work`` is cancelled and ConnectionResetError is raised."""
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({task}, timeout=THERE_SECONDS))[0]:
            if request.transport is None:
                raise ConnectionResetError("the client went away")
        return await task
    finally:
        task.cancel()
