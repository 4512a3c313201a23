"""Holds a container still while its files are copied: hooks inside, a freeze, the copy, the thaw, whatever happens.

This is how a copy is made of a container that may run::

    async with stillness.hold(container, "snapshot") as still:
        await copy()
    tell(still.frozen_ms, still.notes)

- Nothing else is done to the container meanwhile: it is busy with that word. With ``unasked``, for what nobody waits
  for, requests wait until that is over, and are not refused.
- A container that runs: its hook ``pre_freeze``, the freeze, the body of the ``with``, the thaw, its hook ``post_freeze``.
  If ``pre_freeze`` fails, HostError is raised, the body is not entered, and nothing is frozen; ``post_freeze`` runs all the
  same, as a hook that took too long may have done half of its work.
- A container that somebody has frozen stays frozen, and no hook runs, as nothing in it can run. One that does not run
  is kept from starting. ``still.frozen_ms`` is None for both. With ``freeze=False`` one that runs goes on running, without
  hooks.
- Its checks don't count meanwhile. It keeps its names and ports for ``GRACE_SECONDS``, as its clients had better wait so
  long than lose it; from then on it is withdrawn like any frozen container.
- Before the first hook a note is in /run, until the thaw and ``post_freeze`` are done. So whatever is killed, and whenever,
  ``settle`` unfreezes what nobody holds any more: at the next start of the daemon, and every few seconds.

The body may raise anything; what it has to undo, it undoes itself. The end of the ``with`` raises WrongState if the container
ended or was started meanwhile: so a copy gets its name, or its end, only after the ``with``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from lxcfleet.containers.container import Container, Running
from lxcfleet.containers.events import ActionDone, HookFailed
from lxcfleet.containers.outside import Network
from lxcfleet.containers.reconciling.reconciler import Reconciler
from lxcfleet.containers.registry import Registry
from lxcfleet.errors import FleetError, HostError, WrongState, from_body
from lxcfleet.host.kernel import tree
from lxcfleet.host.lxc import monitor
from lxcfleet.host.process import cgroup
from lxcfleet.launcher.client import Launcher
from lxcfleet.launcher.items.containers import CheckItem
from lxcfleet.launcher.operations import CHECK
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.spec.container.hooks import NO_HOOKS, Hooks
from lxcfleet.spec.reading import ondisk

log = logging.getLogger(__name__)

GRACE_SECONDS = 2.0
"""For so long a container that is held still keeps its names and ports."""
SETTLE_SECONDS = 10.0
"""All processes stand still, or go on, within so many seconds."""
_PAUSES = (0.1, 0.5)
"""Seconds before each further try to unfreeze it."""
_BROKEN_OFF = "it was held still for a copy that was broken off"
_MOST = 200


@dataclass
class Still:
    """A container that is held still."""

    runs: bool
    """Whether it has processes."""
    frozen_ms: int | None = None
    """Milliseconds from the order to freeze to the end of the thaw, once that is over; None: it was not frozen for this."""
    notes: list[str] = field(default_factory=list)
    """Notes for its caller."""


class Stillness:
    """Holds containers still."""

    def __init__(
        self, paths: Paths, registry: Registry, reconciler: Reconciler, launcher: Launcher, network: Network, bus: Bus
    ) -> None:
        self._paths = paths
        self._registry = registry
        self._reconciler = reconciler
        self._launcher = launcher
        self._network = network
        self._bus = bus

    @asynccontextmanager
    async def hold(
        self, container: Container, busy: str, *, unasked: bool = False, freeze: bool = True
    ) -> AsyncIterator[Still]:
        """Hold a container still; see the module. Raises FleetError: Busy, NotFound, HostError."""
        async with self._reconciler.kept(container, busy, unasked=unasked):
            running = container.running
            if running is None:
                still = Still(runs=False)
                yield still
                self._refuse_started(container)
            elif running.payload.frozen or not freeze:
                still = Still(runs=True)
                if freeze:
                    still.notes.append("it is frozen already, and stays so: no hook ran in it")
                yield still
            else:
                still = Still(runs=True)
                async with self._hooked(container, running, still), self._frozen(container, running, still):
                    yield still

    def _refuse_started(self, container: Container) -> None:
        if monitor.runs(container.name, str(self._paths.lxc)):
            raise WrongState(
                f"{container.name} was started by somebody else meanwhile", why="so the copy may be of two moments",
                hint="try again: a container that runs is frozen for it",
            )  # fmt: skip

    # -- hooks -----------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _hooked(self, container: Container, running: Running, still: Still) -> AsyncIterator[None]:
        """Run its hooks before and after, with a note on disk from before the first of them until after the last."""
        hooks = _hooks(container)
        note = self._paths.still(container.name)
        try:
            note.parent.mkdir(mode=0o700, exist_ok=True)
            tree.write(note, running.identity)
        except OSError as error:
            raise HostError.from_os_error(f"{container.name} can't be held still: that can't be noted", error) from error
        try:
            if hooks.pre_freeze:
                await self._run(container, "pre_freeze", hooks.pre_freeze, hooks.timeout)
            yield
        finally:
            still.notes += await self._after(container, hooks)
            if container.running is not running or not running.payload.frozen:
                self._forget(container.name)

    async def _after(self, container: Container, hooks: Hooks) -> list[str]:
        """Run its hook post_freeze; the notes about that."""
        if not hooks.post_freeze or container.running is None:
            return []
        if container.running.payload.frozen:
            return ["its hook post_freeze waits until it can be unfrozen"]
        try:
            await self._run(container, "post_freeze", hooks.post_freeze, hooks.timeout)
        except (FleetError, OSError) as error:
            why = error.why if isinstance(error, FleetError) else str(error)
            self._bus.publish(HookFailed(container.name, "post_freeze", why))
            return [f"its hook post_freeze failed: {why}"]
        return []

    async def _run(self, container: Container, which: str, command: tuple[str, ...], timeout: float) -> None:
        """Run one of its hooks. Raises HostError."""
        variables = dict(container.spec.environment) if container.spec is not None else {}
        item: CheckItem = {
            "name": container.name, "command": list(command), "environment": variables, "timeout": timeout
        }  # fmt: skip
        answer = await self._launcher.ask(CHECK, item)
        if answer["error"]:
            why = from_body(answer["error"]).message
        elif answer["status"] == 0:
            return
        else:
            ended = f"exit status {answer['status']}" if answer["status"] is not None else f"not done after {timeout:g} s"
            last = (answer["output"].splitlines() or [""])[-1][:_MOST]
            why = f"{command[0]}: {ended}{': ' if last else ''}{last}"
        raise HostError(
            f"the hook {which} of {container.name} failed", why=why,
            hint=f"try it: lxcfleet exec {container.name} -- …; or change it: lxcfleet set {container.name} hooks=…",
        )  # fmt: skip

    # -- the freeze ------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _frozen(self, container: Container, running: Running, still: Still) -> AsyncIterator[None]:
        """Freeze it, and thaw it in the end."""
        container.still, container.stills = True, container.stills + 1
        began = time.monotonic()
        grace = asyncio.get_running_loop().call_later(GRACE_SECONDS, self._network.set_frozen, container, True)
        try:
            await self._freeze(container, running)
            yield
            if container.running is not running:
                raise WrongState(f"{container.name} ended meanwhile", why="it was killed while it was frozen")
        finally:
            grace.cancel()
            try:
                await self._thaw(container, still)
            finally:
                container.still = False
                self._network.look_if_frozen(container)
                still.frozen_ms = round((time.monotonic() - began) * 1000)

    async def _freeze(self, container: Container, running: Running) -> None:
        """Freeze it. Raises HostError."""
        message = f"{container.name} can't be frozen"
        freezing = asyncio.ensure_future(
            asyncio.to_thread(cgroup.still, running.payload, frozen=True, seconds=SETTLE_SECONDS)
        )
        try:
            done = await asyncio.shield(freezing)
        except asyncio.CancelledError:
            await asyncio.wait([freezing])  # a thread can't be broken off: it would freeze what is unfrozen by then
            raise
        except OSError as error:
            raise HostError.from_os_error(message, error) from error
        if not done:
            raise HostError(
                message, why=f"not all of its processes stand still after {SETTLE_SECONDS:g} s",
                hint="one of them may hang in the kernel (state D in ps), on a dead disk or network share",
            )  # fmt: skip

    async def _thaw(self, container: Container, still: Still) -> None:
        """Unfreeze it. If that fails, it is tried again later."""
        for pause in (*_PAUSES, None):
            if container.running is None:
                return
            with suppress(OSError):
                payload = container.running.payload
                await asyncio.to_thread(cgroup.still, payload, frozen=False, seconds=SETTLE_SECONDS)
            if container.running is None or not container.running.payload.frozen:
                return
            if pause is not None:
                await asyncio.sleep(pause)
        log.error("%s can't be unfrozen after a copy; that is tried again", container.name)
        still.notes.append("it can't be unfrozen yet; the daemon tries again every few seconds")

    # -- what was broken off ---------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Unfreeze the containers that were held still by somebody who is gone, and run their hooks."""
        for name in self._noted():
            container = next((each for each in self._registry if each.name == name), None)
            if container is not None and (container.busy is not None or container.unseen):
                continue
            running = None if container is None else container.running
            if container is None or running is None or running.identity != self._read(name):
                self._forget(name)
                continue
            with self._registry.in_hand(container, "unfreeze"):
                still = Still(runs=True)
                await self._thaw(container, still)
                self._network.look_if_frozen(container)
                if container.running is running and running.payload.frozen:
                    continue
                await self._after(container, _hooks(container))
                self._forget(name)
            self._bus.publish(ActionDone(name, "unfrozen", _BROKEN_OFF))

    def _noted(self) -> list[str]:
        try:
            return sorted(each.name for each in self._paths.stills.iterdir() if not each.name.startswith("."))
        except OSError:
            return []

    def _read(self, name: str) -> str:
        try:
            return ondisk.text(self._paths.still(name), "ascii", "replace", ondisk.SMALL)
        except OSError:
            return ""

    def _forget(self, name: str) -> None:
        with suppress(OSError):
            self._paths.still(name).unlink(missing_ok=True)


def _hooks(container: Container) -> Hooks:
    return NO_HOOKS if container.spec is None else container.spec.hooks
