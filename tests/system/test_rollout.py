"""Rollouts on real containers: waves, gates, the operator's verbs, and kill -9 of the daemon in the middle."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from .harness import SLEEP, Fleet, Ran, until

pytestmark = pytest.mark.system

QUICK = "alive_time: 0.2\nrollout: {min_healthy_time: 0.2, healthy_deadline: 60}\n"
"""What halts because of its deadline gets a short one of its own: on a busy host a container may take its time to be up."""
FAST = ("--health-interval", "0.2", "--health-retries", "2", "--health-start-period", "0")
LONG = ("--min-healthy-time", "20")
"""For rollouts that halt as the command of a container ends: on a busy host it may run for a while before it does."""
PROGRAM = Path("/opt/lxcfleet-rollout")
"""On the host, and so in every clone."""


@pytest.fixture
def quick(own_fleet: Fleet) -> Iterator[Fleet]:
    """A fleet with short waits in its rollouts, with a daemon of the test's own, so that no rollout is known or under way."""
    own_fleet.stop_daemon()
    own_fleet.settings(own_fleet.usual + QUICK)
    own_fleet.paths.rollout.unlink(missing_ok=True)
    own_fleet.start_daemon()
    yield own_fleet
    if own_fleet.daemon_pid() is None:
        own_fleet.start_daemon()
    own_fleet.run("rollout", "abort")
    own_fleet.ok("destroy", "--all", "--force", "-q")
    own_fleet.clean()


@pytest.fixture
def program() -> Iterator[Path]:
    """A program of the host that a test may patch."""
    PROGRAM.mkdir()
    try:
        install(PROGRAM / "serve")
        yield PROGRAM / "serve"
    finally:
        shutil.rmtree(PROGRAM)


def install(path: Path, content: str = "/usr/bin/sleep") -> None:
    """Rename a new file to ``path``, as dpkg does."""
    new = path.with_suffix(".dpkg-new")
    shutil.copy(content, new)
    with new.open("ab") as file:
        file.write(os.urandom(8))  # the same content would be no reason for a restart
    os.rename(new, path)


def runs(fleet: Fleet) -> dict[str, int | None]:
    return {record["name"]: record["pid"] for record in fleet.records()}


def rollout(fleet: Fleet) -> dict[str, Any]:
    record = fleet.client().rollout()
    assert record is not None
    return dict(record)


def phases(fleet: Fleet) -> dict[str, str]:
    return {each["name"]: each["phase"] for each in rollout(fleet)["containers"]}


def create(fleet: Fleet, prefix: str, count: int, *options: str, command: tuple[str, ...] = SLEEP) -> list[str]:
    fleet.ok("create", fleet.name(prefix), "-n", str(count), *options, *command)
    fleet.ok("wait", f"{fleet.name(prefix)}*", "--for", "healthy")
    return [fleet.name(f"{prefix}{number}") for number in range(1, count + 1)]


def restarted(before: dict[str, int | None], after: dict[str, int | None]) -> set[str]:
    return {name for name in before if before[name] != after.get(name)}


# restart --rolling


def test_chosen_containers_are_restarted_in_waves_and_others_are_not(quick: Fleet) -> None:
    names = create(quick, "r", 5)
    create(quick, "o", 2)
    before = runs(quick)
    planned = quick.json("restart", f"{quick.name('r')}*", "--rolling", "--dry-run", "--max-unavailable", "2")
    assert [len(wave) for wave in planned["waves"]] == [1, 2, 2]
    assert runs(quick) == before
    done = quick.json("restart", f"{quick.name('r')}*", "--rolling", "--max-unavailable", "2")
    assert (done["status"], done["changed"], done["wave"]) == ("done", True, 3)
    assert restarted(before, runs(quick)) == set(names)
    assert {each["wave"] for each in done["containers"]} == {1, 2, 3}
    said = [event["message"] for event in quick.events("rollout")]
    assert [text.partition(":")[0] for text in said] == ["begins", "wave 1", "wave 2", "wave 3", "done"]


def test_no_more_containers_are_down_than_may_be_and_never_all_of_a_label(quick: Fleet) -> None:
    names = create(quick, "a", 4, "-l", "tier=front") + create(quick, "b", 1, "-l", "tier=db")
    record = quick.json("restart", "--all", "--rolling", "--max-unavailable", "100%", "--canaries", "0")
    waves: dict[int, list[str]] = {}
    for each in record["containers"]:
        waves.setdefault(each["wave"], []).append(each["name"])
    assert waves == {1: [*names[:3], names[4]], 2: [names[3]]}


def test_waves_follow_the_priorities_and_limits_of_profiles(quick: Fleet) -> None:
    quick.stop_daemon()
    profiles = "profiles: {db: {rollout: {priority: -1, max_unavailable: 1}}}\n"
    quick.settings(quick.usual + QUICK + profiles)
    quick.start_daemon()
    create(quick, "a", 4)
    create(quick, "d", 2, "--profile", "db")
    options = ("--rolling", "--dry-run", "--max-unavailable", "4", "--canaries", "0")
    waves = quick.json("restart", "--all", *options)["waves"]
    assert waves == [[quick.name("d1")], [quick.name("d2")], [quick.name(f"a{n}") for n in range(1, 5)]]
    create(quick, "z", 1, "--boot-order", "-5")
    assert quick.json("restart", "--all", *options)["waves"] == [[quick.name("z1")], *waves]


def test_a_rollout_with_nothing_to_do_succeeds(quick: Fleet) -> None:
    create(quick, "a", 1)
    before = runs(quick)
    for arguments in (("patch", "apply"), ("restart", "none*", "--rolling")):
        ran = quick.run(*arguments)
        assert (ran.status, "nothing to do" in ran.err) == (0, True), ran
        told = json.loads(quick.ok(*arguments, "-f", "json"))
        assert (told["changed"], told["total"], told["status"]) == (False, 0, "done")
    assert runs(quick) == before
    assert quick.client().rollout() is None
    assert quick.run("rollout", "pause").status == 1
    assert "no rollout" in quick.run("rollout", "status").err


# gates


def test_a_container_that_never_becomes_healthy_halts_the_rollout(quick: Fleet) -> None:
    script = "echo it can not start; test -e /bad && rm /up; touch /started; exec sleep infinity"
    names = create(quick, "h", 4, "--health-exec", "test -e /up || test ! -e /bad", *FAST, command=("--", "sh", "-c", script))
    quick.inside(names[0], "touch /bad")
    quick.inside(names[0], "touch /up")
    until(lambda: quick.record(names[0])["health"] == "healthy", 10)
    before = runs(quick)
    ran = quick.run("restart", "--all", "--rolling", "--healthy-deadline", "6")  # the others need some time, too
    assert ran.status == 1, ran
    assert f"halted at {names[0]}" in ran.err
    assert "not healthy 6 s after its start: /bin/sh: exit status 1" in ran.err
    assert "| it can not start" in ran.err
    assert restarted(before, runs(quick)) == {names[0]}
    assert quick.run("rollout", "status").status == 4
    # A resumed rollout waits for the container once more, and does not restart it again.
    pid = runs(quick)[names[0]]
    quick.inside(names[0], "rm /bad")
    assert quick.run("rollout", "resume").status == 0
    assert runs(quick)[names[0]] == pid
    assert restarted(before, runs(quick)) == set(names)
    assert rollout(quick)["status"] == "done"


def test_a_container_that_does_not_come_up_halts_the_rollout_and_can_be_left_behind(quick: Fleet) -> None:
    names = create(quick, "e", 3, command=("--", "sh", "-c", "test ! -e /bad && exec sleep infinity; echo no good; exit 37"))
    quick.inside(names[0], "touch /bad")
    wait = ("--healthy-deadline", "6")  # so long the rest waits below for what is down
    ran = quick.run("restart", "--all", "--rolling", "--max-unavailable", "1", *LONG, *wait)
    assert ran.status == 1, ran
    assert "| no good" in ran.err
    assert "its process 1: exit status 37\n" in ran.err
    assert (rollout(quick)["halted"]["exit_status"], rollout(quick)["halted"]["ended"]) == (37, "exit status 37")
    ran = quick.run("rollout", "resume", "--accept")
    assert ran.status == 1  # the container counts as down, and no other one may be down
    assert f"what failed counts as down ({names[0]}): mend it" in ran.err
    assert "no more may be down" in rollout(quick)["halted"]["why"]
    quick.ok("rollout", "abort")
    ran = quick.run("restart", names[1], names[2], "--rolling", "--max-unavailable", "1")
    assert ran.status == 0
    assert quick.run("rollout", "resume").status == 1


OUT_OF_MEMORY = [f"killed for memory: limit 64M, process sh ({how})" for how in ("killed by SIGKILL", "exit status 137")]
"""The kernel kills a process; its parent, the container's init, may end by itself before the rest is killed."""


@pytest.mark.parametrize(
    ("script", "ended"),
    [
        ("sleep 0.1; exec sh -c 'kill -SEGV $$'", ("exit status 139 (killed by SIGSEGV)",)),
        ("x=x; while :; do x=$x$x; done", OUT_OF_MEMORY),
    ],
    ids=["signal", "memory"],
)
def test_a_halt_tells_which_signal_ended_the_container(quick: Fleet, script: str, ended: Sequence[str]) -> None:
    command = ("--", "sh", "-c", f"test ! -e /bad && exec sleep infinity; {script}")
    names = create(quick, "k", 2, "--memory", "64M", command=command)
    quick.inside(names[0], "touch /bad")
    ran = quick.run("restart", "--all", "--rolling", "--max-unavailable", "1", *LONG)
    assert (ran.status, any(f"its process 1: {words}\n" in ran.err for words in ended)) == (1, True), ran
    assert any(words in event["message"] for event in quick.events("rollout") for words in ended)


def test_a_service_that_does_not_come_back_halts_the_rollout(quick: Fleet) -> None:
    names = create(quick, "s", 2, command=())
    unit = "[Service]\\nExecStart=/bin/false\\n[Install]\\nWantedBy=multi-user.target\\n"
    quick.inside(names[0], f"printf '{unit}' >/etc/systemd/system/wrong.service && systemctl -q enable wrong")
    before = runs(quick)
    ran = quick.run("restart", "--all", "--rolling", "--healthy-deadline", "15")
    assert ran.status == 1, ran
    assert "systemd is degraded: wrong.service failed" in ran.err
    assert restarted(before, runs(quick)) == {names[0]}
    quick.inside(names[0], "systemctl disable -q wrong; systemctl reset-failed")
    assert quick.run("rollout", "resume").status == 0
    assert restarted(before, runs(quick)) == set(names)


def test_a_container_that_was_unhealthy_before_does_not_halt_the_rollout(quick: Fleet) -> None:
    ill = create(quick, "i", 1)[0]
    quick.create(quick.name("j"), options=("--health-exec", "false", *FAST))
    until(lambda: quick.record(quick.name("j"))["health"] == "unhealthy", 20)
    before = runs(quick)
    done = quick.json("restart", "--all", "--rolling")
    assert (done["status"], restarted(before, runs(quick))) == ("done", {ill, quick.name("j")})
    assert done["containers"][1]["note"] == "it was not healthy before either"


def test_containers_that_can_not_be_restarted_are_left_out(quick: Fleet) -> None:
    names = create(quick, "f", 4)
    spec = quick.paths.container(names[3]).spec
    quick.stop_daemon()
    text = spec.read_text()
    spec.write_text("nonsense: [")
    quick.start_daemon()
    quick.ok("freeze", names[0])
    quick.ok("stop", names[1], "--timeout", "0")
    record = quick.json("restart", "--all", "--rolling")
    assert phases(quick) == {names[0]: "skipped", names[2]: "done", names[3]: "skipped"}
    assert "frozen" in record["containers"][0]["note"]
    assert "broken" in record["containers"][2]["note"]
    states = {names[0]: "frozen", names[1]: "stopped", names[2]: "running", names[3]: "running"}
    assert quick.states() == states
    quick.stop_daemon()
    spec.write_text(text)
    quick.start_daemon()


# the operator


def test_a_rollout_can_be_paused_resumed_and_aborted(quick: Fleet) -> None:
    names = create(quick, "p", 4)
    before = runs(quick)
    options = ("--rolling", "--max-unavailable", "1", "--min-healthy-time", "4")
    quick.ok("restart", "--all", *options, "--no-wait")
    busy = quick.run("restart", "--all", "--rolling")
    assert (busy.status, "under way" in busy.err) == (1, True)
    until(lambda: rollout(quick)["wave"] == 1, 10)
    quick.client().rollout_pause()  # a program that has to start may come after the next wave
    quick.ok("rollout", "pause")
    until(lambda: phases(quick)[names[0]] == "done", 20)
    time.sleep(1)
    assert (rollout(quick)["status"], restarted(before, runs(quick))) == ("paused", {names[0]})
    quick.ok("rollout", "resume", "--no-wait")
    until(lambda: rollout(quick)["wave"] == 2, 20)
    quick.client().rollout_abort()
    until(lambda: restarted(before, runs(quick)) == set(names[:2]), 20, "the wave that has begun is ended")
    until(lambda: set(quick.states().values()) == {"running"}, 20)
    time.sleep(1)
    assert restarted(before, runs(quick)) == set(names[:2])
    assert rollout(quick)["status"] == "aborted"
    quick.ok("restart", "--all", "--rolling")


def test_a_rollout_goes_on_without_its_client(quick: Fleet) -> None:
    names = create(quick, "c", 4)
    before = runs(quick)
    client = quick.spawn("restart", "--all", "--rolling", "--max-unavailable", "1", "--min-healthy-time", "1")
    until(lambda: quick.client().rollout() and phases(quick)[names[0]] == "done", 10)  # by then the client follows it
    client.send_signal(signal.SIGINT)
    _, err = client.communicate(timeout=60)
    assert (client.returncode, b"goes on" in err) == (130, True)
    assert quick.run("rollout", "status", "--follow").status == 0
    assert restarted(before, runs(quick)) == set(names)


# patches


def stale(fleet: Fleet) -> set[str]:
    return set(fleet.run("stale", "-q").out.split())


def test_a_patch_restarts_stale_containers_and_no_others(quick: Fleet, program: Path) -> None:
    names = create(quick, "s", 5, command=("--", str(program), "infinity"))
    create(quick, "o", 2)
    before = runs(quick)
    install(program)
    assert stale(quick) == set(names)
    status = quick.run("patch", "status")
    assert (status.status, names[0] in status.out) == (4, True)
    planned = json.loads(quick.ok("patch", "apply", "--dry-run", "-f", "json"))
    assert {name for wave in planned["waves"] for name in wave} == set(names)
    done = json.loads(quick.ok("patch", "apply", "-f", "json", "--max-unavailable", "2"))
    assert {each["name"] for each in done["containers"]} == set(names)
    assert restarted(before, runs(quick)) == set(names)
    assert stale(quick) == set()
    assert quick.run("patch", "status").status == 0


def test_a_second_patch_during_a_rollout_is_taken_up(quick: Fleet, program: Path) -> None:
    names = create(quick, "s", 4, command=("--", str(program), "infinity"))
    install(program)
    first = runs(quick)
    options = ("--max-unavailable", "1", "--min-healthy-time", "1")
    quick.ok("patch", "apply", "--no-wait", *options)
    until(lambda: phases(quick)[names[0]] == "done", 20)
    quick.ok("rollout", "pause")
    until(lambda: set(quick.states().values()) == {"running"}, 20)
    second = runs(quick)
    install(program)
    quick.ok("patch", "apply", "--no-wait")
    assert quick.run("rollout", "resume").status == 0
    until(lambda: rollout(quick)["ended"] is not None, 60)
    assert rollout(quick)["patches"] == 2
    assert stale(quick) == set()
    last = runs(quick)
    assert restarted(first, second) >= {names[0]}
    assert restarted(second, last) == set(names)
    counted = [event["container"] for event in quick.events("restarted")]
    assert counted.count(names[3]) == 1, "one restart for both patches"


def test_patch_apply_restarts_only_the_chosen_containers(quick: Fleet, program: Path) -> None:
    names = create(quick, "s", 3, command=("--", str(program), "infinity"))
    install(program)
    assert quick.run("patch", "apply", names[0]).status == 0
    assert stale(quick) == set(names[1:])
    assert quick.run("patch", "apply", "no-such-one").status == 1


@pytest.mark.parametrize("way", ["patch apply", "rollout resume", "abort"])
def test_a_container_that_a_bad_version_took_down_comes_back_with_the_good_one(quick: Fleet, program: Path, way: str) -> None:
    names = create(quick, "d", 3, command=("--", str(program), "infinity"))
    before = runs(quick)
    install(program, "/usr/bin/false")
    assert quick.run("patch", "apply", "--max-unavailable", "1", "--min-healthy-time", "3").status == 1
    assert rollout(quick)["halted"]["container"] == names[0]
    proof = quick.run("verify", names[0])
    assert (proof.status, "a patch took it down" in proof.out) == (4, True)
    if way == "abort":
        quick.ok("rollout", "abort")
        quick.paths.rollout.unlink()  # as after a reboot of the host
        quick.stop_daemon()
        quick.start_daemon()
    down = quick.run("patch", "status")
    assert (down.status, f"down:     {names[0]}" in down.out) == (4, True)
    install(program)
    assert quick.run(*("patch apply" if way == "abort" else way).split()).status == 0
    assert set(quick.states().values()) == {"running"}
    assert restarted(before, runs(quick)) == set(names)
    assert (quick.run("verify").status, quick.run("patch", "status").status) == (0, 0)
    starts = [event["container"] for event in quick.events("started")]
    assert starts.count(names[0]) <= 2


def test_a_container_that_a_bad_version_took_down_stays_down_if_it_is_stopped(quick: Fleet, program: Path) -> None:
    names = create(quick, "d", 3, command=("--", str(program), "infinity"))
    install(program, "/usr/bin/false")
    assert quick.run("patch", "apply", "--max-unavailable", "1", "--min-healthy-time", "3").status == 1
    ran = quick.run("stop", names[0], "-f", "json")
    assert (ran.status, ran.results) == (0, {names[0]: "stopped"})
    install(program)
    quick.stop_daemon()
    quick.start_daemon()
    assert quick.run("rollout", "resume").status == 0
    assert quick.states()[names[0]] == "stopped"
    assert quick.run("verify").status == 0
    assert f"stopped:  {names[0]}" in quick.run("patch", "status").out
    quick.ok("start", names[0])
    assert set(quick.states().values()) == {"running"}


# kill -9


def follow_to_the_end(fleet: Fleet) -> Ran:
    return fleet.run("rollout", "status", "--follow", "-f", "json")


@pytest.mark.parametrize("moment", [0.0, 0.1, 0.3, 0.6, 1.0, 1.5])
def test_the_daemon_is_killed_at_any_moment_and_no_container_is_restarted_twice(
    quick: Fleet, program: Path, moment: float
) -> None:
    names = create(quick, "k", 8, command=("--", "sh", "-c", f"echo started >>/starts; exec {program} infinity"))
    others = create(quick, "o", 1)
    before = runs(quick)
    install(program)
    quick.ok("patch", "apply", "--no-wait", "--max-unavailable", "3")
    time.sleep(moment + random.random() * 0.1)
    for _ in range(2):
        pid = quick.daemon_pid()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        until(lambda: quick.daemon_pid() is None, 10)
        quick.start_daemon()
        time.sleep(random.random() * 0.3)
    ended = follow_to_the_end(quick)
    assert (ended.status, ended.json["status"]) == (0, "done"), ended
    assert restarted(before, runs(quick)) == set(names)
    assert stale(quick) == set()
    starts = {name: quick.inside(name, "wc -l </starts") for name in names}
    assert set(starts.values()) == {"2"}, starts
    assert set(quick.states().values()) == {"running"}
    assert others[0] not in phases(quick)


@pytest.mark.parametrize("step", ["want", "halt", "mount", "boot", "settle"])
def test_a_rollout_goes_on_after_the_daemon_is_killed_at_a_step_of_a_restart(quick: Fleet, step: str) -> None:
    names = create(quick, "k", 3, command=("--", "sh", "-c", "echo started >>/starts; exec sleep infinity"))
    quick.stop_daemon()
    quick.start_daemon(kill=f"daemon:{names[1]}:{step}")
    with contextlib.suppress(AssertionError):
        quick.ok("restart", "--all", "--rolling", "--max-unavailable", "2", "--no-wait")
    until(lambda: quick.daemon_pid() is None, 20, "the daemon is killed")
    quick.reap()
    quick.start_daemon()
    ended = follow_to_the_end(quick)
    assert (ended.status, ended.json["status"]) == (0, "done"), ended
    assert {quick.inside(name, "wc -l </starts") for name in names} == {"2"}


def test_a_halt_and_a_pause_survive_the_daemon(quick: Fleet) -> None:
    names = create(quick, "k", 2)
    quick.ok("restart", "--all", "--rolling", "--max-unavailable", "1", "--min-healthy-time", "4", "--no-wait")
    until(lambda: phases(quick)[names[0]] != "waiting", 10)
    quick.client().rollout_pause()
    until(lambda: phases(quick)[names[0]] == "done", 10)
    before = runs(quick)
    quick.stop_daemon(signal.SIGKILL)
    quick.start_daemon()
    time.sleep(1)
    assert (rollout(quick)["status"], runs(quick)) == ("paused", before)
    quick.ok("rollout", "resume")
    assert restarted(before, runs(quick)) == set(names[1:])


@pytest.mark.parametrize("text", ["", "{", '{"version": 1}', "[1]"])
def test_a_damaged_record_of_a_rollout_stops_neither_the_daemon_nor_a_new_rollout(quick: Fleet, text: str) -> None:
    names = create(quick, "k", 1)
    quick.stop_daemon()
    quick.paths.rollout.write_text(text)
    quick.start_daemon()
    assert quick.client().rollout() is None
    assert quick.json("restart", names[0], "--rolling")["status"] == "done"
