"""Bad requests, and the daemon's answers to them: over a fake launcher, and over real LXC."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import socket
import tempfile
import threading
from pathlib import Path
from typing import Any

import leftovers
import pytest

from lxcfleet.api.calls import MAX_BODY
from lxcfleet.api.client import Client
from lxcfleet.cli import main
from lxcfleet.cli.session import Session
from lxcfleet.errors import Unreachable
from lxcfleet.paths import Paths
from lxcfleet.spec.selection import Selection

from .conftest import Fleet


def raw(client: Client, method: str, path: str, body: str | bytes | None = None) -> tuple[int, Any]:
    """Send a request that Client would not send; gives status and body."""
    connection = http.client.HTTPConnection("localhost", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(client._paths.socket))
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


BAD_BODIES = [
    "",
    "{",
    "[]",
    '"text"',
    "null",
    '{"name": 5}',
    '{"name": "a", "count": "many"}',
    '{"name": "a", "count": 0}',
    '{"name": "a", "count": -1}',
    '{"name": "a", "count": 1000000000}',
    '{"name": "a", "count": true}',
    '{"name": "a", "colour": "red"}',
    '{"name": "a", "command": "ls"}',
    '{"name": "a", "command": ["ls", 5]}',
    '{"name": "a", "command": ["l\\u0000s"]}',
    '{"name": "a", "labels": {"": "x"}}',
    '{"name": "a", "labels": ["x"]}',
    '{"name": "a", "environment": {"A=B": "x"}}',
    '{"name": "a", "init": "sysv"}',
    b"\xff\xfe",
]


@pytest.mark.parametrize("fields", [{"init": "system", "command": ["true"]}, {"init": "app"}])
def test_init_and_command_must_agree(fleet: Fleet, fields: dict[str, object]) -> None:
    status, body = raw(fleet.client, "POST", "/1.0/containers", json.dumps({"name": fleet.prefix, **fields}))
    assert (status, body["error"]["code"]) == (400, "invalid-input")
    assert fleet.states() == {}


@pytest.mark.parametrize("body", BAD_BODIES)
@pytest.mark.parametrize("path", ["/1.0/containers", "/1.0/actions", "/1.0/wait"])
def test_bad_bodies_are_refused(fleet: Fleet, path: str, body: str | bytes) -> None:
    before = fleet.client.containers(Selection())
    status, answer = raw(fleet.client, "POST", path, body)
    assert (status, answer["error"]["code"]) == (400, "invalid-input")
    assert set(answer["error"]) == {"code", "message", "why", "hint"}
    assert fleet.client.containers(Selection()) == before


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a" * 64,
        "a/b",
        "a:b",
        "a,b",
        "a\nb",
        "-a",
        "a-",
        ".",
        "..",
        "A",
        "ä",
        "a b",
        "a\x00b",
        "../../etc",
    ],
)
def test_bad_names_are_refused(fleet: Fleet, name: str) -> None:
    body = json.dumps({"name": name, "command": ["true"]})
    status, answer = raw(fleet.client, "POST", "/1.0/containers", body)
    assert (status, answer["error"]["code"]) == (400, "invalid-input")


def test_a_name_that_its_number_makes_too_long_is_refused(fleet: Fleet) -> None:
    body = json.dumps({"name": "a" * 62, "count": 10, "command": ["true"]})
    status, answer = raw(fleet.client, "POST", "/1.0/containers", body)
    assert (status, answer["error"]["code"]) == (400, "invalid-input")


@pytest.mark.parametrize(
    "path", ["/", "/2.0", "/1.0/nix", "/1.0/containers/%2e%2e/logs/x", "/1.0/containers/"]
)
def test_unknown_paths_are_not_found(client: Client, path: str) -> None:
    status, answer = raw(client, "GET", path)
    assert (status, answer["error"]["code"]) == (404, "not-found")


@pytest.mark.parametrize("name", ["nix", "..", "%2e%2e", "a%2fb", "a%00b", "%ff", "a" * 5000])
def test_unknown_containers_are_not_found(client: Client, name: str) -> None:
    status, answer = raw(client, "GET", f"/1.0/containers/{name}")
    assert status in (400, 404)
    assert answer["error"]["code"] in ("invalid-input", "not-found")


@pytest.mark.parametrize("query", ["label=x", "label==", "label=a%0ab=c"])
def test_bad_labels_in_a_query_are_refused(client: Client, query: str) -> None:
    status, answer = raw(client, "GET", f"/1.0/containers?{query}")
    assert (status, answer["error"]["code"]) == (400, "invalid-input")


@pytest.mark.parametrize(
    "query", ["count=x&init=app", "count=0&init=app", "count=1&init=x", f"count={10**9}&init=app"]
)
def test_bad_doctor_queries_are_refused(client: Client, query: str) -> None:
    status, answer = raw(client, "GET", f"/1.0/doctor?{query}")
    assert (status, answer["error"]["code"]) == (400, "invalid-input")


def test_a_huge_body_is_refused(client: Client) -> None:
    """The daemon refuses it at once, by its length, and may break the connection before all of the body is sent."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(client._paths.socket))
    head = f"POST /1.0/containers HTTP/1.1\r\nHost: x\r\nContent-Length: {MAX_BODY + 1}\r\n\r\n"
    connection.sendall(head.encode())
    connection.settimeout(60)
    with contextlib.suppress(OSError):
        connection.sendall(b" " * (MAX_BODY + 1))
    assert connection.recv(65536).split()[1] in (b"400", b"413")
    connection.close()
    assert client.server()


@pytest.mark.parametrize(
    "data", [b"", b"GET", b"\x00\xff\r\n\r\n", b"GET /1.0 HTTP/1.1\r\nContent-Length: 9\r\n\r\n"]
)
def test_a_client_that_breaks_off_does_no_harm(client: Client, data: bytes) -> None:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(client._paths.socket))
    connection.sendall(data)
    connection.close()
    assert client.server()


def test_without_a_daemon_the_client_raises_unreachable(tmp_path: Any) -> None:
    with pytest.raises(Unreachable):
        Client(Paths(run=tmp_path)).server()


@pytest.mark.parametrize("verb", ["list", "volume list", "rollout status"])
def test_a_client_that_misses_a_field_in_an_older_daemons_record_says_to_restart_that_daemon(
    verb: str, capfd: pytest.CaptureFixture[str]
) -> None:
    directory = Path(tempfile.mkdtemp(prefix="lxcfleet-", dir="/tmp"))
    leftovers.note("directory", str(directory))
    body = b'{"id": "r1"}' if verb.startswith("rollout") else b'[{"name": "web1"}]'

    def answer(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # it was shut down
                return
            with connection:
                if connection.recv(65536):
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    paths = Paths(run=directory)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(paths.socket))
        listener.listen()
        thread = threading.Thread(target=answer, args=(listener,), daemon=True)
        thread.start()
        assert main.run(verb.split(), Session(paths)) == 1
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()  # else it goes on with whatever has the descriptor's number next
    said = capfd.readouterr().err
    assert "the daemon's answer has no" in said
    assert "systemctl restart lxcfleet" in said
    shutil.rmtree(directory)


def test_a_call_that_the_daemon_does_not_know_is_refused_with_what_to_do_after_an_upgrade(client: Client) -> None:
    status, body = raw(client, "GET", "/1.0/of-tomorrow")
    assert (status, body["error"]["code"]) == (404, "not-found")
    assert "systemctl restart lxcfleet" in body["error"]["hint"]
