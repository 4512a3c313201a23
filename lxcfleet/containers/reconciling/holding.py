"""The steps of containers whose start has to wait: for something that they lack, or for their turn."""

from __future__ import annotations

from dataclasses import dataclass

from lxcfleet.containers.desired import Lack, Observed
from lxcfleet.containers.reconciling.steps import Step, Work


@dataclass(frozen=True)
class Hold(Step):
    """Leave it as a container that is to run and can't yet: what is noted on disk has it started once nothing is lacking."""

    lack: Lack

    def describe(self) -> str:
        """The step in words."""
        return f"wait with its start: {self.lack.reason}"

    async def do(self, work: Work) -> None:
        """Have it wait."""
        work.hands.hold(work.container, self.lack)

    def after(self, now: Observed) -> Observed:
        """It is to run, as before."""
        return now


@dataclass(frozen=True)
class AwaitTurn(Step):
    """Wait until those that it depends on, and that are restarted with it, are up again."""

    def describe(self) -> str:
        """The step in words."""
        return "wait until those are up again that it depends on"

    async def do(self, work: Work) -> None:
        """Wait; leave it blocked if something is lacking all the same."""
        lack = None if work.turn is None else await work.turn()
        if lack is not None:
            work.hands.hold(work.container, lack)
            work.held = True

    def after(self, now: Observed) -> Observed:
        """Nothing is changed."""
        return now
