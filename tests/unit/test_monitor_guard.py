"""How often monitors are looked at, and what the log says of strangers."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import pytest

from lxcfleet.containers.monitor_guard import MonitorGuard, pause
from lxcfleet.paths import Paths


@pytest.mark.parametrize(("limits", "seconds"), [([1 << 20], 1.0), ([1 << 20, 20_000], 0.025), ([1024], 0.02), ([], 0.25)])
def test_no_monitor_runs_out_of_descriptors_between_two_looks(limits: list[int], seconds: float) -> None:
    assert pause(limits) == pytest.approx(seconds)


def test_an_attack_is_logged_when_it_begins_and_when_it_is_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    guard = MonitorGuard(Paths(lxc=tmp_path))
    for moment in range(100):
        guard._note({"a": Counter({1000: 10})}, float(moment))
    assert len(caplog.messages) == 1
    assert "a: processes of uid 1000 crowd its monitor's socket" in caplog.messages[0]
    guard._note({}, 105.0)
    assert len(caplog.messages) == 1
    guard._note({}, 110.0)
    assert caplog.messages[1:] == ["a: 1000 connections of uid 1000 to its monitor were closed"]
