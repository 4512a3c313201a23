"""Questions about patches: which containers run old code, and whether a patch is everywhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from lxcfleet.api.findings import NoticeRecord, StaleRecord
from lxcfleet.containers.container import Container
from lxcfleet.containers.registry import Registry
from lxcfleet.host.packages.database import OwningPackage
from lxcfleet.patch.owners import Owners, file_record
from lxcfleet.patch.rebooter import Rebooter
from lxcfleet.patch.rejections import Rejection
from lxcfleet.patch.stale.finder import Finder
from lxcfleet.patch.stale.judge import StaleScan
from lxcfleet.patch.watcher import Watcher
from lxcfleet.spec.selection import Selection


class Patch:
    """Patches of the host, and their progress in the containers."""

    def __init__(
        self,
        registry: Registry,
        finder: Finder,
        watcher: Watcher,
        owners: Owners,
        rebooter: Rebooter,
        rejected: Callable[[], Awaitable[Rejection | None]],
    ) -> None:
        """``rejected``: tells why the host's packages as they are now are not brought into containers; None: they are."""
        self._registry, self._finder, self._watcher, self._owners = registry, finder, watcher, owners
        self._rebooter, self._rejected = rebooter, rejected

    async def stale(self, selection: Selection) -> list[StaleRecord]:
        """The old files that the chosen containers (all, if none is chosen) run. Raises FleetError."""
        chosen = await self._registry.chosen(selection)
        scans = await self._finder.scan(chosen)
        owners = await self._owners.find(file.path for scan in scans.values() for file in scan.files if not file.package)
        return [_stale_record(container, scans[container.name], owners) for container in chosen]

    async def notice(self) -> NoticeRecord:
        """The progress of the last change of the host's packages. Raises HostError."""
        record = self._watcher.record()
        rejection = await self._rejected()
        record["rejected"] = None if rejection is None else rejection.record()
        record["rebooting"] = self._rebooter.words if record["reboot"] else ""
        return record

    async def notify(self) -> NoticeRecord:
        """Note that the host's packages changed; returns the progress. Raises FleetError."""
        self._watcher.notify()
        await self._watcher.look()
        return await self.notice()


def _stale_record(container: Container, scan: StaleScan, owners: dict[str, OwningPackage]) -> StaleRecord:
    return {
        "name": container.name,
        "state": container.state,
        "stale": scan.stale,
        "processes": scan.processes,
        "mappings": scan.mappings,
        "files": [file_record(file, owners.get(file.path)) for file in scan.files],
        "base": scan.base or None,
        "problem": scan.problem or None,
    }
