"""A real HAProxy in front of a group that changes under load. It has the configuration that docs/haproxy.md shows."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import ROOT, Fleet, free_port, until

pytestmark = pytest.mark.system

SERVER = """
import http.server, socket, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    name = socket.gethostname().encode()
    def do_GET(self):
        time.sleep(0.02)
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.name)))
        self.end_headers()
        self.wfile.write(self.name)
    def log_message(self, *words): pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 100
Server(("", 8080), Handler).serve_forever()
"""
SERVE = ("--", "python3", "-c", SERVER)
CLIENTS = 4


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """A fleet whose containers are on its bridge by default, and drain for some seconds."""
    own = Fleet()
    own.settings(f"network: {{bridge: {own.bridge}, domain: {own.tag}.test}}\n")
    try:
        own.start_daemon()
        yield own
    finally:
        own.run("destroy", "--all", "--force", "-q", "--drain", "0")
        own.remove()


class Load:
    """Clients that send requests all the time. Each of them opens a new connection for every ten requests."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._end = threading.Event()
        self.served: Counter[str] = Counter()
        self.failed: list[str] = []
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._end.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
            try:
                for _ in range(10):
                    connection.request("GET", "/")
                    answer = connection.getresponse()
                    text = answer.read().decode()
                    if answer.status == 200:
                        self.served[text] += 1
                    else:
                        self.failed.append(f"{answer.status}: {text}")
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(repr(error))
            finally:
                connection.close()


def example(fleet: Fleet, port: int, gateway: str, control: Path) -> str:
    """The configuration of docs/haproxy.md, for this fleet."""
    text = (ROOT / "docs" / "haproxy.md").read_text()
    found = re.search(r"```haproxy\n(.*?)```", text, re.DOTALL)
    assert found is not None
    config = found[1]
    for old, new in (
        ("10.201.0.1:53", f"{gateway}:53"),
        ("web.role.fleet", f"web.role.{fleet.tag}.test"),
        ("bind :80", f"bind 127.0.0.1:{port}"),
        ("/run/haproxy/admin.sock", str(control)),
    ):
        assert old in config, old
        config = config.replace(old, new)
    return config


def up(control: Path) -> int:
    """The number of HAProxy's servers that are up, or -1 without HAProxy; haproxy's management guide, show stat."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(control))
        except OSError:
            return -1
        client.sendall(b"show stat -1 4 -1\n")
        answer = b""
        while data := client.recv(65536):
            answer += data
    return sum(",UP," in line for line in answer.decode().splitlines())


@contextlib.contextmanager
def proxy(fleet: Fleet, directory: Path) -> Iterator[tuple[int, Path]]:
    """HAProxy in front of the group role=web: its port, and its control socket."""
    lines = subprocess.run(["ip", "-br", "-4", "addr", "show", fleet.bridge], capture_output=True, text=True, check=True)
    gateway = lines.stdout.split()[2].partition("/")[0]
    port = free_port()
    control, config = directory / "admin.sock", directory / "haproxy.cfg"
    config.write_text(example(fleet, port, gateway, control))
    with (directory / "haproxy.log").open("wb") as log:
        haproxy = subprocess.Popen(["/usr/sbin/haproxy", "-db", "-f", str(config)], stdout=log, stderr=log)
    try:
        yield port, control
    finally:
        haproxy.terminate()
        haproxy.wait(60)


OPTIONS = ("-l", "role=web", "--port", "http=8080", "--health-http", "8080/", "--health-interval", "1")


def test_no_request_fails_while_a_group_grows_and_shrinks(fleet: Fleet, tmp_path: Path) -> None:
    prefix = fleet.prefix.rstrip("-")
    options = (*OPTIONS, *SERVE)
    fleet.ok("create", prefix, "-n", "5", *options)
    first = set(fleet.states())
    fleet.ok("wait", "--all", "--for", "healthy")
    with proxy(fleet, tmp_path) as (port, control):
        until(lambda: up(control) == 5, 30, "HAProxy has five servers")
        with Load(port) as load:
            fleet.ok("create", prefix, "-n", "15", *options)
            until(lambda: up(control) == 20, 60, "HAProxy found twenty")
            everyone = set(fleet.states())
            until(lambda: everyone <= load.served.keys(), 30, "all containers serve")
            fleet.ok("restart", *sorted(first)[:2])
            fleet.ok("destroy", "--force", *sorted(everyone - first))
            until(lambda: up(control) == 5, 30, "HAProxy has five servers again")
            before = load.served.copy()
            until(lambda: first <= (load.served - before).keys(), 30, "the first five containers serve")
            until(lambda: sum(load.served.values()) > 1000, 60, "so many requests that a loss is likely to show")
        assert load.failed == []


@pytest.fixture
def interpreter() -> Iterator[Path]:
    """A Python interpreter on the host that the test can patch."""
    directory = Path("/opt/lxcfleet-haproxy")
    directory.mkdir()
    try:
        install(directory / "python3")
        yield directory / "python3"
    finally:
        shutil.rmtree(directory)


def install(path: Path) -> None:
    """Install an interpreter as dpkg does it: write a new file, and rename it to its place."""
    new = path.with_suffix(".dpkg-new")
    shutil.copy(os.path.realpath("/usr/bin/python3"), new)
    with new.open("ab") as file:
        file.write(os.urandom(8))  # a patch changes the content; the same bytes would be no reason for a restart
    os.rename(new, path)


def test_no_request_fails_while_ten_containers_are_patched(fleet: Fleet, interpreter: Path, tmp_path: Path) -> None:
    prefix = fleet.prefix.rstrip("-")
    fleet.ok("create", prefix, "-n", "10", *OPTIONS, "--", str(interpreter), "-c", SERVER)
    everyone = set(fleet.states())
    fleet.ok("wait", "--all", "--for", "healthy")
    before = {record["name"]: record["pid"] for record in fleet.records()}
    with proxy(fleet, tmp_path) as (port, control):
        until(lambda: up(control) == 10, 60, "HAProxy found ten")
        with Load(port) as load:
            until(lambda: everyone <= load.served.keys(), 30, "all containers serve")
            install(interpreter)
            assert set(fleet.run("stale", "-q").out.split()) == everyone
            waves = ("--max-unavailable", "5", "--min-healthy-time", "2")
            applied = fleet.run("patch", "apply", "-f", "json", *waves, timeout=240)
            assert applied.status == 0, applied
            fresh = load.served.copy()
            until(lambda: up(control) == 10, 60, "HAProxy has ten servers again")
            until(lambda: everyone <= (load.served - fresh).keys(), 30, "all containers serve again")
            until(lambda: sum(load.served.values()) > 1000, 60, "so many requests that a loss is likely to show")
        assert load.failed == []
    assert fleet.run("stale").status == 0
    after = {record["name"]: record["pid"] for record in fleet.records()}
    assert not set(before.items()) & set(after.items())
    assert applied.json["wave"] == 3  # one, five, and the other four
