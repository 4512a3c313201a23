"""The client side of the API: the standard library and one class, whose methods come from the calls."""

from __future__ import annotations

import http.client
import json
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload
from urllib.parse import quote, urlencode

from lxcfleet.api import calls
from lxcfleet.api.calls import MAX_ATTACH
from lxcfleet.api.shape import AnyCall, Call, StreamCall, TextCall
from lxcfleet.errors import Denied, FleetError, InvalidInput, Outdated, Unreachable, from_body
from lxcfleet.paths import Paths

if TYPE_CHECKING:
    from lxcfleet.api.archives import ExportContainer, ImportContainer
    from lxcfleet.api.moves import MoveContainer
    from lxcfleet.api.requests import AttachRequest, ForegroundRequest

Q = TypeVar("Q")
R = TypeVar("R")
F = TypeVar("F")

_PIECE = 65536
_REQUEST = "the request "
"""So messages about requests begin; see the ``from_json`` of each."""
_RESTART = "restart it: `systemctl restart lxcfleet`; no container is stopped by that"


class BrokenOff(Unreachable):
    """The daemon went away after it was asked, before it had answered to the end."""


class _Record(dict[str, Any]):
    """A JSON object of a reply. Whoever reads a key that the daemon does not know is told so: a guess in its place, such as
    that nothing is wrong, could be untrue."""

    def __missing__(self, key: str) -> Any:
        raise Outdated(
            f"the daemon's answer has no {key!r}", why="lxcfleetd is older or newer than this lxcfleet",
            hint=_RESTART,
        )  # fmt: skip


class UnixConnection(http.client.HTTPConnection):
    """HTTP on a Unix socket. ``timeout``: seconds; None: without end."""

    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if self.timeout is not None:
                # With Python's own timeout connect would not wait its turn, but fail while many others connect.
                wait = struct.pack("ll", int(self.timeout), int(self.timeout % 1 * 1e6))
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, wait)
            self.sock.connect(self._path)
            self.sock.settimeout(self.timeout)
        except OSError:
            self.sock.close()
            raise


class _Method(Generic[F]):
    """A call as a method of the client: it takes the call's request, if there is one, and gives its reply."""

    def __init__(self, call: AnyCall[Any]) -> None:
        self._call = call
        self.__doc__ = call.summary

    def __get__(self, client: Client | None, owner: type[Client]) -> F:
        if client is None:
            return cast(F, self)
        ways: dict[type, Any] = {Call: client.call, StreamCall: client.lines, TextCall: client.pieces}
        way = ways[type(self._call)]
        return cast(F, lambda request=None: way(self._call, request))


@overload
def _method(call: Call[Q, R]) -> _Method[Callable[[Q], R]]: ...
@overload
def _method(call: StreamCall[Q, R]) -> _Method[Callable[[Q], Iterator[R]]]: ...
@overload
def _method(call: TextCall[Q]) -> _Method[Callable[[Q], Iterator[bytes]]]: ...
def _method(call: AnyCall[Any]) -> _Method[Any]:
    return _Method(call)


@overload
def _plain(call: Call[None, R]) -> _Method[Callable[[], R]]: ...
@overload
def _plain(call: StreamCall[None, R]) -> _Method[Callable[[], Iterator[R]]]: ...
@overload
def _plain(call: TextCall[None]) -> _Method[Callable[[], Iterator[bytes]]]: ...
def _plain(call: AnyCall[None]) -> _Method[Any]:
    return _Method(call)


class Client:
    """Talks to the daemon.

    Every method raises the daemon's own errors. It raises Unreachable if the daemon does not answer, BrokenOff if the
    daemon went away before the end of the reply, and Denied if the caller may not use the socket.
    """

    def __init__(self, paths: Paths | None = None, timeout: float | None = None) -> None:
        """``timeout``: seconds that the daemon may be silent; None: for ever."""
        self._paths = paths or Paths()
        self._timeout = timeout

    server = _plain(calls.SERVER)
    containers = _method(calls.LIST)
    info = _method(calls.INFO)
    usage = _method(calls.USAGE)
    create = _method(calls.CREATE)
    act = _method(calls.ACT)
    set = _method(calls.SET)
    wait = _method(calls.WAIT)
    du = _method(calls.DU)
    diff = _method(calls.DIFF)
    logs = _method(calls.LOGS)
    consoles = _method(calls.CONSOLES)
    fleets = _plain(calls.FLEETS)
    fleet_plan = _method(calls.FLEET_PLAN)
    fleet_apply = _method(calls.FLEET_APPLY)
    scale = _method(calls.SCALE)
    fleet_export = _method(calls.FLEET_EXPORT)
    fleet_remove = _method(calls.FLEET_REMOVE)
    drain = _plain(calls.DRAIN)
    begin_drain = _method(calls.BEGIN_DRAIN)
    end_drain = _method(calls.END_DRAIN)
    moves = _plain(calls.MOVES)
    offer_move = _method(calls.OFFER_MOVE)
    forget_move = _method(calls.FORGET_MOVE)
    check_arrival = _method(calls.CHECK_ARRIVAL)
    arrival = _method(calls.ARRIVAL)
    volumes = _plain(calls.VOLUMES)
    volume = _method(calls.VOLUME)
    create_volume = _method(calls.CREATE_VOLUME)
    remove_volumes = _method(calls.REMOVE_VOLUMES)
    apps = _plain(calls.APPS)
    add_app = _method(calls.ADD_APP)
    verify_apps = _method(calls.VERIFY_APPS)
    remove_apps = _method(calls.REMOVE_APPS)
    bake_app = _method(calls.BAKE_APP)
    use_app = _method(calls.USE_APP)
    snapshots = _method(calls.SNAPSHOTS)
    create_snapshots = _method(calls.CREATE_SNAPSHOTS)
    restore_snapshot = _method(calls.RESTORE_SNAPSHOT)
    remove_snapshots = _method(calls.REMOVE_SNAPSHOTS)
    generations = _plain(calls.GENERATIONS)
    freeze_base = _method(calls.FREEZE_BASE)
    check_generation = _method(calls.CHECK_GENERATION)
    remove_generations = _method(calls.REMOVE_GENERATIONS)
    rollback = _method(calls.ROLLBACK)
    hold = _method(calls.HOLD)
    release = _method(calls.RELEASE)
    secrets = _plain(calls.SECRETS)
    refresh_secrets = _method(calls.REFRESH_SECRETS)
    operations = _plain(calls.OPERATIONS)
    operation = _method(calls.OPERATION)
    follow = _method(calls.FOLLOW)
    cancel = _method(calls.CANCEL)
    events = _method(calls.EVENTS)
    doctor = _method(calls.DOCTOR)
    units = _method(calls.UNITS)
    network = _method(calls.NETWORK)
    fix = _method(calls.FIX)
    metrics = _plain(calls.METRICS)
    targets = _plain(calls.TARGETS)
    stale = _method(calls.STALE)
    parts = _plain(calls.PARTS)
    verify = _method(calls.VERIFY)
    cves = _method(calls.CVES)
    shadows = _method(calls.SHADOWS)
    fix_shadows = _method(calls.FIX_SHADOWS)
    exposure = _method(calls.EXPOSURE)
    notice = _plain(calls.NOTICE)
    notify = _plain(calls.NOTIFY)
    prepare = _plain(calls.PREPARE)
    rehearse = _method(calls.REHEARSE)
    rollout = _plain(calls.ROLLOUT)
    roll = _method(calls.ROLL)
    rollout_follow = _plain(calls.ROLLOUT_FOLLOW)
    rollout_pause = _plain(calls.ROLLOUT_PAUSE)
    rollout_resume = _method(calls.ROLLOUT_RESUME)
    rollout_undo = _method(calls.ROLLOUT_UNDO)
    rollout_abort = _plain(calls.ROLLOUT_ABORT)

    def call(self, call: Call[Q, R], request: Q) -> R:
        """The reply to a call that has one JSON value."""
        with self._asked(call, request) as response:
            return cast(R, json.load(response, object_hook=_Record))

    def lines(self, call: StreamCall[Q, R], request: Q) -> Iterator[R]:
        """The JSON values of a reply, as they come."""
        rest = b""
        for piece in self.pieces(call, request):
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                yield cast(R, json.loads(line, object_hook=_Record))

    def pieces(self, call: AnyCall[Q], request: Q) -> Iterator[bytes]:
        """The reply as it comes."""
        with self._asked(call, request) as response:
            yield from iter(lambda: response.read1(_PIECE), b"")

    @contextmanager
    def _asked(self, call: AnyCall[Q], request: Q) -> Iterator[http.client.HTTPResponse]:
        """Send a request and give its reply, to be read. Raises BrokenOff if reading fails, also inside the ``with``."""
        sent = call.takes.write(request)
        target = call.path.format(**{key: quote(value, safe="") for key, value in sent.path.items()})
        if sent.query:
            target += "?" + urlencode(sent.query, doseq=True)
        connection = UnixConnection(str(self._paths.socket), self._timeout)
        try:
            connection.connect()
        except OSError as error:
            raise _no_answer(str(self._paths.socket), error) from error
        try:
            headers = {"Content-Type": "application/json", "Connection": "close"}
            data = None if sent.body is None else json.dumps(sent.body).encode()
            with suppress(BrokenPipeError, ConnectionResetError):  # refused before all was read: the answer says why
                connection.request(call.method, target, data, headers)
            with connection.getresponse() as response:
                if response.status >= 400:
                    raise _error_of(response)
                yield response
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _broken_off(str(self._paths.socket), call, error) from error

    def attach(
        self, request: AttachRequest | ForegroundRequest | ExportContainer | ImportContainer | MoveContainer,
        descriptors: tuple[int, int, int],
    ) -> socket.socket:  # fmt: skip
        """Run a command in a container, or a container, or write or read an archive; the requests tell which messages the
        socket then carries."""
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


def answers(paths: Paths) -> bool:
    """Whether a daemon listens on its socket; a socket that this process may not use counts too."""
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
        readers = "" if path.endswith("attach.sock") else ", and to the group lxcfleet-ro for looking"
        return Denied(
            f"you may not use {path}",
            why=f"it is open to root and the group lxcfleet{readers}",
            hint="run the command with sudo, or have yourself added: adduser YOU lxcfleet",
        )
    log = os.path.join(os.path.dirname(path), "daemon.log")  # a daemon that systemd started logs to the journal
    told = log if os.path.exists(log) else "`systemctl status lxcfleet` and `journalctl -u lxcfleet`"
    return Unreachable(
        "the daemon lxcfleetd does not answer",
        why=f"{path}: {error}",
        hint=f"more is in: {told}",
    )


def _broken_off(path: str, call: AnyCall[Any], error: Exception) -> FleetError:
    """The error for a request that was sent and whose reply did not come, or not to its end."""
    if isinstance(error, TimeoutError):
        return _no_answer(path, error)
    hint = "the same command again asks the next daemon"
    if not call.harmless:
        hint = "`lxcfleet list` and `lxcfleet events` show what was done; the same command again does the rest"
        hint += " (`create`: with --ensure, or -n and how many are missing)"
    why = "its answer broke off" if isinstance(error, http.client.IncompleteRead) else str(error) or type(error).__name__
    return BrokenOff("the daemon went away before it had answered", why=why, hint=hint)


def _error_of(response: http.client.HTTPResponse) -> FleetError:
    text = response.read()
    try:
        error = from_body(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return FleetError("the daemon gave an answer that makes no sense", why=f"{response.status} {text[:200]!r}")
    # What this program sends has no mistyped keys. What users wrote has messages of its own: of a file, of a field.
    if isinstance(error, InvalidInput) and error.message.startswith(_REQUEST) and ": unknown key" in error.why:
        error.hint = f"lxcfleetd is older or newer than this lxcfleet; {_RESTART}"
    return error
