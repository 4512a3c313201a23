"""The packages of containers and of generations, as a child of the launcher finds them: the daemon's end of ``look``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence

from lxcfleet.base.tree import stamp
from lxcfleet.containers.container import Container
from lxcfleet.errors import FleetError
from lxcfleet.host.facts import system
from lxcfleet.host.packages import database
from lxcfleet.launcher.client import Launcher
from lxcfleet.launcher.items.cves import CveItem, CveSets
from lxcfleet.launcher.operations import CVES
from lxcfleet.patch.cve.findings import FixState
from lxcfleet.spec.policies.cves import CveSettings

log = logging.getLogger(__name__)


class Sets:
    """Has sets of packages looked at, each distinct one once."""

    def __init__(self, launcher: Launcher, settings: Callable[[], CveSettings]) -> None:
        self._launcher, self._settings = launcher, settings
        self._behind: dict[int, Mapping[str, list[str]]] = {}
        self._stamp: list[int] | None = None

    async def of(self, containers: Collection[Container], cves: Sequence[str] = ()) -> CveSets:
        """The findings about their packages. ``cves``: only these, wherever a changelog names them. Raises FleetError."""
        settings = self._settings()
        chosen = [(each.name, _generation(each)) for each in containers]
        suite = settings.suite or system.release().get("VERSION_CODENAME", "")
        item = CveItem(containers=chosen, generations=[], source=settings.path, suite=suite, cves=list(cves))
        return await self._launcher.ask_large(CVES, item)

    async def behind(self, generation: int) -> Mapping[str, list[str]]:
        """The CVEs that the host's packages have closed and a generation's have not, by package of the generation.

        Empty also where nothing is known: it only adds to what is told of the generation. Remembered until dpkg's records
        change.
        """
        now = stamp(str(database.STATUS))
        if now != self._stamp:
            self._stamp, self._behind = now, {}
        if generation not in self._behind:
            item = CveItem(containers=[], generations=[generation], source="", suite="", cves=[])
            try:
                self._behind[generation] = _closed(await self._launcher.ask_large(CVES, item))
            except FleetError as error:
                log.warning("which CVEs generation %d lacks is not known: %s", generation, str(error).replace("\n", "; "))
                self._behind[generation] = {}
        return self._behind[generation]


def _closed(answer: CveSets) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for index in answer["sets"][0]["found"] if answer["sets"] else ():
        each = answer["found"][index]
        if each["disk"] == FixState.FIXABLE:
            for package in {text.partition(" ")[0] for text in each["without"]}:
                found.setdefault(package, []).append(each["cve"])
    return {package: sorted(cves) for package, cves in sorted(found.items())}


def _generation(container: Container) -> int:
    spec = container.spec or container.wanted
    return 0 if spec is None else spec.generation
