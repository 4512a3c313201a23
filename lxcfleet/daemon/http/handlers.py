"""The handlers of all calls: each takes a call's request, has the daemon's other parts do the work, and gives the reply."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence

from lxcfleet import __version__
from lxcfleet.api import calls
from lxcfleet.api.disk import DiffRecord, DiffRequest, DiskRecord, DiskRequest
from lxcfleet.api.findings import (
    CvesRecord,
    ExposureRecord,
    NoticeRecord,
    PartRecord,
    ProofRecord,
    ShadowsRecord,
    StaleRecord,
)
from lxcfleet.api.fleets import (
    ApplyRecord,
    ExportRequest,
    FleetRecord,
    FleetRequest,
    PlanRecord,
    RemoveFleetRequest,
    ScaleRequest,
    TextRecord,
)
from lxcfleet.api.generations import (
    CheckedRecord,
    FreezeRecord,
    FreezeRequest,
    GenerationRecord,
    GenerationsRemoved,
    HoldRequest,
    HoldsRecord,
    ReleasedRecord,
    ReleaseRequest,
    RemoveGenerationsRequest,
    RollbackRecord,
    RollbackRequest,
)
from lxcfleet.api.queries import DoctorRequest, EventsRequest, LinesRequest, LogsRequest, UnitsRequest, VerifyRequest
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
    RolloutRecord,
    SecretRecord,
    ServerRecord,
    SetRecord,
    UsageRecord,
    VolumeRecord,
)
from lxcfleet.api.requests import (
    ActionRequest,
    CreateRequest,
    CreateVolumeRequest,
    FixShadowsRequest,
    RefreshSecretsRequest,
    RemoveVolumesRequest,
    ResumeRequest,
    RolloutRequest,
    SetRequest,
    WaitRequest,
)
from lxcfleet.containers.disk import Disk
from lxcfleet.daemon import consoles
from lxcfleet.daemon.http import log_file
from lxcfleet.daemon.http.routes import Routes
from lxcfleet.daemon.secrets import SecretCalls
from lxcfleet.daemon.service import Fleet
from lxcfleet.daemon.setting import Setting
from lxcfleet.daemon.volumes import Volumes
from lxcfleet.errors import InvalidInput
from lxcfleet.fleets.service import Fleets
from lxcfleet.patch.cve.service import Cves
from lxcfleet.patch.exposure import Audit
from lxcfleet.patch.generations import Generations
from lxcfleet.patch.holding import Holding
from lxcfleet.patch.own import OwnParts
from lxcfleet.patch.rescue import Rescue
from lxcfleet.patch.rollout.orders import Orders
from lxcfleet.patch.service import Patch
from lxcfleet.patch.verify.prover import Prover
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

    async def fix(self, ask: DoctorRequest) -> DoctorRecord:
        return await self._fleet.fix(ask.count, ask.init)


class OfFleets:
    """Handlers of calls about fleets as files."""

    def __init__(self, fleets: Fleets) -> None:
        self._fleets = fleets

    def bind(self, routes: Routes) -> None:
        """Have them answered."""
        routes.json(calls.FLEETS, self.fleets)
        routes.json(calls.FLEET_PLAN, self.plan)
        routes.json(calls.FLEET_APPLY, self.apply)
        routes.json(calls.SCALE, self.scale)
        routes.json(calls.FLEET_EXPORT, self.export)
        routes.json(calls.FLEET_REMOVE, self.remove)

    async def fleets(self, _: None) -> list[FleetRecord]:
        """See calls.FLEETS; likewise each handler the call of its name."""
        return await self._fleets.fleets()

    async def plan(self, ask: FleetRequest) -> PlanRecord:
        return await self._fleets.plan(ask)

    async def apply(self, ask: FleetRequest) -> ApplyRecord:
        return await self._fleets.apply(ask)

    async def scale(self, ask: ScaleRequest) -> ApplyRecord:
        return await self._fleets.scale(ask)

    async def export(self, ask: ExportRequest) -> TextRecord:
        return await self._fleets.export(ask)

    async def remove(self, ask: RemoveFleetRequest) -> FleetRecord:
        return await self._fleets.remove(ask)


class OfVolumes:
    """Handlers of calls about volumes."""

    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes

    def bind(self, routes: Routes) -> None:
        """Have them answered."""
        routes.json(calls.VOLUMES, self.volumes)
        routes.json(calls.VOLUME, self.volume)
        routes.json(calls.CREATE_VOLUME, self.create)
        routes.json(calls.REMOVE_VOLUMES, self.remove)

    async def volumes(self, _: None) -> list[VolumeRecord]:
        """See calls.VOLUMES; likewise each handler the call of its name."""
        return self._volumes.records()

    async def volume(self, name: str) -> VolumeRecord:
        return await self._volumes.info(name)

    async def create(self, ask: CreateVolumeRequest) -> OperationRecord:
        return (await self._volumes.create(ask)).record()

    async def remove(self, ask: RemoveVolumesRequest) -> OperationRecord:
        return (await self._volumes.remove(ask)).record()


class OfDisk:
    """Handlers of calls about what containers have on the disk."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def bind(self, routes: Routes) -> None:
        """Have them answered."""
        routes.json(calls.DU, self.du)
        routes.json(calls.DIFF, self.diff)

    async def du(self, ask: DiskRequest) -> list[DiskRecord]:
        """See calls.DU; likewise each handler the call of its name."""
        return await self._disk.used(ask)

    async def diff(self, ask: DiffRequest) -> DiffRecord:
        return await self._disk.diff(ask)


class OfGenerations:
    """Handlers of calls about frozen bases."""

    def __init__(self, generations: Generations, rescue: Rescue, holding: Holding) -> None:
        self._generations, self._rescue, self._holding = generations, rescue, holding

    def bind(self, routes: Routes) -> None:
        """Have them answered."""
        routes.json(calls.GENERATIONS, self.generations)
        routes.json(calls.FREEZE_BASE, self.freeze)
        routes.json(calls.CHECK_GENERATION, self.check)
        routes.json(calls.REMOVE_GENERATIONS, self.remove)
        routes.json(calls.ROLLBACK, self.rollback)
        routes.json(calls.PREPARE, self.prepare)
        routes.json(calls.HOLD, self.hold)
        routes.json(calls.RELEASE, self.release)

    async def generations(self, _: None) -> list[GenerationRecord]:
        """See calls.GENERATIONS; likewise each handler the call of its name."""
        return await self._generations.records()

    async def freeze(self, ask: FreezeRequest) -> FreezeRecord:
        return await self._generations.freeze(ask)

    async def remove(self, ask: RemoveGenerationsRequest) -> GenerationsRemoved:
        return await self._generations.remove(ask)

    async def rollback(self, ask: RollbackRequest) -> RollbackRecord:
        return await self._generations.rollback(ask)

    async def hold(self, ask: HoldRequest) -> HoldsRecord:
        return await self._holding.hold(ask)

    async def release(self, ask: ReleaseRequest) -> ReleasedRecord:
        return await self._holding.release(ask)

    async def prepare(self, _: None) -> FreezeRecord | None:
        return await self._rescue.prepare()

    async def check(self, number: str) -> CheckedRecord:
        if not number.isdecimal() or len(number) > 7:
            raise InvalidInput(f"{number!r} is no generation's number")
        return await self._generations.check(int(number))


class OfSecrets:
    """Handlers of calls about secrets."""

    def __init__(self, secrets: SecretCalls) -> None:
        self._secrets = secrets

    def bind(self, routes: Routes) -> None:
        """Have them answered."""
        routes.json(calls.SECRETS, self.secrets)
        routes.json(calls.REFRESH_SECRETS, self.refresh)

    async def secrets(self, _: None) -> list[SecretRecord]:
        """See calls.SECRETS; likewise each handler the call of its name."""
        return self._secrets.records()

    async def refresh(self, ask: RefreshSecretsRequest) -> OperationRecord:
        return self._secrets.refresh(ask).record()


class OfPatches:
    """Handlers of calls about old code that containers run, shadows in their deltas, and host files that they can read."""

    def __init__(self, patch: Patch, prover: Prover, cves: Cves, audit: Audit, own: OwnParts) -> None:
        self._patch, self._prover, self._cves, self._audit, self._own = patch, prover, cves, audit, own

    def bind(self, routes: Routes) -> None:
        """Have them answered."""
        routes.json(calls.STALE, self.stale)
        routes.json(calls.PARTS, self.parts)
        routes.json(calls.VERIFY, self.verify)
        routes.json(calls.CVES, self.cves)
        routes.json(calls.SHADOWS, self.shadows)
        routes.json(calls.FIX_SHADOWS, self.fix_shadows)
        routes.json(calls.EXPOSURE, self.exposure)
        routes.json(calls.NOTICE, self.notice)
        routes.json(calls.NOTIFY, self.notify)

    async def stale(self, chosen: Selection) -> list[StaleRecord]:
        """See calls.STALE; likewise each handler the call of its name."""
        return await self._patch.stale(chosen)

    async def parts(self, _: None) -> list[PartRecord]:
        return await self._own.records()

    async def verify(self, ask: VerifyRequest) -> ProofRecord:
        if ask.cves:
            return await self._cves.verify(ask)
        return await self._prover.verify(ask.selection, ask.packages, deep=ask.deep)

    async def cves(self, chosen: Selection) -> CvesRecord:
        return await self._cves.find(chosen)

    async def shadows(self, chosen: Selection) -> list[ShadowsRecord]:
        return await self._prover.shadows(chosen)

    async def fix_shadows(self, ask: FixShadowsRequest) -> list[ResultRecord]:
        return await self._prover.fix(ask.selection, ask.paths, ask.packages, dry_run=ask.dry_run)

    async def exposure(self, chosen: Selection) -> list[ExposureRecord]:
        return await self._audit.exposure(chosen)

    async def notice(self, _: None) -> NoticeRecord:
        return await self._patch.notice()

    async def notify(self, _: None) -> NoticeRecord:
        return await self._patch.notify()


class OfRollouts:
    """Handlers of calls about the rollout."""

    def __init__(self, rollouts: Orders, rescue: Rescue) -> None:
        self._rollouts, self._rescue = rollouts, rescue

    def bind(self, routes: Routes) -> None:
        """Have them answered."""
        routes.json(calls.ROLLOUT, self.rollout)
        routes.json(calls.ROLL, self.roll)
        routes.lines(calls.ROLLOUT_FOLLOW, self.follow)
        routes.json(calls.ROLLOUT_PAUSE, self.pause)
        routes.json(calls.ROLLOUT_RESUME, self.resume)
        routes.json(calls.ROLLOUT_ABORT, self.abort)
        routes.json(calls.ROLLOUT_UNDO, self.undo)

    async def rollout(self, _: None) -> RolloutRecord | None:
        """See calls.ROLLOUT; likewise each handler the call of its name."""
        return self._rollouts.ledger.record()

    async def roll(self, ask: RolloutRequest) -> RolloutRecord:
        return await self._rescue.begin(ask)

    async def follow(self, _: None) -> AsyncIterator[Sequence[RolloutRecord]]:
        async for record in self._rollouts.ledger.follow():
            yield [record]

    async def pause(self, _: None) -> RolloutRecord:
        return self._rollouts.pause()

    async def resume(self, ask: ResumeRequest) -> RolloutRecord:
        return self._rollouts.resume(accept=ask.accept)

    async def abort(self, _: None) -> RolloutRecord:
        return self._rollouts.abort()

    async def undo(self, _: None) -> RolloutRecord:
        return await self._rollouts.undo()
