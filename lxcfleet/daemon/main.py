"""lxcfleetd: wiring, signals and the loop. The only module that puts the real parts together."""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import fcntl
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

from lxcfleet import __version__
from lxcfleet.api.client import answers
from lxcfleet.base.mask import mount
from lxcfleet.containers import lxc_config
from lxcfleet.containers.container import Container
from lxcfleet.containers.delta_sizes import DeltaSizes
from lxcfleet.containers.lifecycle import Lifecycle
from lxcfleet.containers.masks import MaskKeeper
from lxcfleet.containers.readings import Readings
from lxcfleet.containers.registry import Registry
from lxcfleet.containers.steps import Observer
from lxcfleet.containers.store import Leftovers
from lxcfleet.daemon.attach import AttachServer
from lxcfleet.daemon.http.access import Access
from lxcfleet.daemon.http.scrape import Listener, Scrape
from lxcfleet.daemon.http.server import Server
from lxcfleet.daemon.service import Fleet
from lxcfleet.errors import FleetError, HostError, Unsupported
from lxcfleet.health.prober import Prober
from lxcfleet.host.facts import features
from lxcfleet.host.kernel import tree
from lxcfleet.host.net import sysctl
from lxcfleet.host.packages import dpkg
from lxcfleet.host.process import cgroup, peer
from lxcfleet.launcher.client import Launcher
from lxcfleet.network.fleet import FleetNetwork
from lxcfleet.patch.exposure import Audit
from lxcfleet.patch.numbers import PatchNumbers
from lxcfleet.patch.owners import Owners
from lxcfleet.patch.rollout.driver import Driver
from lxcfleet.patch.service import Patch
from lxcfleet.patch.stale.finder import Finder
from lxcfleet.patch.verify.prover import Prover
from lxcfleet.patch.watcher import Watcher
from lxcfleet.paths import Paths
from lxcfleet.runtime.events import Events
from lxcfleet.runtime.operations import Operations
from lxcfleet.spec.settings import Config, load

log = logging.getLogger("lxcfleetd")

OBSERVE_SECONDS = 5.0
"""How often it is looked for containers that somebody started with plain lxc-start."""
ORPHAN_SECONDS = 150.0
"""How long children of an earlier daemon may go on: longer than launcher.children.preparing.CHILD_SECONDS."""
OPEN_FILES = 65536


class Daemon:
    """All parts, put together."""

    def __init__(self, paths: Paths, lock: int, observers: Sequence[Observer] = ()) -> None:
        """``observers``: told of each step that is about to be done to a container."""
        self._paths = paths
        settings = load(paths.config_file)
        logging.getLogger().setLevel(settings.log_level.upper())
        self._access = Access.of_host()
        self._launcher = Launcher(paths, lock)
        self._events = Events()
        self._registry = Registry(paths, self._launcher, self._began, self._exited)
        self._features: features.Features | None = None
        self._leftovers: Leftovers = self._registry.load()
        self._network = FleetNetwork(paths, settings.network, self._registry, self._launcher, self._events, self._moved)
        self._prober = Prober(paths, self._launcher, self._events, settings.alive_time, self._serves)
        self._mask = MaskKeeper(paths, self._launcher)
        self._lifecycle = Lifecycle(
            paths,
            _platform(settings.network.bridge),
            self._launcher,
            self._registry,
            settings.start_slots,
            settings.console_log_kib,
            self._network,
            self._mask,
        )
        self._lifecycle.reconcile = settings.reconcile
        self._lifecycle.noted = lambda name, note: self._events.add("conflict", name, note)
        self._fleet = Fleet(
            paths,
            settings,
            self._registry,
            self._lifecycle,
            self._mask,
            Operations(),
            self._network,
            self._events,
            self._prober,
            self._read_features,
            observers,
        )
        self._finder = Finder(paths, self._launcher, self._mask)
        self._rollouts = Driver(paths, self._fleet, self._finder.scan, dpkg.in_pieces)
        self._owners = Owners()
        self._watcher = Watcher(
            paths,
            lambda: self._fleet.config.patch,
            self._registry,
            self._mask,
            self._launcher,
            self._finder,
            self._events,
            self._rollouts.take_up,
        )
        self._patch = Patch(self._registry, self._finder, self._watcher, self._owners)
        self._sizes = DeltaSizes(paths, self._registry)
        self._prover = Prover(self._registry, self._finder, self._owners)
        self._patch_numbers = PatchNumbers(
            self._registry, self._finder, lambda: self._rollouts.last, self._watcher, self._prover.shadows
        )
        readings = Readings(
            self._registry, self._fleet.operations, self._sizes, self._prober.of, self._patch_numbers.read
        )
        self._scrape = Scrape(self._fleet, readings)
        self._listener = Listener(self._scrape)
        self._reloading: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()

    def _read_features(self) -> features.Features:
        """What the host can do, tried once: the first creation pays for it."""
        if self._features is None:
            self._features = features.read(self._paths)
        return self._features

    def _began(self, container: Container) -> None:
        self._prober.begin(container)

    def _moved(self) -> None:
        self._prober.look_again()

    def _serves(self, container: Container, may: bool) -> None:
        """Only healthy containers answer for their groups."""
        self._network.set_member(container, may)

    def _server(self) -> Server:
        audit = Audit(self._registry, self._launcher)
        return Server(self._fleet, self._patch, self._prover, self._rollouts, audit, self._scrape, self._access)

    def _exited(self, container: Container) -> None:
        self._network.ended(container.name)
        self._prober.end(container)
        self._fleet.actions.exited(container)

    async def run(self) -> None:
        """Serve until a signal says otherwise; containers run on."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        api, attach = _listeners(self._paths, self._access)
        await self._registry.observe()
        await self._network.settle()
        try:
            await self._network.check()
        except (FleetError, OSError) as error:
            log.error("the fleet's network is not as it should be: %s", error)
        self._prober.repeat(self._registry)
        await self._recover()
        self._fleet.boot.begin()
        runner = web.AppRunner(self._server().application, access_log=None)
        await runner.setup()
        await self._listener.listen(self._fleet.config.metrics)
        await web.SockSite(runner, api).start()
        tasks = [
            loop.create_task(AttachServer(attach, self._registry, self._launcher, self._access).serve()),
            loop.create_task(self._clean(self._leftovers.gone)),
            loop.create_task(self._observe()),
            loop.create_task(self._sizes.run()),
            loop.create_task(self._fleet.boot.keep()),
            loop.create_task(self._patch_numbers.run()),
            loop.create_task(self._rollouts.run()),
            loop.create_task(self._watcher.run()),
        ]
        watchdog = loop.create_task(_watchdog())
        log.info("lxcfleetd %s: %d containers", __version__, len(self._registry))
        _notify("READY=1")
        await self._stop.wait()
        _notify("STOPPING=1")
        log.info("ends; containers run on")
        for task in tasks:
            task.cancel()
        self._prober.close()
        await self._fleet.operations.settle()
        self._fleet.boot.close()
        self._launcher.close()
        watchdog.cancel()

    def _reload(self) -> None:
        try:
            settings = load(self._paths.config_file)
        except FleetError as error:
            log.error("settings not taken over: %s", error)
            return
        self._reloading = asyncio.get_running_loop().create_task(self._take_over(settings))

    async def _take_over(self, settings: Config) -> None:
        logging.getLogger().setLevel(settings.log_level.upper())
        self._features = None
        await self._listener.listen(settings.metrics)
        try:
            stays = await self._fleet.reload(settings)
        except (FleetError, OSError) as error:
            log.error("settings taken over, but the network is not as they say: %s", error)
        else:
            log.info("settings taken over%s", ", but for those named above" if stays else "")

    async def _observe(self) -> None:
        while True:
            await asyncio.sleep(OBSERVE_SECONDS)
            try:
                await self._registry.observe()
                await self._network.check()
                await asyncio.to_thread(self._mask.freshness.take_note)
            except (FleetError, OSError) as error:
                log.error("looking after the fleet failed: %s", error)

    async def _recover(self) -> None:
        """Tidy up after a crash, and say so; go on with what is owed to containers."""
        await self._clean(self._leftovers.new)  # at once: their names may be asked for. Nothing has run in them
        for container in list(self._registry):
            self._fleet.actions.resume(container, "begun before the daemon was restarted")
        await self._fleet.room.release_unused()

    async def _clean(self, directories: Sequence[str]) -> None:
        if not directories:
            return
        try:
            await self._lifecycle.remove(directories)
        except FleetError as error:
            log.error("can't clean up: %s", error)
        for directory in directories:
            if not (self._paths.lxc / directory).exists():
                self._events.add("cleaned", None, f"removed {directory}, left by a crash")


def _platform(bridge: str) -> lxc_config.Platform:
    apparmor = Path("/sys/module/apparmor/parameters/enabled")
    return lxc_config.Platform(
        cgroup2=cgroup.unified(),
        controllers=cgroup.controllers(),
        apparmor=apparmor.exists() and apparmor.read_text(encoding="ascii").strip() == "Y",
        seccomp=Path("/proc/sys/kernel/seccomp").exists(),
        bridge=bridge,
        ipv6=sysctl.has_ipv6(),
        cgroup=cgroup.parent(),
        hook=Path(__file__).resolve().parents[1] / "hook.py",
    )


def _listeners(paths: Paths, access: Access) -> tuple[socket.socket, socket.socket]:
    """The API's socket and the attach socket: systemd's, where it passed them, or our own."""
    passed = {each.type: each for each in _from_systemd()}
    api = passed.get(socket.SOCK_STREAM) or _listen(paths.socket, socket.SOCK_STREAM)
    attach = passed.get(socket.SOCK_SEQPACKET) or _listen(paths.attach_socket, socket.SOCK_SEQPACKET)
    for path, more in ((paths.socket, access.readers), (paths.attach_socket, None)):
        try:
            peer.admit(path, access.full, more)
        except OSError as error:
            log.error("%s: not for the groups that may use it: %s", path, error)
    return api, attach


def _activated() -> bool:
    """Whether systemd listens for us: then a socket that answers says nothing about another daemon."""
    return os.environ.get("LISTEN_PID") == str(os.getpid())


def _from_systemd() -> list[socket.socket]:
    """The sockets of the socket unit; sd_listen_fds(3)."""
    if not _activated():
        return []
    count = int(os.environ.pop("LISTEN_FDS", "0"))
    for name in ("LISTEN_PID", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    return [socket.socket(fileno=3 + number) for number in range(count)]


def _listen(path: Path, kind: socket.SocketKind) -> socket.socket:
    """A listening socket that root and the group may use."""
    listener = socket.socket(socket.AF_UNIX, kind)
    path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen(128)
    return listener


def _notify(state: str) -> None:
    """Tell systemd how far we are; sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(state.encode(), address.replace("@", "\0", 1))


async def _watchdog() -> None:
    """Tell systemd that the loop turns, as often as it wants to hear it; sd_watchdog_enabled(3)."""
    limit = os.environ.get("WATCHDOG_USEC", "")
    while limit.isdigit():
        _notify("WATCHDOG=1")
        await asyncio.sleep(int(limit) / 3e6)


def _take_lock(paths: Paths) -> int:
    """Be the only daemon, and wait until nobody works for an earlier one any more.

    The launcher and its children inherit the lock, so it is free only when the last of them has ended.
    """
    paths.run.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + ORPHAN_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not _activated() and answers(paths):
                raise FleetError("lxcfleetd runs already", why=f"{paths.socket} answers") from None
            if time.monotonic() > deadline:
                raise HostError(
                    "an earlier lxcfleetd still holds its lock", why=str(paths.lock),
                    hint=f"`fuser -v {paths.lock}` shows who; end it",
                ) from None  # fmt: skip
            time.sleep(0.05)
        else:
            return descriptor


def _check_rights() -> None:
    if os.geteuid() != 0:
        raise Unsupported("lxcfleetd must be started by root", hint="sudo lxcfleetd, or systemctl start lxcfleet")


def _raise_open_files() -> None:
    """Each running container takes a descriptor, and each that starts two more."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


async def _serve(paths: Paths, lock: int, observers: Sequence[Observer]) -> None:
    await Daemon(paths, lock, observers).run()


def main(observers: Sequence[Observer] = ()) -> None:
    """The command lxcfleetd. ``observers``: told of each step that is about to be done to a container."""
    parser = argparse.ArgumentParser(prog="lxcfleetd", description="The daemon that runs a fleet of containers.")
    parser.add_argument("--version", action="version", version=f"lxcfleetd {__version__}")
    parser.add_argument("--debug", action="store_true", help="tracebacks of errors")
    arguments = parser.parse_args()
    faulthandler.enable()  # the watchdog's SIGABRT then says where it hung
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    # It would log a traceback for each request that is no HTTP; what our own code does wrong, api.server logs.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    paths = Paths.from_environment()
    try:
        _check_rights()
        os.chdir("/")
        os.umask(0o022)
        lock = _take_lock(paths)
        _raise_open_files()
        paths.lxc.mkdir(mode=0o755, parents=True, exist_ok=True)
        tree.spread(paths.lxc)
        mount.make_mount_points(paths)
        asyncio.run(_serve(paths, lock, observers))
    except FleetError as error:
        if arguments.debug:
            raise
        print(f"lxcfleetd: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except OSError as error:
        if arguments.debug:
            raise
        print(f"lxcfleetd: {HostError.from_os_error('can not start', error)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
