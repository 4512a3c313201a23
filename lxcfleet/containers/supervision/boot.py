"""Starts the containers that ran before a reboot of the host again after it, by a record of what runs.

The record is a small file beside the containers that exists while any of them runs. The daemon updates it within a moment,
so it shows the state when the host went down, in order or not. The first daemon after the next boot notes that each of
these containers is to run, and has the reconciler start them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from lxcfleet.containers.container import Container
from lxcfleet.containers.desired import Intent
from lxcfleet.containers.events import ActionDone, Booting, StartFailed
from lxcfleet.containers.order.dependencies import Dependencies
from lxcfleet.containers.order.ordering import blocked
from lxcfleet.containers.order.turns import in_turns, turns
from lxcfleet.containers.outside import Healths
from lxcfleet.containers.reconciling.reconciler import Reconciler
from lxcfleet.containers.registry import Registry
from lxcfleet.containers.requests.actions import AT_ONCE
from lxcfleet.errors import FleetError
from lxcfleet.host.kernel import tree
from lxcfleet.host.process import proc
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.runtime.operations import Job, Operations
from lxcfleet.runtime.pace import sleep_in_step
from lxcfleet.spec.container.restart import RestartPolicy
from lxcfleet.spec.reading import ondisk
from lxcfleet.spec.results import Result
from lxcfleet.spec.states import Health

log = logging.getLogger(__name__)

KEEP_SECONDS = 1.0
"""The longest time, in seconds, that the record may lag behind."""
HEALTHY_SECONDS = 60.0
"""The longest time that containers of a higher boot_order wait until those before them are up."""


@dataclass(frozen=True)
class BootRecord:
    """The containers that run, and those that are to run again after the next boot, at the boot that ``boot`` names."""

    boot: str = ""
    running: tuple[str, ...] = ()
    resting: tuple[str, ...] = ()

    def render(self) -> str:
        """The file's text."""
        return json.dumps({"boot": self.boot, "running": self.running, "resting": self.resting}) + "\n"


def parse(text: str) -> BootRecord:
    """The record in ``text``. Raises ValueError."""
    try:
        data = ondisk.parse(text)
        return BootRecord(str(data["boot"]), tuple(map(str, data["running"])), tuple(map(str, data["resting"])))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{error} is missing or wrong") from error


class BootStarts:
    """Keeps the record, and starts the containers that it names."""

    def __init__(
        self,
        paths: Paths,
        registry: Registry,
        prober: Healths,
        reconciler: Reconciler,
        operations: Operations,
        bus: Bus,
        dependencies: Dependencies,
    ) -> None:
        self._paths = paths
        self._registry = registry
        self._prober = prober
        self._reconciler = reconciler
        self._operations = operations
        self._bus = bus
        self._dependencies = dependencies
        self._boot = proc.boot_id()
        self._kept: BootRecord | None = BootRecord()
        self._saving = threading.Lock()

    def begin(self) -> None:
        """Go on from the record: start what ran, if this is the first daemon since the host booted."""
        record = self._read()
        if record.boot == self._boot:
            self._rest(record.resting)
        elif record.boot:
            always = [c.name for c in self._registry if _always(c)]
            self._start([*record.running, *record.resting, *always])
        self._save(self._seen())

    def _read(self) -> BootRecord:
        try:
            return parse(ondisk.text(self._paths.running_record))
        except FileNotFoundError:
            return BootRecord()
        except (OSError, ValueError) as error:
            file = self._paths.running_record
            log.error("%s can't be read: %s. If the host has booted, what ran before is not known: start it", file, error)
            return BootRecord()

    def _rest(self, names: Sequence[str]) -> None:
        for name in names:
            if name in self._registry and self._registry[name].running is None:
                self._registry[name].resting = True

    def _start(self, names: Sequence[str]) -> None:
        known = [self._registry[name] for name in dict.fromkeys(names) if name in self._registry]
        owed = [container for container in known if container.spec is not None and container.spec.autostart]
        self._bus.publish(Booting(tuple(container.name for container in owed)))
        self._begin(owed, "ran before the boot")

    def start_again(self, names: Sequence[str]) -> None:
        """Start containers that were stopped for a reboot of the host which does not come."""
        owed = [self._registry[name] for name in names if name in self._registry]
        self._begin([c for c in owed if c.spec is not None], "the host was not rebooted")

    def _begin(self, containers: Sequence[Container], reason: str) -> None:
        # What `lxcfleet run` ran, its caller runs again.
        owed = [c for c in containers if c.running is None and c.foreground is None and self._want(c)]
        if not owed:
            return
        for each in owed:
            each.resting = False  # that it is to run is noted now, so a start that fails is tried again
        log.info("starting %d containers again: %s", len(owed), reason)
        groups = turns(owed, self._dependencies.graph())
        jobs = in_turns([[self._job(c, reason) for c in group] for group in groups], lambda n: self._healthy(groups[n]))
        self._operations.begin("autostart", jobs, AT_ONCE)

    def _want(self, container: Container) -> bool:
        """Note that it is to run, unless another intent was noted when the host went down; returns whether it is to. A full
        disk must keep no container from its start, nor from another try if that fails."""
        if self._reconciler.noted(container) not in (None, Intent.RUN):
            return False
        self._reconciler.want(container, Intent.RUN, must=False)
        return True

    def _job(self, container: Container, reason: str) -> Job:
        async def job() -> Result:
            if container.running is not None or container.in_start or not self._reconciler.owed(container):
                return Result(container.name, "unchanged", False)  # somebody else has started it
            try:
                await self._reconciler.go_on(container)
            except FleetError as error:
                log.error("%s does not start again (%s): %s", container.name, reason, error)
                self._bus.publish(StartFailed(container.name, f"start, as {reason}: {error.message}"))
                raise
            if container.lack is not None:
                return blocked(container, changed=False)
            self._bus.publish(ActionDone(container.name, "started", reason))
            return Result(container.name, "started", True)

        return Job(container.name, job)

    async def _healthy(self, group: Sequence[Container]) -> None:
        """Wait until they are up, but not for ever."""
        deadline = time.monotonic() + HEALTHY_SECONDS
        while late := [c.name for c in group if self._prober.of(c) not in (None, Health.HEALTHY)]:
            left = deadline - time.monotonic()
            if left <= 0:
                log.warning("%s: not healthy after %.0f s; going on without", ", ".join(late), HEALTHY_SECONDS)
                return
            await self._prober.changed(min(left, KEEP_SECONDS))

    async def keep(self) -> None:
        """Update the record whenever it changes, until cancelled."""
        while True:
            await sleep_in_step(KEEP_SECONDS)
            record = self._seen()
            if record != self._kept:
                await asyncio.to_thread(self._save, record)

    def _seen(self) -> BootRecord:
        known = [c for c in self._registry if c.foreground is None]
        running = tuple(c.name for c in known if c.running is not None or c.unseen or c.lack or c.course.wants_run)
        resting = tuple(c.name for c in known if c.running is None and c.resting)
        return BootRecord(self._boot, running, resting)

    def _save(self, record: BootRecord) -> None:
        """Write the record and wait for the disk, as a power failure may be next. A failed write is tried again."""
        with self._saving:
            try:
                if record.running or record.resting or any(map(_always, self._registry)):
                    tree.write(self._paths.running_record, record.render(), sync=True)
                else:
                    self._paths.running_record.unlink(missing_ok=True)
            except OSError as error:
                if self._kept is not None:
                    log.error("can't note what runs, so it may not start after a reboot: %s", error)
                self._kept = None
            else:
                self._kept = record

    def close(self) -> None:
        """Write the record for the last time, as the daemon ends."""
        self._save(self._seen())


def _always(container: Container) -> bool:
    """Whether it starts when the host boots, even if it was stopped."""
    own = container.wanted
    return own is not None and own.restart.policy is RestartPolicy.ALWAYS and container.foreground is None
