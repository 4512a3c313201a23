"""The declaration of the API: the server reads what the client writes; each call has a fitting handler."""

from __future__ import annotations

import http.client
import json
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web

from lxcfleet.api import calls, client
from lxcfleet.api.apps import AddAppRequest, BakeAppRequest, NamedAppsRequest, UseAppRequest
from lxcfleet.api.calls import CALLS
from lxcfleet.api.client import Client
from lxcfleet.api.disk import DiffRequest, DiskRequest
from lxcfleet.api.drain import DrainRequest, EndDrainRequest
from lxcfleet.api.fleets import ExportRequest, FleetRequest, RemoveFleetRequest, ScaleRequest
from lxcfleet.api.generations import (
    FreezeRequest,
    HoldRequest,
    ReleaseRequest,
    RemoveGenerationsRequest,
    RollbackRequest,
)
from lxcfleet.api.moves import ArrivalRequest, CheckArrivalRequest, Do, ForgetMoveRequest, OfferRequest
from lxcfleet.api.queries import (
    DoctorRequest,
    EventsRequest,
    LinesRequest,
    LogsRequest,
    NetworkRequest,
    UnitsRequest,
    VerifyRequest,
)
from lxcfleet.api.records import DoctorRecord, EventRecord, OperationRecord
from lxcfleet.api.rehearsals import CloneDelta, RehearseRequest
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
from lxcfleet.api.shape import Sent
from lxcfleet.api.snapshots import CreateSnapshotsRequest, RemoveSnapshotsRequest, RestoreSnapshotRequest
from lxcfleet.daemon.http.routes import Routes
from lxcfleet.errors import InvalidInput
from lxcfleet.spec.reading.terms import Init
from lxcfleet.spec.selection import Selection
from lxcfleet.spec.states import Action

WEB = Selection(("web*", "a"), (("tier", "front"), ("k", "a-b")))
REQUESTS: dict[str, list[Any]] = {
    "list": [Selection(), WEB],
    "info": ["web1"],
    "create": [CreateRequest("web", 3, said={"command": ("true",)}), CreateRequest()],
    "logs": [LogsRequest("a"), LogsRequest("a", "lxc", 7, follow=True)],
    "consoles": [LinesRequest(WEB), LinesRequest(Selection(), 3, 1767225600.125, follow=True)],
    "act": [ActionRequest(Action.STOP, WEB, timeout=2.5)],
    "set": [SetRequest(WEB, ("memory=512M", "labels.tier="), False, {"canaries": "2"}, True, True)],
    "volume": ["data"],
    "create_volume": [CreateVolumeRequest("data"), CreateVolumeRequest("data", 4 << 20, {"tier": "db"}, True, True)],
    "add_app": [AddAppRequest("shop", "1.4", "/srv/build"), AddAppRequest("shop", "1", "/a.tar", 1, 5, True), AddAppRequest(
        "shop", "1", "/a.tar", form="layer", covers=("/etc/shop", "/usr/bin/vi"))],
    "verify_apps": [NamedAppsRequest(("shop", "other@1"))],
    "bake_app": [BakeAppRequest("shop", "1", said={"command": ("make",)}), BakeAppRequest(
        "shop", "1", "/srv/x", 60, 5, True, {"command": ("make", "x"), "memory": 1 << 30}, "layer", ("/etc/shop",))],
    "use_app": [UseAppRequest(WEB, "shop@1.5:/srv/shop", {"canaries": "2"}, False, True), UseAppRequest(WEB)],
    "remove_apps": [NamedAppsRequest(("shop@1.4",), dry_run=True)],
    "remove_volumes": [RemoveVolumesRequest(("data", "cache"), dry_run=True)],
    "refresh_secrets": [RefreshSecretsRequest(("db-pw", "shop/api")), RefreshSecretsRequest((), True, True)],
    "wait": [WaitRequest(WEB, "healthy", 3)],
    "operation": ["f00"], "follow": ["f00"], "cancel": ["f00"],
    "events": [EventsRequest(), EventsRequest(follow=True, since=1.5)],
    "doctor": [DoctorRequest(), DoctorRequest(7, Init.APP)],
    "fix": [DoctorRequest(7, Init.APP)],
    "network": [NetworkRequest("lxcfleet0", "10.5.0.0/16", "none")],
    "units": [UnitsRequest(("a.service", "b@c.timer"))],
    "stale": [WEB], "usage": [WEB], "shadows": [WEB], "exposure": [WEB],
    "du": [DiskRequest(WEB), DiskRequest(Selection(), 3, 7, volumes=True)],
    "diff": [DiffRequest("a"), DiffRequest("a", "/etc/a b", 7)],
    "verify": [VerifyRequest(WEB), VerifyRequest(Selection(), ("libc6", "openssl"), True, ("CVE-2026-0001",))],
    "cves": [Selection(), WEB],
    "fix_shadows": [FixShadowsRequest(WEB, ("/usr/bin/env",), dry_run=True), FixShadowsRequest(WEB, (), packages=("env",))],
    "fleet_plan": [FleetRequest("lxcfleet: 1\n", "f.yaml", {"a": "B=1\n"}, {"b": "gone"}, "yes", True)],
    "fleet_apply": [FleetRequest("x", plan="0123", policy={"canaries": "2"}), FleetRequest("")],
    "scale": [ScaleRequest("web", 3), ScaleRequest("web", 0, "shop", dry_run=True)],
    "fleet_export": [ExportRequest("shop", WEB)], "fleet_remove": [RemoveFleetRequest("shop", orphan=True)],
    "offer_move": [OfferRequest("web1"), OfferRequest("web1", True)],
    "forget_move": [ForgetMoveRequest("web1")],
    "check_arrival": [CheckArrivalRequest("web1", 1, "0.1.0", "alpha/0123", 7, {"init": "app"})],
    "arrival": [ArrivalRequest("web1", "0123456789abcdef", do) for do in Do],
    "begin_drain": [DrainRequest(), DrainRequest("disks", 2.5, 0.0, True)], "end_drain": [EndDrainRequest(dry_run=True)],
    "snapshots": [Selection(), WEB],
    "create_snapshots": [CreateSnapshotsRequest(WEB), CreateSnapshotsRequest(WEB, "a.b", "before it", True, True)],
    "restore_snapshot": [RestoreSnapshotRequest("web1", "a"), RestoreSnapshotRequest("web1", "a", True, True, True, True)],
    "remove_snapshots": [RemoveSnapshotsRequest("web1", ("a", "b"), dry_run=True)],
    "freeze_base": [FreezeRequest(), FreezeRequest("before the upgrade")],
    "check_generation": ["3"],
    "remove_generations": [RemoveGenerationsRequest((3, 1))],
    "rehearse": [RehearseRequest("web1"), RehearseRequest("web1", 3, ("true", "a 'b'"), False, True, CloneDelta.COPY, True)],
    "rollback": [
        RollbackRequest(WEB), RollbackRequest(WEB, 0, {"canaries": "2"}, True), RollbackRequest(WEB, 3),
        RollbackRequest(WEB, until="2027-01-31", why="x"),
    ],
    "hold": [HoldRequest(WEB, None, "2027-01-31", "x", True), HoldRequest(Selection(), 3, "2027-01-31")],
    "release": [ReleaseRequest(WEB, None), ReleaseRequest(Selection(), 3, dry_run=True)],
    "roll": [RolloutRequest("restart", WEB, {"canaries": "2"}), RolloutRequest("patch", WEB, force=True)],
    "rollout_resume": [ResumeRequest(accept=True)],
    "rollout_undo": [False, True],
}  # fmt: skip
"""The arguments of each call that takes some."""


@pytest.mark.parametrize("name", CALLS)
def test_the_server_reads_what_the_client_writes(name: str) -> None:
    call = CALLS[name]
    for request in REQUESTS.get(name, [None]):
        assert call.takes.read(call.takes.write(request)) == request
    assert (name in REQUESTS) == (call.takes.write(REQUESTS.get(name, [None])[-1]) != Sent())


@pytest.mark.parametrize("name", CALLS)
def test_an_unknown_key_of_a_query_is_refused(name: str) -> None:
    """Otherwise `?patern=web*` would choose all containers. A scrape of metrics may have further keys."""
    call = CALLS[name]
    sent = call.takes.write(REQUESTS.get(name, [None])[0])._replace(query={"patern": ["web*"]})
    if name in ("metrics", "targets"):
        assert call.takes.read(sent) is None
        return
    with pytest.raises(InvalidInput) as caught:
        call.takes.read(sent)
    assert caught.value.why == "query: patern: unknown key"


@pytest.mark.parametrize(
    ("sent", "outdated"),
    [
        (Sent(body={**CALLS["create_volume"].takes.write(REQUESTS["create_volume"][0]).body, "colour": "red"}), True),
        (Sent(body={"name": 3}), False),
    ],
)
def test_a_key_that_the_daemon_does_not_know_tells_of_another_version(sent: Sent, outdated: bool) -> None:
    with pytest.raises(InvalidInput) as caught:
        CALLS["create_volume"].takes.read(sent)
    answer = json.dumps({"error": caught.value.body()}).encode()
    error = client._error_of(cast(http.client.HTTPResponse, SimpleNamespace(status=400, read=lambda: answer)))
    assert ("systemctl restart lxcfleet" in error.hint) == outdated
    assert ("colour: unknown key" in error.why) == outdated


@pytest.mark.parametrize(
    ("name", "query", "complaint"),
    [
        ("doctor", {"count": ["x"]}, "count: expected a whole number"),
        ("doctor", {"count": ["0"]}, "count: 0 is not between"),
        ("doctor", {"count": ["1", "2"]}, "count: is there more than once"),
        ("doctor", {"init": [""]}, "init: '' is none of"),
        ("logs", {"kind": ["syslog"]}, "kind: 'syslog' is none of console, lxc"),
        ("diff", {"path": ["etc"]}, "path: 'etc' is no absolute path"),
        ("diff", {"path": ["/a", "/b"]}, "path: is there more than once"),
        ("du", {"depth": ["31"]}, "depth: 31 is not between 0 and 30"),
        ("logs", {"follow": ["yes"]}, "follow: expected 0 or 1"),
        ("list", {"label": ["x"]}, "label: 'x' is not a label"),
    ],
)
def test_a_query_that_makes_no_sense_says_which_key(name: str, query: dict[str, list[str]], complaint: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        CALLS[name].takes.read(Sent({"name": "a"}, query))
    assert complaint in caught.value.why


def test_all_mistakes_in_a_query_are_told_at_once() -> None:
    with pytest.raises(InvalidInput) as caught:
        calls.DOCTOR.takes.read(Sent(query={"count": ["x"], "init": ["y"], "z": ["1"]}))
    assert len(caught.value.why.splitlines()) == 3


def test_every_call_is_a_method_of_the_client() -> None:
    methods = {value._call.name for value in vars(Client).values() if hasattr(value, "_call")}
    assert methods == CALLS.keys()


def test_no_two_calls_have_the_same_path() -> None:
    assert len({(call.method, call.path) for call in CALLS.values()}) == len(CALLS)


# -- the server's side --------------------------------------------------------------------------------------


async def _fix(_: DoctorRequest) -> DoctorRecord:
    raise AssertionError


async def _events(_: EventsRequest) -> AsyncIterator[Sequence[EventRecord]]:
    yield []


def test_a_call_without_a_handler_keeps_the_server_from_starting() -> None:
    routes = Routes()
    routes.json(calls.FIX, _fix)
    routes.lines(calls.EVENTS, _events)
    routes.add_to(web.Application(), calls.FIX, calls.EVENTS)
    with pytest.raises(LookupError, match="nothing answers the call"):
        routes.add_to(web.Application())


async def _other_reply(_: DoctorRequest) -> OperationRecord:
    raise AssertionError


async def _other_request(_: ActionRequest) -> DoctorRecord:
    raise AssertionError


async def _more(_: DoctorRequest, __: str) -> DoctorRecord:
    raise AssertionError


@pytest.mark.parametrize(
    ("handler", "complaint"),
    [(_other_reply, "gives"), (_other_request, "must take"), (_more, "must take"), (lambda _: None, "gives")],
)
def test_a_handler_of_another_signature_is_refused(handler: Any, complaint: str) -> None:
    with pytest.raises(TypeError, match=f"the handler of fix {complaint}"):
        Routes().json(calls.FIX, handler)


def test_a_call_has_one_handler() -> None:
    routes = Routes()
    routes.json(calls.FIX, _fix)
    with pytest.raises(TypeError, match="has a handler already"):
        routes.json(calls.FIX, _fix)
