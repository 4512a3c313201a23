"""kill -9 of the daemon and of its launcher at every step: nothing is lost or left over, and other containers run on."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lxcfleet.containers.desired import Observed
from lxcfleet.containers.reconciling import plan
from lxcfleet.containers.reconciling.steps import Check, Halt, Leave, Make, Step, Want
from lxcfleet.spec.states import Action

from .harness import KILLING, SLEEP, TIMEOUT, Fleet, alive, children_of, until

pytestmark = pytest.mark.system

ABSENT = "absent"
STOPPED = Observed(exists=True)
RUNNING = Observed(exists=True, running=True)
FROZEN = Observed(exists=True, running=True, frozen=True)


@dataclass(frozen=True)
class Case:
    """One action that is broken off at one of its steps. ``after``: the state to which a new daemon brings the container."""

    action: str
    before: str
    step: Step
    after: str
    same_process: bool = False

    def __str__(self) -> str:
        return f"{self.action}-{self.before}-{self.step.name}"


def steps(action: Action, now: Observed) -> plan.Steps:
    return plan.plan(plan.WANTED[action], now)


def cases() -> Iterator[Case]:
    """Every step of every plan. A new daemon completes an action that was noted, and forgets one that was not."""
    for step in plan.create(start=True):
        yield Case("create", ABSENT, step, ABSENT if isinstance(step, Make) else "running")
    for step in steps(Action.START, STOPPED):
        yield Case("start", "stopped", step, "stopped" if isinstance(step, Want) else "running")
    for step in steps(Action.STOP, RUNNING):
        begun = not isinstance(step, Want)
        yield Case("stop", "running", step, "stopped" if begun else "running", same_process=not begun)
    for step in steps(Action.RESTART, RUNNING):
        yield Case("restart", "running", step, "running", same_process=isinstance(step, Check | Want | Leave | Halt))
    for step in steps(Action.RESTART, FROZEN)[:2]:
        yield Case("restart", "frozen", step, "frozen", same_process=True)
    for step in steps(Action.DESTROY, RUNNING):
        begun = not isinstance(step, Want)
        yield Case("destroy", "running", step, ABSENT if begun else "running", same_process=not begun)
    for step in steps(Action.DESTROY, STOPPED):
        yield Case("destroy", "stopped", step, "stopped" if isinstance(step, Want) else ABSENT)
    for step in steps(Action.FREEZE, RUNNING):
        yield Case("freeze", "running", step, "running", same_process=True)
    for step in steps(Action.UNFREEZE, FROZEN):
        yield Case("unfreeze", "frozen", step, "frozen", same_process=True)


EACH = pytest.mark.parametrize("case", list(cases()), ids=str)


def arrange(fleet: Fleet, case: Case) -> str:
    """Bring the case's container to its state before the action, with a file in its delta. Return its name."""
    name = fleet.name("a")
    if case.before == ABSENT:
        return name
    fleet.create(name)
    fleet.inside(name, "echo kept >/var/lib/kept")
    if case.before == "frozen":
        fleet.ok("freeze", name)
    if case.before == "stopped":
        fleet.ok("stop", name)
    return name


def order(case: Case, name: str) -> list[str]:
    """The command line of the case's action."""
    extra = {"create": SLEEP, "destroy": ("--force",), "stop": ("--timeout", "5")}.get(case.action, ())
    return [case.action, name, *extra]


def pids(fleet: Fleet) -> dict[str, int | None]:
    return {record["name"]: record["pid"] for record in fleet.records()}


def settled(fleet: Fleet) -> bool:
    """Whether the daemon has completed all actions."""
    return not any(record["busy"] for record in fleet.records()) and not fleet.half_done()


def assert_usable(fleet: Fleet, name: str, state: str) -> None:
    """Check that the container is in this state and can be used, or that nothing is left of an absent one."""
    if state == ABSENT:
        assert name not in fleet.states()
        assert not fleet.paths.container(name).directory.exists()
        until(lambda: not [trace for trace in fleet.cgroups() if name in trace], what="its cgroups are gone")
        return
    assert fleet.states()[name] == state
    if state == "frozen":
        fleet.ok("unfreeze", name)
    if state == "stopped":
        fleet.ok("start", name)
    assert fleet.inside(name, "test ! -e /root/.ssh; cut -d: -f2 /etc/shadow | sort -u") == "*"


@pytest.fixture
def killing(fleet: Fleet) -> Fleet:
    """The fleet, with a daemon that `kill_at` reaches. It goes on with what the test before left it, if that is one."""
    last = fleet.daemons[-1]
    if last.pid != fleet.daemon_pid() or KILLING not in last.args:  # type: ignore[operator]
        fleet.stop_daemon()
        fleet.start_daemon(module=KILLING)
    return fleet


@EACH
def test_a_kill_of_the_daemon_at_each_step_leaves_a_usable_container(killing: Fleet, case: Case) -> None:
    fleet = killing
    witness = fleet.name("w")
    fleet.create(witness)
    name = arrange(fleet, case)
    before = pids(fleet)
    daemon = fleet.daemons[-1]
    fleet.kill_at(f"daemon:{name}:{case.step.name}")

    ran = fleet.run(*order(case, name))
    assert ran.status == 1, ran
    assert "the daemon" in ran.err
    assert daemon.wait(TIMEOUT) == -signal.SIGKILL
    left = fleet.half_done()

    fleet.reap()
    fleet.start_daemon(module=KILLING)
    until(lambda: settled(fleet), 20, "the new daemon has completed all actions")
    after = pids(fleet)
    assert after[witness] == before[witness]
    assert_usable(fleet, name, case.after)
    if case.same_process:
        assert after[name] == before[name]
    if ABSENT not in (case.before, case.after):
        assert fleet.inside(name, "cat /var/lib/kept") == "kept"
    if left:
        until(lambda: fleet.events("cleaned") or fleet.events("resumed"), what="it is told")
    assert fleet.mounts() == []


@pytest.mark.parametrize("case", [case for case in cases() if case.before in (ABSENT, "running")], ids=str)
def test_a_kill_of_the_launcher_at_each_step_leaves_a_usable_container(killing: Fleet, case: Case) -> None:
    fleet = killing
    witness = fleet.name("w")
    fleet.create(witness)
    name = arrange(fleet, case)
    before = pids(fleet)
    fleet.kill_at(f"launcher:{name}:{case.step.name}")

    ran = fleet.run(*order(case, name))
    assert ran.status in (0, 1), ran
    assert "internal error" not in ran.err
    until(lambda: settled(fleet), 5, f"no action is under way after {ran}")
    after = pids(fleet)
    became = {
        "create": "running", "start": "running", "stop": "stopped", "restart": "running",
        "destroy": ABSENT, "freeze": "frozen", "unfreeze": "running",
    }[case.action]  # fmt: skip
    assert after[witness] == before[witness]
    state = fleet.states().get(name, ABSENT)
    assert state == became if ran.status == 0 else state in (case.before, became, "stopped"), ran
    assert_usable(fleet, name, state)
    if ABSENT not in (state, case.before):
        assert fleet.inside(name, "cat /var/lib/kept") == "kept"
    # The daemon has a new launcher, which works.
    fleet.create(fleet.name("z"))
    assert_usable(fleet, fleet.name("z"), "running")


@contextlib.contextmanager
def creating(fleet: Fleet, count: int) -> Iterator[subprocess.Popen[bytes]]:
    """A client that creates many containers."""
    client = fleet.spawn("create", fleet.name("m"), "-n", str(count), "-f", "json", *SLEEP)
    try:
        yield client
    finally:
        client.kill()
        client.communicate()


def assert_whole(fleet: Fleet, witness: str, pid: int) -> None:
    """Check that each container is whole and runs, and that there are no other directories or cgroups."""
    until(lambda: settled(fleet), 30, "the daemon has completed all actions")
    states = fleet.states()
    assert set(states.values()) == {"running"}, states
    assert fleet.pid(witness) == pid
    assert sorted(path.rpartition("/")[2] for path in fleet.directories()) == sorted(states)

    def with_cgroups() -> set[str]:
        found = {cgroup.rpartition("lxc.payload.")[2] for cgroup in fleet.cgroups() if "lxc.payload." in cgroup}
        return {name.partition("/")[0] for name in found}

    until(lambda: with_cgroups() == set(states), what="the cgroups are those of the containers")
    checked = fleet.run("exec", "--all", "--", "sh", "-c", "cut -d: -f2 /etc/shadow | sort -u")
    assert checked.status == 0, checked
    assert {line.split()[1] for line in checked.out.splitlines()} == {"*"}


MOMENTS = [0.0, 0.03, 0.08, 0.15, 0.25]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_of_the_daemon_at_any_moment_leaves_whole_containers(fleet: Fleet, moment: float) -> None:
    witness = fleet.name("w")
    fleet.create(witness)
    pid = fleet.pid(witness)
    daemon = fleet.daemon_pid()
    assert daemon is not None
    with creating(fleet, 30) as client:
        until(lambda: any(fleet.paths.lxc.glob(f"*{fleet.name('m')}*")), 20, "the daemon has begun")
        time.sleep(0.1 + moment + random.random() * 0.02)
        os.kill(daemon, signal.SIGKILL)
        assert client.wait(TIMEOUT) in (0, 1)
    until(lambda: fleet.daemon_pid() != daemon)
    assert_whole(fleet, witness, pid)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("servant", ["launcher", "booter"])
def test_a_kill_of_the_launcher_at_any_moment_leaves_whole_containers(fleet: Fleet, servant: str, moment: float) -> None:
    witness = fleet.name("w")
    fleet.create(witness)
    pid = fleet.pid(witness)
    victim = fleet.servants()[servant]
    with creating(fleet, 30) as client:
        time.sleep(0.1 + moment + random.random() * 0.02)
        os.kill(victim, signal.SIGKILL)
        assert client.wait(TIMEOUT) in (0, 1, 3)
    assert_whole(fleet, witness, pid)


@pytest.mark.parametrize("moment", MOMENTS[::2])
@pytest.mark.parametrize("action", ["restart", "destroy"])
def test_a_kill_of_both_during_a_restart_or_destroy_leaves_whole_containers(fleet: Fleet, action: str, moment: float) -> None:
    """The daemon and its launcher are killed."""
    fleet.ok("create", fleet.name("m"), "-n", "20", *SLEEP)
    witness = fleet.name("w")
    fleet.create(witness)
    pid = fleet.pid(witness)
    victims = [fleet.daemon_pid() or 0, *fleet.servants().values()]
    more = ["--force"] if action == "destroy" else []
    client = fleet.spawn(action, f"{fleet.name('m')}*", *more)
    time.sleep(0.08 + moment)
    for victim in victims:
        with contextlib.suppress(ProcessLookupError):  # the others end by themselves once the daemon is dead
            os.kill(victim, signal.SIGKILL)
    client.communicate(timeout=TIMEOUT)
    until(lambda: fleet.daemon_pid() not in victims and not any(map(alive, victims)))
    assert_whole(fleet, witness, pid)
    if action == "restart":
        assert len(fleet.states()) == 21


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_the_daemon_goes_on_after_a_kill_of_the_client(fleet: Fleet, number: signal.Signals) -> None:
    with creating(fleet, 30) as client:
        until(lambda: len(fleet.directories()) > 2, 20, "the create has begun")
        client.send_signal(number)
        client.wait(TIMEOUT)
    until(lambda: list(fleet.states().values()) == ["running"] * 30, 20, "all containers run")


def test_half_made_and_half_removed_directories_are_removed_and_told(fleet: Fleet) -> None:
    """Only a kill of the launcher's children can leave these directories: a half-made and a half-removed container."""
    keep = fleet.name("a")
    fleet.create(keep)
    fleet.stop_daemon()
    half = [fleet.paths.new(fleet.name("b")).delta, fleet.paths.gone(fleet.name("c") + ".0").delta / "some/where"]
    for directory in half:
        directory.mkdir(parents=True)
        (directory / "file").write_text("x")
    fleet.start_daemon()
    assert fleet.states() == {keep: "running"}
    assert not half[0].exists()
    until(lambda: len(fleet.events("cleaned")) == 2, what="the daemon tells of both")
    assert not half[1].exists()
    told = "\n".join(event["message"] for event in fleet.events("cleaned"))
    assert fleet.name("b") in told
    assert fleet.name("c") in told


def test_the_removal_of_a_large_leftover_delays_no_daemon_and_no_create(fleet: Fleet) -> None:
    """The removal also ends with the daemon. Otherwise it would keep the daemon's lock."""
    fleet.stop_daemon()
    gone = fleet.paths.gone(fleet.name("c") + ".0").delta
    for directories in (60, 240):  # on a busy host the first may be removed before this test has its turn again
        for directory in range(directories):
            (gone / str(directory)).mkdir(parents=True)
            for file in range(1000):
                os.close(os.open(gone / str(directory) / str(file), os.O_CREAT | os.O_WRONLY))
        fleet.start_daemon()
        fleet.stop_daemon(signal.SIGKILL)
        until(lambda: not fleet.helpers(), 5, "no helper of the daemon goes on")
        if gone.exists():
            break
    assert gone.exists()
    fleet.start_daemon()
    fleet.create(fleet.name("c"))
    until(lambda: not gone.parent.exists(), 60, "the leftover is removed")
    until(lambda: fleet.events("cleaned"), what="that is told")


def test_a_container_that_outlives_its_destroy_is_destroyed_when_it_ends(fleet: Fleet) -> None:
    """This happens when a process of the container hangs in the kernel for longer than the daemon waits."""
    name = fleet.name("a")
    fleet.create(name)
    fleet.paths.container(name).pending.write_text("destroy\n")
    os.kill(fleet.pid(name), signal.SIGKILL)
    until(lambda: name not in fleet.states(), 30, "the container is destroyed")
    until(lambda: fleet.directories() == [], what="its files are removed")


def test_a_directory_that_takes_the_place_of_a_new_container_stays(fleet: Fleet) -> None:
    """A restore or lxc-create may make it after the daemon found the name free, and before the container is made."""
    # A stopped launcher holds up a create there. It also holds up the look at a mask that another test's change of the host
    # made old, which comes earlier: then the next try finds the mask checked.
    for number in range(5):
        name = fleet.name(f"a{number}")
        fleet.create(fleet.name(f"warm{number}"))
        until(lambda: not children_of(fleet.servants()["launcher"]), what="the launcher's idle child has ended")
        precious = fleet.paths.lxc / name / "rootfs/home/data"
        begun = _create_beside(fleet, name, precious)
        if begun:
            break
    assert begun, "the launcher was asked for something else before each of five creates"
    assert precious.read_text() == "precious"
    assert name not in fleet.states()
    shutil.rmtree(fleet.paths.lxc / name)


def _create_beside(fleet: Fleet, name: str, precious: Path) -> bool:
    """Write a file where the container is to be, while the daemon makes it; False if the daemon did not get that far."""
    launcher = fleet.servants()["launcher"]
    os.kill(launcher, signal.SIGSTOP)
    with fleet.spawn("create", name, *SLEEP) as client:
        try:
            deadline = time.monotonic() + 5
            while not (begun := name in fleet.states()) and time.monotonic() < deadline:
                time.sleep(0.02)
            if begun:
                precious.parent.mkdir(parents=True)
                precious.write_text("precious")
        finally:
            os.kill(launcher, signal.SIGCONT)  # the client waits for it, and this block for the client
        assert (client.wait(TIMEOUT) != 0) == begun
    return begun


def test_a_container_whose_dns_name_can_not_be_written_runs_all_the_same(fleet: Fleet) -> None:
    """This happens when the file system of /run is full."""
    first, second, third = (fleet.name(letter) for letter in "abc")
    fleet.create(first, options=["--network", "bridge"])
    shutil.move(fleet.paths.hosts, fleet.paths.run / "hosts.away")
    fleet.paths.hosts.write_text("in the way")
    try:
        fleet.create(second, options=["--network", "bridge"])
    finally:
        fleet.paths.hosts.unlink()
        shutil.move(fleet.paths.run / "hosts.away", fleet.paths.hosts)
    assert "found by no name" in fleet.log()
    fleet.create(third, options=["--network", "bridge"])
    assert fleet.states() == dict.fromkeys((first, second, third), "running")
    assert len({fleet.record(name)["addresses"][0] for name in (first, second, third)}) == 3


def test_containers_that_are_not_lxcfleets_are_left_alone(fleet: Fleet) -> None:
    fleet.stop_daemon()
    foreign = fleet.paths.lxc / "somebody-elses"
    foreign.mkdir(parents=True)
    (foreign / "config").write_text("lxc.uts.name = somebody-elses\n")
    fleet.start_daemon()
    assert fleet.states() == {}
    refused = fleet.run("destroy", "somebody-elses", "--force")
    assert (refused.status, (foreign / "config").exists()) == (1, True)
    refused = fleet.run("create", "somebody-elses", *SLEEP)
    assert (refused.status, (foreign / "config").exists()) == (1, True)
    assert "not lxcfleet's" in refused.err
    (foreign / "config").unlink()
    foreign.rmdir()
