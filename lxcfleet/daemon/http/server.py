"""The API's server side: HTTP on a Unix socket, one handler per call of ``calls.CALLS``."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from aiohttp import web

from lxcfleet import __version__
from lxcfleet.api.calls import CALLS, MAX_BODY, VERSION
from lxcfleet.api.requests import ActionRequest, CreateRequest, RolloutRequest, WaitRequest, read_selection
from lxcfleet.daemon.http.access import AT_ONCE, HIDDEN, Access, Role, refuse
from lxcfleet.daemon.http.scrape import Scrape
from lxcfleet.daemon.service import Fleet
from lxcfleet.errors import Busy, FleetError, InvalidInput, NotFound
from lxcfleet.patch.exposure import Audit
from lxcfleet.patch.rollout.driver import Driver
from lxcfleet.patch.service import Patch
from lxcfleet.patch.verify.prover import Prover
from lxcfleet.spec.names import MAX_COUNT, parse_label
from lxcfleet.spec.reader import Fields
from lxcfleet.spec.selection import Selection
from lxcfleet.spec.terms import Init

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

T = TypeVar("T")

_DIGITS = 18
"""Of a number in a query, at most."""

_FOLLOW_SECONDS = 0.2
"""How often a followed log file is looked at."""
_THERE_SECONDS = 1.0
"""How often it is looked whether a client that waits is still there: aiohttp leaves that to the next write."""


class Server:
    """Answers the calls from what the fleet does."""

    def __init__(
        self, fleet: Fleet, patch: Patch, prover: Prover, rollouts: Driver, audit: Audit, scrape: Scrape, access: Access
    ) -> None:
        self._fleet = fleet
        self._patch, self._prover = patch, prover
        self._rollouts = rollouts
        self._audit = audit
        self._access = access
        self._readers = 0
        self.application = web.Application(client_max_size=MAX_BODY, middlewares=[_errors, self._guard])
        handlers: Mapping[str, Handler] = {
            "server": self._server,
            "list": self._list,
            "create": self._create,
            "info": self._info,
            "logs": self._logs,
            "act": self._act,
            "operations": self._operations,
            "operation": self._operation,
            "follow": self._follow,
            "cancel": self._cancel,
            "wait": self._wait,
            "doctor": self._doctor,
            "fix": self._fix,
            "metrics": scrape.metrics,
            "targets": scrape.targets,
            "verify": self._verify,
            "shadows": self._shadows,
            "fix_shadows": self._fix_shadows,
            "exposure": self._exposure,
            "notice": self._notice,
            "notify": self._notify,
            "stale": self._stale,
            "rollout": self._rollout,
            "roll": self._roll,
            "rollout_follow": self._rollout_follow,
            "rollout_pause": self._rollout_pause,
            "rollout_resume": self._rollout_resume,
            "rollout_abort": self._rollout_abort,
            "events": self._events,
        }
        for name, call in CALLS.items():
            self.application.router.add_route(call.method, call.path, handlers[name])
        self._harmless = {(call.method, call.path) for call in CALLS.values() if call.harmless}

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Nobody gets further than they may; those who only read do not keep all others waiting."""
        transport = request.transport
        role = self._access.role(transport.get_extra_info("socket") if transport else None)
        resource = request.match_info.route.resource
        called = (request.method, resource.canonical if resource else "")
        refuse(role, Role.READ if called in self._harmless else Role.ALL)
        request["role"] = role
        if role is Role.ALL:
            return await handler(request)
        if self._readers >= AT_ONCE:
            raise Busy("too many who only read are being answered", hint="try again in a moment")
        self._readers += 1
        try:
            return await handler(request)
        finally:
            self._readers -= 1

    async def _server(self, _: web.Request) -> web.Response:
        count = len(self._fleet.registry)
        return _json({"version": __version__, "api": VERSION, "pid": os.getpid(), "containers": count})

    async def _list(self, request: web.Request) -> web.Response:
        return _json(await self._fleet.containers(_selection(request)))

    async def _create(self, request: web.Request) -> web.Response:
        operation = await self._fleet.create(CreateRequest.from_json(await _body(request)))
        return _json(operation.record(), status=202)

    async def _info(self, request: web.Request) -> web.Response:
        details = await self._fleet.info(request.match_info["name"])
        if request["role"] is not Role.ALL:
            details["environment"] = dict.fromkeys(details["environment"], HIDDEN)
        return _json(details)

    async def _act(self, request: web.Request) -> web.Response:
        operation = await self._fleet.act(ActionRequest.from_json(await _body(request)))
        return _json(operation.record(), status=202)

    async def _operations(self, _: web.Request) -> web.Response:
        return _json(self._fleet.operations.records())

    async def _operation(self, request: web.Request) -> web.Response:
        return _json(self._fleet.operations.get(request.match_info["id"]).record())

    async def _cancel(self, request: web.Request) -> web.Response:
        operation = self._fleet.operations.get(request.match_info["id"])
        operation.cancel()
        return _json(operation.record())

    async def _follow(self, request: web.Request) -> web.StreamResponse:
        operation = self._fleet.operations.get(request.match_info["id"])

        async def lines() -> AsyncIterator[bytes]:
            async for results in operation.follow():
                yield b"".join(_line(result) for result in results)
            yield _line(operation.record())

        return await _stream(request, lines(), "application/x-ndjson")

    async def _wait(self, request: web.Request) -> web.Response:
        ask = WaitRequest.from_json(await _body(request))
        return _json(await _while_there(request, self._fleet.wait(ask)))

    async def _doctor(self, request: web.Request) -> web.Response:
        query = request.query
        count = _number(query.get("count", "1"))
        fields = Fields({"count": count, "init": query.get("init")}, "query")
        return _json(self._fleet.room.doctor(*_needs(fields)))

    async def _fix(self, request: web.Request) -> web.Response:
        return _json(self._fleet.room.fix(*_needs(Fields(await _body(request), "request"))))

    async def _verify(self, request: web.Request) -> web.Response:
        return _json(await self._prover.verify(_selection(request), request.query.getall("package", [])))

    async def _shadows(self, request: web.Request) -> web.Response:
        return _json(await self._prover.shadows(_selection(request)))

    async def _fix_shadows(self, request: web.Request) -> web.Response:
        fields = Fields(await _body(request), "request")
        selection = read_selection(fields.nested("selection"))
        paths, dry_run = fields.texts("paths"), fields.flag("dry_run")
        if not (selection.patterns or selection.labels or selection.everything):
            fields.complain("selection", "chooses nothing")
        fields.finish("the request is not valid")
        return _json(await self._prover.fix(selection, paths, dry_run=dry_run))

    async def _exposure(self, request: web.Request) -> web.Response:
        return _json(await self._audit.exposure(_selection(request)))

    async def _notice(self, _: web.Request) -> web.Response:
        return _json(self._patch.notice())

    async def _notify(self, _: web.Request) -> web.Response:
        return _json(await self._patch.notify())

    async def _stale(self, request: web.Request) -> web.Response:
        return _json(await self._patch.stale(_selection(request)))

    async def _rollout(self, _: web.Request) -> web.Response:
        return _json(self._rollouts.record())

    async def _roll(self, request: web.Request) -> web.Response:
        return _json(await self._rollouts.begin(RolloutRequest.from_json(await _body(request))), status=202)

    async def _rollout_follow(self, request: web.Request) -> web.StreamResponse:
        async def lines() -> AsyncIterator[bytes]:
            async for record in self._rollouts.follow():
                yield _line(record)

        return await _stream(request, lines(), "application/x-ndjson")

    async def _rollout_pause(self, _: web.Request) -> web.Response:
        return _json(self._rollouts.pause())

    async def _rollout_resume(self, request: web.Request) -> web.Response:
        fields = Fields(await _body(request), "request")
        accept = fields.flag("accept")
        fields.finish("the request is not valid")
        return _json(self._rollouts.resume(accept=accept))

    async def _rollout_abort(self, _: web.Request) -> web.Response:
        return _json(self._rollouts.abort())

    async def _events(self, request: web.Request) -> web.StreamResponse:
        follow = request.query.get("follow") == "1"

        async def lines() -> AsyncIterator[bytes]:
            async for event in self._fleet.events.read(follow=follow):
                yield _line(event)

        return await _stream(request, lines(), "application/x-ndjson")

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        file = self._fleet.log_file(request.match_info["name"], query.get("kind", "console"))
        lines = _number(query.get("lines", "0"))
        if isinstance(lines, str):
            raise InvalidInput(f"lines={lines[:20]!r} is not a number of lines")
        pieces = _log_pieces(file, lines, follow=query.get("follow") == "1")
        return await _stream(request, pieces, "text/plain")


def _selection(request: web.Request) -> Selection:
    return Selection(
        patterns=tuple(request.query.getall("pattern", [])),
        labels=tuple(parse_label(text) for text in request.query.getall("label", [])),
    )


def _needs(fields: Fields) -> tuple[int, Init]:
    count = fields.integer("count", 1, 1, MAX_COUNT)
    init = fields.choice("init", Init, Init.SYSTEM)
    fields.finish("the request is not valid")
    return count, init


def _number(text: str) -> int | str:
    """The whole number in a query; the text itself if it is none, or more than anybody counts to."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS else text


def _json(data: object, status: int = 200) -> web.Response:
    return web.Response(text=json.dumps(data), status=status, content_type="application/json")


def _line(data: object) -> bytes:
    return json.dumps(data).encode() + b"\n"


async def _body(request: web.Request) -> object:
    try:
        body = json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        raise InvalidInput("the request's body is not JSON", why=str(error)) from error
    if not isinstance(body, dict):
        raise InvalidInput("the request's body is not a JSON object")
    return body


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


async def _while_there(request: web.Request, work: Coroutine[Any, Any, T]) -> T:
    """What ``work`` gives; it is cancelled once the client is gone, and ConnectionResetError raised."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        while not (await asyncio.wait({task}, timeout=_THERE_SECONDS))[0]:
            if request.transport is None:
                raise ConnectionResetError("the client went away")
        return await task
    finally:
        task.cancel()


async def _log_pieces(path: str, lines: int, *, follow: bool) -> AsyncIterator[bytes]:
    """The file before the last rotation, then this one; with ``follow`` what comes, rotations included."""
    old = b"" if lines == 0 and follow else await asyncio.to_thread(_read_from, f"{path}.1", 0)
    text = old + (current := await asyncio.to_thread(_read_from, path, 0))
    yield _last_lines(text, lines)
    position = len(current)
    inode = _inode(path)
    while follow:
        await asyncio.sleep(_FOLLOW_SECONDS)
        if _inode(path) != inode:
            yield await asyncio.to_thread(_read_from, f"{path}.1", position)
            inode, position = _inode(path), 0
        piece = await asyncio.to_thread(_read_from, path, position)
        position += len(piece)
        yield piece


def _read_from(path: str, position: int) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(position)
            return file.read()
    except OSError:
        return b""


def _inode(path: str) -> int | None:
    try:
        return os.stat(path).st_ino
    except OSError:
        return None


def _last_lines(text: bytes, count: int) -> bytes:
    return b"".join(text.splitlines(keepends=True)[-count:]) if count else text


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error leaves as ``{"error": …}`` with the status of its class."""
    try:
        return await handler(request)
    except FleetError as error:
        return _json({"error": error.body()}, error.http_status)
    except web.HTTPException as error:
        kind = {404: NotFound, 413: InvalidInput}.get(error.status, FleetError)
        return _json({"error": kind(f"{request.method} {request.path}: {error.reason}").body()}, error.status)
    except (ConnectionError, asyncio.CancelledError):
        raise
    except Exception as error:
        log.exception("%s %s failed unexpectedly", request.method, request.path)
        defect = FleetError("the daemon failed unexpectedly", why=f"{type(error).__name__}: {error}")
        return _json({"error": defect.body()}, 500)
