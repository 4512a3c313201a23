"""The daemon from its start to its end: it finds the running containers again, tidies up after a crash, and serves."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Sequence
from functools import partial

from lxcfleet import __version__
from lxcfleet.containers import owed
from lxcfleet.containers.desired import Intent
from lxcfleet.containers.events import LeftoverRemoved
from lxcfleet.containers.reconciling.steps import Observer
from lxcfleet.daemon import systemd
from lxcfleet.daemon.attach import AttachServer
from lxcfleet.daemon.http import gate
from lxcfleet.daemon.http.access import Access
from lxcfleet.daemon.listeners import listeners
from lxcfleet.daemon.turnover import PAUSE_SECONDS, Turnover
from lxcfleet.daemon.wiring import Parts
from lxcfleet.errors import FleetError
from lxcfleet.host.packages import dpkg
from lxcfleet.launcher.client import HostLauncher
from lxcfleet.paths import Paths
from lxcfleet.runtime.pace import sleep_in_step
from lxcfleet.spec.files.settings import Config, load

log = logging.getLogger("lxcfleetd")

LAST_SECONDS = 5.0
"""The longest time, in seconds, that a daemon which starts itself anew takes to answer the last requests."""
OBSERVE_SECONDS = 5.0
"""Seconds between two looks for containers that somebody started with plain lxc-start."""


class Daemon:
    """One run of the daemon."""

    def __init__(self, paths: Paths, lock: int, observers: Sequence[Observer] = ()) -> None:
        """``lock``: the descriptor of the daemon's lock, which the launcher inherits. ``observers`` are called before each
        step that changes a container."""
        settings = load(paths.config_file, log.warning)
        logging.getLogger().setLevel(settings.log_level.upper())
        self._paths, self._lock = paths, lock
        self._parts = Parts(paths, settings, HostLauncher(paths, lock), Access.of_host(), observers)
        self._stop = asyncio.Event()
        self._unfinished: list[tuple[str, str]] = []
        """Snapshots that a crash left half made or half removed."""

    async def run(self) -> Sequence[int]:
        """Serve until SIGTERM or SIGINT; containers run on.

        Returns earlier if the daemon is to be started anew: with descriptors of its listening sockets, where clients wait.
        """
        loop, parts = asyncio.get_running_loop(), self._parts
        parts.endings.check()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        starting = parts.tasks.do("start", systemd.ask_for_time)
        api, attach = listeners(self._paths, parts.access)
        await self._find_again()
        runner = gate.runner_of(parts.server.application)
        await runner.setup()
        await parts.listener.listen(parts.fleet.config.metrics)
        site = await loop.create_server(gate.for_callers(runner, parts.access), sock=api)
        commands = AttachServer(
            attach, parts.registry, parts.launcher, parts.access, parts.foregrounds, parts.archives, parts.moves
        )  # fmt: skip
        tasks = self._begin(commands)
        log.info("lxcfleetd %s: %d containers", __version__, len(parts.registry))
        starting.cancel()
        systemd.notify("READY=1")
        if dpkg.holder() is None:
            parts.own.begin(daemon=False)
        kept: Sequence[int] = ()
        if await Turnover(parts, self._paths).wait(self._stop):
            kept = os.dup(api.fileno()), os.dup(attach.fileno())
            site.close()
            tasks[0].cancel()  # the attach socket's
            await self._answer_last(commands)
        systemd.notify("STOPPING=1")
        log.info("%s; containers run on", "starts itself anew" if kept else "ends")
        site.close()
        for task in tasks:
            task.cancel()
        parts.prerequisites.end()
        parts.fleet.snapshot_files.break_off()
        await parts.archives.close()
        await parts.fleet.operations.settle()
        parts.close()
        parts.launcher.close()
        return kept

    async def _answer_last(self, commands: AttachServer) -> None:
        """Answer requests that came before the daemon stopped to listen."""
        deadline = time.monotonic() + LAST_SECONDS
        await asyncio.sleep(PAUSE_SECONDS)
        while self._parts.server.answering and time.monotonic() < deadline:
            await asyncio.sleep(PAUSE_SECONDS)
        await commands.settle()

    async def _find_again(self) -> None:
        """Go on where an earlier daemon stopped, whether it was shut down or crashed."""
        parts = self._parts
        parts.monitor_guard.begin()
        parts.supervision.load()
        await parts.registry.observe()
        owed.recall(parts.paths, parts.registry)
        parts.fallen.rest(parts.registry)
        await parts.network.settle()
        try:
            await parts.network.check()
        except (FleetError, OSError) as error:
            log.error("the fleet's network is not as it should be: %s", error)
        parts.announcements.begin()
        parts.prober.repeat(parts.registry)
        parts.supervision.begin()  # what is owed says how a run ended, so that must be asked before it is done
        await parts.foregrounds.recover()
        await parts.secrets.tidy_up()
        await self._recover()
        parts.fleet.boot.begin()

    async def _recover(self) -> None:
        """Tidy up after a crash, and say so; resume the actions on containers that were begun and not finished."""
        parts = self._parts
        await self._clean(parts.leftovers.new)  # at once, as a client may ask for these names; nothing ever ran in them
        parts.arrivals.recover()
        parts.rescue.take_over()
        await parts.fleet.stillness.settle()
        await parts.fleet.snapshot_files.finish([container.name for container in parts.registry])
        self._unfinished = parts.fleet.snapshot_files.set_aside()
        parts.specs.forget_staged(parts.registry)
        parts.moves.recover()
        for container in list(parts.registry):
            # What a patch took down may be noted as to run since before that: it waits for a patch, or the host's boot.
            if not (container.resting and parts.fleet.reconciler.noted(container) is Intent.RUN):
                parts.fleet.actions.resume(container, "begun before the daemon was restarted")
        await parts.fleet.room.release_unused()

    def _begin(self, attach: AttachServer) -> list[asyncio.Task[None]]:
        """Begin the background tasks that run as long as the daemon serves; other tasks begin when there is work for them."""
        parts, tasks = self._parts, self._parts.tasks
        seconds = systemd.watchdog_seconds()
        if seconds is not None:
            tasks.keep("watchdog", partial(systemd.feed_watchdog, seconds, tasks))
        return [
            tasks.keep("attach", attach.serve),
            tasks.do("cleanup", lambda: self._clean(parts.leftovers.gone)),
            tasks.do("cleanup-volumes", parts.fleet.volumes.clean_up),
            tasks.do("cleanup-apps", parts.apps.clean_up),
            tasks.do("cleanup-snapshots", lambda: parts.fleet.snapshot_files.clean(self._unfinished)),
            tasks.do("cleanup-bakes", parts.baking.clean_up),
            tasks.do("cleanup-generations", parts.generations.clean_up),
            tasks.do("cleanup-rehearsals", parts.rehearsals.clean_up),
            tasks.keep("observe", self._observe),
            tasks.keep("snapshots", parts.fleet.schedules.run),
            tasks.keep("consoles", partial(parts.consoles.run, self._lock)),
            tasks.keep("cgroups", parts.registry.tidying.run),
            tasks.keep("monitor-guard", parts.monitor_guard.run),
            tasks.keep("delta-sizes", parts.sizes.run),
            tasks.keep("boot-record", parts.fleet.boot.keep),
            tasks.do("secrets-begin", self._secrets),
            tasks.keep("secrets", parts.secrets.run),
            tasks.keep("patch-numbers", parts.patch_numbers.run),
            tasks.keep("rollouts", parts.driver.run),
            tasks.keep("patch-watcher", parts.watcher.run),
            tasks.keep("holds", partial(parts.holds.run, parts.registry, parts.bus)),
            tasks.keep("name-lookups", parts.network.lookups.run),
            tasks.keep("host-reboots", parts.rebooter.run),
        ]

    async def _secrets(self) -> None:
        await self._parts.secrets.go_on()
        self._parts.secret_changes.kick()

    async def _observe(self) -> None:
        parts = self._parts
        while True:
            await sleep_in_step(OBSERVE_SECONDS)
            parts.endings.check()
            parts.fleet.reconciler.settle_again()
            try:
                await parts.registry.observe()
                await parts.fleet.stillness.settle()
                await parts.foregrounds.check()
                await parts.network.check()
                await asyncio.to_thread(parts.mask.freshness.take_note)
            except (FleetError, OSError) as error:
                log.error("looking after the fleet failed: %s", error)

    async def _clean(self, directories: Sequence[str]) -> None:
        if not directories:
            return
        try:
            await self._parts.lifecycle.remove(directories)
        except FleetError as error:
            log.error("can't clean up: %s", error)
        for directory in directories:
            if not (self._paths.lxc / directory).exists():
                self._parts.bus.publish(LeftoverRemoved(directory))

    # -- settings --------------------------------------------------------------------------------------------

    def _reload(self) -> None:
        try:
            settings = load(self._paths.config_file, log.warning)
        except FleetError as error:
            log.error("settings not taken over: %s", error)
            return
        self._parts.tasks.do("reload", lambda: self._take_over(settings))

    async def _take_over(self, settings: Config) -> None:
        logging.getLogger().setLevel(settings.log_level.upper())
        parts = self._parts
        parts.host.forget()
        parts.consoles.take_over(settings.logs)
        await parts.listener.listen(settings.metrics)
        try:
            stays = await parts.fleet.reload(settings)
        except (FleetError, OSError) as error:
            log.error("settings taken over, but the network is not as they say: %s", error)
        else:
            log.info("settings taken over%s", ", but for those named above" if stays else "")
        parts.rescue.take_over()
