"""Short random histories: kills of processes while clients work or containers end, and each answer held against what is so.

``make endurance`` has thousands of them. LXCFLEET_TEST_SEED chooses another history.
"""

from __future__ import annotations

import os

import pytest

from .harness import Fleet
from .history import History
from .policies import Interleavings

pytestmark = pytest.mark.system

KILLS = 6


def test_every_answer_is_true_whatever_is_killed(fleet: Fleet) -> None:
    history = History(fleet, int(os.environ.get("LXCFLEET_TEST_SEED", "15")))
    history.run(KILLS)
    assert history.kills == KILLS
    assert history.answers > 0


def test_what_was_stopped_stays_down_and_what_is_to_run_runs(fleet: Fleet) -> None:
    """With restart policies, whatever ends when, and whenever the daemon is killed."""
    random_acts = Interleavings(fleet, int(os.environ.get("LXCFLEET_TEST_SEED", "19")), each=1)
    random_acts.run(2)
    assert random_acts.done == 6
