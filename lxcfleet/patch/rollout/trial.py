"""How the tests of a container went, and what that means. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from lxcfleet.spec.policies.rollout_tests import RolloutTest
from lxcfleet.units import counted

_LONGEST = 200
"""Characters of a reason."""
_UNKNOWN = 3
"""The exit status by which monitoring plugins say that they don't know."""


class Verdict(StrEnum):
    """The outcome of one run of a test."""

    GOOD = "good"
    BAD = "bad"
    UNKNOWN = "not known"


@dataclass(frozen=True)
class Trial:
    """How one test of a container went in the container's present run."""

    name: str
    required: bool = True
    passes: int = 1
    """How often in a row it has to be good."""
    passed: int = 0
    """How often in a row it was good."""
    verdict: Verdict | None = None
    """None: it was not run yet."""
    reason: str = ""

    @property
    def done(self) -> bool:
        """Whether nothing more is expected of it: it was good often enough, or it only has to be told."""
        return self.passed >= self.passes or (not self.required and self.verdict is not None)

    def after(self, verdict: Verdict, reason: str) -> Trial:
        """The same after one more run."""
        return replace(self, verdict=verdict, reason=reason, passed=self.passed + 1 if verdict is Verdict.GOOD else 0)


def begin(tests: Sequence[RolloutTest]) -> tuple[Trial, ...]:
    """Trials of tests that were not run yet."""
    return tuple(Trial(each.name, each.required, each.passes) for each in tests)


def judge(status: int | None, output: str, timeout: float) -> tuple[Verdict, str]:
    """The verdict on one run, and the reason. ``status``: of its exit; None: it did not end within ``timeout`` seconds."""
    last = last_line(output)
    if status == 0:
        return Verdict.GOOD, last
    if status == _UNKNOWN:
        return Verdict.UNKNOWN, last or f"exit status {_UNKNOWN}"
    problem = f"not done after {timeout:g} s" if status is None else f"exit status {status}"
    return Verdict.BAD, f"{problem}{': ' if last else ''}{last}"


def last_line(output: str) -> str:
    """The last line that has something on it, short, and without characters that a terminal would obey."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    text = lines[-1][: 4 * _LONGEST] if lines else ""
    shown = "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)
    return shown[:_LONGEST]


def were_run(trials: Sequence[Trial]) -> bool:
    """Whether each of them was run at least once."""
    return all(each.verdict is not None for each in trials)


def not_good(trials: Sequence[Trial]) -> dict[str, str]:
    """The tests that were not good, with the reason."""
    return {
        each.name: f"{each.verdict}: {each.reason}" for each in trials if each.verdict not in (None, Verdict.GOOD)
    }


def awaited(trials: Sequence[Trial], excused: Collection[str]) -> list[Trial]:
    """The tests that a gate still waits for. ``excused``: those that were not good before."""
    return [each for each in trials if each.required and not each.done and each.name not in excused]


def failing(trials: Sequence[Trial], excused: Collection[str]) -> list[Trial]:
    """Those of them whose last run was not good. A test that is not known is not good."""
    return [each for each in awaited(trials, excused) if each.verdict not in (None, Verdict.GOOD)]


def words(each: Trial) -> str:
    """The words for a test that a gate waits for."""
    if each.verdict is None:
        return f"its test {each.name}"
    if each.verdict is Verdict.GOOD:
        return f"its test {each.name}, which was good {each.passed} of {counted(each.passes, 'time')}"
    return f"its test {each.name}, which is {each.verdict}: {each.reason}"


def to_json(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """The data that ``from_json`` reads."""
    return [dict(vars(each)) for each in trials]


def from_json(data: Sequence[Mapping[str, Any]]) -> Iterator[Trial]:
    """Raises KeyError, TypeError, ValueError."""
    for each in data:
        verdict = each["verdict"]
        values: dict[str, Any] = {**each, "verdict": None if verdict is None else Verdict(verdict)}
        yield Trial(**values)
