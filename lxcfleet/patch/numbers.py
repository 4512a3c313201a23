"""Patches as numbers, for monitoring: found in the background, as a client must not wait for a scan."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from lxcfleet.api.findings import ShadowsRecord
from lxcfleet.containers.container import Container
from lxcfleet.containers.measuring.readings import PatchReading
from lxcfleet.containers.registry import Registry
from lxcfleet.errors import FleetError
from lxcfleet.host.packages import database
from lxcfleet.patch.own import OwnProcess
from lxcfleet.patch.rollout.state import MemberPhase, Rollout
from lxcfleet.patch.stale.finder import Finder
from lxcfleet.patch.watcher import Watcher
from lxcfleet.runtime.interest import Interest
from lxcfleet.spec.selection import Selection

log = logging.getLogger(__name__)

KEPT_SECONDS = 60.0
"""Seconds for which one scan is good enough."""
LOOK_SECONDS = 5.0
"""Seconds between two checks for containers that were started since."""
SHADOWS_SECONDS = 900.0
"""Seconds for which one count of shadows is good enough: a count looks at each file of each delta."""
AGAIN_SECONDS = 10.0
"""Seconds until those are counted once more that could not be: one that was just made had no delta yet, or a file went away
just then. Each further failure doubles them, up to SHADOWS_SECONDS."""
CVES_SECONDS = 300.0
"""The same for CVEs."""
SHARE = 0.05
"""The largest share of one processor that counting either may take."""


class PatchNumbers:
    """The numbers of stale files and shadows, as of the last look."""

    def __init__(
        self,
        registry: Registry,
        finder: Finder,
        rollout: Callable[[], Rollout | None],
        watcher: Watcher,
        shadows: Callable[[Selection], Awaitable[list[ShadowsRecord]]],
        parts: Callable[[], Awaitable[Sequence[OwnProcess]]],
        cves: Callable[[], Awaitable[Mapping[str, int]]],
    ) -> None:
        self._registry, self._finder, self._rollout, self._watcher = registry, finder, rollout, watcher
        self._count, self._count_due = shadows, 0.0
        self._look_at_parts = parts
        self._parts: dict[str, bool] = {}
        self._count_cves, self._cves_due = cves, 0.0
        self._cves: Mapping[str, int] = {}
        self._cves_of: float | None = None
        """The last change of the host's packages when they were counted."""
        self._shadows: dict[str, int | None] = {}
        """By container, as of its last count, which stays until the next one is done; None: parts of it could not be read."""
        self._again: dict[str, tuple[float, float]] = {}
        """Those that could not be counted: when each is due, and its next pause."""
        self._stale: dict[str, tuple[str, bool | None]] = {}
        """By container: the run that was looked at, and the result; None: parts of it could not be read."""
        self._scanned: float | None = None
        self._due = 0.0
        self._interest = Interest()

    def read(self) -> PatchReading:
        """The present numbers. The background work goes on only while somebody asks."""
        self._interest.show()
        stale = {c.name: found for c in self._registry if (found := self._known(c)) is not None}
        rollout = self._rollout()
        status = None if rollout is None else rollout.status
        phases = {str(phase): 0 if rollout is None else len(rollout.by_phase(phase)) for phase in MemberPhase}
        notice = self._watcher.record()
        return PatchReading(
            stale, self._scanned, _packages_changed(), status, phases, notice["phase"],
            {name: found for name, found in self._shadows.items() if found is not None}, bool(notice["reboot"]),
            self._parts, self._cves,
        )

    def _known(self, container: Container) -> bool | None:
        """The result for the container's present run, as the former run may have been stale."""
        run, found = self._stale.get(container.name, ("", None))
        return found if container.running is not None and container.running.identity == run else None

    async def run(self) -> None:
        """Look again and again, for ever, while somebody asks."""
        while True:
            await self._interest.wait()
            try:
                await self._look()
                await self._count_shadows()
                await self._look_for_cves()
            except (FleetError, OSError) as error:
                log.warning("can't look what is stale: %s", str(error).replace("\n", "; "))
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        """Scan all running containers when that is due, else those that were started since."""
        everything = time.monotonic() >= self._due
        runs = {c.name: (c, c.running.identity) for c in self._registry if c.running is not None}
        chosen = [c for c, run in runs.values() if everything or self._stale.get(c.name, ("",))[0] != run]
        if chosen:
            scans = await self._finder.scan(chosen)
            for c in chosen:
                scan = scans[c.name]
                self._stale[c.name] = runs[c.name][1], scan.stale if scan.stale or scan.clean else None
        if everything:
            self._due = time.monotonic() + KEPT_SECONDS
            self._scanned = time.time()
            self._parts = {part.name: part.stale for part in await self._look_at_parts()}
            self._stale = {name: found for name, found in self._stale.items() if name in self._registry}

    async def _count_shadows(self) -> None:
        """Look through all deltas when that is due, else through those of new containers."""
        began = time.monotonic()
        names = [container.name for container in self._registry]
        everything = began >= self._count_due
        chosen = [
            name for name in names
            if everything or name not in self._shadows or began >= self._again.get(name, (math.inf,))[0]
        ]  # fmt: skip
        if everything:
            self._count_due = began + SHADOWS_SECONDS  # This holds even if the count fails.
            self._shadows = {name: found for name, found in self._shadows.items() if name in self._registry}
            self._again = {name: when for name, when in self._again.items() if name in self._registry}
        if not chosen:
            return
        # The attempt counts even if it fails, so that it is not repeated at once.
        self._shadows = {**dict.fromkeys(chosen), **self._shadows}
        try:
            for record in await self._count(Selection(tuple(chosen))):
                self._shadows[record["name"]] = len(record["shadows"]) if record["problem"] is None else None
        finally:
            rest = (time.monotonic() - began) / SHARE
            self._count_due = max(self._count_due, began + rest)
            for name in chosen:
                _, pause = self._again.pop(name, (0.0, AGAIN_SECONDS))
                if self._shadows.get(name) is None:
                    self._again[name] = began + max(pause, rest), min(2 * pause, SHADOWS_SECONDS)

    async def _look_for_cves(self) -> None:
        """Count them when that is due, or when the host's packages have changed."""
        began, changed = time.monotonic(), _packages_changed()
        if began < self._cves_due and changed == self._cves_of:
            return
        self._cves_due, self._cves_of = began + CVES_SECONDS, changed  # This holds even if the count fails.
        self._cves = {}
        self._cves = await self._count_cves()
        self._cves_due = max(self._cves_due, began + (time.monotonic() - began) / SHARE)


def _packages_changed() -> float | None:
    """When the host's packages changed last, in seconds since the epoch."""
    try:
        return os.stat(database.STATUS).st_mtime
    except OSError:
        return None
