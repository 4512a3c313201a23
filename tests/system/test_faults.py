"""Calls of the daemon, its launcher and their children that fail: nothing is lost, every answer is true, a second try works.

Each run tries some of thousands; ``make test-faults`` tries all. LXCFLEET_TEST_SEED chooses others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from .faults import SCENARIOS, Stage
from .harness import Fleet

pytestmark = pytest.mark.system

TRIALS = {"create": 7, "start": 5, "restart": 8, "stop": 5, "destroy": 5, "set": 5, "rollout": 3}
"""How many of each scenario. The others take seconds for each: those are for the run that tries all."""


@pytest.fixture(scope="module")
def stage(own_fleet: Fleet) -> Iterator[Stage]:
    """A daemon whose calls can be made to fail."""
    own_fleet.stop_daemon()
    stage = Stage(own_fleet)
    yield stage
    stage.faults.disarm()


@pytest.mark.parametrize("name", TRIALS)
def test_a_call_that_fails_loses_nothing_and_every_answer_is_true(stage: Stage, name: str) -> None:
    seed = int(os.environ.get("LXCFLEET_TEST_SEED", "15"))
    happened = []
    for fault in stage.some_faults(name, TRIALS[name], seed):
        try:
            happened.append(stage.try_one(fault))
        except BaseException as error:
            error.add_note(f"{fault}: python -m tests.system.faults --one {fault}")
            error.add_note("\n".join(line for line in stage.faults.calls() if "FAILED" in line))
            raise
    assert any(happened), SCENARIOS[name]
