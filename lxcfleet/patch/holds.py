"""Containers that are held on a generation on purpose, until a date.

A hold is that of a container on one generation: it means nothing any more once the container has another base. So nobody has
to take it back. A date that is past moves nothing by itself: it is told, and the container goes along with the next patch
that goes well.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime

from lxcfleet.api.generations import HoldRecord
from lxcfleet.containers.container import Container
from lxcfleet.errors import HostError
from lxcfleet.host.kernel import tree
from lxcfleet.patch.events import HoldPast
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.runtime.operations import now
from lxcfleet.spec.policies.windows import take_up_zone
from lxcfleet.spec.reading import ondisk

log = logging.getLogger(__name__)

LOOK_SECONDS = 600.0
"""Seconds between two looks whether a date is past."""


@dataclass(frozen=True)
class Hold:
    """One container that is held."""

    generation: int
    until: str
    """The last day, as 2027-01-31, by the host's clock."""
    since: str
    """The time of the note, as in the API."""
    why: str = ""
    told: bool = False
    """Whether it was told that the date is past."""

    def past(self, today: date) -> bool:
        """Whether the last day is over."""
        return date.fromisoformat(self.until) < today

    def in_words(self, today: date) -> str:
        """It in words, without the reason."""
        return f"held until {self.until}{', that is past' if self.past(today) else ''}"

    def ends(self) -> float:
        """When the last day is over, in seconds since the epoch."""
        day = date.fromisoformat(self.until)
        take_up_zone()
        return datetime(day.year, day.month, day.day, 23, 59, 59).astimezone().timestamp()

    def record(self, name: str, today: date) -> HoldRecord:
        """It in the API's form."""
        return {
            "name": name, "generation": self.generation, "until": self.until, "since": self.since, "why": self.why,
            "past": self.past(today),
        }  # fmt: skip


def today() -> date:
    """The present day by the host's clock."""
    take_up_zone()
    return datetime.now().astimezone().date()


class Holds:
    """All containers that are held."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def of(self, container: Container) -> Hold | None:
        """The hold of a container on the generation that it stands on; None: it is not held."""
        return self.among([container]).get(container.name)

    def among(self, containers: Iterable[Container]) -> dict[str, Hold]:
        """Those of these that are held, by name."""
        known = self._known()
        if not known:
            return {}
        standing = {each.name: each.wanted.generation for each in containers if each.wanted is not None}
        return {name: hold for name, hold in known.items() if standing.get(name) == hold.generation}

    def hold(self, standing: Mapping[str, int], until: date, why: str) -> None:
        """Hold these containers, each on its generation. Raises HostError."""
        moment = now()
        self._keep({**self._known(), **{name: Hold(on, until.isoformat(), moment, why) for name, on in standing.items()}})

    def forget(self, names: Iterable[str]) -> None:
        """Hold these no longer. Raises HostError."""
        known, gone = self._known(), set(names)
        if gone & known.keys():
            self._keep({name: hold for name, hold in known.items() if name not in gone})

    def tell_past(self, containers: Iterable[Container], bus: Bus, day: date) -> None:
        """Tell of each date that is past, once. Raises HostError."""
        fresh = {name: hold for name, hold in self.among(containers).items() if hold.past(day) and not hold.told}
        if fresh:
            self._keep({**self._known(), **{name: replace(hold, told=True) for name, hold in fresh.items()}})
        for name, hold in sorted(fresh.items()):
            bus.publish(HoldPast(name, hold.generation, hold.until))

    async def run(self, containers: Iterable[Container], bus: Bus) -> None:
        """Look again and again, for ever."""
        while True:
            try:
                self.tell_past(list(containers), bus, today())
            except HostError as error:
                log.error("%s", str(error).replace("\n", "; "))
            await asyncio.sleep(LOOK_SECONDS)

    def _known(self) -> dict[str, Hold]:
        file = self._paths.held
        try:
            found = {str(name): Hold(**each) for name, each in ondisk.record(file).items()}
            for hold in found.values():
                date.fromisoformat(hold.until)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            log.error("%s can't be read: %s. Which containers are held is not known", file, error)
            return {}
        return found

    def _keep(self, holds: Mapping[str, Hold]) -> None:
        """Raises HostError."""
        try:
            self._paths.state.mkdir(mode=0o700, parents=True, exist_ok=True)
            text = json.dumps({name: asdict(hold) for name, hold in holds.items()})
            tree.write(self._paths.held, text + "\n", sync=True)
        except OSError as error:
            raise HostError.from_os_error("it can't be noted what is held", error, path=self._paths.held) from error
