"""Maintenance windows, and the reaction to a change of the host's packages, moment by moment."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxcfleet.errors import InvalidInput
from lxcfleet.patch.notice import RETRY_SECONDS, Answer, Moment, NoticePhase, answer
from lxcfleet.spec.files import settings
from lxcfleet.spec.policies.windows import PatchPolicy, PatchSettings, Window

VIENNA = "Europe/Vienna"
NIGHT = PatchSettings(PatchPolicy.WINDOW, windows=("Sat,Sun 02:00-05:00",), time_zone=VIENNA)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "is_open"),
    [
        ("2026-11-21T00:59", False),  # Saturday; Vienna is an hour ahead in winter
        ("2026-11-21T01:00", True),
        ("2026-11-21T03:59", True),
        ("2026-11-21T04:00", False),
        ("2026-11-23T01:30", False),
        ("2026-07-04T00:00", True),  # two in summer
        ("2026-07-04T03:00", False),
    ],
)
def test_a_window_is_in_its_own_time_zone(now: str, is_open: bool) -> None:
    assert NIGHT.is_open(utc(now)) is is_open


def test_the_next_opening() -> None:
    assert NIGHT.next_opening(utc("2026-11-21T02:00")) == utc("2026-11-22T01:00")
    assert NIGHT.next_opening(utc("2026-11-22T01:00")) == utc("2026-11-28T01:00")
    assert PatchSettings().next_opening(utc("2026-11-22T01:00")) is None


def test_a_window_past_midnight_belongs_to_the_day_it_begins_on() -> None:
    settings = PatchSettings(windows=("Fri 22:00-02:00",), time_zone="UTC")
    assert [settings.is_open(utc(f"2026-11-{day}")) for day in ("20T21:59", "20T22:00", "21T01:59", "21T02:00")] == [
        False, True, True, False,
    ]  # fmt: skip
    assert not settings.is_open(utc("2026-11-20T01:00"))


def test_windows_follow_changes_of_the_clock() -> None:
    # On 29 March 2026 Vienna's clocks go from 02:00 to 03:00, on 25 October from 03:00 back to 02:00.
    gap = PatchSettings(windows=("02:15-02:45",), time_zone=VIENNA)
    opening = gap.next_opening(utc("2026-03-28T12:00"))
    assert opening is not None
    assert gap.is_open(opening)
    twice = PatchSettings(windows=("02:00-04:00",), time_zone=VIENNA)
    hours = [hour for hour in range(24) if twice.is_open(utc(f"2026-10-25T{hour:02}:30"))]
    assert hours == [0, 1, 2]


WINDOWS = st.builds(
    lambda day, begin, end: f"{day} {begin // 60:02}:{begin % 60:02}-{end // 60:02}:{end % 60:02}",
    st.sampled_from(["Mon", "Tue-Thu", "Sat,Sun", "Fri-Mon"]),
    st.integers(0, 1439), st.integers(0, 1439),
)  # fmt: skip
MOMENTS = st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)).map(lambda each: each.replace(tzinfo=UTC))


@given(WINDOWS, MOMENTS, st.sampled_from(["UTC", VIENNA, "Pacific/Kiritimati", "America/St_Johns", ""]))
def test_a_wait_for_the_opening_ends_in_an_open_window(window: str, now: datetime, zone: str) -> None:
    try:
        Window.parse(window)
    except InvalidInput:
        return
    settings = PatchSettings(windows=(window,), time_zone=zone)
    opening = settings.next_opening(now)
    assert opening is not None
    assert now < opening <= now + timedelta(days=15)
    assert settings.is_open(opening)


@pytest.mark.parametrize(
    "text", ["", "02:00", "Sat 2:00-5:00", "Sab 02:00-05:00", "Sat- 02:00-05:00", "25:00-26:00", "02:00-24:30", "02:00-02:00"]
)
def test_a_text_that_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        Window.parse(text)


def test_a_whole_day() -> None:
    settings = PatchSettings(windows=("Sat 00:00-24:00",), time_zone="UTC")
    assert [settings.is_open(utc(f"2026-11-{day}")) for day in ("20T23:59", "21T00:00", "21T23:59", "22T00:00")] == [
        False, True, True, False,
    ]  # fmt: skip


def test_complaints_about_settings_come_together() -> None:
    with pytest.raises(InvalidInput) as caught:
        settings.parse(b"patch: {policy: never, quiet: -1, windows: [Sat], time_zone: Mars/Olympus, when: now}", "file")
    for key in ("policy", "quiet", "windows[0]", "time_zone", "when"):
        assert f"patch: {key}:" in caught.value.why
    with pytest.raises(InvalidInput):
        settings.parse(b"patch: {policy: window}", "file")


# the reaction at one moment

CALM = Moment(pending=True, quiet=60.0, holder=None, half_done="", now=utc("2026-11-20T12:00"))
USUAL = PatchSettings()


def test_nothing_was_heard() -> None:
    assert answer(replace(CALM, pending=False, half_done="x"), USUAL) == Answer(NoticePhase.IDLE)


def test_dpkg_is_at_work_before_the_hook_is_heard() -> None:
    busy = answer(replace(CALM, pending=False, holder=7), USUAL)
    assert (busy.phase, busy.why) == (NoticePhase.BUSY, "process 7 holds dpkg's lock")


def test_the_daemon_waits_for_the_package_manager_then_for_quiet() -> None:
    assert answer(replace(CALM, holder=4711), USUAL) == Answer(NoticePhase.BUSY, "process 4711 holds dpkg's lock")
    assert answer(replace(CALM, quiet=9.9), USUAL).phase is NoticePhase.QUIET
    assert answer(replace(CALM, quiet=10.0), USUAL).phase is NoticePhase.READY


@pytest.mark.parametrize("policy", list(PatchPolicy))
def test_nothing_is_done_while_packages_are_unfinished(policy: PatchPolicy) -> None:
    settings = replace(USUAL, policy=policy, windows=("00:00-24:00",))
    found = answer(replace(CALM, half_done="libc6 is half-configured"), settings)
    assert found.phase is NoticePhase.BROKEN
    assert found.why.startswith("libc6 is half-configured")


def test_the_daemon_waits_for_the_window() -> None:
    assert answer(CALM, NIGHT) == Answer(
        NoticePhase.WINDOW, "outside of the maintenance windows", utc("2026-11-21T01:00")
    )
    assert answer(replace(CALM, now=utc("2026-11-21T01:00")), NIGHT).phase is NoticePhase.READY


def test_a_failure_is_tried_again_later() -> None:
    assert answer(replace(CALM, failed=1.0), USUAL).phase is NoticePhase.FAILED
    assert answer(replace(CALM, failed=RETRY_SECONDS), USUAL).phase is NoticePhase.READY
