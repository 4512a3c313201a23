"""A daemon that is not one: the API of calls.py over HTTP on a real socket, with a FakeFleet behind it."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import socketserver
import threading
import time
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from lxcfleet.api.calls import CALLS, MAX_BODY
from lxcfleet.api.queries import DoctorRequest, EventsRequest, LogsRequest, VerifyRequest
from lxcfleet.api.requests import (
    ActionRequest,
    CreateRequest,
    FixShadowsRequest,
    ResumeRequest,
    RolloutRequest,
    WaitRequest,
)
from lxcfleet.api.shape import Sent
from lxcfleet.containers.readings import ContainerReading, FleetReading
from lxcfleet.daemon.http.metrics import render, targets
from lxcfleet.errors import FleetError, InvalidInput, NotFound
from lxcfleet.paths import Paths
from lxcfleet.spec.selection import Selection
from lxcfleet.spec.states import State

from .fake_attach import AttachServer
from .fake_fleet import FakeFleet


class FakeDaemon:
    """Serves a FakeFleet below ``directory`` while it is entered."""

    def __init__(self, directory: Path) -> None:
        self.paths = Paths(lxc=directory / "lxc", run=directory / "run", etc=directory / "etc")
        self.fleet = FakeFleet()
        self.closing = threading.Event()
        self.requests: list[str] = []
        """Every request line so far."""

    def __enter__(self) -> FakeDaemon:
        self.paths.run.mkdir(parents=True, exist_ok=True)
        self._http = _HTTPServer(str(self.paths.socket), _Handler)
        self._http.daemon = self
        self._attach = AttachServer(self.fleet, self.paths.attach_socket)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._attach.close()
        self._http.shutdown()
        self._http.server_close()
        self.paths.socket.unlink()

    def hang_up(self) -> None:
        """Break all connections off, as a daemon does that is killed."""
        for connection in self._http.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._attach.hang_up()


class _HTTPServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    daemon: FakeDaemon

    def __init__(self, path: str, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(path, handler)
        self.connections: list[socket.socket] = []

    def handle_error(self, *_: object) -> None:
        """A client that broke off is none of our business; a real error shows in its test."""

    def get_request(self) -> tuple[socket.socket, str]:
        """Remember the connection."""
        connection, address = super().get_request()
        self.connections.append(connection)
        return connection, address


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _HTTPServer

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self) -> None:
        self._streaming = False
        self.server.daemon.requests.append(self.requestline)
        try:
            body = self._body()
            name, parts = self._call()
            query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
            if not isinstance(body, dict) and CALLS[name].takes.body is not None:
                raise InvalidInput("the request's body is not a JSON object")
            answer = getattr(self, f"_{name}")(CALLS[name].takes.read(Sent(parts, query, body)))
        except FleetError as error:
            self._send({"error": error.body()}, error.http_status)
        except (BrokenPipeError, ConnectionResetError):
            pass
        else:
            if not self._streaming:
                self._send(answer, 202 if name in ("create", "act", "roll") else 200)

    do_GET = do_POST = do_DELETE = do_PUT = _serve

    def _call(self) -> tuple[str, dict[str, str]]:
        path = urlsplit(self.path).path
        for name, call in CALLS.items():
            pattern = re.sub(
                r"\{(\w+)\}", r"(?P<\1>[^/]+)", re.escape(call.path).replace(r"\{", "{").replace(r"\}", "}")
            )
            match = re.fullmatch(pattern, path)
            if match and call.method == self.command:
                return name, {key: unquote(value) for key, value in match.groupdict().items()}
        raise NotFound(f"the API has no {self.command} {path}")

    def _body(self) -> object:
        length = int(self.headers.get("Content-Length", 0))
        if length > MAX_BODY:
            self.close_connection = True
            raise InvalidInput(f"the request has {length} bytes", why=f"{MAX_BODY} are allowed")
        data = self.rfile.read(length)
        try:
            return json.loads(data) if data else None
        except ValueError as error:
            raise InvalidInput("the request is not JSON", why=str(error)) from error

    def _send(self, answer: object, status: int) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, pieces: Iterable[bytes]) -> None:
        self._streaming = True
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in pieces:
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    @property
    def _fleet(self) -> FakeFleet:
        return self.server.daemon.fleet

    def _grow(self, read: Any, follow: bool) -> Iterable[Any]:
        """What ``read`` gives, and with ``follow`` what it gives in addition later."""
        seen = 0
        while True:
            now = read()
            yield from now[seen:]
            seen = len(now)
            if not follow or self.server.daemon.closing.is_set():
                return
            time.sleep(0.01)

    # the calls, each named as in CALLS

    def _server(self, _: None) -> object:
        return self._fleet.details()

    def _list(self, chosen: Selection) -> object:
        return self._fleet.chosen(chosen)

    def _create(self, ask: CreateRequest) -> object:
        return self._fleet.create(ask)

    def _info(self, name: str) -> object:
        return self._fleet.get(name).details()

    def _usage(self, chosen: Selection) -> object:
        return self._fleet.usage(chosen)

    def _logs(self, ask: LogsRequest) -> None:
        self._fleet.get(ask.name)
        text = self._fleet.logs.get((ask.name, ask.kind), b"")
        skip = len(b"".join(text.splitlines(keepends=True)[: -ask.lines])) if ask.lines else 0

        def read() -> list[bytes]:
            return [bytes([byte]) for byte in self._fleet.logs.get((ask.name, ask.kind), b"")[skip:]]

        self._stream(self._grow(read, ask.follow))

    def _act(self, ask: ActionRequest) -> object:
        return self._fleet.act(ask)

    def _operations(self, _: None) -> object:
        return [operation.record() for operation in self._fleet.operations.values()]

    def _operation(self, identifier: str) -> object:
        return self._fleet.operation(identifier).record()

    def _follow(self, identifier: str) -> None:
        self._stream(json.dumps(item).encode() + b"\n" for item in self._fleet.operation(identifier).follow())

    def _cancel(self, identifier: str) -> object:
        operation = self._fleet.operation(identifier)
        operation.cancelled.set()
        return operation.record()

    def _wait(self, ask: WaitRequest) -> object:
        return self._fleet.wait(ask)

    def _doctor(self, ask: DoctorRequest) -> object:
        return self._fleet.doctor(ask.count, ask.init)

    def _fix(self, ask: DoctorRequest) -> object:
        self._fleet.fixed = True
        return self._fleet.doctor(ask.count, ask.init)

    def _verify(self, ask: VerifyRequest) -> object:
        return self._fleet.verify(ask.selection, ask.packages)

    def _shadows(self, chosen: Selection) -> object:
        return self._fleet.shadows(chosen)

    def _fix_shadows(self, ask: FixShadowsRequest) -> object:
        return self._fleet.fix_shadows(ask.selection, ask.paths, dry_run=ask.dry_run)

    def _exposure(self, chosen: Selection) -> object:
        return self._fleet.exposure(chosen)

    def _rollout(self, _: None) -> object:
        return self._fleet.rollout

    def _roll(self, ask: RolloutRequest) -> object:
        return self._fleet.roll(ask)

    def _rollout_follow(self, _: None) -> None:
        self._stream([json.dumps(self._fleet.rollout).encode() + b"\n"] if self._fleet.rollout else [])

    def _rollout_pause(self, _: None) -> object:
        return self._fleet.change_rollout("paused")

    def _rollout_resume(self, _: ResumeRequest) -> object:
        return self._fleet.change_rollout("running")

    def _rollout_abort(self, _: None) -> object:
        return self._fleet.change_rollout("aborted")

    def _notice(self, _: None) -> object:
        return self._fleet.notice()

    def _notify(self, _: None) -> object:
        return self._fleet.notify()

    def _stale(self, chosen: Selection) -> object:
        return self._fleet.stale(chosen)

    def _metrics(self, _: None) -> None:
        records = self._fleet.chosen(Selection(everything=True))
        readings = [ContainerReading(r["name"], State(r["state"]), labels=r["labels"]) for r in records]
        self._stream([render(FleetReading(readings, daemon_started=0.0, operations_running=0))])

    def _targets(self, _: None) -> object:
        return targets(self._fleet.chosen(Selection(everything=True)))

    def _events(self, ask: EventsRequest) -> None:
        events = self._grow(lambda: list(self._fleet.events), ask.follow)
        self._stream(json.dumps(event).encode() + b"\n" for event in events)


assert all(hasattr(_Handler, f"_{name}") for name in CALLS), "the fake does not speak the whole API"
