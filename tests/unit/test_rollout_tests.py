"""Tests of a group: how they are read, what their outcome means, and the planner that waits for them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lxcfleet.errors import HostError, InvalidInput
from lxcfleet.host.process import enclosure
from lxcfleet.patch.rollout import planner, state, trial
from lxcfleet.patch.rollout.planner import RestartWave, Stop, Try, Wait
from lxcfleet.patch.rollout.state import LiveState, Member, MemberPhase, Rollout, RolloutKind
from lxcfleet.patch.rollout.testing import Runner
from lxcfleet.patch.rollout.trial import Trial, Verdict
from lxcfleet.spec.files import fleet_file, profiles
from lxcfleet.spec.files.fleet_sources import Sources
from lxcfleet.spec.files.profiles import Profile
from lxcfleet.spec.files.settings import Config
from lxcfleet.spec.policies.rollout import ProfileRollout, RolloutSettings, Share
from lxcfleet.spec.policies.rollout_tests import RolloutTest, WhereTested
from lxcfleet.spec.reading.reader import Fields

GOOD, BAD, UNKNOWN = Verdict.GOOD, Verdict.BAD, Verdict.UNKNOWN
OLD, NEW = "1@1.00", "2@2.00"


# reading


def read(tests: object) -> ProfileRollout:
    fields = Fields({"rollout": {"tests": tests}}, "profile")
    profile = profiles.read(fields)
    fields.finish("not valid")
    return profile.rollout


def test_a_test_has_its_defaults() -> None:
    assert read([{"name": "smoke", "run": ["/bin/check", "-x"]}]).tests == (
        RolloutTest("smoke", ("/bin/check", "-x"), WhereTested.INSIDE, 30.0, 1, True),
    )


def test_all_mistakes_are_told_at_once() -> None:
    wrong = [
        {"name": "a b", "run": ["x"]}, {"run": []}, {"name": "c", "run": ["x"], "timeout": 0, "passes": 0, "colour": 1},
        {"name": "h", "run": ["check"], "where": "host"}, {"name": "h", "run": ["x"], "where": "moon"}, "smoke",
    ]  # fmt: skip
    with pytest.raises(InvalidInput) as caught:
        read(wrong)
    for text in (
        r"tests\[0\]: name: 'a b' can't be", r"tests\[1\]: name: is missing", r"tests\[1\]: run: is missing",
        r"tests\[2\]: timeout: 0 is not between", r"tests\[2\]: passes: 0 is not", r"tests\[2\]: colour: unknown key",
        r"tests\[3\]: run: a command of the host begins with the whole path", r"tests\[4\]: where: 'moon' is none of",
        r"tests\[5\]: expected a mapping, found text", r"tests: two tests have the name h",
    ):  # fmt: skip
        assert re.search(text, caught.value.why), (text, caught.value.why)


@pytest.mark.parametrize("tests", [
    [{"name": f"t{number}", "run": ["x"]} for number in range(33)], [{"name": "t", "run": ["x"] * 65}],
    [{"name": "t", "run": ["x" * 9000]}], {"name": "t"}, "t",
])  # fmt: skip
def test_what_is_too_much_or_no_list_is_refused(tests: object) -> None:
    with pytest.raises(InvalidInput):
        read(tests)


HOST = """
lxcfleet: 1
fleet: shop
groups:
  web:
    command: [sleep, infinity]
    {more}
"""


def settings(*tests: RolloutTest) -> Config:
    watched = profiles.read(Fields({"rollout": {"tests": [_raw(each) for each in tests]}}, ""))
    return Config(profiles=profiles.with_places({"watched": watched}, b"", "lxcfleet.yaml"))


def _raw(test: RolloutTest) -> dict[str, Any]:
    return {"name": test.name, "run": list(test.run), "where": str(test.where)}


def test_a_fleet_file_can_name_no_command_of_the_host_that_no_profile_of_the_settings_has() -> None:
    """Who may send a fleet file need not be root, and such commands run as root."""
    probe = RolloutTest("probe", ("/usr/lib/nagios/plugins/check_http", "-S"), WhereTested.HOST)
    said = "rollout: {tests: [{name: probe, where: host, run: [/usr/lib/nagios/plugins/check_http, -S]}]}"
    with pytest.raises(InvalidInput, match="not valid") as caught:
        fleet_file.parse(Sources(HOST.format(more=said)), settings())
    assert "fleet.yaml:7: groups: web: rollout: tests: probe: only a profile of the settings" in caught.value.why
    with pytest.raises(InvalidInput):
        fleet_file.parse(Sources(HOST.format(more=said.replace("-S", "-X"))), settings(probe))
    for more in (said, "profiles: [watched]"):
        found = fleet_file.parse(Sources(HOST.format(more=more)), settings(probe)).groups["web"].rollout.tests
        assert found is not None
        assert (found[0].name, found[0].where) == ("probe", WhereTested.HOST)


# outcomes


@pytest.mark.parametrize(
    ("status", "output", "verdict", "reason"),
    [
        (0, "up\nOK - 12 ms\n\n", GOOD, "OK - 12 ms"),
        (1, "WARNING - slow", BAD, "exit status 1: WARNING - slow"),
        (2, "", BAD, "exit status 2"),
        (3, "UNKNOWN - no route", UNKNOWN, "UNKNOWN - no route"),
        (3, "", UNKNOWN, "exit status 3"),
        (127, "sh: no such", BAD, "exit status 127: sh: no such"),
        (None, "waiting", BAD, "not done after 30 s: waiting"),
        (1, "a\x1b[31m\x07 red", BAD, "exit status 1: a\\x1b[31m\\x07 red"),
        (1, "x" * 5000, BAD, "exit status 1: " + "x" * 200),
    ],
)
def test_the_exit_status_is_that_of_monitoring_plugins(
    status: int | None, output: str, verdict: Verdict, reason: str
) -> None:
    assert trial.judge(status, output, 30.0) == (verdict, reason)


# the planner

POLICY = RolloutSettings(Share(1), Share(1), 1.0, 10.0, ())


def plan(**more: Any) -> Rollout:
    member = Member("a", OLD, **more)
    return Rollout("r", RolloutKind.RESTART, POLICY, "now", {"a": member})


def box(*trials: Trial, identity: str | None = OLD, age: float = 5.0) -> dict[str, LiveState]:
    return {"a": LiveState(identity, healthy=True, healthy_for=age, running_for=age, trials=trials)}


SMOKE = Trial("smoke")


def step(rollout: Rollout, seen: dict[str, LiveState]) -> tuple[Rollout, planner.Decision]:
    """As the driver does it, over a file: a daemon that is killed here loses nothing."""
    after = state.from_json(state.to_json(planner.settle(rollout, seen)))
    return after, planner.decide(after, seen)


def test_before_a_restart_its_tests_are_run_and_what_fails_already_is_noted() -> None:
    rollout, decision = step(plan(), box(SMOKE, Trial("other")))
    assert decision == Try(("a",))
    rollout, decision = step(rollout, box(SMOKE.after(BAD, "no"), Trial("other")))
    assert decision == Try(("a",)), "not all of them were run"
    rollout, decision = step(rollout, box(SMOKE.after(BAD, "no"), Trial("other").after(UNKNOWN, "?")))
    assert decision == RestartWave(("a",))
    assert rollout.members["a"].excused == {"smoke": "bad: no", "other": "not known: ?"}


@pytest.mark.parametrize("more", [{"expected": False}, {"excused": {}}, {"fallen": True, "identity": ""}])
def test_what_is_ill_or_down_or_was_tried_is_not_tried(more: dict[str, Any]) -> None:
    rollout = plan()
    rollout = rollout.update(replace(rollout.members["a"], **more))
    assert step(rollout, box(SMOKE, identity=None if "fallen" in more else OLD))[1] == RestartWave(("a",))


def gated(excused: dict[str, str] | None = None) -> Rollout:
    return plan(phase=MemberPhase.GATED, wave=1, excused=excused or {})


@pytest.mark.parametrize(
    ("trials", "age", "phase"),
    [
        ((SMOKE,), 99.0, MemberPhase.GATED),
        ((SMOKE.after(GOOD, ""),), 5.0, MemberPhase.DONE),
        ((SMOKE.after(GOOD, ""),), 0.5, MemberPhase.GATED),
        ((SMOKE.after(BAD, ""),), 5.0, MemberPhase.GATED),
        ((SMOKE.after(BAD, ""),), 10.0, MemberPhase.FAILED),
        ((SMOKE.after(UNKNOWN, ""),), 10.0, MemberPhase.FAILED),
        ((replace(SMOKE, passes=2).after(GOOD, ""),), 99.0, MemberPhase.GATED),
        ((replace(SMOKE, passes=2).after(GOOD, "").after(GOOD, ""),), 99.0, MemberPhase.DONE),
        ((replace(SMOKE, passes=2).after(GOOD, "").after(BAD, "").after(GOOD, ""),), 9.0, MemberPhase.GATED),
        ((SMOKE.after(GOOD, ""), Trial("t", required=False)), 99.0, MemberPhase.GATED),
        ((SMOKE.after(GOOD, ""), Trial("t", required=False).after(BAD, "")), 99.0, MemberPhase.DONE),
        ((), 5.0, MemberPhase.DONE),
    ],
)
def test_a_gate_waits_for_tests_and_fails_at_the_deadline(
    trials: tuple[Trial, ...], age: float, phase: MemberPhase
) -> None:
    rollout, decision = step(gated(), box(*trials, identity=NEW, age=age))
    assert rollout.members["a"].phase is phase
    assert isinstance(decision, Stop) == (phase is MemberPhase.FAILED)
    if phase is MemberPhase.GATED:
        assert isinstance(decision, Wait)
        assert decision.seconds is not None
        assert decision.seconds >= min(planner.LOOK_SECONDS, 0.5), "the driver does not spin"


def test_a_test_that_failed_before_holds_nothing_up() -> None:
    rollout, _ = step(gated({"smoke": "bad: no"}), box(SMOKE.after(BAD, "no"), identity=NEW, age=99.0))
    member = rollout.members["a"]
    assert (member.phase, member.note) == (MemberPhase.DONE, "failing before: smoke (bad: no)")


def test_a_second_patch_does_not_excuse_what_the_first_one_broke() -> None:
    """The canary's test fails since the first patch; a second one comes, and finds the canary stale again."""
    rollout = planner.settle(gated(), box(SMOKE.after(BAD, "no"), identity=NEW, age=10.0))
    again = planner.merge(replace(rollout, patch=2), {"a": Member("a", NEW)}, 2)
    member = again.members["a"]
    assert (member.phase, member.excused) == (MemberPhase.WAITING, {})
    assert step(again, box(SMOKE.after(BAD, "no"), identity=NEW))[1] == RestartWave(("a",))


# running them


class Launcher:
    """Answers as the launcher does."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.asked = answer, list[Any]()

    async def ask(self, _: object, item: Any) -> Any:
        self.asked.append(item)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


CONTAINER: Any = SimpleNamespace(
    name="web1", running=SimpleNamespace(pid=7), addresses=("10.0.0.2",),
    spec=SimpleNamespace(
        environment={"A": "b", "SECRET": "s"}, generation=4, group="web", profile=None,
        app=SimpleNamespace(release="shop@1.4"),
    ),
)  # fmt: skip


def trial_of(test: RolloutTest, answer: Any, *known: RolloutTest) -> tuple[tuple[Verdict, str], list[Any]]:
    import asyncio

    launcher = Launcher(answer)
    profile = Profile(rollout=ProfileRollout(tests=known))

    async def run() -> tuple[Verdict, str]:
        return await Runner(cast(Any, launcher), lambda: {"p": profile}).run(CONTAINER, test)

    return asyncio.run(run()), launcher.asked


OK = {"name": "web1", "error": None, "status": 0, "output": "fine"}


def test_a_command_of_the_host_is_run_only_if_a_profile_of_the_settings_has_it() -> None:
    test = RolloutTest("probe", ("/bin/probe", "web"), WhereTested.HOST)
    verdict, asked = trial_of(test, OK)
    assert (verdict[0], asked) == (UNKNOWN, [])
    assert trial_of(test, OK, replace(test, run=("/bin/probe",)))[1] == []
    assert trial_of(test, OK, replace(test, where=WhereTested.INSIDE))[1] == []
    verdict, asked = trial_of(test, OK, test)
    assert verdict == (GOOD, "fine")
    assert asked[0]["environment"] == {
        "LXCFLEET_CONTAINER": "web1", "LXCFLEET_ADDRESS": "10.0.0.2", "LXCFLEET_GENERATION": "4", "LXCFLEET_GROUP": "web",
        "LXCFLEET_APP": "shop@1.4",
    }, "nothing of the container's own environment"  # fmt: skip


@pytest.mark.parametrize(
    "answer", [HostError("it died\x1b"), OSError(24, "Too many open files"), {"error": {"message": "no"}}]
)
def test_what_keeps_a_test_from_being_run_makes_it_not_known(answer: Any) -> None:
    verdict, reason = trial_of(RolloutTest("t", ("x",)), answer)[0]
    assert verdict is UNKNOWN
    assert reason.isprintable()
    assert reason


SUPERVISED = """
import sys
from lxcfleet.host.process import supervised
print(supervised.run(sys.argv[2:], {"PATH": "/usr/bin:/bin", "A": "b"}, seconds=float(sys.argv[1]), most=10))
"""


RUNS = pytest.mark.reaches("processes", reason="the end of real processes is what is tested")


def run_supervised(seconds: float, *argv: str) -> str:
    root = Path(supervised_root())
    done = subprocess.run(
        [sys.executable, "-c", SUPERVISED, str(seconds), *argv], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    return done.stdout.strip()


def supervised_root() -> str:
    import lxcfleet

    return str(Path(lxcfleet.__file__).parents[1])


@RUNS
def test_a_program_of_the_host_has_its_own_environment_and_its_end_is_kept() -> None:
    assert run_supervised(20, "/bin/sh", "-c", "env | grep -c LXC; seq 9; exit 3") == repr((3, "5\n6\n7\n8\n9\n"))
    assert run_supervised(20, "/bin/sh", "-c", "kill -9 $$") == repr((137, ""))
    assert run_supervised(20, "/no/such").startswith("(127,")


@RUNS
def test_a_program_of_the_host_that_hangs_ends_with_all_that_it_started(tmp_path: Path) -> None:
    """Also what left its session, and lost its parent."""
    pids = tmp_path / "pids"
    script = f"setsid sh -c 'echo $$ >>{pids}; sleep 1000 & echo $! >>{pids}; wait' & echo $$ >>{pids}; sleep 1000"
    assert run_supervised(4.0, "/bin/sh", "-c", f"({script})") == repr((None, ""))
    found = [int(word) for word in pids.read_text().split()]
    assert len(found) == 3
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in found):
        assert time.monotonic() < deadline, "some are left"
        time.sleep(0.01)


def test_only_cgroups_of_processes_that_are_gone_are_ended() -> None:
    pid = os.getpid()
    own = f"lxcfleet-test-{pid}-{enclosure._start(pid)}-0badcafe"
    assert not enclosure.is_left(own)
    assert enclosure.is_left(f"lxcfleet-test-{pid}-1-0badcafe"), "another process has the number now"
    assert not any(map(enclosure.is_left, ("lxcfleet-test-x-1-a", "lxcfleet-test-1", "lxc.payload.a", "")))
