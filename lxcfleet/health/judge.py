"""How healthy a container is, from what its checks said so far: pure.

A container that runs is *starting* until it proves that it does its work, and then *healthy*; it is *unhealthy*
when it did not come that far, or does so no more. What the proof is depends on the container:

- With a check, a check that passes.
- A system container without one: its systemd is up, no unit failed, each service of the host's that it is to run has begun,
  and no service is being restarted again and again. A service that does not come back, or not for long, is what a rollout has
  to stop at. So it is asked once more when it has been healthy for as long as a rollout demands. Units that its spec says to
  ignore do not count.
- An app container without one: that it has been alive for a while. Nothing has to be asked for that.

A container that has to have an address from a DHCP server is not healthy without one.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace

from lxcfleet.spec.container.health import HealthCheck
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading.terms import Init
from lxcfleet.spec.states import Health

ADDRESS_SECONDS = 30.0
"""How long a DHCP server may take: some answer after seconds, and so long a bridge's new port may pass nothing on."""
_FIRST_PAUSE = 0.1
_SYSTEMD_FIRST_PAUSE = 0.5
_BOOT_SECONDS = 0.08
"""The seconds that a lean systemd's boot takes of one processor (bench/run.py --only system)."""
_BOOTS_WAIT = 10.0
"""The longest that a systemd's first question waits for others to boot, in seconds."""
_SYSTEMD_PAUSE = 30.0
"""At the most, in seconds, between two questions to a systemd that is not up, or not well."""
_SYSTEMD_SECONDS = 10.0
"""How long the first question to a systemd waits for the answer."""
_SYSTEMD_MOST_SECONDS = 60.0
"""How long a question waits at the most, after others had no answer."""
_LOOP_PAUSE = 5.0
"""At least so many seconds lie between two questions about a service that was restarted: one that crashes every few seconds
looks well in between."""
_SOON = 0.1


@dataclass(frozen=True)
class CheckResult:
    """The result of one check."""

    passed: bool
    reason: str = ""
    """Why it failed, in a few words."""
    slow: bool = False
    """Whether it kept a process of the launcher for long."""


@dataclass(frozen=True)
class HealthCourse:
    """How it went since the container started."""

    health: Health = Health.STARTING
    checks: int = 0
    failures: int = 0
    """In a row, as far as they count. Of a systemd: the questions without an answer."""
    reason: str = ""
    """The reason that the last check that failed gave; empty while all is well."""
    restarts: Mapping[str, int] | None = None
    """The restarts of each service of a system container, as of the last question; None: it has not told of any yet."""


@dataclass(frozen=True)
class Systemd:
    """The answer of a container's systemd."""

    word: str = ""
    """Its state; systemctl(1), is-system-running. Empty: it did not answer."""
    failed: tuple[str, ...] = ()
    """The units that failed."""
    waiting: tuple[str, ...] = ()
    """The units that failed and will be started again by their Restart=."""
    restarts: Mapping[str, int] = field(default_factory=dict)
    """How often each service was restarted by its Restart= so far, without those that never were."""
    never: Mapping[str, str] = field(default_factory=dict)
    """The units that the container is to run and that did not begin at boot: how systemd has read each; systemd.unit(5)."""


_DIGITS = 9
"""The most digits that a count of restarts may have."""


def read_systemd(text: str) -> Systemd:
    """The answer to the question of ``checks``: lines of ``systemctl list-units``, of restarts, and the state at last."""
    word, failed, waiting, restarts, never = "", [], [], {}, {}
    for line in text.splitlines():
        match line.split():
            case ["systemd", "is", said]:
                word = said
            case [unit, "restarts", number] if number.isdecimal() and len(number) <= _DIGITS:
                restarts[unit] = int(number)
            case [unit, "never", state]:
                never[unit] = state
            case [unit, _, _, ("auto-restart" | "auto-restart-queued"), *_]:
                waiting.append(unit)
            case [unit, _, "failed", *_]:
                failed.append(unit)
    return Systemd(word, tuple(failed), tuple(waiting), restarts, never)


def serves(spec: Spec | None, health: Health | None) -> bool:
    """Whether a container may stand for its groups: it has no check, or it passes."""
    return spec is None or spec.check is None or health is Health.HEALTHY


def judge(check: HealthCheck, course: HealthCourse, verdict: CheckResult, age: float) -> HealthCourse:
    """The course after one more check. ``age``: seconds since the container started."""
    course = replace(course, checks=course.checks + 1)
    if verdict.passed:
        return replace(course, health=Health.HEALTHY, failures=0, reason="")
    if course.health is Health.STARTING and age < check.start_period:
        return replace(course, reason=verdict.reason)
    failures = course.failures + 1
    health = Health.UNHEALTHY if failures >= check.retries else course.health
    return replace(course, health=health, failures=failures, reason=verdict.reason)


def not_checked(course: HealthCourse, problem: str) -> HealthCourse:
    """The course after a check that could not be carried out, by a defect of the daemon's."""
    return replace(course, health=Health.UNHEALTHY, reason=f"it could not be checked: {problem}")


def pause(check: HealthCheck, course: HealthCourse) -> float:
    """Seconds until the next check."""
    if course.health is Health.STARTING and course.failures == 0:
        return min(_growing(_FIRST_PAUSE, course.checks), check.interval)
    return check.interval


def judge_systemd(course: HealthCourse, said: Systemd, ignored: Container[str] = ()) -> HealthCourse:
    """The course after systemd said how it is. ``ignored``: units that do not count.

    Other words than these mean that it is not up yet, or could not answer.
    """
    before = said.restarts if course.restarts is None else course.restarts
    course = replace(course, checks=course.checks + 1, failures=0 if said.word else course.failures + 1)
    match said.word:
        case "running" | "degraded":
            course = replace(course, restarts=said.restarts)
            if reason := _ill(said, before, ignored):
                return replace(course, health=Health.UNHEALTHY, reason=reason)
            return replace(course, health=Health.HEALTHY, reason="")
        case "maintenance":
            return replace(course, health=Health.UNHEALTHY, reason="systemd is in maintenance mode")
    reason = f"systemd is {said.word}" if said.word else "systemd does not answer"
    return replace(course, health=Health.STARTING, reason=reason)


def _ill(said: Systemd, before: Mapping[str, int], ignored: Container[str]) -> str:
    """The reason why its services do not all run; empty: they do. ``before``: restarts as of the question before."""
    if failed := [unit for unit in said.failed if unit not in ignored]:
        return f"systemd is degraded: {', '.join(failed)} failed"
    if said.word == "degraded" and not said.failed:
        return "systemd is degraded: a unit failed"
    if never := sorted(unit for unit in said.never if unit not in ignored):
        return ", ".join(f"{unit} did not begin{_of_load(said.never[unit])}" for unit in never)
    again = {*said.waiting, *(unit for unit, number in said.restarts.items() if number > before.get(unit, 0))}
    if looping := sorted(unit for unit in again if unit not in ignored):
        times = [f"{unit} ends and is started again{_times(said.restarts.get(unit, 0))}" for unit in looping]
        return ", ".join(times)
    return ""


def _of_load(state: str) -> str:
    return ": a unit it needs is not there, or failed" if state == "loaded" else f": systemd has read its file as {state}"


def _times(number: int) -> str:
    return f" ({number} times so far)" if number > 1 else ""


def pause_systemd(course: HealthCourse, well: float, wanted: float) -> float | None:
    """Seconds until systemd is asked again; None: no more, as it is up and well and has been for long enough.

    ``well``: for how many seconds it was healthy as of the last question; ``wanted``: for how many it has to be.
    """
    if course.health is not Health.HEALTHY:
        pause = min(_growing(_SYSTEMD_FIRST_PAUSE, course.checks), _SYSTEMD_PAUSE)
        return max(pause, _LOOP_PAUSE) if course.health is Health.UNHEALTHY and course.restarts else pause
    if well >= wanted:
        return None
    return max(_SOON, min(wanted - well, max(well, _LOOP_PAUSE), _SYSTEMD_PAUSE))


def patience(course: HealthCourse) -> float:
    """Seconds that the next question to a systemd waits for the answer.

    A question takes five programs. On a host that is busy enough they take longer than usual, and each question that was
    broken off would be followed by another that is.
    """
    return min(_SYSTEMD_SECONDS * 2.0 ** min(course.failures, 20), _SYSTEMD_MOST_SECONDS)


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
"""The complaints of the dynamic linker where a program and its libraries don't belong together; ld.so(8)."""


def cause_of(printed: str) -> str:
    """The addition to a check's reason, by what it printed; mostly empty."""
    if _LINKER.search(printed) is None:
        return ""
    return " (a new program with old libraries: the host was patched, and the container not restarted since?)"
