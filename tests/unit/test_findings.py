"""Findings of doctor about the daemon itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from lxcfleet.daemon.uses import findings
from lxcfleet.runtime.tasks import TaskReading

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def test_tasks_that_never_failed_give_no_finding() -> None:
    assert findings.of_tasks([TaskReading("observe", 0, True)], NOW) == []


def test_a_task_that_failed_and_runs_again_is_a_warning_for_a_day() -> None:
    failed = TaskReading("observe", 3, True, "ValueError: boom", NOW - timedelta(hours=23))
    [finding] = findings.of_tasks([failed], NOW)
    assert (finding.check, finding.level) == ("tasks", "warning")
    assert "observe failed 3 times, last at 2026-04-30 13:00:00 UTC: ValueError: boom" in finding.message
    assert findings.of_tasks([failed], NOW + timedelta(hours=2)) == []


def test_a_task_that_does_not_run_is_told_until_it_runs() -> None:
    failed = TaskReading("observe", 1, False, "ValueError: boom", NOW - timedelta(days=9))
    [finding] = findings.of_tasks([failed], NOW)
    assert finding.level == "fail"
    assert "waits for its next start" in finding.message


def test_bases_that_hold_back_patches_or_are_gone_are_told() -> None:
    created = {1: NOW - timedelta(days=8), 2: NOW - timedelta(days=6)}
    held = {1: ["a", "b"], 2: ["c"], 3: [f"d{number}" for number in range(7)]}
    old, gone = findings.of_bases(held, created, NOW, {})
    assert (old.level, gone.level) == ("warning", "fail")
    assert "a, b stand on generation 1" in old.message
    assert "and 2 more stand on generation 3, which is gone" in gone.message
    assert gone.hint == "lxcfleet rollback d0 d1 d2 d3 d4 --to host"


def test_starts_that_failed_are_told_with_their_cause() -> None:
    tried, given_up = findings.of_starts({"web": ("/srv is not there", False), "api": ("no ids", True)})[::-1]
    assert (tried.level, given_up.level) == ("warning", "fail")
    assert tried.message == "web: its start failed, and is tried again: /srv is not there"
    assert given_up.message == "api: its start failed, and is tried no more: no ids"
    assert "lxcfleet start web" in tried.hint
