"""Names of snapshots, and how often a container's snapshots are made. Values only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.parts import PartsType
from lxcfleet.spec.reader import Fields
from lxcfleet.spec.rows import row
from lxcfleet.spec.types import ValueType, Whole

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
SCHEDULED = "auto-"
"""The names of those that a schedule makes begin so."""
LONGEST_WHY = 200
"""Characters of a reason."""
MOST_KEPT = 1000

_UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 604800}
LEAST_SECONDS = 60
MOST_SECONDS = 366 * 86400


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


class SpanType(ValueType[int]):
    """A span of time in seconds, written as 30m, 6h, 1d or 2w; 0: none."""

    def read(self, fields: Fields, key: str) -> int:
        """See ValueType."""
        try:
            return self.parse(fields.scalar(key, ""))
        except InvalidInput as error:
            fields.complain(key, error.message)
            return 0

    def parse(self, text: str) -> int:
        """See ValueType."""
        match = re.fullmatch(r"([0-9]{1,9})([mhdw])", text.strip())
        if match is None:
            if text.strip() == "0":
                return 0
            raise InvalidInput(f"{text!r} is no span of time", hint="write it as 30m, 6h, 1d or 2w; 0 is never")
        seconds = int(match[1]) * _UNITS[match[2]]
        if not LEAST_SECONDS <= seconds <= MOST_SECONDS:
            raise InvalidInput(f"{text} is not between 1m and 366d")
        return seconds

    @property
    def form(self) -> str:
        """See ValueType."""
        return "a span of time such as 30m, 6h, 1d or 2w; 0 is never"

    def schema(self) -> dict[str, Any]:
        """See ValueType."""
        return {"oneOf": [{"enum": [0]}, {"type": "string", "pattern": r"^\s*(0|[0-9]{1,9}[mhdw])\s*$"}]}

    def render(self, value: int) -> str:
        """See ValueType."""
        unit = next((unit for unit, seconds in reversed(_UNITS.items()) if value % seconds == 0), "m")
        return f"{value // _UNITS[unit]}{unit}" if value else "0"

    def tell(self, value: int) -> str:
        """See ValueType."""
        return self.render(value)


@dataclass(frozen=True)
class Schedule:
    """Snapshots that are made by themselves."""

    every: int = row(SpanType(), "The time from one to the next, such as 6h; 0: none is made.", default=0)
    keep: int = row(
        Whole(1, MOST_KEPT), "How many of those that were made so are kept. The oldest goes once a new one is there.",
        default=4,
    )  # fmt: skip


NO_SCHEDULE = Schedule()

SCHEDULE = PartsType(Schedule, "[snapshots](snapshots.md#by-a-schedule)")
