"""Every way in which a command can end, tried with real containers: what is told must be so."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from lxcfleet.api.requests import ActionRequest
from lxcfleet.spec.selection import Selection
from lxcfleet.spec.states import Action

from .harness import PATIENCE, Fleet, until

AT_ONCE = 16
_KILLS = {number for number in range(1, 65)} - {
    *(signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH),  # ignored, unless somebody handles them
    *(signal.SIGCONT, signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),
}
"""Signals that end a process; signal(7)."""


@dataclass(frozen=True)
class Way:
    """A way to end: an exit status, or a signal."""

    status: int = 0
    signal: int = 0

    @property
    def script(self) -> str:
        """The shell's line that ends so."""
        return f"kill -{self.signal} $$; sleep 100" if self.signal else f"exit {self.status}"

    @property
    def told(self) -> int:
        """The status that has to be told."""
        return 128 + self.signal if self.signal else self.status


EVERY = (*(Way(status) for status in range(256)), *(Way(signal=number) for number in sorted(_KILLS)))
SOME = (Way(0), Way(1), Way(37), Way(127), Way(128), Way(255), Way(signal=1), Way(signal=9), Way(signal=11), Way(signal=64))
"""Enough of them for each run of the tests."""


def check(fleet: Fleet, ways: Sequence[Way]) -> None:
    """End containers in these ways, some at once; raise AssertionError if another status is told."""
    names = [fleet.name(f"s{number}") for number in range(min(AT_ONCE, len(ways)))]
    for name in names:
        fleet.create(name, command=("--", "sh", "/way"), options=("--no-start",))
    for first in range(0, len(ways), AT_ONCE):
        _check_some(fleet, dict(zip(names, ways[first : first + AT_ONCE], strict=False)))


def _check_some(fleet: Fleet, ways: dict[str, Way]) -> None:
    for name, way in ways.items():
        (fleet.delta(name) / "way").write_text(f"echo 'ends {way}'\n{way.script}\n")
    client = fleet.client()
    *_, end = client.follow(client.act(ActionRequest(Action.START, Selection(patterns=tuple(ways))))["id"])
    results = {result["name"]: result for result in end["results"]}  # type: ignore[typeddict-item]
    until(lambda: all(record["exit"] and record["state"] not in ("running", "starting") for record in fleet.records()
                      if record["name"] in ways), 30 * PATIENCE, "all have ended")  # fmt: skip
    for name, way in ways.items():
        record, error = fleet.record(name), results[name]["error"]
        assert record["exit"]["status"] == way.told, (way, record["exit"])
        assert record["state"] == ("failed" if way.told else "exited"), (way, record)
        # A start whose command failed at once is no success, and says with what and after which words.
        assert (error is not None) == bool(way.told), (way, error)
        if error is not None:
            assert f"ends {way}" in str(error), error
