"""Watches for patches: notices changed packages, waits for the moment to act, and has the action begun."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lxcfleet.api.findings import FallRecord, NoticeRecord
from lxcfleet.containers.common import Common
from lxcfleet.containers.masks import MaskKeeper
from lxcfleet.containers.outside import Healths
from lxcfleet.errors import FleetError, HostError
from lxcfleet.host.kernel import tree
from lxcfleet.host.packages import dpkg, reboot
from lxcfleet.patch import notice
from lxcfleet.patch.before import Before
from lxcfleet.patch.booted import Booted
from lxcfleet.patch.events import NotReadable, Patched, PatchWaits
from lxcfleet.patch.fallen import Fall, Fallen
from lxcfleet.patch.notice import Answer, Moment, NoticePhase
from lxcfleet.patch.own import OwnParts
from lxcfleet.patch.stale.finder import Finder
from lxcfleet.patch.stale.judge import StaleScan
from lxcfleet.runtime.pace import sleep_in_step
from lxcfleet.spec.policies.windows import PatchPolicy, PatchSettings
from lxcfleet.spec.reading import ondisk

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
"""Seconds between two looks at the file that the hook touches: one system call."""
AUDIT_SECONDS = 5.0
"""Seconds between two looks at dpkg's records, while these are unfinished or a window is waited for."""
TIDY_SECONDS = 5.0
"""Seconds between two checks whether containers that a patch took down are well again."""
WELL_SECONDS = 60.0
"""Seconds of health after which a container is taken to have survived the patch."""

Apply = Callable[[Mapping[str, StaleScan]], Awaitable[None]]
"""Updates stale containers: takes the findings in each of them, and returns once the update has begun and would survive
the daemon."""


@dataclass(frozen=True)
class Survival:
    """Which containers were well before a patch, are so now, and did not come up with it."""

    before: Before
    healths: Healths
    fallen: Fallen
    booted: Booted
    """Those that got the patch at a boot of the host."""


class Watcher:
    """Leads from the package manager's hook to the rollout."""

    def __init__(
        self,
        common: Common,
        settings: Callable[[], PatchSettings],
        mask: MaskKeeper,
        own: OwnParts,
        finder: Finder,
        apply: Apply,
        survival: Survival,
        *,
        admin: Path = Path("/var/lib/dpkg"),
    ) -> None:
        self._paths, self._registry, self._bus = common.paths, common.registry, common.bus
        self._settings, self._mask, self._own, self._finder, self._apply = settings, mask, own, finder, apply
        self._fallen, self._before = survival.fallen, survival.before
        self._booted, self._healths = survival.booted, survival.healths
        self._tidied, self._calm = 0.0, True
        self._admin = admin
        self._done = _read(self._paths.notice_done)
        self._heard = self._done
        self._renewed = self._done
        """The change of packages after which lxcfleet's own parts were renewed."""
        self._changed = time.monotonic()
        self._audited = 0.0
        self._half_done: str | None = None
        self._failed: float | None = None
        self._problem = ""
        self._answer = Answer(NoticePhase.IDLE)

    def notify(self) -> None:
        """Note that packages changed; the hook calls this. Raises HostError."""
        try:
            self._paths.notice.touch(mode=0o644)
        except OSError as error:
            raise HostError.from_os_error("the change can't be noted", error) from error

    def record(self) -> NoticeRecord:
        """The progress, in the API's form."""
        settings, now = self._settings(), self._answer
        falls = {container.name: fall for container in self._registry if (fall := self._fallen.of(container)) is not None}
        return {
            "phase": now.phase,
            "policy": settings.policy,
            "why": self._problem if now.phase is NoticePhase.FAILED else now.why,
            "down": _records(falls, stopped=False),
            "stopped": _records(falls, stopped=True),
            "reboot": reboot.due(),
            "rebooting": "",
            "rejected": None,
            "until": now.until.isoformat(timespec="minutes").replace("+00:00", "Z") if now.until else None,
        }

    @property
    def pending(self) -> bool:
        """Whether packages changed, and that was not dealt with yet. Asks the disk: a hook may have been called just now."""
        return _stamp(self._paths.notice) not in (None, self._done)

    @property
    def at_work(self) -> bool:
        """Whether the package manager is at work, has left packages unfinished, or may come back in a moment.

        Asks dpkg's locks, as it may have begun since the last look.
        """
        unfinished = self.phase in (NoticePhase.BUSY, NoticePhase.QUIET, NoticePhase.BROKEN)
        return unfinished or dpkg.holder(self._admin) is not None or (self.phase is NoticePhase.IDLE and self.pending)

    @property
    def phase(self) -> NoticePhase:
        """The progress in one word."""
        return self._answer.phase

    async def run(self) -> None:
        """Watch until cancelled."""
        await self._finder.note_lists()
        while True:
            try:
                await self.tick()
            except (FleetError, OSError) as error:
                log.error("can't watch for patches: %s", str(error).replace("\n", "; "))
            await self._pause()

    async def _pause(self) -> None:
        """Sleep until the next look, or until the quiet time is over, if that is sooner."""
        left = self._settings().quiet - (time.monotonic() - self._changed)
        if self._answer.phase is NoticePhase.QUIET and left < TICK_SECONDS:
            await asyncio.sleep(max(left, 0.0))
        else:
            await sleep_in_step(TICK_SECONDS)

    async def look(self) -> None:
        """Update the phase."""
        moment = await self._look()
        before, self._answer = self._answer, notice.answer(moment, self._settings())
        self._own.awaited = moment.pending and self._heard != self._renewed
        if self._answer.phase is not before.phase and self._answer.phase in (NoticePhase.BROKEN, NoticePhase.WINDOW):
            until = f" until {self._answer.until:%Y-%m-%d %H:%M} UTC" if self._answer.until else ""
            self._bus.publish(PatchWaits(f"{self._answer.why}{until}"))

    async def tick(self) -> None:
        """Update the phase once, and act if it is time to."""
        self._tidy()
        await self.look()
        if self._answer.phase in (NoticePhase.READY, NoticePhase.WINDOW) and self._heard != self._renewed:
            # Whatever the policy says about containers: these run on.
            self._renewed = self._heard
            self._own.begin(daemon=True)
        if self._answer.phase is NoticePhase.READY:
            await self._act()

    async def _look(self) -> Moment:
        heard = _stamp(self._paths.notice)
        clock = time.monotonic()
        if heard != self._heard:
            self._heard, self._changed = heard, clock
            self._half_done, self._failed = None, None
        pending = heard is not None and heard != self._done
        holder = dpkg.holder(self._admin)
        calm = not pending and holder is None
        if self._calm and not calm:
            self._before.note(list(self._registry), self._healths.of)
        self._calm = calm
        if pending and holder is not None:
            self._changed, self._half_done = clock, None
        quiet = clock - self._changed
        if pending and quiet >= self._settings().quiet:
            await self._audit(clock)
        failed = None if self._failed is None else clock - self._failed
        return Moment(pending, quiet, holder, self._half_done, datetime.now(UTC), failed)

    async def _audit(self, clock: float) -> None:
        """Look at dpkg's records. This is repeated, as a dpkg that is run by hand may end within a tick and call no hook."""
        if self._half_done is None or clock - self._audited >= AUDIT_SECONDS:
            self._audited = clock
            self._half_done = await asyncio.to_thread(dpkg.trouble, self._admin)

    async def _act(self) -> None:
        """Look for stale containers, and do what the policy says."""
        heard, policy = self._heard, self._settings().policy
        try:
            if policy is not PatchPolicy.MANUAL:
                await self._do(policy)
            if heard is not None:
                tree.write(self._paths.notice_done, heard)
        except (FleetError, OSError) as error:
            self._failed, self._problem = time.monotonic(), str(error).replace("\n", "; ")
            self._answer = Answer(NoticePhase.FAILED)
            log.error("a patch of the host can't be dealt with yet: %s", self._problem)
            return
        self._done = heard
        self._answer = Answer(NoticePhase.IDLE)

    async def _do(self, policy: PatchPolicy) -> None:
        await self._own.renew_servants()
        self._mask.distrust()
        if len(self._registry):
            await self._mask.refresh()
        await self._registry.observe()
        found = await self._finder.scan(self._registry)
        stale = {name: scan for name, scan in found.items() if scan.stale}
        self._before.forget(name for name, scan in found.items() if scan.clean)
        for name, scan in found.items():
            if scan.problem:
                self._bus.publish(NotReadable(name, scan.problem))
        self._bus.publish(Patched(tuple(stale)))
        if policy is not PatchPolicy.NOTIFY:
            await self._apply(stale)
        elif stale:
            log.warning("%d containers run old code; `lxcfleet patch apply` restarts them in waves", len(stale))

    def _tidy(self) -> None:
        """Now and then forget the fall of containers that are well again, whoever started them."""
        moment = time.monotonic()
        if moment - self._tidied >= TIDY_SECONDS:
            self._tidied = moment
            known = list(self._registry)
            self._booted.settle(WELL_SECONDS)
            self._fallen.tidy(known, [c.name for c in known if self._healths.healthy_seconds(c) >= WELL_SECONDS])


def _records(falls: Mapping[str, Fall], *, stopped: bool) -> list[FallRecord]:
    chosen = {name: fall for name, fall in falls.items() if bool(fall.stopped) is stopped}
    return [{"name": name, "since": fall.since, "why": fall.why} for name, fall in chosen.items()]


def _stamp(path: Path) -> str | None:
    """A text that changes with each touch; None if there is no such file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return f"{found.st_ino} {found.st_mtime_ns}"


def _read(path: Path) -> str | None:
    try:
        return ondisk.text(path, "ascii")
    except (OSError, ValueError):
        return None
