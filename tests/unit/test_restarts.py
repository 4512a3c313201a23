"""Restart policies: when a container that ended is started again. Pure."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxcfleet.containers.restarts import FRESH, JITTER, OWED, RestartCourse, RunEnd, after, after_boot, pause_of, policy_for
from lxcfleet.errors import InvalidInput
from lxcfleet.spec.container.restart import NEVER, Restart, RestartPolicy, RestartType
from lxcfleet.spec.reading.reader import Fields

FAILED, WELL = RunEnd(failed=True, seconds=0.5), RunEnd(failed=False, seconds=0.5)
ASKED = RunEnd(failed=True, asked=True, seconds=0.5)

POLICIES = st.builds(
    Restart,
    st.sampled_from(RestartPolicy),
    delay=st.floats(0.1, 60),
    factor=st.floats(1, 100),
    max_delay=st.floats(60, 600),
    reset_after=st.floats(0.1, 600),
    attempts=st.integers(0, 5),
    within=st.floats(0.1, 6000),
)
ENDS = st.builds(RunEnd, st.booleans(), st.booleans(), st.none() | st.floats(0, 1000))
SHARES = st.floats(0, 1)


def courses(policy: Restart, ends: list[tuple[RunEnd, float]], shorter: float = 0.0) -> list[tuple[float, RestartCourse]]:
    """The moment of each end, and the course after it. Each run begins when it is due, and else after a while."""
    now, course, found = 1000.0, FRESH, []
    for end, idle in ends:
        now = max(now, course.due or 0.0) + idle + (end.seconds or 0.0)
        course = after(policy, dataclasses.replace(course, due=None, gave_up=False), end, now, shorter)
        found.append((now, course))
    return found


@pytest.mark.parametrize(
    ("policy", "end", "starts"),
    [
        (RestartPolicy.NO, FAILED, False), (RestartPolicy.NO, WELL, False),
        (RestartPolicy.ON_FAILURE, FAILED, True), (RestartPolicy.ON_FAILURE, WELL, False),
        (RestartPolicy.ON_FAILURE, ASKED, False),
        (RestartPolicy.ALWAYS, FAILED, True), (RestartPolicy.ALWAYS, WELL, True), (RestartPolicy.ALWAYS, ASKED, False),
        (RestartPolicy.UNLESS_STOPPED, FAILED, True), (RestartPolicy.UNLESS_STOPPED, WELL, True),
        (RestartPolicy.UNLESS_STOPPED, ASKED, False),
    ],
)  # fmt: skip
def test_which_ends_a_policy_follows(policy: RestartPolicy, end: RunEnd, starts: bool) -> None:
    course = after(Restart(policy), FRESH, end, 50.0)
    assert (course.due is not None) == starts
    assert starts or course == FRESH


def test_the_first_start_comes_at_once_and_pauses_grow_up_to_the_longest() -> None:
    policy = Restart(RestartPolicy.ALWAYS, delay=1, factor=2, max_delay=10)
    found = courses(policy, [(FAILED, 0.0)] * 7)
    assert [course.due - now for now, course in found if course.due is not None] == [0, 1, 2, 4, 8, 10, 10]
    assert [course.row for _, course in found] == [1, 2, 3, 4, 5, 6, 7]


def test_a_long_run_begins_a_new_row() -> None:
    policy = Restart(RestartPolicy.ALWAYS, reset_after=60)
    *_, (now, course) = courses(policy, [(FAILED, 0.0)] * 5 + [(RunEnd(failed=True, seconds=61), 0.0)])
    assert (course.due, course.row) == (now, 1)


def test_an_end_that_went_well_is_not_punished_and_does_not_spin() -> None:
    policy = Restart(RestartPolicy.ALWAYS, delay=1, attempts=2)
    found = courses(policy, [(FAILED, 0.0), *[(WELL, 0.0)] * 20])
    assert {course.due - now for now, course in found[1:] if course.due is not None} == {1.0}
    assert not any(course.gave_up for _, course in found)
    now, course = courses(policy, [(RunEnd(failed=False, seconds=3600), 0.0)])[0]
    assert course.due == now


def test_it_is_given_up_after_so_many_attempts_in_the_time() -> None:
    policy = Restart(RestartPolicy.ON_FAILURE, delay=1, factor=1, attempts=3, within=100)
    found = courses(policy, [(FAILED, 0.0)] * 4)
    assert [course.gave_up for _, course in found] == [False, False, False, True]
    assert found[-1][1].due is None
    seldom = courses(policy, [(FAILED, 40.0)] * 9)
    assert not any(course.gave_up for _, course in seldom)


@given(POLICIES, st.lists(st.tuples(ENDS, st.floats(0, 100)), max_size=30), SHARES)
def test_whatever_happens(policy: Restart, ends: list[tuple[RunEnd, float]], shorter: float) -> None:
    for (end, _), (now, course) in zip(ends, courses(policy, ends, shorter), strict=True):
        assert not (course.due is not None and course.gave_up)
        if end.asked or policy.policy is RestartPolicy.NO:
            assert course == FRESH
        if course.due is not None:
            assert now <= course.due <= now + max(policy.max_delay, policy.delay)
        if policy.policy in (RestartPolicy.ALWAYS, RestartPolicy.UNLESS_STOPPED) and not end.asked:
            assert course.wants_run
            assert not course.gave_up or policy.attempts
        assert len(course.tries) <= max(policy.attempts, 0)


@given(POLICIES, st.integers(0, 5000))
def test_pauses_never_shrink_nor_overflow(policy: Restart, row: int) -> None:
    assert 0 <= pause_of(policy, row) <= pause_of(policy, row + 1) <= policy.max_delay
    long = after(policy, RestartCourse(row=row), FAILED, 0.0, 0.0)
    short = after(policy, RestartCourse(row=row), FAILED, 0.0, 1.0)
    if long.due is not None and short.due is not None:
        assert long.due * (1 - JITTER) <= short.due + 1e-6 <= long.due + 2e-6


def test_moments_of_an_earlier_boot_mean_nothing() -> None:
    left = after_boot(RestartCourse(row=9, tries=(5.0, 6.0), due=1e9))
    assert left == FRESH
    assert after_boot(RestartCourse(row=9, gave_up=True)).gave_up


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("no", "no"),
        ("always", "always"),
        ("on-failure delay=0.5 attempts=3", {"policy": "on-failure", "delay": 0.5, "attempts": 3}),
        ("unless-stopped on_unhealthy=yes max_delay=5", {"policy": "unless-stopped", "max_delay": 5.0, "on_unhealthy": True}),
    ],
)
def test_a_policy_as_text_and_in_files(text: str, rendered: object) -> None:
    kind = RestartType()
    policy = kind.parse(text)
    assert kind.render(policy) == rendered
    assert kind.parse(str(policy)) == policy
    fields = Fields({"restart": rendered}, "spec")
    assert kind.read(fields, "restart") == policy
    fields.finish("wrong")


def test_yaml_makes_false_of_the_word_no() -> None:
    fields = Fields({"restart": False}, "spec")
    assert RestartType().read(fields, "restart") == NEVER
    fields.finish("wrong")
    assert RestartType().parse("False") == NEVER


@pytest.mark.parametrize(
    "text", ["", "sometimes", "delay=1", "always delay", "always delay=x", "always delay=1 delay=2", "always name=x",
             "always delay=100", "no delay=3", "always attempts=-1", "always factor=0.5", "on-failure always"],
)  # fmt: skip
def test_what_is_no_policy_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        RestartType().parse(text)


@pytest.mark.parametrize(
    "value", [True, 3, ["always"], {"delay": 1}, {"policy": "always", "delay": 0}, {"policy": "always", "other": 1}]
)
def test_what_is_no_policy_in_a_file_is_complained_of(value: object) -> None:
    fields = Fields({"restart": value}, "spec")
    RestartType().read(fields, "restart")
    with pytest.raises(InvalidInput):
        fields.finish("wrong")


# -- starts that failed --------------------------------------------------------------------------------------------

NOT_STARTED = RunEnd(failed=True, cause="web did not start: no such file")


@pytest.mark.parametrize("policy", RestartPolicy)
def test_a_failed_start_that_is_owed_is_tried_again_whatever_the_policy(policy: RestartPolicy) -> None:
    course = after(policy_for(Restart(policy), owed=True), FRESH, NOT_STARTED, 50.0)
    assert course == RestartCourse(1, course.tries, 51.0, cause=NOT_STARTED.cause)


def test_without_a_note_that_it_is_to_run_the_policy_decides_alone() -> None:
    assert policy_for(NEVER, owed=False) == NEVER
    own = Restart(RestartPolicy.ALWAYS, delay=7)
    assert policy_for(own, owed=True) == policy_for(own, owed=False) == own
    assert after(policy_for(NEVER, owed=False), FRESH, NOT_STARTED, 50.0) == FRESH


def test_failed_starts_are_tried_with_growing_pauses_and_not_for_ever() -> None:
    now, course, pauses = 1000.0, FRESH, []
    while not course.gave_up:
        course = after(OWED, course, NOT_STARTED, now)
        assert course.cause == NOT_STARTED.cause
        if course.due is not None:
            pauses.append(course.due - now)
            now = course.due
    assert pauses[:8] == [1, 1, 2, 4, 8, 16, 32, 60]
    assert (len(pauses), course.due, 20 * 60 < now - 1000.0 < 30 * 60) == (OWED.attempts, None, True)


def test_slow_failures_count_for_the_same_row() -> None:
    """A start may take minutes to fail. It is given up all the same."""
    now, course, count = 1000.0, FRESH, 0
    while not course.gave_up and count < 100:
        now += 120.0
        course = after(OWED, course, NOT_STARTED, now)
        now, count = course.due or now, count + 1
    assert course.gave_up


@given(POLICIES, ENDS)
def test_the_cause_is_that_of_the_last_start_and_goes_with_a_run(policy: Restart, end: RunEnd) -> None:
    failed = after(policy_for(policy, owed=True), FRESH, NOT_STARTED, 10.0)
    assert after(policy, failed, end, 20.0).cause == end.cause == ""


def test_the_cause_of_a_container_that_was_given_up_is_known_after_a_boot() -> None:
    given_up = RestartCourse(3, (1.0,), None, True, "web did not start")
    assert after_boot(given_up) == RestartCourse(gave_up=True, cause="web did not start")
    assert after_boot(RestartCourse(3, (1.0,), 5.0, False, "web did not start")) == FRESH
