"""Calls of the daemon, its launcher and their children that fail: nothing is lost, every answer is true, a second try works.

The order of calls differs from run to run, so only the first call of each scenario is tried here, which is the same each
time; ``make test-faults`` tries thousands.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .faults import SCENARIOS, Stage
from .harness import Fleet

pytestmark = pytest.mark.system

NAMES = ("create", "start", "restart", "stop", "destroy", "set", "rollout")
"""The other scenarios take seconds for each trial."""


@pytest.fixture(scope="module")
def stage(own_fleet: Fleet) -> Iterator[Stage]:
    """A daemon whose calls can be made to fail."""
    own_fleet.stop_daemon()
    stage = Stage(own_fleet)
    yield stage
    stage.faults.disarm()


@pytest.mark.parametrize("name", NAMES)
def test_a_call_that_fails_loses_nothing_and_every_answer_is_true(stage: Stage, name: str) -> None:
    happened = []
    for fault in stage.first_faults(name):
        try:
            happened.append(stage.try_one(fault))
        except BaseException as error:
            error.add_note(f"{fault}: python -m tests.system.faults --one {fault}")
            error.add_note("\n".join(line for line in stage.faults.calls() if "FAILED" in line))
            raise
    assert any(happened), SCENARIOS[name]
