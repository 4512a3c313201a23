"""When scheduled snapshots are due, and which of them go. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxcfleet.daemon.uses.schedule import SnapshotsTaken, expired, is_due, is_unchanged, past
from lxcfleet.data.snapshots import Snapshot
from lxcfleet.spec.container.snapshots import Schedule

HOURLY = Schedule(3600, 3)
NOW = datetime(2026, 2, 1, tzinfo=UTC).timestamp()
MADE = Snapshot("web", "auto-1", "2026-01-01T00:00:00Z", "", "schedule", 65536, "2025-01-01T00:00:00Z", 0, False, 1)


@pytest.mark.parametrize(
    ("last", "now", "due"),
    [
        (None, 1000 + 3599, False), (None, 1000 + 3600, True), (None, 1000 + 9 * 3600, True), (None, 0, False),
        (1000 + 3600, 1000 + 7199, False), (1000 + 3630, 1000 + 7200, True), (1000 + 7199, 1000 + 7200, True),
        (1000 + 7200, 1000 + 7200, False), (1000 + 9000, 1000 + 7200, False), (1000 + 3600, 1000 + 90 * 3600, True),
    ],
)  # fmt: skip
def test_one_is_due_once_in_each_turn(last: float | None, now: float, due: bool) -> None:
    assert is_due(HOURLY, 1000, last, now) is due


def test_nothing_is_due_without_a_schedule() -> None:
    assert not is_due(Schedule(), 0, None, 1e9)


@given(st.lists(st.floats(1, 7200), min_size=1, max_size=200))
def test_they_neither_drift_nor_pile_up(pauses: list[float]) -> None:
    """However late each look is: as many are made as turns have begun in which somebody looked, and no turn has two."""
    now, last, turns = 0.0, None, []
    for pause in pauses:
        now += pause
        if is_due(HOURLY, 0.0, last, now):
            last = now
            turns.append(now // 3600)
    assert turns == sorted(set(turns))
    seen, looked = 0.0, set()
    for pause in pauses:
        seen += pause
        looked.add(seen // 3600)
    assert set(turns) == looked - {0.0}


@pytest.mark.parametrize(
    ("runs", "ended", "last", "unchanged"),
    [(True, None, 5.0, False), (False, None, 5.0, True), (False, 4.0, 5.0, True), (False, 6.0, 5.0, False),
     (False, None, None, False)],
)  # fmt: skip
def test_one_that_has_not_run_since_has_not_changed(
    runs: bool, ended: float | None, last: float | None, unchanged: bool
) -> None:
    assert is_unchanged(runs=runs, ended=ended, last=last) is unchanged


def test_the_oldest_of_those_that_a_schedule_made_go() -> None:
    made = [replace(MADE, name=f"auto-{n}", created=f"2026-01-0{n}T00:00:00Z") for n in (3, 1, 2, 4)]
    there = past([*made, replace(MADE, name="mine", made_by="asked"), replace(MADE, name="kept", made_by="restore")], NOW)
    assert there.names == ("auto-1", "auto-2", "auto-3", "auto-4")
    assert expired(there, 3) == ("auto-1",)
    assert expired(there, 4) == expired(there, 9) == expired(SnapshotsTaken(), 1) == ()
    assert past([], NOW).last is None


def test_one_that_was_made_while_the_clock_was_ahead_keeps_none_from_being_made_and_goes_first() -> None:
    """It counted as the last one, so no other was made for a year, and as the newest one afterwards."""
    ahead = replace(MADE, name="auto-ahead", created="2027-01-01T00:00:00Z")
    there = past([MADE, ahead, replace(MADE, name="auto-2", created="2026-01-02T00:00:00Z")], NOW)
    assert there.names == ("auto-ahead", "auto-1", "auto-2")
    assert there.last == datetime(2026, 1, 2, tzinfo=UTC).timestamp()
    assert past([ahead], NOW) == SnapshotsTaken(("auto-ahead",), None)
