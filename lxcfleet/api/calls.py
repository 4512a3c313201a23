"""The API, declared once: every call with its path, its request, its reply, and the right that it takes.

The server binds one handler to each call, the client makes its methods of them, and `make docs` writes docs/api.md;
mypy holds all three to the types here. To add a call, declare it here, bind its handler in daemon.http,
and name it in api.client.

HTTP/1.1 over a Unix socket, one request on each connection, JSON in and out, under ``/1.0``. Errors are
``{"error": ErrorBody}`` with the status of their class. Calls that change containers answer 202 with an operation, which
lives in the daemon: it goes on when the client goes away, and can be followed, waited for and cancelled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lxcfleet.api.apps import (
    AddAppRequest,
    AppCheckRecord,
    AppRecord,
    AppSwitchRecord,
    BakeAppRequest,
    NamedAppsRequest,
    UseAppRequest,
)
from lxcfleet.api.disk import DIFFERENCES, DISK, DiffRecord, DiffRequest, DiskRecord, DiskRequest
from lxcfleet.api.drain import DrainRecord, DrainRequest, EndDrainRequest
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
from lxcfleet.api.queries import (
    CHOSEN,
    EXAMINED,
    FOLLOWED,
    LINES_OF,
    LOGS_OF,
    SERVICES,
    VERIFIED,
    DoctorRequest,
    EventsRequest,
    LinesRequest,
    LogsRequest,
    UnitsRequest,
    VerifyRequest,
)
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
    TargetRecord,
    UsageRecord,
    VolumeRecord,
)
from lxcfleet.api.rehearsals import RehearsalRecord, RehearseRequest
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
from lxcfleet.api.shape import AnyCall, Call, InBody, Named, Nothing, StreamCall, TextCall, many, maybe, one
from lxcfleet.api.snapshots import (
    CreateSnapshotsRequest,
    RemoveSnapshotsRequest,
    RestoreSnapshotRequest,
    SnapshotRecord,
)
from lxcfleet.spec.selection import Selection

VERSION = "1.0"
MAX_BODY = 4 << 20
"""Bytes that the body of a request may have: a fleet file of 1 MiB fits in, with what JSON escapes in it."""
MAX_ATTACH = 200_000
"""Bytes that a request on the attach socket may have: it is one datagram, and the kernel takes little more by default."""

_NOTHING, _BY_NAME, _BY_ID = Nothing(), Named("name"), Named("id")
_SCRAPED = Nothing(strict=False)
"""A request for Prometheus. Unknown keys in its query are ignored, as Prometheus' configuration may add some."""

# -- containers ---------------------------------------------------------------------------------------------

SERVER: Call[None, ServerRecord] = Call(
    "server", "GET", "/1.0", "version, counts and paths of the daemon", _NOTHING, one(ServerRecord)
)
LIST: Call[Selection, list[ContainerRecord]] = Call(
    "list", "GET", "/1.0/containers", "the chosen containers in natural order", CHOSEN, many(ContainerRecord)
)
CREATE: Call[CreateRequest, CreationRecord] = Call(
    "create", "POST", "/1.0/containers", "begin to create containers", InBody(CreateRequest), one(CreationRecord), status=202
)
INFO: Call[str, ContainerDetails] = Call(
    "info", "GET", "/1.0/containers/{name}", "one container in full", _BY_NAME, one(ContainerDetails),
    hides=("environment", "spec.environment"),
)  # fmt: skip
USAGE: Call[Selection, UsageRecord] = Call(
    "usage", "GET", "/1.0/usage", "what the chosen containers have used so far; two answers give rates", CHOSEN,
    one(UsageRecord),
)  # fmt: skip
DU: Call[DiskRequest, list[DiskRecord]] = Call(
    "du", "GET", "/1.0/du", "what the deltas of the chosen containers take on the disk, by path", DISK, many(DiskRecord)
)
DIFF: Call[DiffRequest, DiffRecord] = Call(
    "diff", "GET", "/1.0/containers/{name}/diff", "what a container changed against mask and base", DIFFERENCES,
    one(DiffRecord),
)  # fmt: skip
LOGS: TextCall[LogsRequest] = TextCall("logs", "GET", "/1.0/containers/{name}/logs", "its console's or liblxc's log", LOGS_OF)
CONSOLES: StreamCall[LinesRequest, LineRecord] = StreamCall(
    "consoles", "GET", "/1.0/logs", "what the chosen containers printed, line by line, in the order of time", LINES_OF,
    (one(LineRecord),),
)  # fmt: skip
ACT: Call[ActionRequest, OperationRecord] = Call(
    "act", "POST", "/1.0/actions", "begin to start, stop, … or destroy containers", InBody(ActionRequest),
    one(OperationRecord), status=202,
)  # fmt: skip
SET: Call[SetRequest, SetRecord] = Call(
    "set", "POST", "/1.0/set", "change the specs of all chosen containers, or of none; begin to restart those that need it",
    InBody(SetRequest), one(SetRecord),
)  # fmt: skip
WAIT: Call[WaitRequest, list[ResultRecord]] = Call(
    "wait", "POST", "/1.0/wait", "one result for each chosen container, once all are as asked or the time is up",
    InBody(WaitRequest), many(ResultRecord), reads=True, waits=True,
)  # fmt: skip

# -- fleets as files ----------------------------------------------------------------------------------------

FLEETS: Call[None, list[FleetRecord]] = Call(
    "fleets", "GET", "/1.0/fleets", "the fleets that were applied on this host", _NOTHING, many(FleetRecord)
)
FLEET_PLAN: Call[FleetRequest, PlanRecord] = Call(
    "fleet_plan", "POST", "/1.0/fleets/plan", "what a fleet file would change; nothing is changed", InBody(FleetRequest),
    one(PlanRecord), reads=True,
)  # fmt: skip
FLEET_APPLY: Call[FleetRequest, ApplyRecord] = Call(
    "fleet_apply", "POST", "/1.0/fleets/apply", "begin to make the containers as a fleet file has them", InBody(FleetRequest),
    one(ApplyRecord), status=202,
)  # fmt: skip
SCALE: Call[ScaleRequest, ApplyRecord] = Call(
    "scale", "POST", "/1.0/fleets/scale", "begin to give a group of a fleet another count", InBody(ScaleRequest),
    one(ApplyRecord), status=202,
)  # fmt: skip
FLEET_EXPORT: Call[ExportRequest, TextRecord] = Call(
    "fleet_export", "POST", "/1.0/fleets/export", "a fleet file for containers that exist", InBody(ExportRequest),
    one(TextRecord),
)  # fmt: skip
FLEET_REMOVE: Call[RemoveFleetRequest, FleetRecord] = Call(
    "fleet_remove", "POST", "/1.0/fleets/remove", "forget a fleet that has no containers, or leave them to nobody",
    InBody(RemoveFleetRequest), one(FleetRecord),
)  # fmt: skip

# -- drains -------------------------------------------------------------------------------------------------

DRAIN: Call[None, DrainRecord | None] = Call(
    "drain", "GET", "/1.0/drain", "the drain of this host; null: it is not drained", _NOTHING, maybe(DrainRecord)
)
BEGIN_DRAIN: Call[DrainRequest, OperationRecord] = Call(
    "begin_drain", "POST", "/1.0/drain", "begin to stop all containers, and keep them stopped until the drain ends",
    InBody(DrainRequest), one(OperationRecord), status=202,
)  # fmt: skip
END_DRAIN: Call[EndDrainRequest, OperationRecord] = Call(
    "end_drain", "POST", "/1.0/drain/end", "end the drain, and begin to start the containers that ran",
    InBody(EndDrainRequest), one(OperationRecord), status=202,
)  # fmt: skip

# -- volumes ------------------------------------------------------------------------------------------------

VOLUMES: Call[None, list[VolumeRecord]] = Call(
    "volumes", "GET", "/1.0/volumes", "all volumes", _NOTHING, many(VolumeRecord)
)
VOLUME: Call[str, VolumeRecord] = Call(
    "volume", "GET", "/1.0/volumes/{name}", "one volume, with the space in use", _BY_NAME, one(VolumeRecord)
)
CREATE_VOLUME: Call[CreateVolumeRequest, OperationRecord] = Call(
    "create_volume", "POST", "/1.0/volumes", "begin to create a volume", InBody(CreateVolumeRequest), one(OperationRecord),
    status=202,
)  # fmt: skip
REMOVE_VOLUMES: Call[RemoveVolumesRequest, OperationRecord] = Call(
    "remove_volumes", "POST", "/1.0/volumes/remove", "begin to remove volumes that no container has, and all files on them",
    InBody(RemoveVolumesRequest), one(OperationRecord), status=202,
)  # fmt: skip

# -- apps ---------------------------------------------------------------------------------------------------

APPS: Call[None, list[AppRecord]] = Call(
    "apps", "GET", "/1.0/apps", "all releases of apps", _NOTHING, many(AppRecord)
)
ADD_APP: Call[AddAppRequest, OperationRecord] = Call(
    "add_app", "POST", "/1.0/apps", "begin to seal a release of an app", InBody(AddAppRequest), one(OperationRecord),
    status=202,
)  # fmt: skip
VERIFY_APPS: Call[NamedAppsRequest, list[AppCheckRecord]] = Call(
    "verify_apps", "POST", "/1.0/apps/verify", "read all files of releases: whether they are what was sealed",
    InBody(NamedAppsRequest), many(AppCheckRecord), waits=True,
)  # fmt: skip
REMOVE_APPS: Call[NamedAppsRequest, OperationRecord] = Call(
    "remove_apps", "POST", "/1.0/apps/remove", "begin to remove releases that no container has", InBody(NamedAppsRequest),
    one(OperationRecord), status=202,
)  # fmt: skip

BAKE_APP: Call[BakeAppRequest, OperationRecord] = Call(
    "bake_app", "POST", "/1.0/apps/bake", "begin to build a release in a throwaway clone", InBody(BakeAppRequest),
    one(OperationRecord), status=202,
)  # fmt: skip
USE_APP: Call[UseAppRequest, AppSwitchRecord] = Call(
    "use_app", "POST", "/1.0/apps/use", "begin to give containers another release of an app, or the one they had before",
    InBody(UseAppRequest), one(AppSwitchRecord), waits=True,
)  # fmt: skip

# -- snapshots ----------------------------------------------------------------------------------------------

SNAPSHOTS: Call[Selection, list[SnapshotRecord]] = Call(
    "snapshots", "GET", "/1.0/snapshots", "the snapshots of the chosen containers, the oldest of each first", CHOSEN,
    many(SnapshotRecord),
)  # fmt: skip
CREATE_SNAPSHOTS: Call[CreateSnapshotsRequest, OperationRecord] = Call(
    "create_snapshots", "POST", "/1.0/snapshots", "begin to make a snapshot of each chosen container",
    InBody(CreateSnapshotsRequest), one(OperationRecord), status=202, waits=True,
)  # fmt: skip
RESTORE_SNAPSHOT: Call[RestoreSnapshotRequest, OperationRecord] = Call(
    "restore_snapshot", "POST", "/1.0/snapshots/restore", "begin to give a container the delta of one of its snapshots",
    InBody(RestoreSnapshotRequest), one(OperationRecord), status=202, waits=True,
)  # fmt: skip
REMOVE_SNAPSHOTS: Call[RemoveSnapshotsRequest, OperationRecord] = Call(
    "remove_snapshots", "POST", "/1.0/snapshots/remove", "begin to remove snapshots of a container",
    InBody(RemoveSnapshotsRequest), one(OperationRecord), status=202,
)  # fmt: skip

# -- generations --------------------------------------------------------------------------------------------

GENERATIONS: Call[None, list[GenerationRecord]] = Call(
    "generations", "GET", "/1.0/generations", "all frozen bases, the newest first", _NOTHING, many(GenerationRecord)
)
FREEZE_BASE: Call[FreezeRequest, FreezeRecord] = Call(
    "freeze_base", "POST", "/1.0/generations", "freeze the host's root, unless the newest generation is the same",
    InBody(FreezeRequest), one(FreezeRecord), waits=True,
)  # fmt: skip
CHECK_GENERATION: Call[str, CheckedRecord] = Call(
    "check_generation", "POST", "/1.0/generations/{id}/check", "look for files that were written in place since", _BY_ID,
    one(CheckedRecord), waits=True,
)  # fmt: skip
REMOVE_GENERATIONS: Call[RemoveGenerationsRequest, GenerationsRemoved] = Call(
    "remove_generations", "POST", "/1.0/generations/remove", "remove generations that no container stands on",
    InBody(RemoveGenerationsRequest), one(GenerationsRemoved), waits=True,
)  # fmt: skip
ROLLBACK: Call[RollbackRequest, RollbackRecord] = Call(
    "rollback", "POST", "/1.0/rollback", "begin to give containers another base: a generation, or the host's root",
    InBody(RollbackRequest), one(RollbackRecord), waits=True,
)  # fmt: skip

HOLD: Call[HoldRequest, HoldsRecord] = Call(
    "hold", "POST", "/1.0/generations/hold", "hold containers on the generations that they stand on, until a day",
    InBody(HoldRequest), one(HoldsRecord),
)  # fmt: skip
RELEASE: Call[ReleaseRequest, ReleasedRecord] = Call(
    "release", "POST", "/1.0/generations/release", "have containers go along with the next patch that goes well",
    InBody(ReleaseRequest), one(ReleasedRecord),
)  # fmt: skip

# -- secrets ------------------------------------------------------------------------------------------------

SECRETS: Call[None, list[SecretRecord]] = Call(
    "secrets", "GET", "/1.0/secrets", "the secrets that are declared, without their values", _NOTHING, many(SecretRecord)
)
REFRESH_SECRETS: Call[RefreshSecretsRequest, OperationRecord] = Call(
    "refresh_secrets", "POST", "/1.0/secrets/refresh", "begin to ask the sources of secrets anew, and to give containers what"
    " changed", InBody(RefreshSecretsRequest), one(OperationRecord), status=202,
)  # fmt: skip

# -- operations and events ----------------------------------------------------------------------------------

OPERATIONS: Call[None, list[OperationRecord]] = Call(
    "operations", "GET", "/1.0/operations", "the operations that run or ended lately", _NOTHING, many(OperationRecord)
)
OPERATION: Call[str, OperationRecord] = Call(
    "operation", "GET", "/1.0/operations/{id}", "how far one operation is", _BY_ID, one(OperationRecord)
)
FOLLOW: StreamCall[str, ResultRecord | OperationRecord] = StreamCall(
    "follow", "GET", "/1.0/operations/{id}/follow",
    "each result as it comes, also those from before the call; in the end the operation itself",
    _BY_ID, (one(ResultRecord), one(OperationRecord)),
)  # fmt: skip
CANCEL: Call[str, OperationRecord] = Call(
    "cancel", "DELETE", "/1.0/operations/{id}", "do not begin what has not begun", _BY_ID, one(OperationRecord)
)
EVENTS: StreamCall[EventsRequest, EventRecord] = StreamCall(
    "events", "GET", "/1.0/events", "what happened since the daemon started, or since a time", FOLLOWED, (one(EventRecord),)
)

# -- the host -----------------------------------------------------------------------------------------------

DOCTOR: Call[DoctorRequest, DoctorRecord] = Call(
    "doctor", "GET", "/1.0/doctor", "compare what more containers need with what the host has", EXAMINED, one(DoctorRecord)
)
FIX: Call[DoctorRequest, DoctorRecord] = Call(
    "fix", "POST", "/1.0/doctor/fix", "raise what can be raised safely, persistently; answers how it is then",
    InBody(DoctorRequest), one(DoctorRecord),
)  # fmt: skip
UNITS: Call[UnitsRequest, list[FindingRecord]] = Call(
    "units", "GET", "/1.0/units", "what may keep these services of the host's from running in containers", SERVICES,
    many(FindingRecord),
)  # fmt: skip
METRICS: TextCall[None] = TextCall(
    "metrics", "GET", "/metrics", "what Prometheus reads", _SCRAPED, "text/plain; version=0.0.4; charset=utf-8"
)
TARGETS: Call[None, list[TargetRecord]] = Call(
    "targets", "GET", "/1.0/targets", "the containers' own exporters, for Prometheus' http_sd", _SCRAPED, many(TargetRecord)
)

# -- patches ------------------------------------------------------------------------------------------------

STALE: Call[Selection, list[StaleRecord]] = Call(
    "stale", "GET", "/1.0/stale", "what the chosen containers run that is old", CHOSEN, many(StaleRecord)
)
PARTS: Call[None, list[PartRecord]] = Call(
    "parts", "GET", "/1.0/parts", "what lxcfleet's own parts on the host run that is old", _NOTHING, many(PartRecord)
)
VERIFY: Call[VerifyRequest, ProofRecord] = Call(
    "verify", "GET", "/1.0/verify", "whether a patch is in the chosen containers", VERIFIED, one(ProofRecord)
)
CVES: Call[Selection, CvesRecord] = Call(
    "cves", "GET", "/1.0/cves", "which CVEs are closed in the chosen containers, and which are not", CHOSEN, one(CvesRecord)
)
SHADOWS: Call[Selection, list[ShadowsRecord]] = Call(
    "shadows", "GET", "/1.0/audit/shadow", "what hides the host's files in the deltas of the chosen containers", CHOSEN,
    many(ShadowsRecord),
)  # fmt: skip
FIX_SHADOWS: Call[FixShadowsRequest, list[ResultRecord]] = Call(
    "fix_shadows", "POST", "/1.0/audit/shadow/fix", "remove shadows by name", InBody(FixShadowsRequest), many(ResultRecord)
)
EXPOSURE: Call[Selection, list[ExposureRecord]] = Call(
    "exposure", "GET", "/1.0/audit/exposure", "what of the host the chosen containers can read and should not", CHOSEN,
    many(ExposureRecord),
)  # fmt: skip
NOTICE: Call[None, NoticeRecord] = Call(
    "notice", "GET", "/1.0/patch", "how far the last change of the host's packages is", _NOTHING, one(NoticeRecord)
)
PREPARE: Call[None, FreezeRecord | None] = Call(
    "prepare", "POST", "/1.0/patch/prepare", "a patch comes: freeze the base, if the settings say so; null: they do not",
    _NOTHING, maybe(FreezeRecord), waits=True,
)  # fmt: skip
REHEARSE: Call[RehearseRequest, RehearsalRecord] = Call(
    "rehearse", "POST", "/1.0/patch/rehearse", "test a throwaway clone of a container on a base, and destroy it",
    InBody(RehearseRequest), one(RehearsalRecord), waits=True,
)  # fmt: skip
NOTIFY: Call[None, NoticeRecord] = Call(
    "notify", "POST", "/1.0/patch/notify", "tell that the host's packages changed; answers how far that is", _NOTHING,
    one(NoticeRecord),
)  # fmt: skip

# -- rollouts -----------------------------------------------------------------------------------------------

ROLLOUT: Call[None, RolloutRecord | None] = Call(
    "rollout", "GET", "/1.0/rollout", "the rollout that is under way, or was last", _NOTHING, maybe(RolloutRecord)
)
ROLL: Call[RolloutRequest, RolloutRecord] = Call(
    "roll", "POST", "/1.0/rollout", "begin a rollout, or have the one that is under way take up a patch",
    InBody(RolloutRequest), one(RolloutRecord), status=202,
)  # fmt: skip
ROLLOUT_FOLLOW: StreamCall[None, RolloutRecord] = StreamCall(
    "rollout_follow", "GET", "/1.0/rollout/follow", "the rollout at each change, until it has ended or is halted", _NOTHING,
    (one(RolloutRecord),),
)  # fmt: skip
ROLLOUT_PAUSE: Call[None, RolloutRecord] = Call(
    "rollout_pause", "POST", "/1.0/rollout/pause", "begin no further wave", _NOTHING, one(RolloutRecord)
)
ROLLOUT_RESUME: Call[ResumeRequest, RolloutRecord] = Call(
    "rollout_resume", "POST", "/1.0/rollout/resume", "go on", InBody(ResumeRequest), one(RolloutRecord)
)
ROLLOUT_UNDO: Call[None, RolloutRecord] = Call(
    "rollout_undo", "POST", "/1.0/rollout/undo", "begin a rollout that puts back the specs that the last one replaced",
    _NOTHING, one(RolloutRecord), status=202,
)  # fmt: skip
ROLLOUT_ABORT: Call[None, RolloutRecord] = Call(
    "rollout_abort", "POST", "/1.0/rollout/abort", "end the rollout as it is", _NOTHING, one(RolloutRecord)
)

CALLS: Mapping[str, AnyCall[Any]] = {call.name: call for call in [*globals().values()] if isinstance(call, AnyCall)}
"""All calls by name, in the order above."""
