"""Nonsense on the sockets, made from the API's own description: it causes no crash, no status 500 and no growth."""

from __future__ import annotations

import array
import contextlib
import dataclasses
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lxcfleet.api.calls import CALLS, MAX_BODY

from .harness import Fleet, until

pytestmark = pytest.mark.system

UNTRIED = {"fix"}
"""Calls that are left out: ``fix`` would raise this host's limits."""

words = st.sampled_from(
    ["", "a", "c1", "*", "[", "../..", "web", "system", "app", "start", "destroy", "bridge", "none", "a" * 300, "é", "a\n",
     "=", "-1", "1e9", "healthy", "running", "0", "1", "9" * 30]
)  # fmt: skip
texts = words | st.text(max_size=20)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
values: st.SearchStrategy[Any] = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)
_SELECTION: dict[str, st.SearchStrategy[Any]] = {
    "patterns": st.lists(texts, max_size=3) | values, "labels": values, "everything": st.booleans() | values,
}  # fmt: skip
selections: st.SearchStrategy[Any] = st.fixed_dictionaries({}, optional=_SELECTION)


def bodies(kind: type | None) -> st.SearchStrategy[Any]:
    """Bodies of a call: its own fields with values that may or may not fit, or a value of another kind."""
    if kind is None:
        return st.none() | values
    names = [field.name for field in dataclasses.fields(kind)]
    # Each call is a dry run if it can be one, and waits only for a moment.
    safe: dict[str, st.SearchStrategy[Any]] = {"timeout": st.just(0.01)}
    if "dry_run" in names:
        safe = {"dry_run": st.just(True)}
    known = {name: values | (selections if name == "selection" else texts) for name in names if name not in safe}
    fitting: st.SearchStrategy[Any] = st.fixed_dictionaries(safe, optional=known)
    return fitting | values.filter(lambda value: not isinstance(value, dict))


def queries(keys: list[str]) -> st.SearchStrategy[dict[str, str]]:
    """Queries of a call: its own keys, with values that may or may not fit. Now and then there is an unknown key."""
    known = st.dictionaries(st.sampled_from(keys), texts, max_size=4) if keys else st.just({})
    return known | st.dictionaries(st.sampled_from([*keys, "x"]), texts, max_size=4)


calls = st.sampled_from(sorted(CALLS.keys() - UNTRIED)).flatmap(
    lambda name: st.tuples(
        st.just(name),
        texts.map(lambda text: quote(text, safe="")),
        queries([key.name for key in CALLS[name].takes.keys]),
        bodies(CALLS[name].takes.body),
    )
)


class Daemon:
    """The daemon's process, and the resources that it uses."""

    def __init__(self, fleet: Fleet) -> None:
        pid = fleet.daemon_pid()
        assert pid is not None
        self.pid = pid

    @property
    def files(self) -> int:
        """The number of the daemon's open descriptors."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    @property
    def memory(self) -> int:
        """The bytes of memory that only the daemon uses."""
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        return sum(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith(("Private_", "Anonymous:")))


@pytest.fixture(scope="module")
def daemon(own_fleet: Fleet) -> Iterator[Daemon]:
    """The daemon. At the end the same process must run, and its log must tell of no internal error."""
    own_fleet.create(own_fleet.name("a"))
    found = Daemon(own_fleet)
    yield found
    assert own_fleet.daemon_pid() == found.pid
    assert "failed unexpectedly" not in own_fleet.log()
    assert "Traceback" not in own_fleet.log()
    assert list(own_fleet.states().values()) == ["running"]
    own_fleet.clean()


def ask(fleet: Fleet, raw: bytes) -> tuple[int, bytes]:
    """Send a request. Return the status and the content of its answer, or the status 0 if there is none."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(str(fleet.paths.socket))
        with contextlib.suppress(BrokenPipeError):
            sock.sendall(raw)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while b"\r\n\r\n" not in answer and (piece := sock.recv(65536)):
                answer += piece
            head, _, content = answer.partition(b"\r\n\r\n")
            if b" 200 " not in head.split(b"\r\n")[0]:  # a streamed answer may have no end
                while piece := sock.recv(65536):
                    content += piece
    first = answer.split(b"\r\n")[0].split()
    return (int(first[1]), content) if len(first) > 1 else (0, b"")


def request(name: str, part: str, query: dict[str, str], body: object) -> bytes:
    """The bytes of a call's request."""
    call = CALLS[name]
    target = call.path.replace("{name}", part).replace("{id}", part)
    if query:
        target += "?" + "&".join(f"{key}={quote(value)}" for key, value in query.items())
    text = b"" if body is None else json.dumps(body).encode()
    head = f"{call.method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(text)}\r\n\r\n"
    return head.encode() + text


def check(status: int, content: bytes) -> None:
    """Check that the daemon gave an answer, or an error that says what is wrong with the request."""
    assert status, "no answer"
    assert status < 500 or status in (501, 507), (status, content)
    if status >= 400:
        error = json.loads(content)["error"]
        assert error["code"]
        assert error["message"]
        assert "unexpectedly" not in error["message"]


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(call=calls)
def test_nonsense_calls_get_an_answer(own_fleet: Fleet, daemon: Daemon, call: tuple[str, str, dict[str, str], Any]) -> None:
    check(*ask(own_fleet, request(*call)))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(junk=st.binary(max_size=200), cut=st.integers(0, 200))
def test_bytes_that_are_not_http_do_not_stop_the_daemon(own_fleet: Fleet, daemon: Daemon, junk: bytes, cut: int) -> None:
    good = request("create", "", {}, {"name": "x", "dry_run": True})
    for raw in (junk, good[:cut] + junk, junk + good):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(own_fleet.paths.socket))
            with contextlib.suppress(ConnectionError):
                sock.sendall(raw)
                sock.shutdown(socket.SHUT_WR)
                sock.recv(4096)
    assert ask(own_fleet, request("server", "", {}, None))[0] == 200


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(message=st.binary(max_size=100) | values.map(lambda value: json.dumps(value).encode()), count=st.integers(0, 6))
def test_a_message_that_is_no_attach_request_is_refused(own_fleet: Fleet, daemon: Daemon, message: bytes, count: int) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock, open(os.devnull, "rb") as null:
        sock.connect(str(own_fleet.paths.attach_socket))
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null.fileno()] * count))] if count else []
        with contextlib.suppress(ConnectionError):
            sock.sendmsg([message or b" "], rights)
            sock.settimeout(60)
            answer = sock.recv(65536)
            assert not answer or "error" in json.loads(answer)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"command": ["' + b"x" * MAX_BODY + b'"]}',
        json.dumps({"name": "x", "count": 10**9, "dry_run": True}).encode(),
        json.dumps({"name": "x", "count": 1e400, "dry_run": True}).encode(),
        b'{"name": NaN, "dry_run": true}',
        json.dumps({"name": "x", "command": ["a"] * 100_000, "dry_run": True}).encode(),
        json.dumps({"name": "x", "environment": {str(n): "" for n in range(50_000)}, "dry_run": True}).encode(),
        json.dumps({"action": "start", "dry_run": True, "selection": {"patterns": ["*a" * 5000 + "b"]}}).encode(),
        b"\xff\xfe",
    ],
    ids=["deep list", "deep mapping", "large", "many", "infinite", "nan", "long command", "variables", "glob", "encoding"],
)
def test_a_body_with_too_much_of_something_does_not_stop_the_daemon(own_fleet: Fleet, daemon: Daemon, body: bytes) -> None:
    path = "/1.0/actions" if b"action" in body else "/1.0/containers"
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    status, content = ask(own_fleet, head.encode() + body)
    if status:  # the daemon may cut off a request that is too large
        check(status, content)
    assert ask(own_fleet, request("server", "", {}, None))[0] == 200


def test_long_lines_and_many_headers_do_not_stop_the_daemon(own_fleet: Fleet, daemon: Daemon) -> None:
    for raw in (
        b"GET /1.0/containers?pattern=" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /1.0 HTTP/1.1\r\n" + b"X: y\r\n" * 50_000 + b"Connection: close\r\n\r\n",
    ):
        status, _ = ask(own_fleet, raw)
        assert status < 500
    assert ask(own_fleet, request("server", "", {}, None))[0] == 200


def test_the_daemon_does_not_grow_with_its_calls(own_fleet: Fleet, daemon: Daemon) -> None:
    """Ten thousand calls later the daemon has no more descriptors, and no more memory than a cache takes."""
    names = ("server", "list", "info", "create", "operations")
    good = [request(name, "x", {}, {"name": "x", "dry_run": True}) for name in names]

    def some(count: int) -> None:
        for _ in range(count):
            for raw in good:
                ask(own_fleet, raw)

    some(400)
    files, memory = daemon.files, daemon.memory
    some(1600)
    until(lambda: daemon.files <= files + 2, what="the descriptors are as few as before")  # the last ones may be open still
    assert daemon.memory - memory < 8 << 20
