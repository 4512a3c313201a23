"""What can be asked about patches: which containers run old code, and whether a patch is everywhere."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence

from lxcfleet.base.tree import stamp
from lxcfleet.errors import HostError
from lxcfleet.fleet.registry import Container, Registry
from lxcfleet.host import packages
from lxcfleet.host.packages import Owner
from lxcfleet.model import Selection
from lxcfleet.patch.finder import Finder
from lxcfleet.patch.stale import OldFile, Scan
from lxcfleet.patch.watcher import Watcher
from lxcfleet.wire import NoticeRecord, OldFileRecord, StaleRecord

log = logging.getLogger(__name__)


class Owners:
    """Whose files are; remembered until dpkg's records change."""

    def __init__(self) -> None:
        self._stamp: list[int] | None = None
        self._known: dict[str, Owner | None] = {}

    async def find(self, paths: Iterable[str]) -> dict[str, Owner]:
        """By path; those of no package are left out. Where dpkg can't be asked nobody owns anything, and the log says why."""
        wanted = set(paths)
        now = stamp(str(packages.STATUS))
        if now != self._stamp:
            self._stamp, self._known = now, {}
        if missing := wanted - self._known.keys():
            try:
                found = await asyncio.to_thread(packages.owners, missing)
            except HostError as error:
                log.warning("%s", str(error).replace("\n", "; "))
                return {}
            self._known |= {path: found.get(path) for path in missing}
        return {path: owner for path in wanted if (owner := self._known[path]) is not None}


class Patch:
    """Patches of the host, and how far they are in the containers."""

    def __init__(self, registry: Registry, finder: Finder, watcher: Watcher) -> None:
        self._registry = registry
        self.finder = finder
        self._watcher = watcher
        self._owners = Owners()

    async def stale(self, selection: Selection) -> list[StaleRecord]:
        """What the chosen containers (all, if none is chosen) run that is old. Raises FleetError."""
        chosen = await self._choose(selection)
        scans = await self.finder.scan(chosen)
        owners = await self._owners.find(file.path for scan in scans.values() for file in scan.files)
        return [_stale_record(container, scans[container.name], owners) for container in chosen]

    def notice(self) -> NoticeRecord:
        """How far the last change of the host's packages is."""
        return self._watcher.record()

    async def notify(self) -> NoticeRecord:
        """The host's packages changed; how far that is. Raises FleetError."""
        self._watcher.notify()
        await self._watcher.look()
        return self._watcher.record()

    async def _choose(self, selection: Selection) -> Sequence[Container]:
        await self._registry.observe()
        if not (selection.patterns or selection.labels):
            selection = Selection(everything=True)
        return self._registry.choose(selection)


def _stale_record(container: Container, scan: Scan, owners: dict[str, Owner]) -> StaleRecord:
    return {
        "name": container.name,
        "state": container.state,
        "stale": scan.stale,
        "processes": scan.processes,
        "mappings": scan.mappings,
        "files": [_file_record(file, owners.get(file.path)) for file in scan.files],
        "problem": scan.problem or None,
    }


def _file_record(file: OldFile, owner: Owner | None) -> OldFileRecord:
    return {
        "path": file.path,
        "why": file.why,
        "layer": file.layer,
        "package": owner.package if owner else None,
        "version": owner.version if owner else None,
        "processes": [{"pid": process.pid, "command": process.command} for process in file.processes],
    }
