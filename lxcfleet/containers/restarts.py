"""Whether and when a container that ended is started again, by its restart policy; and one whose start failed. Pure.

Moments are on the clock of host.process.proc.uptime, which nobody can set and which goes on over restarts of the daemon.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lxcfleet.spec.container.restart import Restart, RestartPolicy

JITTER = 0.2
"""A pause is up to so much of it shorter, so that many containers that failed together are not all started together."""
_MOST_ROW = 1000
_LONGEST_CAUSE = 500

OWED = Restart(RestartPolicy.ON_FAILURE, delay=1.0, factor=2.0, max_delay=60.0, attempts=30, within=7200.0)
"""How a start that is owed to a container without a restart policy is tried again after it failed: for about 25 minutes."""


@dataclass(frozen=True)
class RunEnd:
    """The end of a run, as far as the policy asks."""

    failed: bool
    """With another exit status than 0, or one that nobody heard."""
    asked: bool = False
    """Somebody wanted it: the operator, lxc-stop, or a shutdown from inside."""
    seconds: float | None = None
    """How long the run took; None: not known, which counts as short."""
    cause: str = ""
    """There was no run, as its start failed: why. Empty: it ran."""


@dataclass(frozen=True)
class RestartCourse:
    """How the restarts of a container went so far."""

    row: int = 0
    """Failures without a long run between them."""
    tries: tuple[float, ...] = ()
    """The moments of the failures that count for ``attempts``."""
    due: float | None = None
    """When it is started again; None: it is not."""
    gave_up: bool = False
    """It failed too often: only somebody's start changes that."""
    cause: str = ""
    """Why its last start failed; empty: it did not fail, it ran and ended."""

    @property
    def wants_run(self) -> bool:
        """Whether it is to run, though it does not at the moment."""
        return self.due is not None or self.gave_up


FRESH = RestartCourse()


def after(policy: Restart, course: RestartCourse, end: RunEnd, now: float, shorter: float = 0.0) -> RestartCourse:
    """The course after one more end. ``shorter``: the random share of JITTER, from 0 to 1."""
    if end.asked or not _follows(policy.policy, end):
        return FRESH
    long = end.seconds is not None and end.seconds >= policy.reset_after
    row = 0 if long else course.row
    tries = () if long else tuple(each for each in course.tries if each <= now < each + policy.within)
    if not end.failed:
        # A program that ends well and quickly is not punished, and yet must not keep a processor busy.
        return RestartCourse(row, tries, now if long else now + _shorter(policy.delay, shorter))
    cause = end.cause[:_LONGEST_CAUSE]
    if policy.attempts and len(tries) >= policy.attempts:
        return RestartCourse(row, tries, gave_up=True, cause=cause)
    # What a start lacked is not there at once: the first pause of a row is for programs that ran and failed.
    pause = _shorter(pause_of(policy, max(row, 1) if end.cause else row), shorter)
    counted = (*tries, now) if policy.attempts else ()
    return RestartCourse(min(row + 1, _MOST_ROW), counted, now + pause, cause=cause)


def policy_for(own: Restart, *, owed: bool) -> Restart:
    """The policy by which a container is started again. ``owed``: whether it is noted that it is to run.

    The policy ``no`` is about programs that end. Whoever wants a container to run wants its start to be tried again, too.
    """
    return OWED if owed and own.policy is RestartPolicy.NO else own


def pause_of(policy: Restart, row: int) -> float:
    """Seconds from a failure to the next start, after ``row`` failures before this one: the first start comes at once."""
    if row == 0:
        return 0.0
    pause = policy.delay
    for _ in range(row - 1):
        if pause >= policy.max_delay:
            break
        pause *= policy.factor
        if policy.factor == 1:
            break
    return min(pause, policy.max_delay)


def after_boot(course: RestartCourse) -> RestartCourse:
    """The course that an earlier boot of the host left: its moments mean nothing any more."""
    return replace(course, row=0, tries=(), due=None, cause=course.cause if course.gave_up else "")


def _follows(policy: RestartPolicy, end: RunEnd) -> bool:
    if policy is RestartPolicy.ON_FAILURE:
        return end.failed
    return policy in (RestartPolicy.ALWAYS, RestartPolicy.UNLESS_STOPPED)


def _shorter(pause: float, share: float) -> float:
    return pause * (1 - JITTER * share)
