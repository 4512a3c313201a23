"""The client side of the API: the standard library and one class."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast
from urllib.parse import quote, urlencode

from lxcfleet.api.calls import CALLS, MAX_ATTACH
from lxcfleet.api.findings import ExposureRecord, NoticeRecord, ProofRecord, ShadowsRecord, StaleRecord
from lxcfleet.api.records import (
    ContainerDetails,
    ContainerRecord,
    DoctorRecord,
    EventRecord,
    OperationRecord,
    ResultRecord,
    RolloutRecord,
)
from lxcfleet.api.requests import ActionRequest, AttachRequest, CreateRequest, RolloutRequest, WaitRequest, selection_to_json
from lxcfleet.errors import Denied, FleetError, InvalidInput, Unreachable, from_body
from lxcfleet.paths import Paths
from lxcfleet.spec.selection import Selection


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(self._path)
        except OSError:
            self.sock.close()
            raise


class Client:
    """Talks to the daemon. Every method raises the daemon's own errors, or Unreachable, or Denied."""

    def __init__(self, paths: Paths | None = None, timeout: float | None = None) -> None:
        self._paths = paths or Paths()
        self._timeout = timeout

    def _request(
        self,
        call: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, object] | None = None,
        **parts: str,
    ) -> http.client.HTTPResponse:
        definition = CALLS[call]
        target = definition.path.format(**{key: quote(value, safe="") for key, value in parts.items()})
        if query:
            target += "?" + urlencode(query, doseq=True)
        path = str(self._paths.socket)
        connection = _UnixConnection(path, self._timeout)
        data = None if body is None else json.dumps(body).encode()
        try:
            headers = {"Content-Type": "application/json", "Connection": "close"}
            connection.request(definition.method, target, data, headers)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise _no_answer(path, error) from error
        if response.status >= 400:
            raise _error_of(response)
        return response

    def _json(self, call: str, **arguments: Any) -> Any:
        with self._request(call, **arguments) as response:
            return json.load(response)

    @contextmanager
    def _stream(self, call: str, **arguments: Any) -> Iterator[http.client.HTTPResponse]:
        """An answer that is read piece by piece, and may break off."""
        with self._request(call, **arguments) as response:
            try:
                yield response
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise _no_answer(str(self._paths.socket), error) from error

    def server(self) -> dict[str, Any]:
        """Version, counts and paths of the daemon."""
        return cast(dict[str, Any], self._json("server"))

    def containers(self, selection: Selection) -> list[ContainerRecord]:
        """The chosen containers in natural order."""
        return cast(list[ContainerRecord], self._json("list", query=_query(selection)))

    def info(self, name: str) -> ContainerDetails:
        """One container in full."""
        return cast(ContainerDetails, self._json("info", name=name))

    def create(self, request: CreateRequest) -> OperationRecord:
        """Begin to create containers."""
        return cast(OperationRecord, self._json("create", body=request.to_json()))

    def act(self, request: ActionRequest) -> OperationRecord:
        """Begin an action."""
        return cast(OperationRecord, self._json("act", body=request.to_json()))

    def follow(self, operation: str) -> Iterator[ResultRecord | OperationRecord]:
        """Each result as it comes (also those from before the call), in the end the operation itself."""
        with self._stream("follow", id=operation) as response:
            for line in response:
                yield json.loads(line)

    def operation(self, operation: str) -> OperationRecord:
        """How far it is."""
        return cast(OperationRecord, self._json("operation", id=operation))

    def operations(self) -> list[OperationRecord]:
        """Those that run or ended lately."""
        return cast(list[OperationRecord], self._json("operations"))

    def cancel(self, operation: str) -> OperationRecord:
        """Do not begin what has not begun."""
        return cast(OperationRecord, self._json("cancel", id=operation))

    def wait(self, request: WaitRequest) -> list[ResultRecord]:
        """One result per chosen container, once all are as asked or the time is up."""
        return cast(list[ResultRecord], self._json("wait", body=request.to_json()))

    def doctor(self, count: int, init: str) -> DoctorRecord:
        """Compare what ``count`` more containers need with what the host has."""
        return cast(DoctorRecord, self._json("doctor", query={"count": count, "init": init}))

    def fix(self, count: int, init: str) -> DoctorRecord:
        """Raise what can be raised safely; gives the findings afterwards."""
        return cast(DoctorRecord, self._json("fix", body={"count": count, "init": init}))

    def verify(self, selection: Selection, packages: Sequence[str] = ()) -> ProofRecord:
        """Whether the patch is in the chosen containers; ``packages``: only these count."""
        return cast(ProofRecord, self._json("verify", query={**_query(selection), "package": list(packages)}))

    def shadows(self, selection: Selection) -> list[ShadowsRecord]:
        """What hides files of the host in the deltas of the chosen containers."""
        return cast(list[ShadowsRecord], self._json("shadows", query=_query(selection)))

    def fix_shadows(self, selection: Selection, paths: Sequence[str], *, dry_run: bool = False) -> list[ResultRecord]:
        """Remove shadows by name."""
        body = {"selection": selection_to_json(selection), "paths": list(paths), "dry_run": dry_run}
        return cast(list[ResultRecord], self._json("fix_shadows", body=body))

    def exposure(self, selection: Selection) -> list[ExposureRecord]:
        """What of the host the chosen containers can read and should not."""
        return cast(list[ExposureRecord], self._json("exposure", query=_query(selection)))

    def notice(self) -> NoticeRecord:
        """How far the last change of the host's packages is."""
        return cast(NoticeRecord, self._json("notice"))

    def notify(self) -> NoticeRecord:
        """Tell that the host's packages changed."""
        return cast(NoticeRecord, self._json("notify", body={}))

    def stale(self, selection: Selection) -> list[StaleRecord]:
        """What the chosen containers run that is old."""
        return cast(list[StaleRecord], self._json("stale", query=_query(selection)))

    def rollout(self) -> RolloutRecord | None:
        """The rollout that is under way, or was last."""
        return cast("RolloutRecord | None", self._json("rollout"))

    def roll(self, request: RolloutRequest) -> RolloutRecord:
        """Begin a rollout, or have the one that is under way take up a patch."""
        return cast(RolloutRecord, self._json("roll", body=request.to_json()))

    def rollout_follow(self) -> Iterator[RolloutRecord]:
        """The rollout at each change, until it has ended or is halted."""
        with self._stream("rollout_follow") as response:
            for line in response:
                yield json.loads(line)

    def rollout_pause(self) -> RolloutRecord:
        """Begin no further wave."""
        return cast(RolloutRecord, self._json("rollout_pause"))

    def rollout_resume(self, *, accept: bool = False) -> RolloutRecord:
        """Go on. ``accept``: leave what failed as it is."""
        return cast(RolloutRecord, self._json("rollout_resume", body={"accept": accept}))

    def rollout_abort(self) -> RolloutRecord:
        """End it as it is."""
        return cast(RolloutRecord, self._json("rollout_abort"))

    def logs(self, name: str, *, kind: str = "console", lines: int = 0, follow: bool = False) -> Iterator[bytes]:
        """Pieces of a log; ``lines``: only the last so many (0: all); ``kind``: console or lxc."""
        query = {"kind": kind, "lines": lines, "follow": int(follow)}
        with self._stream("logs", name=name, query=query) as response:
            while piece := response.read1(65536):
                yield piece

    def metrics(self) -> str:
        """What Prometheus reads."""
        with self._request("metrics") as response:
            return response.read().decode()

    def targets(self) -> list[dict[str, Any]]:
        """The containers' own exporters, as Prometheus' http_sd has them."""
        return cast(list[dict[str, Any]], self._json("targets"))

    def events(self, *, follow: bool = False) -> Iterator[EventRecord]:
        """What happened since the daemon started."""
        with self._stream("events", query={"follow": int(follow)}) as response:
            for line in response:
                yield json.loads(line)

    def attach(self, request: AttachRequest, descriptors: tuple[int, int, int]) -> socket.socket:
        """Run a command in a container; see AttachRequest for what the socket then says."""
        path = str(self._paths.attach_socket)
        message = json.dumps(request).encode()
        if len(message) > MAX_ATTACH:
            raise InvalidInput(
                "the command with its arguments and variables is too long",
                why=f"it takes {len(message)} bytes on its way, at most {MAX_ATTACH} go",
                hint="give it what it needs by stdin, for one as a script: lxcfleet exec NAME -- sh < SCRIPT",
            )
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.connect(path)
            socket.send_fds(connection, [message], list(descriptors))
        except OSError as error:
            connection.close()
            raise _no_answer(path, error) from error
        return connection


def _query(selection: Selection) -> dict[str, list[str]]:
    return {
        "pattern": list(selection.patterns),
        "label": [f"{key}={value}" for key, value in selection.labels],
    }


def answers(paths: Paths) -> bool:
    """Whether somebody listens on the daemon's socket; one that we may not use counts too."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(paths.socket))
        except PermissionError:
            return True
        except OSError:
            return False
    return True


def _no_answer(path: str, error: Exception) -> FleetError:
    if isinstance(error, PermissionError):
        return Denied(
            f"you may not use {path}",
            why="it is open to root and the group lxcfleet",
            hint="run the command with sudo, or have yourself added: adduser YOU lxcfleet",
        )
    log = os.path.join(os.path.dirname(path), "daemon.log")  # of one that no systemd started
    told = log if os.path.exists(log) else "`systemctl status lxcfleet` and `journalctl -u lxcfleet`"
    return Unreachable(
        "the daemon lxcfleetd does not answer",
        why=f"{path}: {error}",
        hint=f"more is in: {told}",
    )


def _error_of(response: http.client.HTTPResponse) -> FleetError:
    text = response.read()
    try:
        return from_body(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return FleetError("the daemon gave an answer that makes no sense", why=f"{response.status} {text[:200]!r}")
