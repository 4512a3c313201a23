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
from typing import TYPE_CHECKING, Any

from lxcfleet.api.shape import AnyCall, Call, InBody, Later, Named, Nothing, StreamCall, TextCall, many, maybe, one

if TYPE_CHECKING:
    from lxcfleet.api import (
        apps,
        disk,
        drain,
        findings,
        fleets,
        generations,
        moves,
        queries,
        records,
        rehearsals,
        requests,
        snapshots,
    )
    from lxcfleet.spec.selection import Selection
else:  # The command line makes one call or two: it need not wait for the types of all the others.
    apps, disk, drain, findings = Later("apps"), Later("disk"), Later("drain"), Later("findings")
    fleets, generations, queries, records = Later("fleets"), Later("generations"), Later("queries"), Later("records")
    rehearsals, requests, snapshots = Later("rehearsals"), Later("requests"), Later("snapshots")
    moves = Later("moves")

VERSION = "1.0"
MAX_BODY = 4 << 20
"""Bytes that the body of a request may have: a fleet file of 1 MiB fits in, with what JSON escapes in it."""
MAX_ATTACH = 200_000
"""Bytes that a request on the attach socket may have: it is one datagram, and the kernel takes little more by default."""

_NOTHING, _BY_NAME, _BY_ID = Nothing(), Named("name"), Named("id")
_SCRAPED = Nothing(strict=False)
"""A request for Prometheus. Unknown keys in its query are ignored, as Prometheus' configuration may add some."""

# -- containers ---------------------------------------------------------------------------------------------

SERVER: Call[None, records.ServerRecord] = Call(
    "server", "GET", "/1.0", "version, counts and paths of the daemon", _NOTHING, one(records.ServerRecord)
)
LIST: Call[Selection, list[records.ContainerRecord]] = Call(
    "list", "GET", "/1.0/containers", "the chosen containers in natural order", queries.CHOSEN, many(records.ContainerRecord)
)
CREATE: Call[requests.CreateRequest, records.CreationRecord] = Call(
    "create",
    "POST",
    "/1.0/containers",
    "begin to create containers",
    InBody(requests.CreateRequest),
    one(records.CreationRecord),
    status=202,
)
INFO: Call[str, records.ContainerDetails] = Call(
    "info", "GET", "/1.0/containers/{name}", "one container in full", _BY_NAME, one(records.ContainerDetails),
    hides=("environment", "spec.environment"),
)  # fmt: skip
USAGE: Call[Selection, records.UsageRecord] = Call(
    "usage", "GET", "/1.0/usage", "what the chosen containers have used so far; two answers give rates", queries.CHOSEN,
    one(records.UsageRecord),
)  # fmt: skip
DU: Call[disk.DiskRequest, list[disk.DiskRecord]] = Call(
    "du",
    "GET",
    "/1.0/du",
    "what the deltas of the chosen containers take on the disk, by path",
    disk.DISK,
    many(disk.DiskRecord),
    waits=True,
)
DIFF: Call[disk.DiffRequest, disk.DiffRecord] = Call(
    "diff", "GET", "/1.0/containers/{name}/diff", "what a container changed against mask and base", disk.DIFFERENCES,
    one(disk.DiffRecord), waits=True,
)  # fmt: skip
LOGS: TextCall[queries.LogsRequest] = TextCall(
    "logs", "GET", "/1.0/containers/{name}/logs", "its console's or liblxc's log", queries.LOGS_OF
)
CONSOLES: StreamCall[queries.LinesRequest, records.LineRecord] = StreamCall(
    "consoles",
    "GET",
    "/1.0/logs",
    "what the chosen containers printed, line by line, in the order of time",
    queries.LINES_OF,
    (one(records.LineRecord),),
)
ACT: Call[requests.ActionRequest, records.OperationRecord] = Call(
    "act", "POST", "/1.0/actions", "begin to start, stop, … or destroy containers", InBody(requests.ActionRequest),
    one(records.OperationRecord), status=202,
)  # fmt: skip
SET: Call[requests.SetRequest, records.SetRecord] = Call(
    "set", "POST", "/1.0/set", "change the specs of all chosen containers, or of none; begin to restart those that need it",
    InBody(requests.SetRequest), one(records.SetRecord),
)  # fmt: skip
WAIT: Call[requests.WaitRequest, list[records.ResultRecord]] = Call(
    "wait", "POST", "/1.0/wait", "one result for each chosen container, once all are as asked or the time is up",
    InBody(requests.WaitRequest), many(records.ResultRecord), reads=True, waits=True,
)  # fmt: skip

# -- fleets as files ----------------------------------------------------------------------------------------

FLEETS: Call[None, list[fleets.FleetRecord]] = Call(
    "fleets", "GET", "/1.0/fleets", "the fleets that were applied on this host", _NOTHING, many(fleets.FleetRecord)
)
FLEET_PLAN: Call[fleets.FleetRequest, fleets.PlanRecord] = Call(
    "fleet_plan",
    "POST",
    "/1.0/fleets/plan",
    "what a fleet file would change; nothing is changed",
    InBody(fleets.FleetRequest),
    one(fleets.PlanRecord),
    reads=True,
)
FLEET_APPLY: Call[fleets.FleetRequest, fleets.ApplyRecord] = Call(
    "fleet_apply",
    "POST",
    "/1.0/fleets/apply",
    "begin to make the containers as a fleet file has them",
    InBody(fleets.FleetRequest),
    one(fleets.ApplyRecord),
    status=202,
)
SCALE: Call[fleets.ScaleRequest, fleets.ApplyRecord] = Call(
    "scale", "POST", "/1.0/fleets/scale", "begin to give a group of a fleet another count", InBody(fleets.ScaleRequest),
    one(fleets.ApplyRecord), status=202,
)  # fmt: skip
FLEET_EXPORT: Call[fleets.ExportRequest, fleets.TextRecord] = Call(
    "fleet_export", "POST", "/1.0/fleets/export", "a fleet file for containers that exist", InBody(fleets.ExportRequest),
    one(fleets.TextRecord),
)  # fmt: skip
FLEET_REMOVE: Call[fleets.RemoveFleetRequest, fleets.FleetRecord] = Call(
    "fleet_remove", "POST", "/1.0/fleets/remove", "forget a fleet that has no containers, or leave them to nobody",
    InBody(fleets.RemoveFleetRequest), one(fleets.FleetRecord),
)  # fmt: skip

# -- drains -------------------------------------------------------------------------------------------------

DRAIN: Call[None, drain.DrainRecord | None] = Call(
    "drain", "GET", "/1.0/drain", "the drain of this host; null: it is not drained", _NOTHING, maybe(drain.DrainRecord)
)
BEGIN_DRAIN: Call[drain.DrainRequest, records.OperationRecord] = Call(
    "begin_drain", "POST", "/1.0/drain", "begin to stop all containers, and keep them stopped until the drain ends",
    InBody(drain.DrainRequest), one(records.OperationRecord), status=202,
)  # fmt: skip
END_DRAIN: Call[drain.EndDrainRequest, records.OperationRecord] = Call(
    "end_drain", "POST", "/1.0/drain/end", "end the drain, and begin to start the containers that ran",
    InBody(drain.EndDrainRequest), one(records.OperationRecord), status=202,
)  # fmt: skip

# -- moves --------------------------------------------------------------------------------------------------

MOVES: Call[None, list[moves.MoveRecord]] = Call(
    "moves", "GET", "/1.0/moves", "the moves of containers to and from other hosts", _NOTHING, many(moves.MoveRecord)
)
OFFER_MOVE: Call[moves.OfferRequest, moves.OfferRecord] = Call(
    "offer_move", "POST", "/1.0/moves/offer", "whether a container can be moved, and what the other host has to know",
    InBody(moves.OfferRequest), one(moves.OfferRecord),
)  # fmt: skip
FORGET_MOVE: Call[moves.ForgetMoveRequest, moves.MoveRecord] = Call(
    "forget_move", "POST", "/1.0/moves/forget", "an operator says that a container belongs to this host, and to no other",
    InBody(moves.ForgetMoveRequest), one(moves.MoveRecord),
)  # fmt: skip
CHECK_ARRIVAL: Call[moves.CheckArrivalRequest, moves.ArrivalRecord] = Call(
    "check_arrival", "POST", "/1.0/arrivals/check", "whether a container of another host can come here",
    InBody(moves.CheckArrivalRequest), one(moves.ArrivalRecord),
)  # fmt: skip
ARRIVAL: Call[moves.ArrivalRequest, moves.MoveRecord | None] = Call(
    "arrival", "POST", "/1.0/arrivals", "ask for, or change, the fate of a container that came by a move",
    InBody(moves.ArrivalRequest), maybe(moves.MoveRecord),
)  # fmt: skip

# -- volumes ------------------------------------------------------------------------------------------------

VOLUMES: Call[None, list[records.VolumeRecord]] = Call(
    "volumes", "GET", "/1.0/volumes", "all volumes", _NOTHING, many(records.VolumeRecord)
)
VOLUME: Call[str, records.VolumeRecord] = Call(
    "volume", "GET", "/1.0/volumes/{name}", "one volume, with the space in use", _BY_NAME, one(records.VolumeRecord)
)
CREATE_VOLUME: Call[requests.CreateVolumeRequest, records.OperationRecord] = Call(
    "create_volume",
    "POST",
    "/1.0/volumes",
    "begin to create a volume",
    InBody(requests.CreateVolumeRequest),
    one(records.OperationRecord),
    status=202,
)
REMOVE_VOLUMES: Call[requests.RemoveVolumesRequest, records.OperationRecord] = Call(
    "remove_volumes", "POST", "/1.0/volumes/remove", "begin to remove volumes that no container has, and all files on them",
    InBody(requests.RemoveVolumesRequest), one(records.OperationRecord), status=202,
)  # fmt: skip

# -- apps ---------------------------------------------------------------------------------------------------

APPS: Call[None, list[apps.AppRecord]] = Call(
    "apps", "GET", "/1.0/apps", "all releases of apps", _NOTHING, many(apps.AppRecord)
)
ADD_APP: Call[apps.AddAppRequest, records.OperationRecord] = Call(
    "add_app",
    "POST",
    "/1.0/apps",
    "begin to seal a release of an app",
    InBody(apps.AddAppRequest),
    one(records.OperationRecord),
    status=202,
)
VERIFY_APPS: Call[apps.NamedAppsRequest, list[apps.AppCheckRecord]] = Call(
    "verify_apps", "POST", "/1.0/apps/verify", "read all files of releases: whether any was changed since it was sealed",
    InBody(apps.NamedAppsRequest), many(apps.AppCheckRecord), waits=True,
)  # fmt: skip
REMOVE_APPS: Call[apps.NamedAppsRequest, records.OperationRecord] = Call(
    "remove_apps",
    "POST",
    "/1.0/apps/remove",
    "begin to remove releases that no container has",
    InBody(apps.NamedAppsRequest),
    one(records.OperationRecord),
    status=202,
)

BAKE_APP: Call[apps.BakeAppRequest, records.OperationRecord] = Call(
    "bake_app", "POST", "/1.0/apps/bake", "begin to build a release in a throwaway clone", InBody(apps.BakeAppRequest),
    one(records.OperationRecord), status=202,
)  # fmt: skip
USE_APP: Call[apps.UseAppRequest, apps.AppSwitchRecord] = Call(
    "use_app", "POST", "/1.0/apps/use", "begin to give containers another release of an app, or the one they had before",
    InBody(apps.UseAppRequest), one(apps.AppSwitchRecord), waits=True,
)  # fmt: skip

# -- snapshots ----------------------------------------------------------------------------------------------

SNAPSHOTS: Call[Selection, list[snapshots.SnapshotRecord]] = Call(
    "snapshots", "GET", "/1.0/snapshots", "the snapshots of the chosen containers, the oldest of each first", queries.CHOSEN,
    many(snapshots.SnapshotRecord),
)  # fmt: skip
CREATE_SNAPSHOTS: Call[snapshots.CreateSnapshotsRequest, records.OperationRecord] = Call(
    "create_snapshots", "POST", "/1.0/snapshots", "begin to make a snapshot of each chosen container",
    InBody(snapshots.CreateSnapshotsRequest), one(records.OperationRecord), status=202, waits=True,
)  # fmt: skip
RESTORE_SNAPSHOT: Call[snapshots.RestoreSnapshotRequest, records.OperationRecord] = Call(
    "restore_snapshot", "POST", "/1.0/snapshots/restore", "begin to give a container the delta of one of its snapshots",
    InBody(snapshots.RestoreSnapshotRequest), one(records.OperationRecord), status=202, waits=True,
)  # fmt: skip
REMOVE_SNAPSHOTS: Call[snapshots.RemoveSnapshotsRequest, records.OperationRecord] = Call(
    "remove_snapshots", "POST", "/1.0/snapshots/remove", "begin to remove snapshots of a container",
    InBody(snapshots.RemoveSnapshotsRequest), one(records.OperationRecord), status=202,
)  # fmt: skip

# -- generations --------------------------------------------------------------------------------------------

GENERATIONS: Call[None, list[generations.GenerationRecord]] = Call(
    "generations",
    "GET",
    "/1.0/generations",
    "all frozen bases, the newest first",
    _NOTHING,
    many(generations.GenerationRecord),
)
FREEZE_BASE: Call[generations.FreezeRequest, generations.FreezeRecord] = Call(
    "freeze_base", "POST", "/1.0/generations", "freeze the host's root, unless the newest generation is the same",
    InBody(generations.FreezeRequest), one(generations.FreezeRecord), waits=True,
)  # fmt: skip
CHECK_GENERATION: Call[str, generations.CheckedRecord] = Call(
    "check_generation", "POST", "/1.0/generations/{id}/check", "look for files that were written in place since", _BY_ID,
    one(generations.CheckedRecord), waits=True,
)  # fmt: skip
REMOVE_GENERATIONS: Call[generations.RemoveGenerationsRequest, generations.GenerationsRemoved] = Call(
    "remove_generations", "POST", "/1.0/generations/remove", "remove generations that no container stands on",
    InBody(generations.RemoveGenerationsRequest), one(generations.GenerationsRemoved), waits=True,
)  # fmt: skip
ROLLBACK: Call[generations.RollbackRequest, generations.RollbackRecord] = Call(
    "rollback", "POST", "/1.0/rollback", "begin to give containers another base: a generation, or the host's root",
    InBody(generations.RollbackRequest), one(generations.RollbackRecord), waits=True,
)  # fmt: skip

HOLD: Call[generations.HoldRequest, generations.HoldsRecord] = Call(
    "hold", "POST", "/1.0/generations/hold", "hold containers on the generations that they stand on, until a day",
    InBody(generations.HoldRequest), one(generations.HoldsRecord),
)  # fmt: skip
RELEASE: Call[generations.ReleaseRequest, generations.ReleasedRecord] = Call(
    "release", "POST", "/1.0/generations/release", "have containers go along with the next patch that goes well",
    InBody(generations.ReleaseRequest), one(generations.ReleasedRecord),
)  # fmt: skip

# -- secrets ------------------------------------------------------------------------------------------------

SECRETS: Call[None, list[records.SecretRecord]] = Call(
    "secrets",
    "GET",
    "/1.0/secrets",
    "the secrets that are declared, without their values",
    _NOTHING,
    many(records.SecretRecord),
)
REFRESH_SECRETS: Call[requests.RefreshSecretsRequest, records.OperationRecord] = Call(
    "refresh_secrets", "POST", "/1.0/secrets/refresh", "begin to ask the sources of secrets anew, and to give containers what"
    " changed", InBody(requests.RefreshSecretsRequest), one(records.OperationRecord), status=202,
)  # fmt: skip

# -- operations and events ----------------------------------------------------------------------------------

OPERATIONS: Call[None, list[records.OperationRecord]] = Call(
    "operations", "GET", "/1.0/operations", "the operations that run or ended lately", _NOTHING, many(records.OperationRecord)
)
OPERATION: Call[str, records.OperationRecord] = Call(
    "operation", "GET", "/1.0/operations/{id}", "how far one operation is", _BY_ID, one(records.OperationRecord)
)
FOLLOW: StreamCall[str, records.ResultRecord | records.OperationRecord] = StreamCall(
    "follow", "GET", "/1.0/operations/{id}/follow",
    "each result as it comes, also those from before the call; in the end the operation itself",
    _BY_ID, (one(records.ResultRecord), one(records.OperationRecord)),
)  # fmt: skip
CANCEL: Call[str, records.OperationRecord] = Call(
    "cancel", "DELETE", "/1.0/operations/{id}", "do not begin what has not begun", _BY_ID, one(records.OperationRecord)
)
EVENTS: StreamCall[queries.EventsRequest, records.EventRecord] = StreamCall(
    "events",
    "GET",
    "/1.0/events",
    "what happened since the daemon started, or since a time",
    queries.FOLLOWED,
    (one(records.EventRecord),),
)

# -- the host -----------------------------------------------------------------------------------------------

DOCTOR: Call[queries.DoctorRequest, records.DoctorRecord] = Call(
    "doctor",
    "GET",
    "/1.0/doctor",
    "compare what more containers need with what the host has",
    queries.EXAMINED,
    one(records.DoctorRecord),
)
FIX: Call[queries.DoctorRequest, records.DoctorRecord] = Call(
    "fix", "POST", "/1.0/doctor/fix", "raise what can be raised safely, persistently; answers how it is then",
    InBody(queries.DoctorRequest), one(records.DoctorRecord),
)  # fmt: skip
UNITS: Call[queries.UnitsRequest, list[records.FindingRecord]] = Call(
    "units", "GET", "/1.0/units", "what may keep these services of the host's from running in containers", queries.SERVICES,
    many(records.FindingRecord),
)  # fmt: skip
NETWORK: Call[queries.NetworkRequest, list[records.FindingRecord]] = Call(
    "network", "GET", "/1.0/network", "what on the host keeps the fleet from having such a network", queries.NETWORKS,
    many(records.FindingRecord),
)  # fmt: skip
METRICS: TextCall[None] = TextCall(
    "metrics", "GET", "/metrics", "what Prometheus reads", _SCRAPED, "text/plain; version=0.0.4; charset=utf-8"
)
TARGETS: Call[None, list[records.TargetRecord]] = Call(
    "targets",
    "GET",
    "/1.0/targets",
    "the containers' own exporters, for Prometheus' http_sd",
    _SCRAPED,
    many(records.TargetRecord),
)

# -- patches ------------------------------------------------------------------------------------------------

STALE: Call[Selection, list[findings.StaleRecord]] = Call(
    "stale", "GET", "/1.0/stale", "what the chosen containers run that is old", queries.CHOSEN, many(findings.StaleRecord)
)
PARTS: Call[None, list[findings.PartRecord]] = Call(
    "parts", "GET", "/1.0/parts", "what lxcfleet's own parts on the host run that is old", _NOTHING, many(findings.PartRecord)
)
VERIFY: Call[queries.VerifyRequest, findings.ProofRecord] = Call(
    "verify", "GET", "/1.0/verify", "whether a patch is in the chosen containers", queries.VERIFIED, one(findings.ProofRecord)
)
CVES: Call[Selection, findings.CvesRecord] = Call(
    "cves",
    "GET",
    "/1.0/cves",
    "which CVEs are closed in the chosen containers, and which are not",
    queries.CHOSEN,
    one(findings.CvesRecord),
)
SHADOWS: Call[Selection, list[findings.ShadowsRecord]] = Call(
    "shadows",
    "GET",
    "/1.0/audit/shadow",
    "what hides the host's files in the deltas of the chosen containers",
    queries.CHOSEN,
    many(findings.ShadowsRecord),
)
FIX_SHADOWS: Call[requests.FixShadowsRequest, list[records.ResultRecord]] = Call(
    "fix_shadows",
    "POST",
    "/1.0/audit/shadow/fix",
    "remove shadows by name",
    InBody(requests.FixShadowsRequest),
    many(records.ResultRecord),
)
EXPOSURE: Call[Selection, list[findings.ExposureRecord]] = Call(
    "exposure",
    "GET",
    "/1.0/audit/exposure",
    "what of the host the chosen containers can read and should not",
    queries.CHOSEN,
    many(findings.ExposureRecord),
)
NOTICE: Call[None, findings.NoticeRecord] = Call(
    "notice", "GET", "/1.0/patch", "how far the last change of the host's packages is", _NOTHING, one(findings.NoticeRecord)
)
PREPARE: Call[None, generations.FreezeRecord | None] = Call(
    "prepare", "POST", "/1.0/patch/prepare", "a patch comes: freeze the base, if the settings say so; null: they do not",
    _NOTHING, maybe(generations.FreezeRecord), waits=True,
)  # fmt: skip
REHEARSE: Call[rehearsals.RehearseRequest, rehearsals.RehearsalRecord] = Call(
    "rehearse", "POST", "/1.0/patch/rehearse", "test a throwaway clone of a container on a base, and destroy it",
    InBody(rehearsals.RehearseRequest), one(rehearsals.RehearsalRecord), waits=True,
)  # fmt: skip
NOTIFY: Call[None, findings.NoticeRecord] = Call(
    "notify", "POST", "/1.0/patch/notify", "tell that the host's packages changed; answers how far that is", _NOTHING,
    one(findings.NoticeRecord),
)  # fmt: skip

# -- rollouts -----------------------------------------------------------------------------------------------

ROLLOUT: Call[None, records.RolloutRecord | None] = Call(
    "rollout", "GET", "/1.0/rollout", "the rollout that is under way, or was last", _NOTHING, maybe(records.RolloutRecord)
)
ROLL: Call[requests.RolloutRequest, records.RolloutRecord] = Call(
    "roll", "POST", "/1.0/rollout", "begin a rollout, or have the one that is under way take up a patch",
    InBody(requests.RolloutRequest), one(records.RolloutRecord), status=202,
)  # fmt: skip
ROLLOUT_FOLLOW: StreamCall[None, records.RolloutRecord] = StreamCall(
    "rollout_follow", "GET", "/1.0/rollout/follow", "the rollout at each change, until it has ended or is halted", _NOTHING,
    (one(records.RolloutRecord),),
)  # fmt: skip
ROLLOUT_PAUSE: Call[None, records.RolloutRecord] = Call(
    "rollout_pause", "POST", "/1.0/rollout/pause", "begin no further wave", _NOTHING, one(records.RolloutRecord)
)
ROLLOUT_RESUME: Call[requests.ResumeRequest, records.RolloutRecord] = Call(
    "rollout_resume", "POST", "/1.0/rollout/resume", "go on", InBody(requests.ResumeRequest), one(records.RolloutRecord)
)
ROLLOUT_UNDO: Call[bool, records.RolloutRecord] = Call(
    "rollout_undo", "POST", "/1.0/rollout/undo", "begin a rollout that puts back the specs that the last one replaced",
    queries.UNDONE, one(records.RolloutRecord), status=202,
)  # fmt: skip
ROLLOUT_ABORT: Call[None, records.RolloutRecord] = Call(
    "rollout_abort", "POST", "/1.0/rollout/abort", "end the rollout as it is", _NOTHING, one(records.RolloutRecord)
)

CALLS: Mapping[str, AnyCall[Any]] = {call.name: call for call in [*globals().values()] if isinstance(call, AnyCall)}
"""All calls by name, in the order above."""
