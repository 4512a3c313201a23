"""What a start is told to have been where the command ends at once."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from lxcfleet.containers.container import Container
from lxcfleet.containers.ends import firsts
from lxcfleet.containers.ends.endings import Endings
from lxcfleet.containers.ends.firsts import Firsts
from lxcfleet.containers.exits import Ending, Exit
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
        self.exit = Exit(0.0, 3 << 8, lines=("no such table",))
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


class Counted:
    """A container whose processor time goes through these values; it ends after the last of them."""

    def __init__(self, *seconds: float) -> None:
        self.name, self._seconds = "job", [*seconds]
        self.running: Counted | None = self
        self.payload, self.gone = self, asyncio.Event()

    @property
    def cpu_seconds(self) -> float | None:
        if self._seconds:
            return self._seconds.pop(0)
        self.running = None
        self.gone.set()
        return 1e-9

    def heard(self, _: str) -> None:
        """See Endings."""


@pytest.mark.parametrize(
    ("seconds", "ends"), [((0.01, 0.01, 0.01), False), ((0.01, 0.01, 0.02, 0.02, 0.03), True)], ids=["waits", "works"]
)
def test_one_that_seems_to_sleep_is_up_if_it_did_nothing_meanwhile(
    monkeypatch: pytest.MonkeyPatch, seconds: tuple[float, ...], *, ends: bool
) -> None:
    """Before, tini, which had just begun the command on a busy host, was taken for all that there was."""
    monkeypatch.setattr(firsts, "_sleeps", lambda _: True)

    async def run() -> bool:
        seen = Counted(*seconds)
        return await Firsts(cast(Endings, seen))._ends(cast(Container, seen))

    assert asyncio.run(run()) is ends
