"""The reaction to a change of the host's packages, moment by moment. Pure.

A package manager calls its hook many times in one upgrade, and between two calls the host may be incomplete. So a call only
says that something changed. To act, the daemon waits until dpkg is done, no package is unfinished, it has been quiet for a
while, and the policy allows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from lxcfleet.spec.policies.windows import PatchPolicy, PatchSettings


class NoticePhase(StrEnum):
    """The phases of a change of the host's packages."""

    IDLE = "idle"
    """Every change so far was dealt with."""
    QUIET = "quiet"
    """The daemon waits for packages to stop changing."""
    BUSY = "busy"
    """The package manager is at work. The hook may not have been called yet, as it runs only after dpkg."""
    BROKEN = "broken"
    """dpkg left packages unfinished; nothing is restarted until that is mended."""
    WINDOW = "window"
    """The daemon waits for a maintenance window."""
    READY = "ready"
    """It is time to look for stale containers, and to act."""
    FAILED = "failed"
    """Acting failed, and is tried again."""


RETRY_SECONDS = 30.0
"""Seconds from a failure to the next attempt."""


@dataclass(frozen=True)
class Moment:
    """The facts at one moment."""

    pending: bool
    """Whether the hook was called since everything was dealt with."""
    quiet: float
    """Seconds since the last call of the hook, or the last sight of dpkg at work. By a clock that nobody sets."""
    holder: int | None
    """The process that holds dpkg's lock; None: none does."""
    half_done: str | None
    """The packages that dpkg left unfinished; None: that was not looked at."""
    now: datetime
    """The local time, for maintenance windows."""
    failed: float | None = None
    """Seconds since acting failed; None: it did not."""


@dataclass(frozen=True)
class Answer:
    """The phase at that moment."""

    phase: NoticePhase
    why: str = ""
    until: datetime | None = None
    """The beginning of the next window."""


def answer(moment: Moment, settings: PatchSettings) -> Answer:
    """The phase at this moment, which says what to do."""
    if not moment.pending and moment.holder is None:
        return Answer(NoticePhase.IDLE)
    if moment.holder is not None:
        who = f"process {moment.holder}" if moment.holder > 0 else "a process"
        return Answer(NoticePhase.BUSY, f"{who} holds dpkg's lock")
    if moment.quiet < settings.quiet:
        return Answer(NoticePhase.QUIET, f"packages changed {moment.quiet:.0f} s ago")
    if moment.half_done:
        return Answer(NoticePhase.BROKEN, f"{moment.half_done}; `dpkg --configure -a` or `apt -f install` may mend it")
    if settings.policy is PatchPolicy.WINDOW and not settings.is_open(moment.now):
        return Answer(NoticePhase.WINDOW, "outside of the maintenance windows", settings.next_opening(moment.now))
    if moment.failed is not None and moment.failed < RETRY_SECONDS:
        return Answer(NoticePhase.FAILED)
    return Answer(NoticePhase.READY)
