"""The handlers of calls about containers, operations and the host."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence

from lxcfleet import __version__
from lxcfleet.api import calls
from lxcfleet.api.queries import DoctorRequest, EventsRequest, LinesRequest, LogsRequest, NetworkRequest, UnitsRequest
from lxcfleet.api.records import (
    ContainerDetails,
    ContainerRecord,
    CreationRecord,
    DoctorRecord,
    EventRecord,
    FindingRecord,
    LineRecord,
    OperationRecord,
    ResultRecord,
    ServerRecord,
    SetRecord,
    UsageRecord,
)
from lxcfleet.api.requests import (
    ActionRequest,
    CreateRequest,
    SetRequest,
    WaitRequest,
)
from lxcfleet.daemon.http import log_file
from lxcfleet.daemon.http.routes import Routes
from lxcfleet.daemon.uses import consoles
from lxcfleet.daemon.uses.service import Fleet
from lxcfleet.daemon.uses.setting import Setting
from lxcfleet.spec.files.settings import NetworkSettings
from lxcfleet.spec.selection import Selection


class OfFleet:
    """Handlers of calls about containers, operations and the host."""

    def __init__(self, fleet: Fleet, setting: Setting) -> None:
        self._fleet = fleet
        self._setting = setting

    def bind(self, routes: Routes) -> None:
        """Have them answered."""
        routes.json(calls.SERVER, self.server)
        routes.json(calls.LIST, self.containers)
        routes.json(calls.CREATE, self.create)
        routes.json(calls.INFO, self.info)
        routes.json(calls.USAGE, self.usage)
        routes.text(calls.LOGS, self.logs)
        routes.lines(calls.CONSOLES, self.consoles)
        routes.json(calls.ACT, self.act)
        routes.json(calls.SET, self.set)
        routes.json(calls.WAIT, self.wait)
        routes.json(calls.OPERATIONS, self.operations)
        routes.json(calls.OPERATION, self.operation)
        routes.lines(calls.FOLLOW, self.follow)
        routes.json(calls.CANCEL, self.cancel)
        routes.lines(calls.EVENTS, self.events)
        routes.json(calls.DOCTOR, self.doctor)
        routes.json(calls.UNITS, self.units)
        routes.json(calls.NETWORK, self.network)
        routes.json(calls.FIX, self.fix)

    async def server(self, _: None) -> ServerRecord:
        """See calls.SERVER; likewise each handler the call of its name."""
        count = len(self._fleet.registry)
        return {"version": __version__, "api": calls.VERSION, "pid": os.getpid(), "containers": count}

    async def containers(self, chosen: Selection) -> list[ContainerRecord]:
        return await self._fleet.containers(chosen)

    async def create(self, ask: CreateRequest) -> CreationRecord:
        return await self._setting.create(ask)

    async def info(self, name: str) -> ContainerDetails:
        return await self._fleet.info(name)

    async def usage(self, chosen: Selection) -> UsageRecord:
        return await self._fleet.usages.read(chosen)

    def logs(self, ask: LogsRequest) -> AsyncIterator[bytes]:
        file = self._fleet.log_file(ask.name, ask.kind)
        return log_file.pieces(file, ask.lines, follow=ask.follow)

    def consoles(self, ask: LinesRequest) -> AsyncIterator[Sequence[LineRecord]]:
        return consoles.reading(self._fleet.registry, self._fleet.paths, ask).records(follow=ask.follow)

    async def act(self, ask: ActionRequest) -> OperationRecord:
        return (await self._fleet.act(ask)).record()

    async def set(self, ask: SetRequest) -> SetRecord:
        return await self._setting.set(ask)

    async def wait(self, ask: WaitRequest) -> list[ResultRecord]:
        return await self._fleet.wait(ask)

    async def operations(self, _: None) -> list[OperationRecord]:
        return self._fleet.operations.records()

    async def operation(self, identifier: str) -> OperationRecord:
        return self._fleet.operations.get(identifier).record()

    def follow(self, identifier: str) -> AsyncIterator[Sequence[ResultRecord | OperationRecord]]:
        operation = self._fleet.operations.get(identifier)

        async def lines() -> AsyncIterator[Sequence[ResultRecord | OperationRecord]]:
            async for results in operation.follow():
                yield results
            yield [operation.record()]

        return lines()

    async def cancel(self, identifier: str) -> OperationRecord:
        operation = self._fleet.operations.get(identifier)
        operation.cancel()
        return operation.record()

    async def events(self, ask: EventsRequest) -> AsyncIterator[Sequence[EventRecord]]:
        async for event in self._fleet.events.read(follow=ask.follow, since=ask.since):
            yield [event]

    async def doctor(self, ask: DoctorRequest) -> DoctorRecord:
        return await self._fleet.doctor(ask.count, ask.init)

    async def units(self, ask: UnitsRequest) -> list[FindingRecord]:
        return await self._fleet.examine(ask.units)

    async def network(self, ask: NetworkRequest) -> list[FindingRecord]:
        return await self._fleet.in_the_way(NetworkSettings(bridge=ask.bridge, ipv4=ask.ipv4, ipv6=ask.ipv6))

    async def fix(self, ask: DoctorRequest) -> DoctorRecord:
        return await self._fleet.fix(ask.count, ask.init)
