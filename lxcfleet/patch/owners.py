"""The packages that own files, remembered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from lxcfleet.api.findings import OldFileRecord
from lxcfleet.base.tree import stamp
from lxcfleet.errors import HostError
from lxcfleet.host.packages import database
from lxcfleet.host.packages.database import OwningPackage
from lxcfleet.patch.stale.judge import OldFile

log = logging.getLogger(__name__)


class Owners:
    """The packages of files; remembered until dpkg's records change."""

    def __init__(self) -> None:
        self._stamp: list[int] | None = None
        self._known: dict[str, OwningPackage | None] = {}

    async def find(self, paths: Iterable[str]) -> dict[str, OwningPackage]:
        """Like ``sure``; but if dpkg can't be asked, no file has an owner, and the log says why."""
        try:
            return await self.sure(paths)
        except HostError as error:
            log.warning("%s", str(error).replace("\n", "; "))
            return {}

    async def sure(self, paths: Iterable[str]) -> dict[str, OwningPackage]:
        """The owner by path, without files that belong to no package. Raises HostError."""
        wanted = set(paths)
        now = stamp(str(database.STATUS))
        if now != self._stamp:
            self._stamp, self._known = now, {}
        if missing := wanted - self._known.keys():
            found = await asyncio.to_thread(database.owners, missing)
            self._known |= {path: found.get(path) for path in missing}
        return {path: owner for path in wanted if (owner := self._known[path]) is not None}


def file_record(file: OldFile, owner: OwningPackage | None) -> OldFileRecord:
    """The file in the API's form."""
    return {
        "path": file.path,
        "why": file.why,
        "layer": file.layer,
        "package": owner.package if owner else file.package or None,
        "version": owner.version if owner else None,
        "processes": [{"pid": process.pid, "command": process.command} for process in file.processes],
    }
