"""Findings of `lxcfleet doctor` about the daemon itself. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from lxcfleet.capacity.needs import Finding
from lxcfleet.runtime.tasks import TaskReading

TOLD_FOR = timedelta(days=1)
"""Seconds for which doctor tells a failure of a background task that works again."""


def of_tasks(readings: Iterable[TaskReading], now: datetime) -> list[Finding]:
    """A finding for each background task that failed lately or does not run."""
    return [
        Finding(
            "tasks", "warning" if reading.up else "fail",
            f"the daemon's task {reading.name} failed {_times(reading.failures)}, last at "
            f"{reading.last_at:%Y-%m-%d %H:%M:%S} UTC: {reading.last}"
            + ("" if reading.up else "; it waits for its next start"),
            hint="`journalctl -u lxcfleet` has the traceback: a defect of lxcfleet, worth a report",
        )
        for reading in readings
        if reading.last_at is not None and (not reading.up or now - reading.last_at < TOLD_FOR)
    ]  # fmt: skip


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
