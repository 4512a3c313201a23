"""The resources that steps (containers.reconciling.steps) need: the launcher, liblxc, the kernel and the disk."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lxcfleet.base.stack import stack_for
from lxcfleet.containers import exits, lxc_config, store
from lxcfleet.containers import owed as owed_starts
from lxcfleet.containers.common import Common
from lxcfleet.containers.container import Container, Running
from lxcfleet.containers.desired import Intent, Lack
from lxcfleet.containers.events import ConflictNoted, Held, Killed
from lxcfleet.containers.masks import MaskKeeper
from lxcfleet.containers.outside import Network
from lxcfleet.containers.reconciling.bases import Bases
from lxcfleet.containers.reconciling.preparer import Preparer
from lxcfleet.containers.reconciling.specs import Specs
from lxcfleet.containers.secrets.keeper import Secrets
from lxcfleet.errors import Broken, FleetError, HostError, NotStarted, WrongState, from_body
from lxcfleet.host.kernel import mounts, tree
from lxcfleet.host.lxc import liblxc, monitor
from lxcfleet.host.process import cgroup, proc
from lxcfleet.launcher.client import TRIES, Died, Hung
from lxcfleet.launcher.items.containers import Done, PrepareItem
from lxcfleet.launcher.operations import FREEZE, REMOVE, UNFREEZE, Ask
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files.settings import Config
from lxcfleet.spec.reading.terms import Init

log = logging.getLogger(__name__)

KILL_SECONDS = 120.0
"""The longest time, in seconds, from the kill of a container's init to its end. The monitor cleans up first. For that
AppArmor's parser compiles the container's profile once more: seconds on a slow and busy host."""
NUDGE_SECONDS = 1.0
"""An init that has just begun may not listen yet, so the signal is sent again."""
TIDY_SECONDS = 2.0
"""The longest time, in seconds, that a monitor may take to tidy up after a container that ended before anybody looked."""
MOVES_SECONDS = 0.1
"""Starts and ends that follow one another more quickly keep the kernel ready for moves between cgroups themselves."""
_LEFTOVERS = 8
"""So many directories of former containers of one name can be there, none of which could be removed."""
_NO_MATTER = (errno.ENOENT, errno.ENOSPC, errno.EDQUOT)
"""Errors that must not keep a container from being destroyed: its directory is gone, or the disk is full."""


@dataclass(frozen=True)
class Making:
    """The parts that make what a container needs: the files of its spec, the mask below its files, its secrets."""

    specs: Specs
    mask: MaskKeeper
    secrets: Secrets


class Lifecycle:
    """Carries out all steps. The launcher does everything that involves LXC or mounts."""

    def __init__(
        self,
        common: Common,
        making: Making,
        settings: Config,
        network: Network,
        bases: Bases,
    ) -> None:
        self._paths = common.paths
        self._launcher = common.launcher
        self._registry = common.registry
        self._bus = common.bus
        self.making = making
        self._specs, self._secrets = making.specs, making.secrets
        self._network = network
        self._bases = bases
        self._for_now: dict[str, Spec] = {}
        """The spec that a container is started with, by name, where that is another one than the wanted one."""
        self._settings = settings
        self._boots = asyncio.Semaphore(settings.start_slots)
        self._preparer = Preparer(common.launcher, os.cpu_count() or 1, making.mask.refresh)
        self._moved = -MOVES_SECONDS
        self._removing: set[str] = set()
        self.unsettled: set[str] = set()
        """Containers whose noted intent is fulfilled and could not be removed."""

    def take_over(self, settings: Config) -> None:
        """Take over new settings. Steps that already wait for a slot keep the former number of slots."""
        if settings.start_slots != self._settings.start_slots:
            self._boots = asyncio.Semaphore(settings.start_slots)
        self._settings = settings

    def close(self) -> None:
        """The daemon ends."""
        self._preparer.close()

    # -- the steps -------------------------------------------------------------------------------------------

    def note(self, name: str, intent: Intent | None, *, must: bool) -> None:
        """Write down what is to become of a container; None: it stays as it is.

        Raises HostError if that can't be written and ``must`` is set. If it is not, what is to run is known until the host
        goes down, and ``note_owed`` writes it once there is room. What was known so before, still is if this raises; but
        None, after what was done or failed, is so whether it can be written or not.
        """
        pending = self._paths.container(name).pending
        if intent is None:
            self._owe(name, owed=False)
        try:
            if intent is None:
                pending.unlink(missing_ok=True)
            elif intent is Intent.RUN:  # what an empty file says, too: store.noted
                tree.write_first(pending, intent.value + "\n")
            else:
                tree.write(pending, intent.value + "\n")
        except OSError as error:
            if intent is None:
                self.unsettled.add(name)
            if must and not (intent is Intent.GONE and error.errno in _NO_MATTER):
                message, hint = f"{name}: can't note what is to become of it", ""
                if intent is None:
                    message = f"{name}: it is done, and that can't be noted"
                    hint = "lxcfleetd tries that again; if the host goes down first, its next boot does the same once more"
                raise HostError.from_os_error(message, error, hint=hint) from error
            self._owe(name, owed=intent is Intent.RUN)
            log.warning("%s: the state that it is to have can't be noted: %s", name, error)
        else:
            self._owe(name, owed=False)
            self.unsettled.discard(name)

    def _owe(self, name: str, *, owed: bool) -> None:
        if name in self._registry and (owed or self._registry[name].owed):
            self._registry[name].owed = owed
            owed_starts.note(self._paths, name, owed=owed)

    def note_owed(self, container: Container) -> None:
        """Write down that it is to run, where that could not be written before. If it still can't, nothing changes."""
        with contextlib.suppress(OSError):
            tree.write_first(self._paths.container(container.name).pending, Intent.RUN.value + "\n")
            self._owe(container.name, owed=False)

    def hold(self, container: Container, lack: Lack) -> None:
        """Have it wait until nothing is lacking."""
        container.lack = lack
        self._bus.publish(Held(container.name, lack.words))

    async def thaw(self, container: Container) -> None:
        """Unfreeze its processes. Raises FleetError."""
        await self._freeze(container, UNFREEZE)

    async def freeze(self, container: Container) -> None:
        """Freeze its processes. Raises FleetError."""
        self._network.set_frozen(container, True)  # first, so that no new client is sent to it
        await self._freeze(container, FREEZE)

    async def leave(self, container: Container, drain: float | None) -> None:
        """Withdraw it from names and ports, and wait; ``drain``: seconds, None: as its spec says."""
        await self._network.leave(container, drain)

    def come_back(self, container: Container) -> None:
        """Let a container be found, if it runs: one that has just begun, or was withdrawn."""
        if container.running is not None:
            self._network.publish(container)

    async def unmake(self, container: Container) -> None:
        """Remove a container whose creation failed. If somebody put another one in its place, that is not touched."""
        if store.load(self._paths, container.name) == container.wanted:
            self.retire(container.name)
        await self.remove_leftovers(container.name)

    def remains(self, container: Container) -> bool:
        """Whether anything of it is on disk: if so, it keeps its name, its ids and its address.

        This counts even if it has lost its name: its files still belong to the ids, and its disk limit still exists.
        """
        if container.spec is None:
            there = not self.has_lost_its_name(container.name)
        else:  # what can't be read just now is there all the same, if there is any directory
            found = store.load(self._paths, container.name)
            unread = isinstance(found, Broken) and not self.has_lost_its_name(container.name)
            there = found == container.wanted or unread
        return there or bool(self._leftovers(container.name))

    def has_lost_its_name(self, name: str) -> bool:
        """Whether no directory has the container's name any more. If the disk does not tell, one has."""
        try:
            os.lstat(self._paths.container(name).directory)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            pass
        return False

    async def remove_leftovers(self, name: str) -> None:
        """Remove all directories of the container, whatever their present name. Raises FleetError."""
        await self.remove(self._leftovers(name))
        await self._secrets.forget(name)

    def _leftovers(self, name: str) -> list[str]:
        # Each is looked for by its name: a list of the directory has all other containers.
        return [each.name for each in self._retired_names(name) if os.path.lexists(each)]

    def _retired_names(self, name: str) -> list[Path]:
        return [self._paths.gone(f"{name}.{number}").directory for number in range(_LEFTOVERS)]

    def retire(self, name: str) -> None:
        """Take its name away, by one rename. Raises HostError."""
        if monitor.runs(name, str(self._paths.lxc)):
            raise HostError(
                f"{name} can't be removed", why="its monitor runs again: somebody else started it",
                hint=f"stop it: lxcfleet stop {name}",
            )  # fmt: skip
        mounts.refuse_removal(name, [self._paths.container(name).directory])
        cgroup.remove(cgroup.usual(name))
        for gone in self._retired_names(name):
            try:
                os.rename(self._paths.container(name).directory, gone)
            except FileNotFoundError:
                return
            except OSError as error:
                if gone.exists():
                    continue
                raise HostError.from_os_error(f"{name} can't be removed", error) from error
            return
        raise HostError(
            f"{name} can't be removed",
            why=f"{_LEFTOVERS} directories of former containers of that name could not be, either",
            hint=f"`lsattr -d {self._paths.gone(name).directory}.*` and `dmesg | tail` tell what keeps them",
        )  # fmt: skip

    async def remove(self, directories: Sequence[str]) -> None:
        """Remove leftovers of containers; raises the first failure after all were tried.

        A directory that another process is removing is left to it.
        """
        failure: FleetError | None = None
        left = [each for each in directories if each not in self._removing]
        ours = set(left)
        self._removing |= ours
        try:
            for _ in range(TRIES):
                if left:
                    async for answer in self._launcher.each(REMOVE, left[:]):
                        left.remove(answer["name"])
                        if answer["error"]:
                            failure = failure or from_body(answer["error"])
        finally:
            self._removing -= ours
        if failure is None and left:
            failure = Died("not all is removed", why=f"the processes that removed {', '.join(left)} were killed")
        if failure:
            raise failure

    async def _freeze(self, container: Container, operation: Ask[list[str], Done]) -> None:
        try:
            answer = await self._launcher.ask(operation, [container.name])
        finally:
            self._network.look_if_frozen(container)  # freezing may have failed
        if answer["error"]:
            raise from_body(answer["error"])

    def expect(self, container: Container) -> None:
        """It is about to be prepared for a start, and does not have to wait then for what serves any container."""
        if container.wanted is not None:
            self._expect_moves()
            self._preparer.expect(self._bases.of(container.wanted))

    def _expect_moves(self) -> None:
        """Monitors are about to move processes between cgroups: have the kernel ready for that, if it has not been lately."""
        moment = time.monotonic()
        if moment - self._moved >= MOVES_SECONDS:
            self._moved = moment
            asyncio.get_running_loop().run_in_executor(None, cgroup.expect_moves)

    async def prepare(self, container: Container, *, make: bool, mount: bool) -> int | None:
        """Make its files, or check them, and mount its layers. Raises FleetError.

        Gives a descriptor of the mount namespace, if ``mount``.
        """
        spec = container.wanted  # a restart is checked for what it leads to
        if spec is None:
            raise container.problem or WrongState(f"{container.name} is broken")
        if mount:
            self._registry.refuse_twin(container)
            self._expect_moves()
        files = {"config": self._config(container, spec, checks=not (make or mount))}
        if make:
            files["lxcfleet.yaml"] = store.render(spec)
            if mount:
                files["pending"] = Intent.RUN.value + "\n"
        base = self._bases.of(spec)
        for_now = None if base == spec.generation else replace(spec, generation=base)
        item: PrepareItem = {
            "name": container.name,
            "stack": stack_for(self._paths, container.name, for_now or spec).to_json(),
            "first_id": spec.first_id,
            "disk": spec.disk,
            "app": spec.init is Init.APP,
            "generation": base,
            "started": "" if for_now is None else store.render(for_now),
            "make": make,
            "mount": mount,
            "language": spec.init is Init.APP and "LANG" not in spec.environment,
            "reconcile": self._settings.reconcile,
            "files": files,
            "volumes": [str(each) for each in spec.mounted],
            "secrets": [],
            "devices": list(spec.devices),
        }
        if mount or not make:
            try:
                item["secrets"] = await self._secrets.ready(container.name, spec)
            except FleetError:
                if not make:
                    raise
                item["mount"] = False  # it waits for its secrets, and is mounted once they are there
        if item["mount"]:
            self._secrets.starts(container.name)
        reply = await self._preparer.submit(item)
        if reply.body["error"]:
            self._secrets.distrust()  # somebody may have removed values
            raise from_body(reply.body["error"])
        for note in reply.body["notes"]:
            self._bus.publish(ConflictNoted(container.name, note))
        if item["mount"]:
            self._for_now.pop(container.name, None)
            if for_now is not None:
                self._for_now[container.name] = for_now
        return reply.descriptor

    def _config(self, container: Container, spec: Spec, *, checks: bool) -> str:
        """LXC's configuration. One that was rendered for a check, before a stop, serves the start after that, too."""
        basis = (spec, container.foreground, *self._specs.settled)
        checked, container.checked = container.checked, None
        if not checks and checked is not None and checked[0] == basis:
            return checked[1]
        text = self._specs.config(spec, container.foreground)
        if checks:
            container.checked = basis, text
        return text

    async def check(self, container: Container) -> None:
        """See that a container that runs could start again. Raises FleetError: nothing is stopped for a start that fails."""
        try:
            if container.wanted is not None:
                self._network.check_start(container.wanted)
            await self.prepare(container, make=False, mount=False)
        except FleetError as error:
            error.why = f"{error.message}{': ' if error.why else ''}{error.why}"
            error.message = f"{container.name} is not stopped, as it could not start again"
            raise

    async def boot(self, container: Container, namespace: int) -> None:
        """Start its init in a mount namespace that ``prepare`` gave; this closes the descriptor. Raises FleetError."""
        log_file = str(self._paths.container(container.name).lxc_log)
        with contextlib.ExitStack() as ours:
            ours.callback(os.close, namespace)
            before = liblxc.log_size(log_file)
            container.console = exits.begin(self._paths.container(container.name).console_log)
            if container.spec is not None:
                await self._network.connect(container.spec)
            async with self._boots:
                spec, note = container.spec, container.foreground
                command = lxc_config.arguments(spec, note) if spec is not None else ()
                ours.pop_all()  # from here on the launcher closes it
                pid = await self._boot_once_more(container, namespace, command)
        for_now = self._for_now.pop(container.name, None)
        if pid is None or not self._registry.watch(container, pid):
            # Its hooks have noted all only once its monitor is gone: whether lxc-stop asked for the end, or it rebooted.
            await self._ended_at_once(container.name)
            if pid is not None:
                self._registry.missed(container)
        elif for_now is not None:
            container.spec, container.desired = for_now, container.wanted
        # liblxc may report a start as done, and give it up right after (5.0.2: for a mount that is refused).
        gave_up = liblxc.gave_up(log_file, before)
        if gave_up and container.running is not None:
            await _gone(container.running, TIDY_SECONDS)
        if gave_up or (pid is None and not await self._started_by_others(container)):
            raise NotStarted(
                f"{container.name} did not start",
                why=liblxc.stop_reason(log_file, before) or "liblxc gives no reason",
                hint=f"see {log_file} and `lxcfleet logs {container.name}`",
            )

    async def _started_by_others(self, container: Container) -> bool:
        """Whether somebody else, as by plain lxc-start, started it meanwhile. That is as good."""
        await self._registry.observe()
        return container.running is not None or monitor.runs(container.name, str(self._paths.lxc))

    async def _ended_at_once(self, name: str) -> None:
        """Let the monitor, which nobody watched, tidy up: the command was very short, or the start was given up."""
        deadline = time.monotonic() + TIDY_SECONDS
        while time.monotonic() < deadline:
            if not monitor.runs(name, str(self._paths.lxc)) and cgroup.remove(cgroup.usual(name)):
                return
            await asyncio.sleep(0.01)

    async def _boot_once_more(self, container: Container, namespace: int, command: Sequence[str]) -> int | None:
        """Boot it; once more, with its layers mounted anew, if the booter was killed before there was a monitor."""
        name, lxc_path = container.name, str(self._paths.lxc)
        try:
            pid = await self._launcher.boot(name, namespace, command)
        except Hung as error:
            if await asyncio.to_thread(monitor.end_hung, name, lxc_path):
                await self._ended_at_once(name)
            error.why = "liblxc was not done with it after two minutes, so its monitor was killed"
            error.hint = f"see {self._paths.container(name).lxc_log}"
            raise
        except Died:
            pid = None
            if not monitor.runs(name, lxc_path):
                again = await self.prepare(container, make=False, mount=True)
                assert again is not None
                pid = await self._launcher.boot(name, again, command)
        if pid is None:
            monitor.refuse_impostor(name, lxc_path)
        return pid

    async def halt(self, container: Container, timeout: float) -> None:
        """Ask its init to end; kill it after ``timeout`` seconds. Raises HostError if it is still there long after."""
        running = container.running
        if running is None:
            return
        self._expect_moves()
        system = container.spec is None or container.spec.init is Init.SYSTEM
        ending = signal.SIGRTMIN + 3 if container.spec is None or system else lxc_config.stop_number(container.spec)
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            proc.send_signal(running.pid, running.monitor, ending)
            if await _gone(running, min(left, NUDGE_SECONDS) if system else left):
                return
        # Its init may have ended in time: on a busy host the monitor is at its hooks for longer than that.
        runs = not proc.has_ended(running.pid, running.monitor)
        if proc.send_signal(running.pid, running.monitor, signal.SIGKILL) and runs and timeout > 0:
            self._bus.publish(Killed(container.name, timeout))
        deadline = time.monotonic() + KILL_SECONDS
        while not await _gone(running, NUDGE_SECONDS):
            if time.monotonic() > deadline:
                raise _stays(container.name, running)
            await asyncio.to_thread(cgroup.thaw, running.payload)


async def _gone(running: Running, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):  # wait_for() would make a task of it in Python 3.11
            await running.gone.wait()
    except TimeoutError:
        return False
    return True


def _stays(name: str, running: Running) -> HostError:
    """The error for a container that was killed and has not stopped."""
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
