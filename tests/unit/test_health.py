"""How a container's health follows from the results of its checks; and the checks over the network."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxcfleet.errors import InvalidInput
from lxcfleet.health import judge
from lxcfleet.health.judge import CheckResult, HealthCourse, Systemd
from lxcfleet.host.net import reach
from lxcfleet.spec.container import combinations
from lxcfleet.spec.container.health import CheckKind, HealthCheck, HealthType, parse_url
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.reading.terms import Init
from lxcfleet.spec.states import Health

CHECK = HealthCheck(CheckKind.TCP, port=80, interval=10, retries=3, start_period=30)
PASS, FAIL = CheckResult(True), CheckResult(False, "tcp 80: connection refused")


def after(*verdicts: CheckResult, check: HealthCheck = CHECK, age: float = 100.0) -> HealthCourse:
    course = HealthCourse()
    for verdict in verdicts:
        course = judge.judge(check, course, verdict, age)
    return course


def test_a_check_that_passes_makes_it_healthy() -> None:
    assert after(FAIL, PASS).health is Health.HEALTHY
    assert after(FAIL, FAIL, FAIL, PASS).health is Health.HEALTHY
    assert after(FAIL, FAIL, FAIL, PASS).reason == ""


def test_only_failures_in_a_row_make_it_unhealthy() -> None:
    assert after(FAIL, FAIL).health is Health.STARTING
    assert after(FAIL, FAIL, FAIL).health is Health.UNHEALTHY
    assert after(FAIL, FAIL, FAIL).reason == FAIL.reason
    assert after(PASS, FAIL, FAIL, PASS, FAIL, FAIL).health is Health.HEALTHY
    assert after(PASS, FAIL, FAIL, FAIL).health is Health.UNHEALTHY


def test_failures_at_the_start_do_not_count() -> None:
    early = after(*[FAIL] * 50, age=29.0)
    assert (early.health, early.failures, early.reason) == (Health.STARTING, 0, FAIL.reason)
    assert after(PASS, FAIL, FAIL, FAIL, age=29.0).health is Health.UNHEALTHY
    none = replace(CHECK, start_period=0.0)
    assert after(FAIL, FAIL, FAIL, check=none, age=0.5).health is Health.UNHEALTHY


def test_the_first_checks_come_fast_and_then_at_the_interval() -> None:
    course, pauses = HealthCourse(), []
    for _ in range(10):
        course = judge.judge(CHECK, course, FAIL, 1.0)
        pauses.append(judge.pause(CHECK, course))
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    assert pauses[-1] == CHECK.interval
    assert judge.pause(CHECK, after(FAIL, PASS)) == CHECK.interval
    assert judge.pause(CHECK, after(FAIL)) == CHECK.interval  # from now on failures count


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 5), st.floats(0, 60))
def test_it_is_unhealthy_exactly_after_so_many_failures_that_count(said: list[bool], retries: int, period: float) -> None:
    check = replace(CHECK, retries=retries, start_period=period)
    course, row, ever = HealthCourse(), 0, False
    for number, passed in enumerate(said):
        age = float(number)
        course = judge.judge(check, course, PASS if passed else FAIL, age)
        ever = ever or passed
        counts = ever or age >= period or row > 0
        row = 0 if passed else row + counts
        assert (course.health is Health.UNHEALTHY) == (row >= retries)
        assert (course.health is Health.STARTING) == (not ever and row < retries)
        assert 0 < judge.pause(check, course) <= check.interval


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("running", Health.HEALTHY),
        ("degraded", Health.UNHEALTHY),
        ("maintenance", Health.UNHEALTHY),
        ("starting", Health.STARTING),
        ("stopping", Health.STARTING),
        ("", Health.STARTING),
    ],
)
def test_health_follows_from_systemds_state(word: str, expected: Health) -> None:
    failed = ("nginx.service",) if word == "degraded" else ()
    course = judge.judge_systemd(HealthCourse(), Systemd(word, failed))
    assert course.health is expected
    assert ("nginx.service" in course.reason) == (word == "degraded")
    assert (judge.pause_systemd(course, 5, 5) is None) == (expected is Health.HEALTHY)


def test_systemd_is_asked_ever_less_often() -> None:
    course = HealthCourse()
    assert judge.pause_systemd(course, 0, 5) == 0.5
    for _ in range(100):
        course = judge.judge_systemd(course, Systemd("degraded"))
    assert judge.pause_systemd(course, 0, 5) == 30.0


def test_a_systemd_that_did_not_answer_in_time_gets_more_of_it() -> None:
    course, waited = HealthCourse(), []
    for _ in range(5):
        waited.append(judge.patience(course))
        course = judge.judge_systemd(course, Systemd())
    assert waited == [10, 20, 40, 60, 60]
    assert judge.patience(judge.judge_systemd(course, Systemd("starting"))) == 10



def test_a_systemd_that_is_well_is_asked_until_it_was_well_for_long_enough() -> None:
    """Before, a service that failed two seconds after the boot left its container healthy."""
    well = judge.judge_systemd(HealthCourse(), Systemd("running"))
    assert judge.pause_systemd(well, 0.0, 5.0) == 5.0
    assert judge.pause_systemd(well, 0.0, 3.0) == 3.0
    assert judge.pause_systemd(well, 4.999, 5.0) == 0.1
    assert judge.pause_systemd(well, 5.0, 5.0) is None
    assert judge.pause_systemd(well, 0.0, 0.0) is None
    assert [judge.pause_systemd(well, age, 600.0) for age in (0, 5, 10, 200)] == [5, 5, 10, 30]


def test_what_a_systemd_says_of_its_units_is_read() -> None:
    said = judge.read_systemd(
        "web.service loaded activating auto-restart Web server\n"
        "data.mount loaded failed failed Data\n"
        "gone.service not-found failed failed gone.service\n"
        "web.service restarts 7\n"
        "failed restarts many\n\n"
        "systemd is degraded"
    )
    assert said == Systemd("degraded", ("data.mount", "gone.service"), ("web.service",), {"web.service": 7})
    assert judge.read_systemd("") == Systemd()
    assert judge.read_systemd("systemd is ") == Systemd()


def test_a_service_that_is_restarted_again_and_again_is_not_healthy() -> None:
    """Before, one with Restart= that crashed again and again was healthy, as its systemd says running."""
    waiting = judge.judge_systemd(HealthCourse(), Systemd("running", waiting=("web.service",)))
    assert (waiting.health, waiting.reason) == (Health.UNHEALTHY, "web.service ends and is started again")
    # It runs whenever it is looked at, and was restarted in between.
    before = judge.judge_systemd(HealthCourse(), Systemd("running", restarts={"web.service": 2, "once.service": 1}))
    assert before.health is Health.HEALTHY
    after = judge.judge_systemd(before, Systemd("running", restarts={"web.service": 3, "once.service": 1}))
    assert (after.health, after.reason) == (Health.UNHEALTHY, "web.service ends and is started again (3 times so far)")
    assert judge.pause_systemd(after, 0, 5) == 5.0
    assert judge.judge_systemd(after, Systemd("running", restarts={"web.service": 3})).health is Health.HEALTHY
    # Somebody reset the number.
    assert judge.judge_systemd(after, Systemd("running")).health is Health.HEALTHY


def test_a_service_of_the_hosts_that_never_began_is_not_healthy() -> None:
    """Before, one that another unit kept from starting left no trace: its systemd says running, and no unit failed."""
    said = judge.read_systemd("web.service never loaded\nodd.timer never bad-setting\nshort never\nsystemd is running")
    assert said == Systemd("running", never={"web.service": "loaded", "odd.timer": "bad-setting"})
    course = judge.judge_systemd(HealthCourse(), said)
    odd = "odd.timer did not begin: systemd has read its file as bad-setting"
    web = "web.service did not begin: a unit it needs is not there, or failed"
    assert (course.health, course.reason) == (Health.UNHEALTHY, f"{odd}, {web}")
    assert judge.judge_systemd(course, said, ("web.service", "odd.timer")).health is Health.HEALTHY
    assert judge.judge_systemd(course, Systemd("running")).health is Health.HEALTHY


def test_restarts_while_it_booted_do_not_count() -> None:
    booting = judge.judge_systemd(HealthCourse(), Systemd("starting"))
    assert judge.judge_systemd(booting, Systemd("running", restarts={"web.service": 2})).health is Health.HEALTHY


def test_ignored_units_do_not_count() -> None:
    said = Systemd("degraded", ("a.service",), ("b.service",), {"c.service": 2})
    before = judge.judge_systemd(HealthCourse(), Systemd("running", restarts={"c.service": 1}))
    ignored = ("a.service", "b.service", "c.service")
    assert judge.judge_systemd(before, said, ignored).health is Health.HEALTHY
    for unit in ignored:
        rest = [each for each in ignored if each != unit]
        course = judge.judge_systemd(before, said, rest)
        assert (course.health, unit in course.reason) == (Health.UNHEALTHY, True)


def test_systemd_is_not_asked_before_all_booting_containers_can_be_up() -> None:
    assert judge.let_boot(0.5, booting=1, processors=2) == 0.0
    assert judge.let_boot(0.5, booting=100, processors=2) == pytest.approx(3.5)
    assert judge.let_boot(4.0, booting=100, processors=2) == 0.0
    assert judge.let_boot(0.0, booting=10_000, processors=1) == 10.0  # the wait for other containers has a limit


def test_an_app_container_without_a_check_is_asked_nothing() -> None:
    assert not judge.needs_checks(Spec("a", Init.APP, ("true",)))
    assert judge.needs_checks(Spec("a"))
    assert judge.needs_checks(Spec("a", Init.APP, ("true",), health=CHECK))
    assert [judge.of_age(age, 1.0) for age in (0.0, 0.9, 1.0)] == [Health.STARTING, Health.STARTING, Health.HEALTHY]


def test_a_container_with_a_check_serves_only_once_the_check_passes() -> None:
    checked, plain = Spec("a", health=CHECK), Spec("a")
    assert [judge.serves(checked, each) for each in (*Health, None)] == [False, True, False, False]
    assert all(judge.serves(plain, each) for each in (*Health, None))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("8080", (None, 8080, "/")),
        ("8080/up?deep=1", (None, 8080, "/up?deep=1")),
        ("/up", (None, 80, "/up")),
        ("http://web.example:81/a b", ("web.example", 81, "/a%20b")),
        ("http://web.example", ("web.example", 80, "/")),
    ],
)
def test_addresses_of_checks(text: str, meant: tuple[str | None, int, str]) -> None:
    assert parse_url(text) == meant
    host, port, path = meant
    assert parse_url(HealthCheck(CheckKind.HTTP, host=host, port=port, path=path).url) == meant


@pytest.mark.parametrize(
    "text",
    ["", "up", "0", "70000", "https://a/", "http://u@a/", "80#x", "a/b", "http://[::1", "80/\r\nX: y"],
)
def test_no_addresses_of_checks(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_url(text)


# over the network


def ask(answer: bytes | None, check: Callable[[int], Awaitable[str]]) -> str:
    """The result of a check against a server with this answer; None: the server does not answer."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readline()
            if answer is None:
                await asyncio.sleep(60)
            else:
                writer.write(answer)
        finally:
            writer.close()

    async def run() -> str:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            return await check(server.sockets[0].getsockname()[1])

    return asyncio.run(run())


def get(port: int) -> Awaitable[str]:
    return reach.http("127.0.0.1", port, "web", "/up", 0.5)


@pytest.mark.reaches("loopback", reason="a check is asked of a real port")
@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", ""),
        (b"HTTP/1.0 302 Found\r\n\r\n", ""),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "status 503"),
        (b"SSH-2.0-OpenSSH\r\n", "no HTTP answer"),
        (b"x" * 100_000, "no HTTP answer"),
        (b"", "no HTTP answer"),
        (None, "no answer within 0.5 s"),
    ],
)
def test_http(answer: bytes | None, problem: str) -> None:
    said = ask(answer, get)
    assert said.endswith(problem)
    assert bool(said) == bool(problem)


@pytest.mark.reaches("loopback", reason="a check is asked of a real port")
def test_tcp() -> None:
    assert ask(b"", lambda port: reach.tcp("127.0.0.1", port, 5)) == ""
    assert asyncio.run(reach.tcp("127.0.0.1", 1, 5)) == "tcp 1: connection refused"
    assert asyncio.run(reach.http("127.0.0.1", 1, "web", "/", 5)) == "http 1/: connection refused"


@pytest.mark.parametrize(
    "printed",
    [
        "/bin/true: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found (required by /bin/true)",
        "curl: error while loading shared libraries: libssl.so.3: cannot open shared object file",
        "php: symbol lookup error: php: undefined symbol: SSL_get0_group_name, version OPENSSL_3.2.0",
    ],
)
def test_a_check_that_the_dynamic_linker_failed_says_why(printed: str) -> None:
    assert "the host was patched" in judge.cause_of(f"before\n{printed}\nafter")
    assert judge.cause_of("GLIBC is not found here; connection refused") == ""


def test_units_to_ignore_are_a_check_of_systemd() -> None:
    kind = HealthType()
    check = kind.parse("ignore_units a.service b.mount")
    assert check == HealthCheck(CheckKind.UNITS, units=("a.service", "b.mount"))
    assert kind.parse(str(check)) == check
    assert kind.read(Fields({"health": kind.render(check)}, "x"), "health") == check
    spec = Spec("a", health=check)
    assert (spec.check, judge.needs_checks(spec), judge.serves(spec, Health.STARTING)) == (None, True, True)


@pytest.mark.parametrize(
    "said",
    [
        {"ignore_units": ["a.service"], "interval": 3},
        {"ignore_units": ["a.service"], "tcp": 3},
        {"ignore_units": ["a"]},
        {"ignore_units": ["../a.service\n"]},
        {"ignore_units": []},
        {"ignore_units": "a.service"},
    ],
)
def test_wrong_units_to_ignore_are_refused(said: dict[str, object]) -> None:
    fields = Fields({"health": said}, "x")
    HealthType().read(fields, "health")
    with pytest.raises(InvalidInput):
        fields.finish("wrong")


def test_an_app_container_has_no_units_to_ignore() -> None:
    check = HealthCheck(CheckKind.UNITS, units=("a.service",))
    combinations.check(Spec("a", health=check))
    with pytest.raises(InvalidInput):
        combinations.check(Spec("a", Init.APP, ("true",), health=check))
