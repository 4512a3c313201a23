"""Names of snapshots, and how often a container's snapshots are made. Values only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.reading.durations import Duration
from lxcfleet.spec.reading.parts import PartsType
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.reading.rows import row
from lxcfleet.spec.reading.types import Whole

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
SCHEDULED = "auto-"
"""The names of those that a schedule makes begin so."""
LONGEST_WHY = 200
"""Characters of a reason."""
MOST_KEPT = 1000

LEAST_SECONDS = 60
MOST_SECONDS = 366 * 86400.0
_SHORT = "the shortest time is a minute, 1m; 0 is never"


def check_snapshot(name: str) -> str:
    """``name`` itself, if a snapshot may have it; raises InvalidInput."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} can't be a snapshot's name",
            why="names have a to z, 0 to 9, and inside also . _ and -, and at most 63 characters",
        )
    return name


def name_at(moment: datetime) -> str:
    """The name of a snapshot that was given none."""
    return moment.strftime("%Y%m%d-%H%M%S")


class Pause(Duration):
    """A length of time of a minute or more; 0: none."""

    def read(self, fields: Fields, key: str) -> float:
        """See ValueType."""
        seconds = super().read(fields, key)
        if 0 < seconds < LEAST_SECONDS:
            fields.complain(key, _SHORT)
            return 0.0
        return seconds

    def parse(self, text: str) -> float:
        """See ValueType."""
        seconds = super().parse(text)
        if 0 < seconds < LEAST_SECONDS:
            raise InvalidInput(_SHORT)
        return seconds


@dataclass(frozen=True)
class Schedule:
    """Snapshots that are made by themselves."""

    every: float = row(Pause(MOST_SECONDS), "The time from one to the next, such as 6h; 0: none is made.", default=0.0)
    keep: int = row(
        Whole(1, MOST_KEPT), "How many of those that were made so are kept. The oldest goes once a new one is there.",
        default=4,
    )  # fmt: skip


NO_SCHEDULE = Schedule()

SCHEDULE = PartsType(Schedule, "[snapshots](snapshots.md#by-a-schedule)")
