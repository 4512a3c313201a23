"""The daemon's sockets: which users get in, and what readers may do."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web

from lxcfleet.api import calls
from lxcfleet.daemon.http.access import AT_ONCE, HIDDEN, Access
from lxcfleet.daemon.http.access import READERS as READING
from lxcfleet.daemon.http.containers import OfFleet
from lxcfleet.daemon.http.server import Server
from lxcfleet.daemon.uses.setting import Setting
from lxcfleet.host.process import peer
from lxcfleet.spec.files.settings import Config

from .harness import Fleet, until

pytestmark = pytest.mark.system

FULL, READERS, STRANGER = 54320, 54321, 54322
"""Groups that no host has."""


class FakeService:
    """A stand-in for the fleet, with only the calls that these tests make."""

    def __init__(self) -> None:
        self.changed: list[str] = []
        self.holding = threading.Event()
        self.waiting = 0
        self.config = Config()

    async def containers(self, _selection: object) -> list[object]:
        self.waiting += 1
        while self.holding.is_set():
            await asyncio.sleep(0.01)
        self.waiting -= 1
        return []

    async def info(self, name: str) -> dict[str, object]:
        return {"name": name, "environment": {"PASSWORD": "s3cret"}}

    async def wait(self, _ask: object) -> list[object]:
        return []

    async def create(self, _ask: object, _updating: object) -> SimpleNamespace:
        self.changed.append("create")
        return SimpleNamespace(record=dict)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[FakeService, Path]]:
    """The API's server, with groups that only this test uses."""
    fake, path = FakeService(), tmp_path / "socket"
    tmp_path.chmod(0o755)
    for above in tmp_path.parents:
        if above.stat().st_mode & 0o001 == 0:
            above.chmod(above.stat().st_mode | 0o011)
    loop = asyncio.new_event_loop()
    fleet = cast(Any, fake)
    answered = (calls.LIST, calls.CREATE, calls.INFO, calls.WAIT)
    server = Server([OfFleet(fleet, Setting(fleet, cast(Any, None)))], Access(FULL, READERS), *answered)

    async def start() -> web.AppRunner:
        runner = web.AppRunner(server.application)
        await runner.setup()
        await web.UnixSite(runner, str(path)).start()
        return runner

    runner = loop.run_until_complete(start())
    peer.admit(path, FULL, READERS)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield fake, path
    fake.holding.clear()
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(60)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


CLIENT = """
import json, os, socket, sys
path, method, target, body, *groups = sys.argv[1:]
os.setgroups([int(group) for group in groups]); os.setgid(65534); os.setuid(65534)
with socket.socket(socket.AF_UNIX) as sock:
    try:
        sock.connect(path)
    except PermissionError:
        print("refused by the kernel"); sys.exit()
    head = f"{method} {target} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n"
    sock.sendall((head + body).encode())
    answer = b"".join(iter(lambda: sock.recv(65536), b""))
print(answer.split(b" ")[1].decode(), answer.rpartition(b"\\r\\n\\r\\n")[2].decode())
"""


def call(path: Path, method: str, target: str, *groups: int, body: object = None) -> str:
    """The answer that a user in these groups gets."""
    text = "" if body is None else json.dumps(body)
    words = [str(path), method, target, text, *map(str, groups)]
    return subprocess.run([sys.executable, "-c", CLIENT, *words], capture_output=True, text=True, check=True).stdout.strip()


def test_the_socket_is_for_the_two_groups(service: tuple[FakeService, Path]) -> None:
    _, path = service
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert call(path, "GET", "/1.0/containers", STRANGER) == "refused by the kernel"
    assert call(path, "GET", "/1.0/containers", FULL) == "200 []"
    assert call(path, "GET", "/1.0/containers", STRANGER, READERS) == "200 []"


def test_readers_change_nothing(service: tuple[FakeService, Path]) -> None:
    fake, path = service
    body = {"name": "a", "command": ["true"]}
    assert call(path, "POST", "/1.0/containers", READERS, body=body).startswith("403")
    assert fake.changed == []
    assert call(path, "POST", "/1.0/containers", FULL, body=body).startswith("202")
    assert fake.changed == ["create"]
    assert call(path, "POST", "/1.0/wait", READERS, body={"selection": {"everything": True}}) == "200 []"


def test_readers_see_no_passwords(service: tuple[FakeService, Path]) -> None:
    _, path = service
    assert json.loads(call(path, "GET", "/1.0/containers/a", READERS)[4:])["environment"] == {"PASSWORD": HIDDEN}
    assert "s3cret" in call(path, "GET", "/1.0/containers/a", FULL)


def test_the_daemon_refuses_strangers_on_a_socket_that_anybody_may_open(service: tuple[FakeService, Path]) -> None:
    """The daemon asks the kernel for the client's uid and groups. It does not rely on the file's mode."""
    _, path = service
    path.chmod(0o666)
    assert call(path, "GET", "/1.0/containers", STRANGER).startswith("403")


def test_readers_can_not_keep_the_daemon_busy(service: tuple[FakeService, Path]) -> None:
    fake, path = service
    fake.holding.set()
    head = b"GET /1.0/containers HTTP/1.1\r\nHost: x\r\n\r\n"
    script = (
        "import os, socket, sys, time; os.setgroups([54321]); os.setgid(65534); os.setuid(65534)\n"
        f"held = [socket.socket(socket.AF_UNIX) for _ in range({AT_ONCE})]\n"
        f"for each in held: each.connect(sys.argv[1]); each.sendall({head!r})\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    argv = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        until(lambda: fake.waiting == AT_ONCE)
        assert call(path, "GET", "/1.0/containers", READERS).startswith("409")
        assert call(path, "GET", "/1.0/containers/a", FULL).startswith("200")
        fake.holding.clear()
        holder.communicate()
    until(lambda: call(path, "GET", "/1.0/containers", READERS) == "200 []", what="those that it held are answered")


HOG = """
import grp, os, resource, socket, sys, time
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
os.setgroups([grp.getgrnam(sys.argv[3]).gr_gid]); os.setgid(65534); os.setuid(65534)
ask = b"GET /1.0 HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n" * 2000
held = []
print("ready", flush=True)
while True:
    held.append(socket.socket(socket.AF_UNIX))
    held[-1].connect(sys.argv[1])
    if sys.argv[2] == "ask":
        held[-1].setblocking(False)
        try:
            held[-1].send(ask)
        except OSError:
            pass
    if len(held) > 3000:
        held = held[-300:]
"""
"""A client that connects again and again, closes late, and reads nothing."""


@pytest.mark.parametrize("way", ["ask", "idle"])
def test_a_reader_takes_neither_memory_nor_connections_from_others(fleet: Fleet, way: str) -> None:
    """Before, requests sent ahead made the daemon grow by up to 3,300 MiB, and 20,000 connections hung all others."""
    if peer.group(READING) is None:
        pytest.skip(f"there is no group {READING}")
    name = fleet.name("a")
    fleet.create(name)
    pid = fleet.daemon_pid()
    assert pid is not None
    before, log = memory(pid), len(fleet.log())
    argv = [sys.executable, "-c", HOG, str(fleet.paths.socket), way, READING]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd="/") as hog:
        assert hog.stdout is not None
        assert hog.stdout.readline() == b"ready\n"
        try:
            deadline = time.monotonic() + 8
            while time.monotonic() < deadline:
                assert fleet.states() == {name: "running"}
                assert fleet.inside(name, "hostname") == name
                assert memory(pid) - before < 64 << 10
            fleet.ok("restart", name)
            assert len(os.listdir(f"/proc/{pid}/fd")) < 1000
        finally:
            hog.kill()
    assert len(fleet.log()) - log < 10_000


def memory(pid: int) -> int:
    """The KiB that a process has in memory."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0])


def test_the_daemons_own_sockets_refuse_strangers(fleet: Fleet) -> None:
    for path in (fleet.paths.socket, fleet.paths.attach_socket):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert path.stat().st_uid == 0
        assert call(path, "GET", "/1.0", STRANGER) == "refused by the kernel"
