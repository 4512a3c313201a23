"""The prober of containers' health, and the effect of a defect in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lxcfleet.containers.container import Container, Running
from lxcfleet.health import checks as asking
from lxcfleet.health import judge
from lxcfleet.health.events import HealthChanged, ServingJudged
from lxcfleet.health.judge import CheckResult, HealthCourse, Systemd
from lxcfleet.health.prober import Prober
from lxcfleet.host.process import cgroup, proc
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus, Event
from lxcfleet.runtime.tasks import Tasks
from lxcfleet.spec.container.health import CheckKind, HealthCheck
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading.terms import Init, NetworkMode
from lxcfleet.spec.states import Health

CHECK = HealthCheck(CheckKind.TCP, port=80, interval=0.001, retries=3, start_period=0)


class Checks:
    """A check with given answers: an exception is raised, and the last answer is repeated for ever."""

    def __init__(self, *answers: CheckResult | Exception | Systemd) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.slow: list[bool] = []
        """Of each check, whether it was known that the last ones took long."""

    def _answer(self) -> Any:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def check(self, *_: object, slow: bool) -> CheckResult:
        self.slow.append(slow)
        return cast(CheckResult, self._answer())

    async def systemd(self, _: Container, _course: HealthCourse) -> Systemd:
        return cast(Systemd, self._answer())


class World:
    """One running container, and all events about its health."""

    def __init__(self, directory: Path, checks: Checks, spec: Spec) -> None:
        self.bus, self.tasks = Bus(), Tasks(pause=0.001)
        self.told: list[Event] = []
        self.bus.subscribe("test", Event, self.told.append)
        paths = Paths(lxc=directory, run=directory, etc=directory)
        self.prober = Prober(paths, cast(Any, checks), self.bus, self.tasks, 1.0)
        running = Running(1, 1, -1, cgroup.Payload({}), proc.uptime() - 100, 0.0)
        self.container = Container(spec.name, spec, running=running)

    def words(self) -> list[Health]:
        return [event.health for event in self.told if isinstance(event, HealthChanged)]

    def serving(self) -> list[bool]:
        return [event.serves for event in self.told if isinstance(event, ServingJudged)]


def run(world: World, test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def all_of_it() -> None:
        world.prober.begin(world.container)
        await test()
        world.prober.close()

    asyncio.run(asyncio.wait_for(all_of_it(), 60))


async def until(world: World, *words: Health) -> None:
    while world.words() != list(words):
        await world.prober.changed(1)


def test_a_defect_in_one_check_ends_no_checks_and_leaves_no_container_healthy_for_ever(tmp_path: Path) -> None:
    """Before, an unforeseen exception ended the checks for good, and gates took the container for healthy for ever."""
    checks = Checks(CheckResult(True), ValueError("boom"), ValueError("boom"), CheckResult(True))
    world = World(tmp_path, checks, Spec("web", Init.APP, ("true",), health=CHECK))

    async def test() -> None:
        await until(world, Health.HEALTHY, Health.UNHEALTHY, Health.HEALTHY)
        asked = checks.asked
        while checks.asked == asked:  # the checks go on
            await asyncio.sleep(0.001)

    run(world, test)
    changes = [event for event in world.told if isinstance(event, HealthChanged)]
    assert "ValueError: boom" in changes[1].reason
    assert world.prober.reason(world.container) == ""
    assert world.serving() == [False, True, False, True]
    [reading] = world.tasks.readings()
    assert (reading.name, reading.failures, reading.last) == ("health", 2, "web: ValueError: boom")


def test_a_defect_while_systemd_is_asked_costs_one_question(tmp_path: Path) -> None:
    world = World(tmp_path, Checks(ValueError("boom"), Systemd("running")), Spec("web"))

    async def test() -> None:
        await until(world, Health.UNHEALTHY, Health.HEALTHY)

    run(world, test)


def test_the_knowledge_of_an_earlier_daemon_holds_for_the_same_run_only(tmp_path: Path) -> None:
    spec = Spec("web", Init.APP, ("true",), health=CHECK)
    first = World(tmp_path, Checks(CheckResult(True)), spec)

    async def healthy() -> None:
        await until(first, Health.HEALTHY)

    run(first, healthy)
    same, other = (World(tmp_path, Checks(CheckResult(True)), spec) for _ in range(2))
    same.container.running = first.container.running
    assert other.container.running is not None
    other.container.running.began -= 10

    def health(world: World) -> Health | None:
        found: list[Health | None] = []

        async def look() -> None:
            found.append(world.prober.of(world.container))

        run(world, look)
        return found[0]

    assert (health(same), same.serving()) == (Health.HEALTHY, [True])
    assert (health(other), other.serving()) == (Health.STARTING, [False])


@pytest.mark.parametrize("check", [None, CHECK])
def test_a_frozen_container_is_not_healthy_but_for_the_moments_of_a_copy(tmp_path: Path, check: HealthCheck | None) -> None:
    world = World(tmp_path, Checks(CheckResult(passed=True)), Spec("web", Init.APP, command=("sh",), health=check))
    state = tmp_path / "cgroup.freeze"
    payload = cgroup.Payload({"": str(tmp_path)})

    async def test() -> None:
        if check is not None:
            await until(world, Health.HEALTHY)
        assert world.container.running is not None
        world.container.running = replace(world.container.running, payload=payload)
        state.write_text("1")
        assert (world.prober.of(world.container), world.prober.reason(world.container)) == (Health.UNHEALTHY, "it is frozen")
        assert world.prober.healthy_seconds(world.container) == 0
        world.container.still = True
        assert world.prober.of(world.container) is Health.HEALTHY
        world.container.still = False
        state.write_text("0")
        assert (world.prober.of(world.container), world.prober.reason(world.container)) == (Health.HEALTHY, "")

    run(world, test)


def test_a_changed_check_takes_over_the_present_health_until_its_first_result(tmp_path: Path) -> None:
    """A container must not leave its group because its check was changed."""
    checks = Checks(CheckResult(True))
    world = World(tmp_path, checks, Spec("web", Init.APP, ("true",), health=CHECK))

    async def test() -> None:
        await until(world, Health.HEALTHY)
        checks.answers = [CheckResult(False, "closed")]
        assert world.container.spec is not None
        world.container.spec = replace(world.container.spec, health=replace(CHECK, port=CHECK.port + 1))
        world.prober.respecified(world.container)
        assert world.prober.of(world.container) is Health.HEALTHY
        await until(world, Health.HEALTHY, Health.UNHEALTHY)
        world.container.spec = replace(world.container.spec, health=None)
        world.prober.respecified(world.container)
        assert world.prober.of(world.container) is Health.HEALTHY

    run(world, test)
    assert world.serving() == [False, True, True, False, True]


def test_a_container_that_was_changed_is_checked_at_once_and_at_the_end_of_what_a_gate_demands(tmp_path: Path) -> None:
    """Its own interval may be longer than that."""
    checks = Checks(CheckResult(True))
    slow = replace(CHECK, interval=30.0)
    world = World(tmp_path, checks, Spec("web", Init.APP, ("true",), health=slow))

    async def test() -> None:
        await until(world, Health.HEALTHY)
        asked = checks.asked
        world.prober.respecified(world.container, 1.0)
        while checks.asked == asked:
            await asyncio.sleep(0.001)
        assert checks.asked == asked + 1
        while checks.asked == asked + 1:
            assert world.prober.healthy_seconds(world.container) < 1.0
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        assert world.prober.healthy_seconds(world.container) >= 1.0
        world.prober.respecified(world.container, 0.2)
        checks.answers = [CheckResult(True), CheckResult(False, "too slow")]
        asked = checks.asked
        while checks.asked < asked + 2:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.3)
        assert world.prober.of(world.container) is Health.HEALTHY, "one failed check is not enough for the other thing"
        assert world.prober.reason(world.container) == "too slow"
        assert world.prober.healthy_seconds(world.container) < 0.2, "but the gate waits"

    run(world, test)


def test_a_service_that_fails_while_a_gate_waits_is_seen(tmp_path: Path) -> None:
    """Before, systemd was not asked any more once it was up."""
    checks = Checks(Systemd("running"), Systemd("degraded", ("late.service",)))
    world = World(tmp_path, checks, Spec("web"))

    async def test() -> None:
        world.prober.demand(world.container, 0.3)
        await until(world, Health.HEALTHY)
        while world.words() == [Health.HEALTHY]:
            assert world.prober.healthy_seconds(world.container) < 0.3
            await asyncio.sleep(0.01)
        assert world.words() == [Health.HEALTHY, Health.UNHEALTHY]
        assert "late.service" in world.prober.reason(world.container)

    run(world, test)


def test_a_systemd_that_was_well_for_long_enough_is_asked_no_more_until_a_gate_demands_more(tmp_path: Path) -> None:
    checks = Checks(Systemd("running"))
    world = World(tmp_path, checks, Spec("web"))

    async def test() -> None:
        world.prober.demand(world.container, 0.1)
        while world.prober.healthy_seconds(world.container) < 0.1:
            await asyncio.sleep(0.01)
        assert checks.asked == 2
        await asyncio.sleep(0.3)
        assert checks.asked == 2
        assert world.prober.healthy_seconds(world.container) > 0.3
        world.prober.demand(world.container, 0.5)
        while world.prober.healthy_seconds(world.container) < 0.5:
            await asyncio.sleep(0.01)
        assert checks.asked == 3

    run(world, test)


def test_a_systemd_that_may_have_been_mended_is_asked_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pauses between questions grow while it is ill. A gate that waits once more has no time for the longest ones."""
    monkeypatch.setattr(judge, "pause_systemd", lambda course, *_: 0.001 if course.checks <= 1 else 1e6)
    checks = Checks(Systemd("degraded", ("bad.service",)), Systemd("degraded", ("bad.service",)), Systemd("running"))
    world = World(tmp_path, checks, Spec("web"))

    async def test() -> None:
        await until(world, Health.UNHEALTHY)
        while checks.asked < 2:
            await asyncio.sleep(0.001)
        world.prober.demand(world.container, 0.0, mended=True)
        await until(world, Health.UNHEALTHY, Health.HEALTHY)

    run(world, test)


class Asked:
    """A launcher for which the commands in some containers never end; it keeps how long each may take."""

    def __init__(self, *silent: str) -> None:
        self.silent, self.asked = silent, list[tuple[str, float]]()

    async def ask(self, _: object, item: Any) -> Any:
        self.asked.append((item["name"], item["timeout"]))
        if item["name"] in self.silent:
            await asyncio.Event().wait()
        return {"error": None, "status": 0, "output": "systemd is running\n"}


def test_commands_that_hang_make_no_other_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight containers whose checks hung took the turns of all others."""
    monkeypatch.setattr(asking, "SLOW_SECONDS", -1.0)  # each took longer than that
    silent = [f"silent{number}" for number in range(20)]
    launcher, check = Asked(*silent), HealthCheck(CheckKind.EXEC, command=("true",))
    here: Any = SimpleNamespace(payload=SimpleNamespace(frozen=False))

    async def test() -> None:
        them = asking.Checks(cast(Any, launcher))
        hang = [asyncio.create_task(them.check(Container(name, Spec(name)), here, check, slow=True)) for name in silent]
        await asyncio.sleep(0)
        result = await asyncio.wait_for(them.check(Container("web", Spec("web")), here, check, slow=False), 60)
        assert (result.passed, result.slow) == (True, True)
        for each in hang:
            each.cancel()
        await asyncio.gather(*hang, return_exceptions=True)

    asyncio.run(test())
    assert [name for name, _ in launcher.asked] == [*silent[: asking.ENTERED_AT_ONCE], "web"]


def test_connections_that_hang_make_no_other_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """128 containers that take a connection and never answer took the turns of all others."""
    check = HealthCheck(CheckKind.TCP, port=80, timeout=60)
    here: Any = SimpleNamespace(payload=SimpleNamespace(frozen=False))

    async def reach(address: str, *_: object) -> str:
        if address == "10.0.0.2":
            await asyncio.Event().wait()
        return ""

    monkeypatch.setattr("lxcfleet.health.checks.reach.tcp", reach)

    def at(address: str) -> Container:
        return Container("web", Spec("web", network=NetworkMode.BRIDGE, address=IPv4Interface(f"{address}/24")))

    async def test() -> None:
        them, hangs = asking.Checks(cast(Any, None)), at("10.0.0.2")
        hang = [asyncio.create_task(them.check(hangs, here, check, slow=True)) for _ in range(asking.CONNECTED_AT_ONCE + 1)]
        await asyncio.sleep(0)
        assert (await asyncio.wait_for(them.check(at("10.0.0.3"), here, check, slow=False), 60)).passed
        for each in hang:
            each.cancel()
        await asyncio.gather(*hang, return_exceptions=True)

    asyncio.run(test())


def test_a_container_with_a_check_that_took_long_has_other_turns_for_a_while(tmp_path: Path) -> None:
    checks = Checks(CheckResult(True), CheckResult(False, slow=True), CheckResult(True), CheckResult(True))
    world = World(tmp_path, checks, Spec("web", health=HealthCheck(CheckKind.EXEC, command=("true",), interval=0.01)))

    async def test() -> None:
        while checks.asked < 14:
            await asyncio.sleep(0.01)
        assert checks.slow[:2] == [False, False]
        assert checks.slow[2:12] == [True] * 10
        assert checks.slow[12] is False

    run(world, test)


def test_systemds_that_do_not_answer_make_no_other_wait() -> None:
    silent = [f"silent{number}" for number in range(20)]
    launcher, spec = Asked(*silent), Spec("web", Init.SYSTEM)

    async def test() -> None:
        them = asking.Checks(cast(Any, launcher))
        waiting = [asyncio.create_task(them.systemd(Container(name, spec), HealthCourse(failures=2))) for name in silent]
        await asyncio.sleep(0)
        said = await asyncio.wait_for(them.systemd(Container("web", spec), HealthCourse()), 60)
        assert said.word == "running"
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(test())
    assert launcher.asked == [*((name, 40.0) for name in silent[: asking.ASKED_AGAIN_AT_ONCE]), ("web", 10.0)]
