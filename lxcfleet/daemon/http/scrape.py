"""The two replies for Prometheus: on the API's socket, and over TCP where the settings say so."""

from __future__ import annotations

import asyncio
import logging

from aiohttp import web

from lxcfleet.api import calls
from lxcfleet.api.records import TargetRecord
from lxcfleet.containers.measuring.readings import FleetReading, Readings
from lxcfleet.daemon.http import gate, metrics
from lxcfleet.daemon.http.routes import Routes
from lxcfleet.daemon.uses.service import Fleet
from lxcfleet.spec.files.settings import MetricsSettings
from lxcfleet.spec.selection import Selection

log = logging.getLogger(__name__)


class Scrape:
    """Answers to GET /metrics and GET /1.0/targets."""

    def __init__(self, fleet: Fleet, readings: Readings) -> None:
        self._fleet = fleet
        self._readings = readings
        self._going_on: asyncio.Task[bytes] | None = None

    def bind(self, routes: Routes) -> None:
        """Bind the two calls."""
        routes.whole(calls.METRICS, self.metrics)
        routes.json(calls.TARGETS, self.targets)

    async def metrics(self, _: None) -> bytes:
        """Callers that ask at the same time share one reading, so many Prometheus servers cost as much as one."""
        if self._going_on is None:
            self._going_on = asyncio.get_running_loop().create_task(self._render())
            self._going_on.add_done_callback(self._done)
        return await asyncio.shield(self._going_on)

    async def _render(self) -> bytes:
        reading: FleetReading = await self._readings.read()
        return await asyncio.to_thread(metrics.render, reading)

    def _done(self, _: asyncio.Task[bytes]) -> None:
        self._going_on = None

    async def targets(self, _: None) -> list[TargetRecord]:
        """The exporters of all running containers."""
        return metrics.targets(await self._fleet.containers(Selection()))


class Listener:
    """Serves these two calls over TCP. No other call of the API is there, so nothing can be changed that way."""

    def __init__(self, scrape: Scrape) -> None:
        application = web.Application()
        routes = Routes()
        scrape.bind(routes)
        routes.add_to(application, calls.METRICS, calls.TARGETS)
        self._runner = gate.runner_of(application)
        self._gate = gate.for_network(self._runner)
        self._site: asyncio.Server | None = None
        self._address: tuple[str, int] | None = None
        self._lock = asyncio.Lock()

    async def listen(self, settings: MetricsSettings) -> None:
        """Listen where the settings say. If that fails, the log says so, and the daemon goes on without these metrics."""
        async with self._lock:
            if settings.address != self._address or self._site is None:
                await self._listen(settings)

    async def _listen(self, settings: MetricsSettings) -> None:
        if self._runner.server is None:
            await self._runner.setup()
        if self._site is not None:
            self._site.close()
        self._site, self._address = None, settings.address
        if settings.address is None:
            return
        try:
            site = await asyncio.get_running_loop().create_server(self._gate, *settings.address)
        except OSError as error:
            log.error("metrics can't be read at %s: %s", settings.listen, error.strerror or error)
        else:
            self._site = site
            log.info("metrics at http://%s%s", settings.listen, calls.METRICS.path)
