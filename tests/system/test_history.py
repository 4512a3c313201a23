"""A short random history: kills of all processes while clients work, and each answer held against what is so.

``make endurance`` has thousands of kills. LXCFLEET_TEST_SEED chooses another history.
"""

from __future__ import annotations

import os

import pytest

from .harness import Fleet
from .history import History

pytestmark = pytest.mark.system

KILLS = 6


def test_every_answer_is_true_whatever_is_killed(fleet: Fleet) -> None:
    history = History(fleet, int(os.environ.get("LXCFLEET_TEST_SEED", "15")))
    history.run(KILLS)
    assert history.kills == KILLS
    assert history.answers > 0
