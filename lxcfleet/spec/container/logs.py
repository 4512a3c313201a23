"""The handling of the lines that a container prints. Values only."""

from __future__ import annotations

from dataclasses import dataclass

from lxcfleet.spec.reading.parts import PartsType
from lxcfleet.spec.reading.rows import row
from lxcfleet.spec.reading.types import Flag, Whole

MAX_RATE, MAX_BURST = 1_000_000, 10_000_000
"""The most lines a second, and at once."""


@dataclass(frozen=True)
class Logs:
    """How one container's lines are passed on to the host's log."""

    journal: bool = row(
        Flag(), "Whether its lines go there, be that journald or syslog; without, `lxcfleet logs` has them still.",
        default=True, usual="yes",
    )
    rate: int | None = row(
        Whole(0, MAX_RATE), "Lines a second that it may print before some are left out; 0: any number.",
        usual="`logs: {rate}` of lxcfleet.yaml",
    )
    burst: int | None = row(
        Whole(1, MAX_BURST), "Lines that it may print at once beyond that.", usual="`logs: {burst}` of lxcfleet.yaml",
    )


USUAL_LOGS = Logs()

LOGS = PartsType(Logs, "[logs](logs.md#one-containers-own)")
