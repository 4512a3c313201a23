"""Reboots the host in a maintenance window, if the settings say so and a package takes it.

The containers are stopped first, in the order in which the service stops them when the host goes down, and start again with
the next boot. If the host does not go down, they are started again at once.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol

from lxcfleet.api.requests import ActionRequest
from lxcfleet.containers.registry import Registry
from lxcfleet.containers.requests.actions import Actions
from lxcfleet.containers.supervision.boot import BootStarts
from lxcfleet.errors import FleetError, HostError
from lxcfleet.host.kernel import tree
from lxcfleet.host.packages import dpkg, reboot
from lxcfleet.host.process import power
from lxcfleet.patch import reboots
from lxcfleet.patch.events import HostReboots, RebootFailed
from lxcfleet.patch.notice import NoticePhase
from lxcfleet.patch.reboots import Moment
from lxcfleet.patch.rollout.state import Rollout
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.runtime.operations import Operations
from lxcfleet.spec.files.settings import Config
from lxcfleet.spec.policies.windows import Reboot
from lxcfleet.spec.reading import ondisk
from lxcfleet.spec.selection import Selection
from lxcfleet.spec.states import Action

log = logging.getLogger(__name__)

LOOK_SECONDS = 15.0
"""Seconds between two looks whether it is time."""
STOP_SECONDS = 60.0
"""All containers together are given so long to end, as by the service when the host goes down."""
DOWN_SECONDS = 600.0
"""A host that has not gone down after so long does not go down any more."""


class Fleet(Protocol):
    """The parts of the fleet that this module uses; daemon.uses.service has them."""

    config: Config
    registry: Registry
    actions: Actions
    operations: Operations
    boot: BootStarts
    bus: Bus


class Rebooter:
    """Looks now and then whether it is time, and acts."""

    def __init__(
        self,
        paths: Paths,
        fleet: Fleet,
        phase: Callable[[], NoticePhase],
        rollout: Callable[[], Rollout | None],
        watch: Callable[[], Awaitable[None]],
    ) -> None:
        """``phase``: the progress of the last change of the host's packages, which ``watch`` updates; ``rollout``: the one
        that is under way, or was last."""
        self._paths, self._fleet = paths, fleet
        self._phase, self._rollout, self._watch = phase, rollout, watch
        self.words = ""
        """The state of a reboot that is due, in words; empty: none is due, or the daemon is not to do it."""

    async def run(self) -> None:
        """Look again and again, for ever."""
        await self._recover()
        while True:
            try:
                await self.look()
            except (FleetError, OSError) as error:
                log.error("whether the host is to be rebooted can't be told: %s", str(error).replace("\n", "; "))
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Look once, and reboot the host if it is time to."""
        settings = self._fleet.config.patch
        if settings.reboot is not Reboot.WINDOW:
            self.words = ""
            return
        await self._watch()
        due, in_pieces = await asyncio.to_thread(_look)
        rollout = self._rollout()
        moment = Moment(
            datetime.now(UTC), due, self._phase(), None if rollout is None else rollout.status,
            self._fleet.operations.running, in_pieces, power.obstacle(), self._last(),
        )  # fmt: skip
        answer = reboots.answer(moment, settings)
        self.words = answer.why
        if answer.now:
            await self._reboot(moment)

    async def _reboot(self, moment: Moment) -> None:
        running = [container.name for container in self._fleet.registry if container.running is not None]
        # Both are on disk first: no host is rebooted again and again, and no fleet stays down after a crash of the daemon.
        tree.write(self._paths.rebooted, moment.now.isoformat(), sync=True)
        tree.write(self._paths.rebooting, json.dumps(running))
        self._fleet.bus.publish(HostReboots(moment.due))
        try:
            await self._stop()
            in_pieces = (await asyncio.to_thread(_look))[1]
            if in_pieces:
                raise HostError("packages changed meanwhile", why=in_pieces)
            await asyncio.to_thread(power.reboot)
            await asyncio.sleep(DOWN_SECONDS)
            raise HostError(f"it has not gone down within {DOWN_SECONDS:g} s")
        except (FleetError, OSError) as error:
            self._back(running, str(error).replace("\n", "; "))

    async def _stop(self) -> None:
        everything = ActionRequest(Action.STOP, Selection(everything=True), STOP_SECONDS, until_boot=True)
        operation = await self._fleet.actions.begin(everything, STOP_SECONDS)
        async for _ in operation.follow():
            pass

    async def _recover(self) -> None:
        """An earlier daemon ended while the fleet was stopped for a reboot that did not come."""
        try:
            names = ondisk.record(self._paths.rebooting)
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            log.error("%s can't be read: %s", self._paths.rebooting, error)
            return
        if isinstance(names, list):
            self._back([str(name) for name in names], "lxcfleetd ended before it")

    def _back(self, names: Sequence[str], why: str) -> None:
        """The host does not go down: start its containers again."""
        self._fleet.bus.publish(RebootFailed(why))
        self._fleet.boot.start_again(names)
        try:
            self._paths.rebooting.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s can't be removed, so the next daemon says this again: %s", self._paths.rebooting, error)

    def _last(self) -> datetime | None:
        try:
            return datetime.fromisoformat(ondisk.text(self._paths.rebooted, "ascii"))
        except (OSError, ValueError):
            return None


def _look() -> tuple[tuple[str, ...], str]:
    """The packages that take a reboot, and what the package manager is in the middle of."""
    due = tuple(reboot.due())
    return due, dpkg.in_pieces() if due else ""
