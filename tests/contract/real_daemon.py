"""The real daemon in a thread, over a fake launcher and with a directory of its own: it takes neither root nor LXC."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar
from unittest import mock

from aiohttp import web

from lxcfleet.api.client import Client
from lxcfleet.api.records import OperationRecord
from lxcfleet.api.requests import CreateRequest
from lxcfleet.containers.measuring import usage
from lxcfleet.containers.reconciling.steps import Observer
from lxcfleet.daemon.attach import AttachServer
from lxcfleet.daemon.http import gate
from lxcfleet.daemon.http.access import Access
from lxcfleet.daemon.http.routes import Handler
from lxcfleet.daemon.wiring import Parts
from lxcfleet.host.facts import limits
from lxcfleet.host.facts.limits import HostLimits, Table
from lxcfleet.host.lxc import monitor, monitor_fifo
from lxcfleet.host.net import bridge_port, dnsmasq, interfaces, resolved
from lxcfleet.host.packages import database, dpkg
from lxcfleet.host.packages.sightings import Sightings
from lxcfleet.host.process import cgroup
from lxcfleet.host.process.counters import Counters, Counts
from lxcfleet.host.process.kernel_log import KernelLog
from lxcfleet.network import addressing
from lxcfleet.patch.rollout import sight
from lxcfleet.paths import Paths
from lxcfleet.runtime.operations import Operation
from lxcfleet.spec.files import settings
from lxcfleet.spec.reading.terms import RANGE_SIZE
from lxcfleet.spec.states import Action

from .fake.launcher import FakeLauncher
from .host import Containers, acting, end

T = TypeVar("T")

SETTINGS = """\
network: {dns: false}
alive_time: 0
stop_timeout: 5
rollout: {canaries: 0, min_healthy_time: 0}
"""
ROOM = 4000
"""Root has ids for so many containers: fewer than one request may ask for."""
IDS = f"root:1000000:{ROOM * RANGE_SIZE}\n"


class Daemon:
    """The daemon; it runs while the context is entered."""

    def __init__(self, directory: Path, observers: Sequence[Observer] = ()) -> None:
        """``observers`` are called before each step that changes a container."""
        self._observers = observers
        self.paths = Paths(lxc=directory / "lxc", run=directory / "run", etc=directory / "etc")
        for path in (self.paths.lxc, self.paths.run, self.paths.etc):
            path.mkdir(exist_ok=True)
        if not self.paths.config_file.exists():
            self.paths.config_file.write_text(SETTINGS)
        self.launcher = self._new_launcher()
        self.model = self.launcher.model
        self.client = Client(self.paths, timeout=60)
        self.fleet = Containers(self)
        self.requests: list[str] = []
        """Method and path of all requests so far."""
        self._ready = threading.Event()
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._main, daemon=True)

    def __enter__(self) -> Daemon:
        self._host = _on_a_host(self.launcher)
        self._host.__enter__()
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)
        self.launcher.close()
        self._host.__exit__(None, None, None)

    def _main(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        parts = self.parts = Parts(
            self.paths, settings.load(self.paths.config_file), self.launcher, Access(os.getgid(), None),
            self._observers,
        )  # fmt: skip
        parts.endings.check()
        parts.supervision.load()
        await parts.registry.observe()
        parts.fallen.rest(parts.registry)
        parts.supervision.begin()
        await self._recover()
        parts.server.application.middlewares.insert(0, self._record)
        runner = gate.runner_of(parts.server.application)
        await runner.setup()
        entrance = gate.for_callers(runner, parts.access)
        site = await self._loop.create_server(entrance, sock=_listen(self.paths.socket, socket.SOCK_STREAM))
        listener = _listen(self.paths.attach_socket, socket.SOCK_SEQPACKET)
        attach = AttachServer(
            listener, parts.registry, self.launcher, parts.access, parts.foregrounds, parts.archives, parts.moves
        )  # fmt: skip
        tasks = [parts.tasks.keep("attach", attach.serve), parts.tasks.keep("rollouts", parts.driver.run)]
        tasks += self._further_tasks()
        self._runner = runner
        self._ready.set()
        await self._stop.wait()
        for task in tasks:
            task.cancel()
        parts.close()
        site.close()
        await runner.cleanup()

    def _new_launcher(self) -> FakeLauncher:
        return FakeLauncher(self.paths)

    async def _recover(self) -> None:
        """Nothing to do after a former daemon, unless a test has one killed."""

    def _further_tasks(self) -> list[asyncio.Task[None]]:
        return []

    @web.middleware
    async def _record(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        return await handler(request)

    def create(self, request: CreateRequest) -> OperationRecord:
        """Create containers, and give the operation once it has ended."""
        return end(self.client, self.client.create(request))

    def act(self, action: Action, *names: str) -> OperationRecord:
        """Act on containers, and give the operation once it has ended."""
        return acting(self.client, action, *names)

    @property
    def operation(self) -> Operation:
        """The operation that was begun last."""
        return self.call(lambda: [*self.parts.fleet.operations._all.values()][-1])

    def call(self, work: Callable[[], T]) -> T:
        """Call ``work`` in the daemon's own thread, and give its result."""

        async def do() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(do(), self._loop).result(60)

    def hang_up(self) -> None:
        """Break off all connections, as happens if the daemon is killed."""

        def abort() -> None:
            assert self._runner.server is not None
            for connection in list(self._runner.server.connections):
                if connection.transport is not None:
                    connection.transport.abort()

        self.call(abort)
        self.launcher.hang_up()


def _listen(path: Path, kind: socket.SocketKind) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, kind)
    listener.bind(str(path))
    listener.listen(128)
    return listener


class _Clock:
    """A clock that remembers its last time, so that the model's counters match the reading's time exactly."""

    last = 0.0
    thread_time = staticmethod(time.thread_time)

    def monotonic(self) -> float:
        """As time.monotonic."""
        self.last = time.monotonic()
        return self.last


@contextmanager
def _on_a_host(launcher: FakeLauncher) -> Iterator[None]:
    """Everything that the daemon reads from the host comes from the fake launcher's model."""
    model = launcher.model

    def has(_: Paths) -> HostLimits:
        tables = {"neighbours": Table("net.ipv4.neigh.default.gc_thresh3", model.neighbours, 0)}
        return HostLimits(1 << 40, 1 << 40, 1 << 40, None, "/var/lib/lxc", tables)

    def have(values: Mapping[str, int], _: Path) -> None:
        model.neighbours = values["net.ipv4.neigh.default.gc_thresh3"]

    clock = _Clock()

    def counts(counters: Counters) -> Counts:
        name = counters._payload.directories[""].rpartition("/")[2]
        used = clock.last * model.loads.get(name, 0.0)
        return Counts(used, 1_500_000, 2, (0, int(4096 * clock.last)))

    with ExitStack() as stack:
        for module, name, fake in (
            (sight, "PAUSE_SECONDS", 0.1),
            (cgroup, "payload", launcher.payload),
            (cgroup, "still", launcher.still),
            (cgroup, "remove", launcher.forget_groups),
            (monitor, "ROOT", os.getuid()),
            (monitor_fifo, "_ROOT", launcher.fifos),
            (KernelLog, "begin", lambda _: None),
            (bridge_port, "set_up", lambda *_, **__: None),
            (interfaces, "ports", lambda _: set()),
            (addressing, "Claim", lambda *_: ExitStack()),
            (dnsmasq, "check_installed", lambda: None),
            (dnsmasq, "check_port", lambda: None),
            (resolved, "has_servers", lambda: True),
            (limits, "id_files", lambda: (IDS, IDS, "", "")),
            (usage, "time", clock),
            (Counters, "read", counts),
            (limits, "read", has),
            (limits, "apply", have),
            (database, "installed", lambda: model.installed),
            (database, "substitutes", lambda names: {n: model.successors[n] for n in names if n in model.successors}),
            (database, "by_architecture", lambda: model.installed),
            (database, "files", lambda packages: {package: [] for package in packages}),
            (database, "owners", lambda paths: {p: model.owners[p] for p in paths if p in model.owners}),
            (dpkg, "half_done", lambda: ""),
            (Sightings, "update", lambda _: None),
            (dpkg, "stamp", lambda: model.dpkg_stamps.pop() if model.dpkg_stamps else ()),
            (dpkg, "holder", lambda *_: None),
            (dpkg, "in_pieces", lambda: ""),
        ):
            stack.enter_context(mock.patch.object(module, name, fake))
        yield
