"""When the daemon reboots the host."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest

from lxcfleet.errors import InvalidInput
from lxcfleet.patch.notice import NoticePhase
from lxcfleet.patch.reboots import Answer, Moment, answer
from lxcfleet.patch.rollout.state import Status
from lxcfleet.spec.files import settings
from lxcfleet.spec.policies.windows import PatchSettings, Reboot

NIGHT = PatchSettings(reboot=Reboot.WINDOW, windows=("Sat 02:00-05:00",), time_zone="UTC")
OPEN = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
READY = Moment(OPEN, ("linux-image-6.1.0-41-amd64",), NoticePhase.IDLE, Status.DONE, 0)


def test_it_is_rebooted_in_a_window_when_everything_is_done() -> None:
    assert answer(READY, NIGHT) == Answer(True, "now")
    assert answer(replace(READY, rollout=None), NIGHT).now
    assert answer(replace(READY, rollout=Status.ABORTED), NIGHT).now


def test_nothing_is_said_if_no_reboot_is_due_or_wanted() -> None:
    assert answer(replace(READY, due=()), NIGHT) == Answer(False)
    assert answer(READY, replace(NIGHT, reboot=Reboot.NEVER)) == Answer(False)
    assert PatchSettings().reboot is Reboot.NEVER


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"now": OPEN - timedelta(hours=2)}, "in a maintenance window, from 2026-11-21 02:00 UTC on"),
        ({"now": OPEN + timedelta(hours=2)}, "in a maintenance window, from 2026-11-28 02:00 UTC on"),
        ({"obstacle": "no systemd"}, "that is left to you: no systemd"),
        ({"in_pieces": "a process holds dpkg's lock"}, "waits: a process holds dpkg's lock"),
        ({"operations": 1}, "waits for the end of operations on containers"),
        ({"rollout": Status.HALTED}, "waits for the end of the rollout, which is halted"),
        ({"rollout": Status.PAUSED}, "waits for the end of the rollout, which is paused"),
        ({"rollout": Status.RUNNING}, "waits for the end of the rollout, which is running"),
        ({"phase": NoticePhase.QUIET}, "waits until the change of the host's packages is dealt with"),
    ],
)
def test_what_it_waits_for_is_said(change: dict[str, Any], why: str) -> None:
    moment = replace(READY, **change)
    assert answer(moment, NIGHT) == Answer(False, why)


def test_a_host_is_not_rebooted_twice_in_one_window() -> None:
    for minutes, now in ((1, False), (59, False), (61, True)):  # the window began 60 minutes ago
        assert answer(replace(READY, last=OPEN - timedelta(minutes=minutes)), NIGHT).now is now
    assert answer(replace(READY, last=OPEN + timedelta(days=999)), NIGHT).now, "a clock that was wrong is no reason"


def all_moments() -> Iterator[Moment]:
    for phase, rollout, count, pieces in product(NoticePhase, (None, *Status), (0, 1), ("", "dpkg")):
        yield Moment(OPEN, ("linux",), phase, rollout, count, pieces)


def test_it_is_never_rebooted_while_anything_is_under_way() -> None:
    allowed = [moment for moment in all_moments() if answer(moment, NIGHT).now]
    assert [(m.phase, m.rollout, m.operations, m.in_pieces) for m in allowed] == [
        (NoticePhase.IDLE, rollout, 0, "") for rollout in (None, Status.ABORTED, Status.DONE)
    ]


def test_the_setting_takes_a_window() -> None:
    good = settings.parse(b"patch: {reboot: window, windows: ['02:00-05:00']}", "a file")
    assert good.patch.reboot is Reboot.WINDOW
    for text, key in ((b"patch: {reboot: window}", "windows"), (b"patch: {reboot: always}", "reboot")):
        with pytest.raises(InvalidInput, match=key):
            settings.parse(text, "a file")


def test_the_present_window_s_beginning() -> None:
    overlapping = replace(NIGHT, windows=("Sat 02:00-05:00", "Sat 02:30-04:00"))
    assert overlapping.opened(OPEN) == OPEN - timedelta(minutes=30)
    assert NIGHT.opened(OPEN) == OPEN - timedelta(hours=1)
    assert NIGHT.opened(OPEN - timedelta(hours=2)) is None
