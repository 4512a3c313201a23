"""Findings of `lxcfleet doctor` about the daemon itself. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from lxcfleet.capacity.needs import Finding
from lxcfleet.errors import FleetError
from lxcfleet.runtime.tasks import TaskReading
from lxcfleet.spec import moves
from lxcfleet.spec.moves import Journal, MoveStep
from lxcfleet.units import some

TOLD_FOR = timedelta(days=1)
"""Seconds for which doctor tells a failure of a background task that works again."""


def of_tasks(readings: Iterable[TaskReading], now: datetime) -> list[Finding]:
    """A finding for each background task that failed lately or does not run."""
    return [
        Finding(
            "tasks", "warning" if reading.up else "fail",
            f"the daemon's task {reading.name} failed {_times(reading.failures)}, last at "
            f"{reading.last_at:%Y-%m-%d %H:%M:%S} UTC: {reading.last}"
            + ("" if reading.up else "; it waits for its next start"),
            hint="`journalctl -u lxcfleet` has the traceback: a defect of lxcfleet, worth a report",
        )
        for reading in readings
        if reading.last_at is not None and (not reading.up or now - reading.last_at < TOLD_FOR)
    ]  # fmt: skip


def of_moves(journals: Mapping[str, Journal]) -> list[Finding]:
    """A finding for each move that waits for an operator."""
    found = []
    for name, journal in sorted(journals.items()):
        message, hint = f"{name}: {moves.why_not(journal)}", f"lxcfleet move {name} --continue, or --abort"
        if journal.away and journal.step is MoveStep.HANDED:
            found.append(Finding("moves", "fail", f"{message}, and that has not said that it runs there", hint=hint))
        elif journal.away and journal.step is MoveStep.HEALTHY:
            message = f"{message}, and is not removed here yet"
            found.append(Finding("moves", "warning", message, hint=f"lxcfleet move {name} --continue"))
        elif not journal.away and not moves.has_authority(journal):
            message = f"{message}; its copy here does not run"
            found.append(Finding("moves", "warning", message, hint=f"if nobody needs it: lxcfleet destroy {name}"))
    return found


def of_starts(failed: Mapping[str, tuple[str, bool]]) -> list[Finding]:
    """A finding for each container that is to run and whose start failed: why, and whether it is tried no more."""
    found = []
    for name, (why, given_up) in sorted(failed.items()):
        what = "its start failed, and is tried no more" if given_up else "its start failed, and is tried again"
        hint = f"mend that, then: lxcfleet start {name}; it is to be down: lxcfleet stop {name}"
        found.append(Finding("starts", "fail" if given_up else "warning", f"{name}: {what}: {why}", hint=hint))
    return found


def of_ends(problem: FleetError | None) -> list[Finding]:
    """A finding if the daemon does not hear how containers end."""
    if problem is None:
        return []
    why = f"{problem.message}: {problem.why}" if problem.why else problem.message
    message = f"how containers end is not known, and a restart policy takes each end for a failure: {why}"
    return [Finding("ends", "fail", message, hint=problem.hint)]


HELD_FOR = timedelta(days=7)
"""Containers on a generation that is older are told."""
_NAMED = 5


def of_bases(
    standing: Mapping[int, Sequence[str]],
    created: Mapping[int, datetime],
    now: datetime,
    holds: Mapping[str, tuple[str, bool]],
) -> list[Finding]:
    """A finding for each generation that containers stand on, by number, and that is old or not to be had any more; and for
    each day that is past until which some were to be held. ``holds``: by container, the hold in words, and whether it is
    past."""
    found = []
    for number, names in sorted(standing.items()):
        few, stand = some(names, _NAMED), "stands" if len(names) == 1 else "stand"
        hint = f"lxcfleet rollback {' '.join(names[:_NAMED])} --to host"
        if number not in created:
            message = f"{few} {stand} on generation {number}, which is gone or not all there: the next start fails"
            found.append(Finding("generations", "fail", message, hint=hint))
        elif now - created[number] > HELD_FOR:
            message = f"{few} {stand} on generation {number} of {created[number]:%Y-%m-%d}, without later patches of the host"
            words = [f"{some(those, _NAMED)} {text}" for text, those in _by_hold(names, holds).items()]
            message += "".join(f"; {each}" for each in words)
            found.append(Finding("generations", "warning", message, hint=hint))
        elif past := [name for name in names if name in holds and holds[name][1]]:
            for text, those in _by_hold(past, holds).items():
                message = f"{some(those, _NAMED)} {'is' if len(those) == 1 else 'are'} {text}, on generation {number}"
                hint = f"lxcfleet rollback {' '.join(those[:_NAMED])} --to host; or the next patch that goes well takes along"
                found.append(Finding("generations", "warning", message, hint=hint))
    return found


def _by_hold(names: Iterable[str], holds: Mapping[str, tuple[str, bool]]) -> dict[str, list[str]]:
    """The containers that are held, by their hold in words."""
    found: dict[str, list[str]] = {}
    for name in names:
        if name in holds:
            found.setdefault(holds[name][0], []).append(name)
    return found


def of_limits(told: Iterable[str]) -> list[Finding]:
    """Limits of containers without effect, each with those that have it."""
    hint = "a lower one by `lxcfleet set`, or 0 for none"
    return [Finding("limits", "warning", each, hint=hint) for each in told]


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
