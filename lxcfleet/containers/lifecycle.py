"""Carrying out plans: each step of containers.plan, done for real."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from lxcfleet.base.mask.freshness import Freshness
from lxcfleet.containers import lxc_config, store
from lxcfleet.containers.container import Container, Running
from lxcfleet.containers.outside import Network
from lxcfleet.containers.plan import DESTROY, START, Step
from lxcfleet.containers.preparer import Preparer
from lxcfleet.containers.registry import Registry
from lxcfleet.errors import FleetError, HostError, Unsupported, WrongState, from_body
from lxcfleet.host.kernel import quota, tree
from lxcfleet.host.lxc import liblxc, monitor
from lxcfleet.host.process import cgroup, proc
from lxcfleet.launcher.client import TRIES, Died, Launcher
from lxcfleet.paths import Paths
from lxcfleet.spec.spec import Spec
from lxcfleet.spec.terms import Init

log = logging.getLogger(__name__)

KILL_SECONDS = 120.0
"""How long a container may take to be gone after its init was killed. Its monitor cleans up first, and has
AppArmor's parser compile the container's profile once more to remove it: seconds on a slow and busy host."""
NUDGE_SECONDS = 1.0
"""An init that has just begun may not listen yet, so the signal to end is said again."""
MASK_FRESH_SECONDS = 0.5
"""The mask is compared with the host at most this often: once for all the starts of one moment."""
TIDY_SECONDS = 2.0
"""How long a monitor may take to tidy up after a container that ended before anybody looked."""
_TRIES = 1000
_NO_MATTER = (errno.ENOENT, errno.ENOSPC, errno.EDQUOT)
"""What must not keep a container from being destroyed: its directory is gone, or the disk is full."""


class Faults(Protocol):
    """Tests end the daemon or the launcher at a chosen step; see daemon."""

    def reach(self, name: str, step: Step) -> None:
        """The step is about to be done."""


class NoFaults:
    """What runs in production."""

    def reach(self, name: str, step: Step) -> None:
        """Nothing happens."""


class Lifecycle:
    """Does steps to containers, through the launcher where LXC or mounts are concerned."""

    def __init__(
        self,
        paths: Paths,
        platform: lxc_config.Platform,
        launcher: Launcher,
        registry: Registry,
        start_slots: int,
        console_log_kib: int,
        network: Network,
        faults: Faults,
    ) -> None:
        self._paths = paths
        self._platform = platform
        self._launcher = launcher
        self._registry = registry
        self._network = network
        self._faults = faults
        self._slots, self._boots = start_slots, asyncio.Semaphore(start_slots)
        self._preparer = Preparer(launcher, os.cpu_count() or 1, self.refresh_mask)
        self._mask_lock = asyncio.Lock()
        self._mask_checked = 0.0
        self._mask_mounted: tuple[int, int | None] = (0, None)
        self._removing: set[str] = set()
        self.freshness = Freshness(paths)
        self.console_log_kib = console_log_kib
        self.reconcile = True
        self.noted: Callable[[str, str], None] = lambda _name, _note: None
        """Called with what a start leaves to the operator, and of which container."""

    def take_over_slots(self, start_slots: int) -> None:
        """So many are started at once from now on; those that wait already go by the number before."""
        if start_slots != self._slots:
            self._slots, self._boots = start_slots, asyncio.Semaphore(start_slots)

    def confinement(self, spec: Spec) -> dict[str, str]:
        """What holds such a container in, in words."""
        return lxc_config.confinement(spec, self._platform)

    def check_limits(self, spec: Spec) -> None:
        """Raise Unsupported if this host can't keep the limits that were asked for."""
        missing = lxc_config.needed_controllers(spec) - self._platform.controllers
        if missing:
            raise Unsupported(
                "the limits that were asked for can't be kept",
                why=f"this kernel has no cgroup controller {', '.join(sorted(missing))}",
                hint="look for cgroup_disable= in /proc/cmdline, or leave them out",
            )
        if spec.disk:
            quota.check(self._paths.lxc)

    async def carry_out(
        self, container: Container, steps: Sequence[Step], timeout: float = 10.0, drain: float | None = None
    ) -> None:
        """Do ``steps`` in order. Raises FleetError.

        ``timeout``: seconds until a halt becomes a kill; ``drain``: seconds from leaving to the halt, None: its own.
        """
        namespace: int | None = None
        try:
            for step in steps:
                self._faults.reach(container.name, step)
                match step:
                    case Step.MAKE:
                        namespace = await self._prepare(container, make=True, mount=Step.MOUNT in steps)
                    case Step.MOUNT:
                        if namespace is None:
                            namespace = await self._prepare(container, make=False, mount=True)
                    case Step.BOOT:
                        assert namespace is not None
                        await self._boot(container, namespace)
                    case _:
                        await self._simple(container, step, timeout, drain)
        finally:
            if namespace is not None:
                os.close(namespace)

    async def _simple(self, container: Container, step: Step, timeout: float, drain: float | None) -> None:
        name = container.name
        own = self._paths.container(name)
        match step:
            case Step.OWE_START:
                self._owe(name, START)
            case Step.OWE_DESTROY:
                self._owe(name, DESTROY)
            case Step.SETTLE:
                own.pending.unlink(missing_ok=True)
            case Step.THAW:
                await self._freeze(container, "unfreeze")
            case Step.FREEZE:
                self._network.set_frozen(container, True)  # before it: nobody new is to wait for it
                await self._freeze(container, "freeze")
            case Step.LEAVE:
                await self._network.leave(container, drain)
            case Step.HALT:
                await self._halt(container, timeout)
            case Step.RETIRE:
                self._retire(name)
            case Step.REMOVE:
                await self.remove(self.leftovers(name))

    def leftovers(self, name: str) -> list[str]:
        """The directories that were the container's, and are not removed yet."""
        return [directory.name for directory in self._paths.lxc.glob(f"{Paths.GONE_PREFIX}{name}.*")]

    def owe_start(self, container: Container) -> None:
        """Note that it is owed a start. Raises HostError."""
        self._owe(container.name, START)

    def _owe(self, name: str, word: str) -> None:
        try:
            tree.write(self._paths.container(name).pending, word + "\n")
        except OSError as error:
            if word == DESTROY and error.errno in _NO_MATTER:
                log.warning("%s is destroyed without a note of it: %s", name, error)
                return
            raise HostError.from_os_error(f"{name}: can't note what is owed to it", error) from error

    def _retire(self, name: str) -> None:
        """The point of no return of destroy: one rename, after which there is no container of that name."""
        if monitor.runs(name, str(self._paths.lxc)):
            raise HostError(
                f"{name} can't be removed", why="its monitor runs again: somebody else started it",
                hint=f"stop it: lxcfleet stop {name}",
            )  # fmt: skip
        cgroup.remove(name)
        for number in range(_TRIES):
            gone = self._paths.gone(f"{name}.{number}").directory
            try:
                os.rename(self._paths.container(name).directory, gone)
            except FileNotFoundError:
                return
            except OSError as error:
                if gone.exists():
                    continue
                raise HostError.from_os_error(f"{name} can't be removed", error) from error
            return

    async def remove(self, directories: Sequence[str]) -> None:
        """Remove what is left of containers; raises the first failure after all were tried.

        What somebody removes already is left to them.
        """
        failure: FleetError | None = None
        left = [each for each in directories if each not in self._removing]
        ours = set(left)
        self._removing |= ours
        try:
            for _ in range(TRIES):
                if left:
                    async for reply in self._launcher.stream("remove", left[:]):
                        left.remove(reply.body["name"])
                        if reply.body["error"]:
                            failure = failure or from_body(reply.body["error"])
        finally:
            self._removing -= ours
        if failure is None and left:
            failure = Died("not all is removed", why=f"the processes that removed {', '.join(left)} were killed")
        if failure:
            raise failure

    async def _freeze(self, container: Container, operation: str) -> None:
        try:
            answer = await self._launcher.ask(operation, [container.name])
        finally:
            self._network.look_if_frozen(container)  # it may have failed
        if answer["error"]:
            raise from_body(answer["error"])

    async def _prepare(self, container: Container, *, make: bool, mount: bool) -> int | None:
        if container.spec is None:
            raise container.problem or WrongState(f"{container.name} is broken")
        if mount:
            self._registry.refuse_twin(container)
        platform = replace(self._platform, bridge=self._network.bridge)
        files = {"config": lxc_config.render(container.spec, self._paths, platform, self.console_log_kib)}
        if make:
            files["lxcfleet.yaml"] = store.render(container.spec)
            if mount:
                files["pending"] = START + "\n"
        item = {
            "name": container.name,
            "first_id": container.spec.first_id,
            "disk": container.spec.disk,
            "make": make,
            "mount": mount,
            "reconcile": self.reconcile,
            "files": files,
        }
        reply = await self._preparer.submit(item)
        if reply.body["error"]:
            raise from_body(reply.body["error"])
        for note in reply.body["notes"]:
            self.noted(container.name, note)
        return reply.descriptor

    async def _boot(self, container: Container, namespace: int) -> None:
        log_file = str(self._paths.container(container.name).lxc_log)
        before = liblxc.log_size(log_file)
        if container.spec is not None:
            await self._network.connect(container.spec)
        async with self._boots:
            command = lxc_config.arguments(container.spec) if container.spec is not None else ()
            pid = await self._boot_once_more(container.name, namespace, command)
        if pid is not None:
            self._registry.watch(container, pid)
        if container.running is None:
            await self._ended_at_once(container.name)
        # liblxc may report a start that it gives up right after (5.0.2: a mount that is refused).
        gave_up = liblxc.gave_up(log_file, before)
        if gave_up and container.running is not None:
            await _gone(container.running, TIDY_SECONDS)
        if gave_up or (pid is None and not await self._started_by_others(container)):
            raise HostError(
                f"{container.name} did not start",
                why=liblxc.stop_reason(log_file, before) or "liblxc gives no reason",
                hint=f"see {log_file} and `lxcfleet logs {container.name}`",
            )
        if container.running is not None:
            self._network.publish(container)

    async def _started_by_others(self, container: Container) -> bool:
        """Whether somebody else, as plain lxc-start does, started it meanwhile, which is as good."""
        await self._registry.observe()
        return container.running is not None or monitor.runs(container.name, str(self._paths.lxc))

    async def _ended_at_once(self, name: str) -> None:
        """Its command was that short, or it was given up: let the monitor, which nobody watched, tidy up."""
        deadline = time.monotonic() + TIDY_SECONDS
        while time.monotonic() < deadline:
            if not monitor.runs(name, str(self._paths.lxc)) and cgroup.remove(name):
                return
            await asyncio.sleep(0.01)

    async def _boot_once_more(self, name: str, namespace: int, command: Sequence[str]) -> int | None:
        """Boot it; again, if what did it was killed before there was a monitor."""
        lxc_path = str(self._paths.lxc)
        try:
            pid = await self._launcher.boot(name, namespace, command)
        except Died:
            pid = None if monitor.runs(name, lxc_path) else await self._launcher.boot(name, namespace, command)
        if pid is None:
            monitor.refuse_impostor(name, lxc_path)
        return pid

    async def _halt(self, container: Container, timeout: float) -> None:
        running = container.running
        if running is None:
            return
        system = container.spec is None or container.spec.init is Init.SYSTEM
        ending = signal.SIGRTMIN + 3 if system else signal.SIGTERM
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            proc.send_signal(running.pid, running.monitor, ending)
            if await _gone(running, min(left, NUDGE_SECONDS) if system else left):
                return
        proc.send_signal(running.pid, running.monitor, signal.SIGKILL)
        if not await _gone(running, KILL_SECONDS):
            raise _stays(container.name, running)

    def distrust_mask(self) -> None:
        """Somebody asks for something new: what changed on the host until this moment must count."""
        self._mask_checked = 0.0

    async def refresh_mask(self) -> None:
        """Have a mask mounted that fits the host as it is now."""
        async with self._mask_lock:
            self._launcher.start()
            # Plain lxc-start may have had another image built.
            fresh = self._mask_mounted == (self._launcher.generation, self._mask_image())
            moment = time.monotonic()
            if fresh and moment - self._mask_checked < MASK_FRESH_SECONDS:
                return
            current = await asyncio.to_thread(self.freshness.is_current)
            if not fresh or not current:
                await self._mount_mask(look=not current)
            self._mask_mounted = (self._launcher.generation, self._mask_image())
            self._mask_checked = moment

    def _mask_image(self) -> int | None:
        """The image's inode; the one of a mounted image is not given to another file."""
        try:
            return self._paths.mask_image.stat().st_ino
        except OSError:
            return None

    async def _mount_mask(self, *, look: bool) -> None:
        if look:
            self.freshness.looking()
        try:
            answer = await self._launcher.ask("mask", look)
            if answer["error"]:
                raise from_body(answer["error"])
        except BaseException:
            self.freshness.failed()
            raise

    async def have_mask(self) -> None:
        """Have a mask mounted, be it an older one."""
        self._launcher.start()
        if self._mask_mounted[0] != self._launcher.generation:
            await self.refresh_mask()

    async def release_mask(self) -> None:
        """No container is left: give back the mask's loop device, and what was kept of the base."""
        async with self._mask_lock:
            if self._mask_mounted[0] == self._launcher.generation or self._paths.base_snapshots.exists():
                self._mask_mounted = (0, None)
                with contextlib.suppress(FleetError):
                    await self._launcher.ask("release", None)


async def _gone(running: Running, seconds: float) -> bool:
    try:
        await asyncio.wait_for(running.gone.wait(), seconds)
    except TimeoutError:
        return False
    return True


def _stays(name: str, running: Running) -> HostError:
    """Why a container that was killed has not stopped."""
    ago = f"{KILL_SECONDS:.0f} s ago"
    if proc.has_ended(running.pid, running.monitor):
        return HostError(
            f"{name} has ended and is not tidied up yet",
            why=f"its init was killed {ago}, and LXC's monitor (pid {running.monitor}) is still at it: the host may be busy",
            hint="it counts as stopped once the monitor has ended, see `lxcfleet list`; a destroy is done then, by itself",
        )
    return HostError(
        f"{name} does not end", why=f"its init (pid {running.pid}) was killed {ago} and is still there",
        hint="a process in it may hang in the kernel (state D in ps), on a dead disk or network share",
    )  # fmt: skip
