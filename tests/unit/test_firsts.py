"""What a start is told to have been where the command ends at once."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lxcfleet.containers.container import Container
from lxcfleet.containers.ends.endings import Endings
from lxcfleet.containers.ends.firsts import Firsts
from lxcfleet.containers.exits import Ending
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading.terms import Init
from lxcfleet.spec.results import Result

CREATED = Result("job", "created", True)


class Run:
    """A container and its run, as Firsts sees both. Its cgroup is removed after so many looks at its processor time: a
    monitor does that right after it has told the end, if the command has ended."""

    def __init__(self, *, looks: int, ends: bool) -> None:
        self.name, self.spec, self.lack, self.exit = "job", Spec("job", init=Init.APP), None, cast(Any, None)
        self.running: Run | None = self
        self.payload, self.directory, self.gone = self, None, asyncio.Event()
        self._looks, self._ends, self._told = looks, ends, False

    @property
    def cpu_seconds(self) -> float | None:
        """None once the cgroup is gone."""
        self._looks -= 1
        if self._looks >= 0:
            return 0.01 / (self._looks + 1)
        if self._ends:
            self._told = True
            asyncio.get_running_loop().call_soon(self._leave)
        return None

    def _leave(self) -> None:
        self.running = None
        self.exit = SimpleNamespace(asked=False, exit_status=3, words="exit status 3", lines=("no such table",))
        self.gone.set()

    def heard(self, _: str) -> Ending | None:
        """See Endings."""
        return Ending(3 << 8) if self._told else None


def look(*, looks: int, ends: bool) -> Result:
    async def run() -> Result:
        seen = Run(looks=looks, ends=ends)
        return await Firsts(cast(Endings, seen)).look(cast(Container, seen), CREATED)

    return asyncio.run(run())


@pytest.mark.parametrize("looks", [0, 1, 3])
def test_an_end_between_two_looks_is_a_start_that_failed(looks: int) -> None:
    result = look(looks=looks, ends=True)
    assert (result.status, result.changed) == ("failed", True)
    assert result.error is not None
    assert result.error["message"] == "job was created, and its command ended at once: exit status 3"
    assert "no such table" in result.error["why"]


def test_a_run_whose_processor_time_nobody_counts_is_taken_to_be_up() -> None:
    assert look(looks=0, ends=False) is CREATED
