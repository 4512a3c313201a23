"""The API's server side: HTTP on a Unix socket, one handler for each call of ``calls.CALLS``."""

from __future__ import annotations

import asyncio
import logging

from aiohttp import web

from lxcfleet.api import calls
from lxcfleet.daemon.apps import Apps
from lxcfleet.daemon.baking import Baking
from lxcfleet.daemon.http.access import AT_ONCE, Access, Role, refuse
from lxcfleet.daemon.http.apps import OfApps
from lxcfleet.daemon.http.handlers import (
    OfDisk,
    OfFleet,
    OfFleets,
    OfGenerations,
    OfPatches,
    OfRollouts,
    OfSecrets,
    OfVolumes,
)
from lxcfleet.daemon.http.rehearsing import OfRehearsals
from lxcfleet.daemon.http.routes import Handler, Routes, as_json
from lxcfleet.daemon.http.scrape import Scrape
from lxcfleet.daemon.http.snapshots import OfDrains, OfSnapshots
from lxcfleet.daemon.secrets import SecretCalls
from lxcfleet.daemon.service import Fleet
from lxcfleet.daemon.setting import Setting
from lxcfleet.errors import Busy, FleetError, InvalidInput, NotFound
from lxcfleet.fleets.service import Fleets
from lxcfleet.patch.apps import AppSwitch
from lxcfleet.patch.cve.service import Cves
from lxcfleet.patch.exposure import Audit
from lxcfleet.patch.generations import Generations
from lxcfleet.patch.holding import Holding
from lxcfleet.patch.own import OwnParts
from lxcfleet.patch.rehearsal import Rehearsals
from lxcfleet.patch.rescue import Rescue
from lxcfleet.patch.rollout.orders import Orders
from lxcfleet.patch.service import Patch
from lxcfleet.patch.verify.prover import Prover

log = logging.getLogger(__name__)


class Server:
    """Answers all calls of the API on the Unix socket."""

    def __init__(
        self,
        fleet: Fleet,
        fleets: Fleets,
        secrets: SecretCalls,
        patch: Patch,
        prover: Prover,
        cves: Cves,
        rollouts: Orders,
        audit: Audit,
        own: OwnParts,
        generations: Generations,
        rescue: Rescue,
        holding: Holding,
        apps: Apps,
        switch: AppSwitch,
        baking: Baking,
        rehearsals: Rehearsals,
        scrape: Scrape,
        access: Access,
    ) -> None:
        self._access = access
        self._readers = 0
        self.answering = 0
        """How many requests are being answered, without those that are answered until the client goes."""
        self.application = web.Application(client_max_size=calls.MAX_BODY, middlewares=[self._count, _errors, self._guard])
        routes = Routes()
        OfFleet(fleet, Setting(fleet, rollouts)).bind(routes)
        OfFleets(fleets).bind(routes)
        OfVolumes(fleet.volumes).bind(routes)
        OfDisk(fleet.disk).bind(routes)
        OfSnapshots(fleet.snapshots).bind(routes)
        OfDrains(fleet).bind(routes)
        OfSecrets(secrets).bind(routes)
        OfPatches(patch, prover, cves, audit, own).bind(routes)
        OfRollouts(rollouts, rescue).bind(routes)
        OfGenerations(generations, rescue, holding).bind(routes)
        OfApps(apps, switch, baking).bind(routes)
        OfRehearsals(rehearsals).bind(routes)
        scrape.bind(routes)
        routes.add_to(self.application)
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
        return as_json({"error": kind(f"{request.method} {request.path}: {error.reason}").body()}, error.status)
    except (ConnectionError, asyncio.CancelledError):
        raise
    except Exception as error:
        log.exception("%s %s failed unexpectedly", request.method, request.path)
        defect = FleetError("the daemon failed unexpectedly", why=f"{type(error).__name__}: {error}")
        return as_json({"error": defect.body()}, 500)
