"""The API's server side: HTTP on a Unix socket, one handler for each call of ``calls.CALLS``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from lxcfleet.api import calls
from lxcfleet.api.shape import AnyCall
from lxcfleet.daemon.http.access import AT_ONCE, Access, Role, refuse
from lxcfleet.daemon.http.routes import Handler, Handlers, Routes, as_json
from lxcfleet.errors import Busy, FleetError, InvalidInput, NotFound
from lxcfleet.runtime import unforeseen

log = logging.getLogger(__name__)

_UNKNOWN_CALL = "an lxcfleet of another version may know this call: `systemctl restart lxcfleet` after an upgrade"


class Server:
    """Answers all calls of the API on the Unix socket."""

    def __init__(self, handlers: Iterable[Handlers], access: Access, *only: AnyCall[Any]) -> None:
        """``only``: the calls that are answered, if not all are. Raises LookupError if one of them has no handler."""
        self._access = access
        self._readers = 0
        self.answering = 0
        """How many requests are being answered, without those that are answered until the client goes."""
        self.application = web.Application(client_max_size=calls.MAX_BODY, middlewares=[self._count, _errors, self._guard])
        routes = Routes()
        for each in handlers:
            each.bind(routes)
        routes.add_to(self.application, *only)
        self._harmless = {(call.method, call.path) for call in calls.CALLS.values() if call.harmless}

    @web.middleware
    async def _count(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        endless = request.path == calls.EVENTS.path or request.query.get("follow") == "1"
        self.answering += not endless
        try:
            return await handler(request)
        finally:
            self.answering -= not endless

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse callers without the right for the call. Limit read-only callers, so that all others are still answered."""
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


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error leaves as ``{"error": …}`` with the status of its class."""
    try:
        return await handler(request)
    except FleetError as error:
        return as_json({"error": error.body()}, error.http_status)
    except web.HTTPException as error:
        kind = {404: NotFound, 413: InvalidInput}.get(error.status, FleetError)
        hint = _UNKNOWN_CALL if error.status in (404, 405) else ""
        return as_json({"error": kind(f"{request.method} {request.path}: {error.reason}", hint=hint).body()}, error.status)
    except (ConnectionError, asyncio.CancelledError):
        raise
    except Exception as error:
        answer = unforeseen.told(log, f"{request.method} {request.path}", error)
        return as_json({"error": answer.body()}, answer.http_status)
