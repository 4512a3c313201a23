"""What to do about a change of the host's packages, moment by moment. Pure.

A package manager calls its hook many times in one upgrade, and what lies between two calls is a host in pieces. So the
calls only make it known that something changed; acting has to wait until dpkg is done, nothing was left in the middle,
it has been quiet for a while, and the policy allows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from lxcfleet.spec.windows import PatchSettings, Policy


class NoticePhase(StrEnum):
    """How far a change of the host's packages is."""

    IDLE = "idle"
    """All that was heard of was dealt with."""
    QUIET = "quiet"
    """It is waited for packages to stop changing."""
    BUSY = "busy"
    """The package manager is at work, whether or not the hook was heard yet: it is called after dpkg alone."""
    BROKEN = "broken"
    """dpkg left the host's packages in the middle; nothing is restarted until that is mended."""
    WINDOW = "window"
    """It is waited for a maintenance window."""
    READY = "ready"
    """It is time to look at what became stale, and to act."""
    FAILED = "failed"
    """That failed, and is tried again."""


RETRY_SECONDS = 30.0
"""How long after a failure it is tried again."""


@dataclass(frozen=True)
class Moment:
    """What there is at one moment."""

    pending: bool
    """The hook was heard since all was dealt with."""
    quiet: float
    """Seconds since the hook was heard, or dpkg seen at work, for the last time. By a clock that nobody sets."""
    holder: int | None
    """The process that holds dpkg's lock."""
    half_done: str | None
    """What dpkg left in the middle; None: that was not looked at."""
    now: datetime
    """The time for people, by which maintenance windows go."""
    failed: float | None = None
    """Seconds since acting failed."""


@dataclass(frozen=True)
class Answer:
    """How far it is."""

    phase: NoticePhase
    why: str = ""
    until: datetime | None = None
    """When the window begins."""


def answer(moment: Moment, settings: PatchSettings) -> Answer:
    """What to do at this moment."""
    if not moment.pending and moment.holder is None:
        return Answer(NoticePhase.IDLE)
    if moment.holder is not None:
        who = f"process {moment.holder}" if moment.holder > 0 else "a process"
        return Answer(NoticePhase.BUSY, f"{who} holds dpkg's lock")
    if moment.quiet < settings.quiet:
        return Answer(NoticePhase.QUIET, f"packages changed {moment.quiet:.0f} s ago")
    if moment.half_done:
        return Answer(NoticePhase.BROKEN, f"{moment.half_done}; `dpkg --configure -a` or `apt -f install` may mend it")
    if settings.policy is Policy.WINDOW and not settings.is_open(moment.now):
        return Answer(NoticePhase.WINDOW, "outside of the maintenance windows", settings.next_opening(moment.now))
    if moment.failed is not None and moment.failed < RETRY_SECONDS:
        return Answer(NoticePhase.FAILED)
    return Answer(NoticePhase.READY)
