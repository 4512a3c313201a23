"""kill -9 of the daemon at each point of what changes a fleet: the next apply, or what else gives the rest, has all as it was
to become, and nothing is left that nobody owns. See killing, kill_stages and kill_trials.

There are some 200 points, and a trial takes a third of a second. Each run tries points by chance, as many as fit into a time;
with LXCFLEET_TEST_KILLS=all in the environment it tries all of them.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import leftovers
import pytest

from . import kill_trials
from .conftest import remove
from .kill_stages import STAGES

SECONDS = 6 if os.environ.get("LXCFLEET_TEST_KILLS") != "all" else float("inf")
"""No further trial of a stage is begun after so long."""
LONGEST = 120.0
"""Seconds after which a trial hangs; less than the test may take."""


@pytest.fixture
def top() -> Iterator[Path]:
    """Where all is, on a host without containers."""
    directory = Path(tempfile.mkdtemp(prefix="lxcfleet-"))
    leftovers.note("directory", str(directory))
    yield directory
    kill_trials.end_all(directory / "fleet")
    remove(directory)


class Trials:
    """Trials of one stage, each in a process of its own."""

    def __init__(self, top: Path, stage: str) -> None:
        self._top, self._stage, self._killed = top, stage, "nowhere"
        self._context = multiprocessing.get_context("forkserver")  # so that each is forked from one without threads
        self._context.set_forkserver_preload([kill_trials.__name__])

    def run(self, fatal: int) -> None:
        """One trial: that many points are passed, and at the next one the daemon is killed."""
        before = self._killed
        for word in ("killed", "through"):
            (self._top / word).unlink(missing_ok=True)
        process = self._context.Process(target=kill_trials.trial, args=(self._top, self._stage, fatal), daemon=True)
        process.start()
        try:
            process.join(LONGEST)
            assert not process.is_alive(), f"after a kill {before}: not over after {LONGEST} s (point {fatal})"
        finally:
            process.kill()
            process.join()
        self._killed = self._read("killed") or "nowhere"
        told = self._read("failed")
        assert not told, f"after a kill {before}, before one {self._killed} (point {fatal}):\n{told}"
        ended = (process.exitcode, bool(self._read("through")))
        assert ended in ((0, True), (-signal.SIGKILL, False)), (ended, self._killed)

    @property
    def points(self) -> int:
        """How many points there were in the last trial, which came to its end."""
        return int(self._read("through"))

    def _read(self, word: str) -> str:
        file = self._top / word
        return file.read_text() if file.exists() else ""


@pytest.mark.parametrize("stage", STAGES)
def test_what_is_killed_anywhere_is_gone_on_with(top: Path, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # for the process that forks
    trials = Trials(top, stage)
    trials.run(0)
    end = time.monotonic() + SECONDS
    points = [*range(1, trials.points + 1)]
    assert points
    for fatal in random.sample(points, len(points)):
        if time.monotonic() > end:
            break
        trials.run(fatal)
    trials.run(0)
