"""Whether it is time to reboot the host: `patch: {reboot: window}`. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from lxcfleet.patch.notice import NoticePhase
from lxcfleet.patch.rollout.state import Status
from lxcfleet.spec.policies.windows import PatchSettings, Reboot


@dataclass(frozen=True)
class Moment:
    """The facts at one moment."""

    now: datetime
    due: tuple[str, ...]
    """The packages that take a reboot of the host."""
    phase: NoticePhase
    """The progress of the last change of the host's packages."""
    rollout: Status | None
    """The status of the last rollout."""
    operations: int
    """How many operations are under way."""
    in_pieces: str = ""
    """The work that the package manager is in the middle of."""
    obstacle: str = ""
    """Why the host can't be rebooted by the daemon."""
    last: datetime | None = None
    """When the daemon rebooted the host last, or tried to."""


@dataclass(frozen=True)
class Answer:
    """The decision at that moment."""

    now: bool
    why: str = ""
    """The thing that the reboot waits for; empty: none is due, or the daemon is not to do it."""


def answer(moment: Moment, settings: PatchSettings) -> Answer:
    """Whether to reboot the host at this moment, or else why not."""
    if settings.reboot is not Reboot.WINDOW or not moment.due:
        return Answer(False)
    if moment.obstacle:
        return Answer(False, f"that is left to you: {moment.obstacle}")
    opened = settings.opened(moment.now)
    if opened is None:
        opening = settings.next_opening(moment.now)
        return Answer(False, "in a maintenance window" + (f", from {opening:%Y-%m-%d %H:%M} UTC on" if opening else ""))
    why = _waits_for(moment, opened)
    return Answer(not why, why or "now")


def _waits_for(moment: Moment, opened: datetime) -> str:
    if moment.last is not None and opened <= moment.last <= moment.now:
        return (
            f"in the next window: it was rebooted, or that was tried, in this one, at {moment.last:%Y-%m-%d %H:%M} UTC"
        )
    if moment.in_pieces:
        return f"waits: {moment.in_pieces}"
    if moment.phase is not NoticePhase.IDLE:
        return "waits until the change of the host's packages is dealt with"
    if moment.rollout is not None and not moment.rollout.ended:
        return f"waits for the end of the rollout, which is {moment.rollout}"
    if moment.operations:
        return "waits for the end of operations on containers"
    return ""
