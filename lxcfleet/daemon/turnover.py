"""When a daemon that runs old code may be started anew: nothing that somebody follows may be broken off."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from lxcfleet.daemon.wiring import Parts
from lxcfleet.host.packages import dpkg
from lxcfleet.patch.notice import NoticePhase
from lxcfleet.patch.rollout.state import Status
from lxcfleet.paths import Paths
from lxcfleet.runtime.pace import until_step

PAUSE_SECONDS, LOOK_SECONDS = 0.1, 5.0
"""Seconds between two looks whether it is time, while it is due; and whether it is due."""
CALM = (NoticePhase.IDLE, NoticePhase.WINDOW)
"""The phases of a patch in which the daemon only waits, and the next daemon goes on waiting."""


@dataclass(frozen=True)
class Moment:
    """The work that is under way at a moment."""

    operations: int = 0
    answering: int = 0
    """How many requests are being answered."""
    busy: bool = False
    """Whether an action on a container is under way."""
    phase: NoticePhase = NoticePhase.IDLE
    rollout: Status | None = None
    packages: bool = False
    """Whether the package manager is at work."""
    rebooting: bool = False
    """Whether the host is about to be rebooted."""


def is_time(moment: Moment) -> bool:
    """Whether the daemon may be started anew now. Pure."""
    under_way = moment.operations or moment.answering or moment.busy or moment.packages or moment.rebooting
    return not under_way and moment.phase in CALM and moment.rollout is not Status.RUNNING


class Turnover:
    """Waits for that moment."""

    def __init__(self, parts: Parts, paths: Paths) -> None:
        self._parts, self._paths = parts, paths

    async def wait(self, stop: asyncio.Event) -> bool:
        """Whether the daemon is to be started anew; False: it was told to end."""
        while not stop.is_set():
            due = self._parts.own.daemon_due
            if due and is_time(self._moment()):
                return True
            pause = PAUSE_SECONDS if due else until_step(LOOK_SECONDS, asyncio.get_running_loop().time())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)
        return False

    def _moment(self) -> Moment:
        parts = self._parts
        rollout = parts.rollouts.ledger.last
        return Moment(
            operations=parts.fleet.operations.running,
            answering=parts.server.answering,
            busy=any(container.busy is not None for container in parts.registry),
            phase=parts.watcher.phase,
            rollout=None if rollout is None else rollout.status,
            packages=dpkg.holder() is not None,
            rebooting=self._paths.rebooting.exists(),
        )
