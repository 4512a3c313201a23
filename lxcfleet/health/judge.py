"""How healthy a container is, from what its checks said so far: pure.

A container that runs is *starting* until it proves that it does its work, and then *healthy*; it is *unhealthy*
when it did not come that far, or does so no more. What the proof is depends on the container:

- With a check, a check that passes.
- A system container without one: its systemd says ``running``. ``degraded``, which means that a unit failed, is
  unhealthy: a service that does not come back is what a rollout has to stop at.
- An app container without one: that it has been alive for a while. Nothing has to be asked for that.

A container that has to have an address from a DHCP server is not healthy without one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from lxcfleet.spec.health import HealthCheck
from lxcfleet.spec.spec import Spec
from lxcfleet.spec.states import Health
from lxcfleet.spec.terms import Init

ADDRESS_SECONDS = 30.0
"""How long a DHCP server may take: some answer after seconds, and so long a bridge's new port may pass nothing on."""
_FIRST_PAUSE = 0.1
_SYSTEMD_FIRST_PAUSE = 0.5
_BOOT_SECONDS = 0.08
"""What a lean systemd's boot takes of one processor (bench/run.py --only system)."""
_BOOTS_WAIT = 10.0
"""The longest that a systemd's first question waits for others to boot, in seconds."""
_SYSTEMD_PAUSE = 30.0
"""At the most, in seconds, between two questions to a systemd that is not up, or not well."""


@dataclass(frozen=True)
class CheckResult:
    """What one check said."""

    passed: bool
    reason: str = ""
    """Why it failed, in a few words."""


@dataclass(frozen=True)
class Course:
    """How it went since the container started."""

    health: Health = Health.STARTING
    checks: int = 0
    failures: int = 0
    """In a row, as far as they count."""
    reason: str = ""
    """What the last check that failed said; empty while all is well."""


def serves(spec: Spec | None, health: Health | None) -> bool:
    """Whether a container may stand for its groups: it has no check, or it passes."""
    return spec is None or spec.health is None or health is Health.HEALTHY


def judge(check: HealthCheck, course: Course, verdict: CheckResult, age: float) -> Course:
    """The course after one more check. ``age``: seconds since the container started."""
    course = replace(course, checks=course.checks + 1)
    if verdict.passed:
        return replace(course, health=Health.HEALTHY, failures=0, reason="")
    if course.health is Health.STARTING and age < check.start_period:
        return replace(course, reason=verdict.reason)
    failures = course.failures + 1
    health = Health.UNHEALTHY if failures >= check.retries else course.health
    return replace(course, health=health, failures=failures, reason=verdict.reason)


def not_checked(course: Course, problem: str) -> Course:
    """The course after a check that could not be carried out, by a defect of the daemon's."""
    return replace(course, health=Health.UNHEALTHY, reason=f"it could not be checked: {problem}")


def pause(check: HealthCheck, course: Course) -> float:
    """Seconds until the next check."""
    if course.health is Health.STARTING and course.failures == 0:
        return min(_growing(_FIRST_PAUSE, course.checks), check.interval)
    return check.interval


def judge_systemd(course: Course, word: str, failed: str) -> Course:
    """The course after systemd said how it is. ``failed``: the units that failed, as text.

    systemctl(1), is-system-running. Other words than these mean that it is not up yet, or could not answer.
    """
    course = replace(course, checks=course.checks + 1)
    match word:
        case "running":
            return replace(course, health=Health.HEALTHY, reason="")
        case "degraded":
            return replace(course, health=Health.UNHEALTHY, reason=f"systemd is degraded: {failed or 'a unit'} failed")
        case "maintenance":
            return replace(course, health=Health.UNHEALTHY, reason="systemd is in maintenance mode")
    return replace(course, health=Health.STARTING, reason=f"systemd is {word}" if word else "systemd does not answer")


def pause_systemd(course: Course) -> float | None:
    """Seconds until systemd is asked again; None: no more, as it is up and well."""
    if course.health is Health.HEALTHY:
        return None
    return min(_growing(_SYSTEMD_FIRST_PAUSE, course.checks), _SYSTEMD_PAUSE)


def let_boot(age: float, booting: int, processors: int) -> float:
    """Seconds to wait before a systemd is asked for the first time, while it and others boot.

    A question takes about a quarter of a boot's processor time: asked while a hundred boot it would make all of them
    later, and most answers would be "not yet". So they are asked when all can be up.
    """
    return max(0.0, min(_BOOT_SECONDS * booting / processors, _BOOTS_WAIT) - age)


def without_address(age: float) -> Health:
    """The health of a container that waits for an address from a DHCP server: nobody can reach it."""
    return Health.STARTING if age < ADDRESS_SECONDS else Health.UNHEALTHY


def needs_checks(spec: Spec | None) -> bool:
    """Whether its health is asked for, and does not just follow from how long it has been alive."""
    return spec is not None and (spec.health is not None or spec.init is Init.SYSTEM)


def of_age(age: float, alive_time: float) -> Health:
    """The health of a container of which nothing is asked."""
    return Health.HEALTHY if age >= alive_time else Health.STARTING


def _growing(first: float, number: int) -> float:
    return first * 2.0 ** min(max(number - 1, 0), 20)


_LINKER = re.compile(r"version `[^']+' not found|error while loading shared libraries|symbol lookup error")
"""What the dynamic linker says where a program and its libraries don't belong together; ld.so(8)."""


def cause_of(printed: str) -> str:
    """What is to be added to a check's reason, by what it printed; mostly nothing."""
    if _LINKER.search(printed) is None:
        return ""
    return " (a new program with old libraries: the host was patched, and the container not restarted since?)"
