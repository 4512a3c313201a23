"""Ends of containers and restart policies, from the command line to the file that survives the daemon."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import shutil
import signal
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from lxcfleet.api.queries import EventsRequest
from lxcfleet.api.records import ContainerDetails, EventRecord
from lxcfleet.api.requests import CreateRequest
from lxcfleet.cli.verbs import show
from lxcfleet.containers import exits, restarts
from lxcfleet.containers.container import Container
from lxcfleet.containers.desired import Intent
from lxcfleet.containers.ends import firsts
from lxcfleet.containers.exits import KnownPast
from lxcfleet.containers.reconciling import plan
from lxcfleet.containers.reconciling.lifecycle import Lifecycle
from lxcfleet.containers.reconciling.steps import Want
from lxcfleet.containers.registry import Registry
from lxcfleet.containers.restarts import RestartCourse
from lxcfleet.daemon import serving
from lxcfleet.errors import HostError
from lxcfleet.host.kernel import tree
from lxcfleet.host.lxc import liblxc, monitor, stopping
from lxcfleet.host.process import proc
from lxcfleet.launcher.client import Died
from lxcfleet.patch.fallen import Fallen
from lxcfleet.paths import ContainerPaths
from lxcfleet.spec.container.depends import Condition
from lxcfleet.spec.container.restart import Restart, RestartPolicy, RestartType
from lxcfleet.spec.states import Action

from .conftest import Cli, soon
from .fake.launcher import FakeLauncher
from .real_daemon import Daemon

FOREVER = ("sleep", "infinity")
FAILS = ("sh", "-c", "echo no such file >&2; exit 7")
QUICK = "delay=0.1 max_delay=0.2"
ALWAYS: Restart = RestartType().parse(f"always {QUICK}")


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who runs the tests may have no processor to spare."""
    monkeypatch.setattr(firsts, "LONGEST_SECONDS", 30.0)


def create(daemon: Daemon, name: str, command: tuple[str, ...], **said: Any) -> None:
    daemon.create(CreateRequest(name, said={"command": command, **said}))


def info(daemon: Daemon, name: str) -> ContainerDetails:
    return daemon.client.info(name)


def kill(daemon: Daemon, name: str) -> None:
    pid = info(daemon, name)["pid"]
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def free_pid(daemon: Daemon, name: str) -> int | None:
    """Its process 1, once no action is under way on it: one that ends during a start is not taken for ended by lxc-stop."""

    def look() -> tuple[int | None] | None:
        container = daemon.parts.registry[name]
        return None if container.busy is not None else (container.running.pid if container.running is not None else None,)

    pid: int | None = soon(lambda: daemon.call(look))[0]
    return pid


def end_by_lxc_stop(lxc_path: Path, name: str, pid: int) -> None:
    """End its process 1 while its monitor has a connection of somebody who waits for that, as lxc-stop does."""
    with socket.socket(socket.AF_UNIX) as waits:
        waits.connect(f"\0{lxc_path}/{name}/command")
        os.kill(pid, signal.SIGKILL)
        waits.recv(1)  # the monitor closes it as it ends


def of(daemon: Daemon, name: str) -> list[EventRecord]:
    return [event for event in daemon.client.events(EventsRequest()) if event["container"] == name]


def told(daemon: Daemon, name: str) -> list[str]:
    return [event["what"] for event in of(daemon, name)]


def test_a_command_that_fails_at_once_is_no_success(daemon: Daemon, cli: Cli) -> None:
    ran = cli("create", "web", "--", *FAILS)
    assert (ran.status, "web was created, and its command ended at once: exit status 7" in ran.err) == (1, True), ran
    assert "no such file" in ran.err
    assert json.loads(cli("list", "-f", "json").out)[0]["exit"]["status"] == 7
    again = cli("start", "web", "-f", "json")
    assert (again.status, json.loads(again.out)["results"][0]["error"]["code"]) == (1, "wrong-state")
    shown = cli("info", "web").out
    assert "no such file" in shown
    assert "exit status 7" in shown
    assert cli("create", "job", "--", "true").status == 0
    assert cli("wait", "job", "--for", "stopped", "--status", "-q").status == 0
    assert cli("wait", "web", "job", "--for", "stopped", "--status", "-q").status == 7
    assert "exited 7 · " in cli("list", "web").out
    assert cli("list", "-q", "--state", "failed").out == "web\n"
    assert cli("list", "-q", "--state", "exited").out == "job\n"


@pytest.mark.parametrize("command", [("true",), FAILS])
def test_a_stop_of_what_has_ended_by_itself_says_that_it_changes_something(
    daemon: Daemon, cli: Cli, command: tuple[str, ...]
) -> None:
    """A job that had completed counts as stopped afterwards, and what waits for it stays blocked."""
    cli("create", "job", "--", *command)
    soon(lambda: info(daemon, "job")["state"] in ("exited", "failed"))
    assert "job: count as stopped, not as ended by itself" in cli("stop", "job", "--dry-run").out
    assert cli("stop", "job").out == "job  stopped\n"
    assert info(daemon, "job")["state"] == "stopped"
    assert cli("stop", "job").out == "job  unchanged\n"


def test_a_second_stop_until_the_boot_changes_nothing_and_a_lasting_one_does(daemon: Daemon, cli: Cli) -> None:
    create(daemon, "web", FOREVER)
    assert cli("stop", "web", "--until-boot").out == "web  stopped\n"
    ran = cli("stop", "web", "--until-boot", "--dry-run", "-f", "json")
    assert json.loads(ran.out)["changed"] is False, ran
    assert cli("stop", "web", "--until-boot").out == "web  unchanged\n"
    assert "web: stay down, also after the host's next boot" in cli("stop", "web", "--dry-run").out
    assert cli("stop", "web").out == "web  stopped\n"
    assert cli("stop", "web").out == "web  unchanged\n"


def test_a_stop_until_the_boot_of_what_pauses_says_for_how_long(daemon: Daemon, cli: Cli) -> None:
    assert cli("create", "web", "--restart", "always delay=600 max_delay=600", "--", *FAILS).status == 1
    soon(lambda: info(daemon, "web")["state"] == "backoff")
    assert "web: stay down until the host's next boot" in cli("stop", "web", "--until-boot", "--dry-run").out
    assert cli("stop", "web", "--until-boot").out == "web  stopped\n"
    assert cli("stop", "web", "--until-boot").out == "web  unchanged\n"


def test_status_is_about_the_end(daemon: Daemon, cli: Cli) -> None:
    create(daemon, "web", FOREVER)
    assert cli("wait", "web", "--status").status == 2
    assert cli("wait", "web", "--for", "stopped", "--status", "--timeout", "0.1").status == 125


def test_a_container_that_dies_is_started_again_and_one_that_is_stopped_is_not(daemon: Daemon, cli: Cli) -> None:
    assert cli("create", "web", "--restart", f"always {QUICK}", "--", *FOREVER).status == 0
    before = info(daemon, "web")["pid"]
    kill(daemon, "web")
    soon(lambda: info(daemon, "web")["pid"] not in (None, before))
    soon(lambda: told(daemon, "web") == ["created", "stopped", "restarted"])
    assert cli("stop", "web").status == 0
    record = info(daemon, "web")
    assert (record["state"], record["starts_in"]) == ("stopped", None)
    ended = record["exit"]
    assert ended is not None
    assert ended["asked"]


def test_an_end_is_written_down_once_with_what_follows(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each write is one more file for the disk to replace, on the way to the next run."""
    written: list[KnownPast] = []
    save = exits.save

    def note(own: ContainerPaths, past: KnownPast) -> None:
        written.append(past)
        save(own, past)

    monkeypatch.setattr(exits, "save", note)
    create(daemon, "web", FOREVER, restart=RestartType().parse("always delay=50"))
    create(daemon, "job", FOREVER)
    for name in ("web", "job"):
        kill(daemon, name)
    soon(lambda: told(daemon, "web") == ["created", "stopped", "restarted"])
    soon(lambda: told(daemon, "job") == ["created", "stopped"])
    assert [past.exit is not None and past.exit.followed for past in written] == [True, True]


def test_an_end_is_written_down_though_nobody_can_say_what_follows(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(daemon, "web", FOREVER)

    def fail(*_: object) -> RestartCourse:
        raise ValueError("of a test")

    monkeypatch.setattr(restarts, "after", fail)
    kill(daemon, "web")
    soon(lambda: told(daemon, "web") == ["created", "stopped"])
    kept = exits.load(daemon.paths.container("web")).exit
    assert kept is not None
    assert not kept.followed
    assert not daemon.paths.container("web").runs.exists()


def test_a_boot_whose_booter_was_killed_is_made_once_more(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """With other mounts: the daemon does not hold those that the first one had."""
    seen = []
    boot = FakeLauncher.boot

    async def fragile(self: FakeLauncher, name: str, namespace: int, command: Sequence[str] = ()) -> int | None:
        seen.append(os.fstat(namespace).st_ino)
        if len(seen) == 1:
            os.close(namespace)
            raise Died(f"{name} did not start")
        return await boot(self, name, namespace, command)

    monkeypatch.setattr(FakeLauncher, "boot", fragile)
    create(daemon, "web", FOREVER)
    assert info(daemon, "web")["state"] == "running"
    assert len(seen) == 2


def test_a_new_run_that_ends_before_the_daemon_saw_it_has_ended_by_itself(
    daemon: Daemon, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a bad patch, on a busy host: what a restart began was taken for stopped by somebody."""
    patched = tmp_path / "patched"
    create(daemon, "web", ("sh", "-c", f"test -e {patched} && exit 3; exec sleep infinity"))
    patched.touch()
    monkeypatch.setattr(Registry, "_has_monitor", lambda *_: False)
    cli("restart", "web")
    soon(lambda: info(daemon, "web")["exit"] is not None)
    ended = info(daemon, "web")["exit"]
    assert ended is not None
    assert (ended["asked"], ended["seconds"]) == (False, None)


def test_a_start_is_expected_only_of_what_starts_without_a_pause(daemon: Daemon) -> None:
    create(daemon, "always", FOREVER, restart=RestartType().parse("always delay=50"))
    create(daemon, "failing", FOREVER, restart=RestartType().parse("on-failure"))
    create(daemon, "never", FOREVER)

    def expected(name: str) -> tuple[bool, bool]:
        container = daemon.parts.registry[name]
        return tuple(daemon.parts.supervision.starts_at_once(container, failed=failed) for failed in (True, False))  # type: ignore[return-value]

    found = {name: daemon.call(lambda name=name: expected(name)) for name in ("always", "failing", "never")}  # type: ignore[misc]
    assert found == {"always": (True, False), "failing": (True, False), "never": (False, False)}
    before = free_pid(daemon, "always")
    kill(daemon, "always")
    soon(lambda: free_pid(daemon, "always") not in (None, before))
    assert daemon.call(lambda: expected("always")) == (False, False), "the second failure in a row waits"


def test_a_policy_gives_up_and_a_start_begins_anew(daemon: Daemon, cli: Cli) -> None:
    ran = cli("create", "web", "--restart", f"on-failure attempts=2 {QUICK}", "--", *FAILS)
    assert ran.status == 1
    soon(lambda: info(daemon, "web")["gave_up"])
    record = info(daemon, "web")
    assert (record["state"], record["health"]) == ("failed", "unhealthy")
    assert told(daemon, "web").count("restarted") == 2
    assert told(daemon, "web")[-1] == "failed"
    assert "failed 7 · " in cli("list").out
    assert cli("start", "web").status == 1
    soon(lambda: told(daemon, "web").count("failed") == 2)
    assert cli("stop", "web").status == 0
    assert (info(daemon, "web")["state"], info(daemon, "web")["gave_up"]) == ("stopped", False)


def test_a_back_off_is_told_and_a_stop_ends_it(daemon: Daemon, cli: Cli) -> None:
    cli("create", "web", "--restart", "always delay=50", "--", *FAILS)
    soon(lambda: info(daemon, "web")["state"] == "backoff")
    left = info(daemon, "web")["starts_in"]
    assert left is not None
    assert 0 < left <= 50
    assert "backoff " in cli("list").out
    assert cli("wait", "web", "--for", "stopped", "--timeout", "0.1").status == 1
    stopped = json.loads(cli("stop", "web", "-f", "json").out)
    assert (stopped["changed"], info(daemon, "web")["state"]) == (True, "stopped")


def test_no_policy_holds_after_it_was_taken_back(daemon: Daemon, cli: Cli) -> None:
    cli("create", "web", "--restart", "always delay=50", "--", *FAILS)
    soon(lambda: info(daemon, "web")["state"] == "backoff")
    assert cli("set", "web", "restart=no").status == 0
    assert info(daemon, "web")["state"] == "failed"
    refused = cli("set", "web", "restart=sometimes")
    assert (refused.status, "sometimes" in refused.err) == (2, True)


def test_what_lxc_stop_ended_is_not_started_again(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "asking", lambda: [["-P", str(daemon.paths.lxc), "web"]])
    for name in ("web", "other"):
        create(daemon, name, FOREVER, restart=ALWAYS)
    pid = free_pid(daemon, "web")
    assert pid is not None
    end_by_lxc_stop(daemon.paths.lxc, "web", pid)
    soon(lambda: info(daemon, "web")["state"] == "stopped")
    kill(daemon, "other")
    soon(lambda: told(daemon, "other").count("restarted") == 1)
    assert told(daemon, "web") == ["created", "stopped"]


def test_a_start_that_fails_is_tried_again(daemon: Daemon) -> None:
    create(daemon, "web", FOREVER, restart=ALWAYS)
    daemon.model.fails["web"] = HostError("no space left")
    kill(daemon, "web")
    soon(lambda: info(daemon, "web")["failures"] >= 3)
    assert info(daemon, "web")["state"] in ("backoff", "starting")
    daemon.model.fails.clear()
    soon(lambda: info(daemon, "web")["state"] == "running")


def test_an_unhealthy_container_is_restarted_if_its_policy_says_so(daemon: Daemon, cli: Cli) -> None:
    check = ("--health-exec", "true", "--health-interval", "0.1", "--health-retries", "1", "--health-start-period", "0")
    policy = f"on-failure on_unhealthy=yes {QUICK}"
    assert cli("create", "web", "--restart", policy, *check, "--", *FOREVER).status == 0
    assert cli("wait", "web", "--for", "healthy").status == 0
    before = info(daemon, "web")["pid"]
    daemon.model.sick["web"] = "no answer"
    soon(lambda: info(daemon, "web")["pid"] not in (None, before))
    soon(lambda: info(daemon, "web")["failures"] >= 2)
    daemon.model.sick.clear()
    assert cli("wait", "web", "--for", "healthy").status == 0


def test_what_ended_while_no_daemon_ran_is_started_by_the_next_one(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:  # its containers end after it
        for name, policy in (("web", f"always {QUICK}"), ("job", f"on-failure {QUICK}"), ("once", "no")):
            create(daemon, name, FOREVER, restart=RestartType().parse(policy))
    with Daemon(tmp_path) as daemon:
        for name in ("web", "job"):
            soon(lambda name=name: info(daemon, name)["state"] == "running")  # type: ignore[misc]
        record = info(daemon, "once")
        ended = record["exit"]
        assert ended is not None
        assert (record["state"], ended["status"]) == ("stopped", None)
        assert "not known" in ended["words"]
        # It looked like one that somebody had stopped, a moment ago, and no event told of it.
        assert re.fullmatch(r"stopped, status not known · noticed [0-9.]+ m?s ago", show._state(record))
        assert "; noticed " in show._exit(ended)
        assert [event["message"] for event in of(daemon, "once")] == [ended["words"]]
        create(daemon, "after", FOREVER, depends_on={"once": Condition.COMPLETED})
        assert info(daemon, "after")["blocked"] == f"once not completed: {ended['words']}"
        daemon.act(Action.DESTROY, "web", "job", "once", "after")


def test_a_back_off_goes_on_after_a_restart_of_the_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its moment is on a clock that nobody can set: a clock that jumps back an hour changes nothing."""
    with Daemon(tmp_path) as daemon:
        create(daemon, "web", FAILS, restart=RestartType().parse("always delay=100 max_delay=1000"))
        soon(lambda: info(daemon, "web")["state"] == "backoff")
        course = daemon.call(lambda: daemon.parts.registry["web"].course)
    monkeypatch.setattr("time.time", lambda: 1000.0)
    with Daemon(tmp_path) as daemon:
        kept = daemon.call(lambda: daemon.parts.registry["web"].course)
        assert isinstance(kept, RestartCourse)
        assert kept == course
        assert kept.due is not None
        assert kept.due - proc.uptime() <= 100
        assert info(daemon, "web")["state"] == "backoff"
        daemon.act(Action.DESTROY, "web")


def test_a_record_that_can_not_be_read_costs_only_itself(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:
        create(daemon, "web", FAILS)
    (daemon.paths.container("web").exit).write_text('{"exit": {"at": "x"')
    with Daemon(tmp_path) as daemon:
        assert (info(daemon, "web")["state"], info(daemon, "web")["exit"]) == ("stopped", None)
        daemon.act(Action.DESTROY, "web")


def test_one_that_dies_during_an_action_that_fails_is_started_again(daemon: Daemon, cli: Cli) -> None:
    create(daemon, "web", FOREVER, restart=ALWAYS)
    before = info(daemon, "web")["pid"]

    def die(name: str) -> None:
        daemon.model.during = str
        kill(daemon, name)
        soon(lambda: info(daemon, name)["pid"] is None)
        raise HostError("can't be frozen")

    daemon.model.during = die
    assert cli("freeze", "web").status == 1
    soon(lambda: info(daemon, "web")["pid"] not in (None, before))


def test_an_end_that_no_policy_was_asked_about_is_followed_by_the_next_daemon(tmp_path: Path) -> None:
    """It died while an action was under way, and then so did the daemon: before, it was left down."""
    with Daemon(tmp_path) as daemon:
        create(daemon, "web", FAILS, restart=RestartType().parse("always delay=100 max_delay=1000"))
        soon(lambda: info(daemon, "web")["state"] == "backoff")
    file = daemon.paths.container("web").exit
    kept = json.loads(file.read_text())
    assert kept["exit"]["followed"] is True
    file.write_text(json.dumps({**kept, "exit": {**kept["exit"], "followed": False}, "course": asdict(RestartCourse())}))
    with Daemon(tmp_path) as daemon:
        soon(lambda: told(daemon, "web").count("restarted") == 1)
        daemon.act(Action.DESTROY, "web")


def test_one_that_dies_before_a_restart_begins_was_not_stopped_by_anybody(daemon: Daemon) -> None:
    create(daemon, "web", FOREVER, restart=ALWAYS)
    container = daemon.call(lambda: daemon.parts.registry["web"])
    pending = daemon.paths.container("web").pending
    for busy, note, asked in (("restart", "", False), ("restart", "start", True), ("stop", "", True), ("start", "", False)):
        if note:
            pending.write_text(f"{note}\n")
        before = info(daemon, "web")["pid"]
        daemon.call(lambda busy=busy: setattr(container, "busy", busy))  # type: ignore[misc]
        kill(daemon, "web")
        soon(lambda: daemon.call(lambda: container.running) is None)
        assert (container.exit is not None and container.exit.asked) is asked, (busy, note)
        pending.unlink(missing_ok=True)
        daemon.call(lambda: setattr(container, "busy", None))
        daemon.act(Action.START, "web")
        assert info(daemon, "web")["pid"] != before


def test_what_was_stopped_on_a_full_disk_stays_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with Daemon(tmp_path) as daemon:
        create(daemon, "web", FOREVER, restart=ALWAYS)
        kill(daemon, "web")
        soon(lambda: told(daemon, "web").count("restarted") == 1)
        monkeypatch.setattr("lxcfleet.containers.exits.save", fail)
        daemon.act(Action.STOP, "web")
    monkeypatch.undo()
    with Daemon(tmp_path) as daemon:
        assert info(daemon, "web")["state"] == "stopped"
        assert told(daemon, "web") == []
        daemon.act(Action.DESTROY, "web")


def test_a_start_after_process_1_has_ended_waits_for_its_monitor(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, it was "unchanged", and the container down a moment later."""
    create(daemon, "web", FOREVER)
    before = info(daemon, "web")["pid"]
    ended = proc.has_ended
    monkeypatch.setattr(proc, "has_ended", lambda pid, parent: pid == before or ended(pid, parent))
    assert before is not None
    threading.Timer(0.3, os.kill, (before, signal.SIGKILL)).start()
    (result,) = daemon.act(Action.START, "web")["results"]
    assert (result["status"], info(daemon, "web")["state"]) == ("started", "running")


@pytest.mark.parametrize("words", [("stop", "web"), ("destroy", "web", "--force")])
def test_a_request_waits_for_a_start_by_the_policy(daemon: Daemon, cli: Cli, words: tuple[str, ...]) -> None:
    """Before, it was refused as busy: whoever stopped what crashed in a loop had to try until he hit a pause."""
    create(daemon, "web", FOREVER, restart=ALWAYS)
    starts = threading.Event()

    def hold(_: str) -> None:
        starts.set()
        time.sleep(0.5)

    daemon.model.during = hold
    kill(daemon, "web")
    assert starts.wait(60)
    daemon.model.during = str
    ran = cli(*words)
    assert ran.status == 0, ran
    if words[0] == "stop":
        assert info(daemon, "web")["state"] == "stopped"


def test_a_copy_of_a_directory_never_ran(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:
        create(daemon, "web", FOREVER, restart=ALWAYS, network="none")
        shutil.copytree(daemon.paths.lxc / "web", daemon.paths.lxc / "other")
        daemon.act(Action.STOP, "web")
    with Daemon(tmp_path) as daemon:
        assert (info(daemon, "other")["state"], info(daemon, "other")["exit"]) == ("stopped", None)
        daemon.act(Action.DESTROY, "web", "other")


@pytest.mark.parametrize("seed", range(3))
def test_any_order_of_deaths_stops_and_daemons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Nothing runs that was stopped, and nothing is down that is to run."""
    chance, names, waits = random.Random(seed), ("a", "b", "c"), set[str]()
    monkeypatch.setattr(stopping, "asking", lambda: [["-P", str(tmp_path / "lxc"), *waits]])
    wanted = dict.fromkeys(names, True)
    for era in range(3):
        with Daemon(tmp_path) as daemon:  # its containers end after it
            for name in names if era == 0 else ():
                create(daemon, name, FOREVER, restart=RestartType().parse("always delay=0.1 max_delay=0.1"))
            for _ in range(8):
                name, step = chance.choice(names), chance.choice(("die", "die", "stop", "start", "restart", "lxc-stop"))
                pid = free_pid(daemon, name)
                if step in ("die", "lxc-stop") and pid is not None:
                    wanted[name] = step == "die"
                    if step == "lxc-stop":
                        waits.add(name)
                        end_by_lxc_stop(tmp_path / "lxc", name, pid)
                    else:
                        os.kill(pid, signal.SIGKILL)
                    soon(lambda name=name, pid=pid: info(daemon, name)["pid"] != pid)  # type: ignore[misc]
                    waits.discard(name)
                elif step in ("stop", "start", "restart"):
                    (result,) = daemon.act(Action(step), name)["results"]
                    if result["error"] is None:  # else its policy was just starting it
                        wanted[name] = step != "stop"
            for name in names:
                state = "running" if wanted[name] else "stopped"
                soon(lambda name=name, state=state: info(daemon, name)["state"] == state)  # type: ignore[misc]
    with Daemon(tmp_path) as daemon:
        for name in names:
            state = "running" if wanted[name] else "stopped"
            soon(lambda name=name, state=state: info(daemon, name)["state"] == state)  # type: ignore[misc]
        daemon.act(Action.DESTROY, *names)


# -- starts that failed --------------------------------------------------------------------------------------------

SLOW = HostError("/srv/data is not there", why="no such file or directory")


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starts without a policy are tried again after moments."""
    monkeypatch.setattr(restarts, "OWED", Restart(RestartPolicy.ON_FAILURE, delay=0.1, max_delay=0.2, attempts=1000))


def owe(daemon: Daemon, *names: str) -> None:
    """Begin what the daemon does for those that ran before the host's boot."""
    daemon.call(lambda: daemon.parts.fleet.boot.start_again(names))


def owe_in_vain(daemon: Daemon, **said: Any) -> None:
    """Owe a start to a container that does not run, and have each of its starts fail."""
    create(daemon, "web", FOREVER, **said)
    daemon.act(Action.STOP, "web")
    daemon.model.fails["web"] = SLOW
    owe(daemon, "web")


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("policy", ["no", f"always {QUICK}"])
def test_a_start_that_fails_at_the_boot_is_tried_until_it_goes(daemon: Daemon, cli: Cli, policy: str) -> None:
    """Before, it stayed down for good, though it was to run."""
    owe_in_vain(daemon, restart=RestartType().parse(policy))
    soon(lambda: info(daemon, "web")["failures"] >= 3)
    record = soon(lambda: now if (now := info(daemon, "web"))["state"] == "backoff" else None)
    assert "/srv/data is not there" in (record["start_error"] or "")
    assert record["health"] == "unhealthy"
    assert record["health_reason"] == f"its start failed: {record['start_error']}", "not how its last run ended"
    assert told(daemon, "web").count("backoff") >= 2
    assert "/srv/data is not there: no such file" in cli("events").out
    daemon.model.fails.clear()
    soon(lambda: info(daemon, "web")["state"] == "running")
    soon(lambda: told(daemon, "web")[-1] == "restarted")
    assert (info(daemon, "web")["start_error"], info(daemon, "web")["starts_in"]) == (None, None)
    assert not daemon.paths.container("web").pending.exists()
    kill(daemon, "web")  # it ended by itself now, which is another matter
    if policy == "no":
        soon(lambda: info(daemon, "web")["state"] == "failed")
        assert info(daemon, "web")["starts_in"] is None


@pytest.mark.usefixtures("hasty")
def test_a_start_that_can_not_be_noted_on_a_full_disk_is_owed_all_the_same(
    daemon: Daemon, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, a container that ran before the host's boot was not even started then, nor tried again."""
    create(daemon, "web", FOREVER)
    daemon.act(Action.STOP, "web")
    pending = daemon.paths.container("web").pending
    write = tree.write_first
    full = [True]

    def first(path: Path, text: str) -> None:
        if path == pending and full[0]:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, text)

    def settled() -> bool:
        daemon.call(daemon.parts.fleet.reconciler.settle_again)
        return pending.exists()

    monkeypatch.setattr(tree, "write_first", first)
    daemon.model.fails["web"] = SLOW
    owe(daemon, "web")
    soon(lambda: info(daemon, "web")["failures"] >= 2)
    assert not pending.exists()
    assert not settled()
    full[0] = False
    soon(settled)  # once no start is under way
    daemon.model.fails.clear()
    soon(lambda: info(daemon, "web")["state"] == "running")
    soon(lambda: not pending.exists())


def test_a_stop_ends_what_is_owed_and_could_not_be_noted(daemon: Daemon, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, _: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(tree, "write_first", full)
    create(daemon, "web", FOREVER)
    daemon.act(Action.STOP, "web")
    daemon.model.fails["web"] = SLOW
    ran = cli("start", "web")
    assert (ran.status, "tried again" in ran.err) == (1, False), "what the operator asked for is told, and not owed"
    container = daemon.call(lambda: daemon.parts.registry["web"])
    assert not daemon.call(lambda: container.owed)
    owe(daemon, "web")
    soon(lambda: info(daemon, "web")["state"] == "backoff")
    assert cli("stop", "web").status == 0
    assert (info(daemon, "web")["state"], daemon.call(lambda: container.owed)) == ("stopped", False)


def test_the_state_and_the_cause_are_shown_and_a_stop_ends_it(daemon: Daemon, cli: Cli) -> None:
    owe_in_vain(daemon)
    soon(lambda: info(daemon, "web")["failures"] >= 2)
    assert "start failed" in cli("list", "web").out
    assert "/srv/data is not there" in cli("info", "web").out
    found = cli("doctor")
    assert "web: its start failed, and is tried again: /srv/data is not there" in found.out, found
    assert cli("stop", "web").status == 0
    record = info(daemon, "web")
    assert (record["state"], record["start_error"], record["failures"]) == ("stopped", None, 0)
    assert not daemon.paths.container("web").pending.exists()
    daemon.model.fails.clear()
    assert "tried again" not in cli("doctor").out
    assert cli("start", "web").status == 0


def test_a_start_that_the_operator_asked_for_is_told_and_not_tried_again(daemon: Daemon, cli: Cli) -> None:
    create(daemon, "web", FOREVER)
    daemon.act(Action.STOP, "web")
    daemon.model.fails["web"] = SLOW
    ran = cli("start", "web")
    assert (ran.status, "tried again" in ran.err) == (1, False), ran
    record = info(daemon, "web")
    assert (record["state"], record["starts_in"], record["start_error"]) == ("stopped", None, None)


@pytest.mark.usefixtures("hasty")
def test_a_restart_whose_start_fails_comes_up_by_itself(daemon: Daemon, cli: Cli) -> None:
    """Before, a container that was to run and had been stopped for a restart stayed down until the daemon's next start."""
    create(daemon, "web", FOREVER)
    daemon.model.fails["web"] = SLOW
    ran = cli("restart", "web")
    assert (ran.status, "its start is tried again by itself" in ran.err) == (1, True), ran
    soon(lambda: info(daemon, "web")["failures"] >= 2)
    daemon.model.fails.clear()
    soon(lambda: info(daemon, "web")["state"] == "running")


def test_what_was_given_up_says_why_and_the_next_daemon_tries_it_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarts, "OWED", Restart(RestartPolicy.ON_FAILURE, delay=0.1, max_delay=0.1, attempts=2))
    with Daemon(tmp_path) as daemon:
        owe_in_vain(daemon)
        soon(lambda: info(daemon, "web")["gave_up"])
        record = info(daemon, "web")
        assert (record["state"], record["starts_in"]) == ("failed", None)
        assert "/srv/data is not there" in (record["start_error"] or "")
        assert told(daemon, "web")[-1] == "failed"
    with Daemon(tmp_path) as daemon:
        kept = info(daemon, "web")
        assert (kept["state"], "/srv/data is not there" in (kept["start_error"] or "")) == ("failed", True)
        daemon.call(lambda: daemon.parts.fleet.actions.resume(daemon.parts.registry["web"], "as the daemon begins"))
        soon(lambda: info(daemon, "web")["state"] == "running")
        assert (info(daemon, "web")["gave_up"], info(daemon, "web")["failures"]) == (False, 0)


def given_up(tmp_path: Path) -> None:
    """Leave a container behind that is to run, and whose start was given up."""
    with Daemon(tmp_path) as daemon:
        owe_in_vain(daemon)
        soon(lambda: info(daemon, "web")["gave_up"])


def resume(daemon: Daemon) -> None:
    """Begin what a daemon that begins does for web, if that is owed a start."""
    daemon.call(lambda: daemon.parts.fleet.actions.resume(daemon.parts.registry["web"], "as the daemon begins"))


def test_what_was_given_up_is_tried_as_often_again_by_the_next_daemon_and_by_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, one try was made, and it was given up again; whoever had asked for it was told that it is tried again."""
    monkeypatch.setattr(restarts, "OWED", Restart(RestartPolicy.ON_FAILURE, delay=0.1, max_delay=0.1, attempts=2))
    given_up(tmp_path)
    with Daemon(tmp_path) as daemon:
        daemon.model.fails["web"] = SLOW
        resume(daemon)
        soon(lambda: info(daemon, "web")["gave_up"] and told(daemon, "web").count("backoff") == 2)
        (result,) = daemon.act(Action.START, "web")["results"]
        assert result["error"] is not None
        assert "its start is tried again by itself" in result["error"]["hint"]
        soon(lambda: info(daemon, "web")["gave_up"] and told(daemon, "web").count("backoff") == 4)
        daemon.act(Action.DESTROY, "web")


def test_a_good_run_ends_what_was_given_up_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, the record on disk kept it: after a crash of the host, what had run well was said to have failed."""
    monkeypatch.setattr(restarts, "OWED", Restart(RestartPolicy.ON_FAILURE, delay=0.1, max_delay=0.1, attempts=1))
    given_up(tmp_path)
    with Daemon(tmp_path) as daemon:
        resume(daemon)
        soon(lambda: info(daemon, "web")["state"] == "running")
        course = json.loads(daemon.paths.container("web").exit.read_text())["course"]
        assert (course["gave_up"], course["cause"]) == (False, "")
        daemon.act(Action.DESTROY, "web")


def test_a_start_that_liblxc_takes_back_is_not_tried_for_ever(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts as begun for a moment. Before, each of its failures was the first one."""
    monkeypatch.setattr(restarts, "OWED", Restart(RestartPolicy.ON_FAILURE, delay=0.1, max_delay=0.1, attempts=2))
    create(daemon, "web", ("sleep", "0.5"))
    soon(lambda: info(daemon, "web")["state"] == "exited")
    monkeypatch.setattr(liblxc, "gave_up", lambda *_: True)
    owe(daemon, "web")
    soon(lambda: info(daemon, "web")["gave_up"])
    assert told(daemon, "web").count("backoff") == 2


def test_a_failed_restart_of_an_unhealthy_container_is_one_failure(daemon: Daemon, cli: Cli) -> None:
    check = ("--health-exec", "true", "--health-interval", "0.1", "--health-retries", "1", "--health-start-period", "0")
    policy = "on-failure on_unhealthy=yes delay=50 max_delay=100"
    assert cli("create", "web", "--restart", policy, *check, "--", *FOREVER).status == 0
    assert cli("wait", "web", "--for", "healthy").status == 0
    daemon.model.fails["web"] = SLOW
    daemon.model.sick["web"] = "no answer"
    soon(lambda: info(daemon, "web")["state"] == "backoff")
    soon(lambda: info(daemon, "web")["start_error"])
    assert info(daemon, "web")["failures"] == 2  # that it was unhealthy, and that its start failed
    daemon.model.fails.clear()


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("way", ["boot", "resume", "reboot"])
def test_a_start_that_is_owed_comes_once_nobody_has_the_container_in_hand(daemon: Daemon, way: str) -> None:
    """As during a scheduled snapshot. Before, it stayed down until the daemon's next start."""
    create(daemon, "web", FOREVER)
    daemon.act(Action.STOP, "web")
    container = daemon.call(lambda: daemon.parts.registry["web"])
    daemon.call(lambda: setattr(container, "busy", "snapshot"))
    if way == "boot":
        owe(daemon, "web")
    else:
        daemon.paths.container("web").pending.write_text("start\n")
        actions = daemon.parts.fleet.actions
        daemon.call(lambda: actions.resume(container, "it is owed") if way == "resume" else actions._reboot_now(container))
    soon(lambda: daemon.call(lambda: container.course.due) is not None)
    assert daemon.call(lambda: container.running) is None
    daemon.call(lambda: setattr(container, "busy", None))
    soon(lambda: info(daemon, "web")["state"] == "running")


@pytest.mark.usefixtures("hasty")
def test_a_start_that_comes_due_while_its_state_is_not_known_is_made_later(daemon: Daemon) -> None:
    """Before, it was refused once, and that was the last word."""
    owe_in_vain(daemon)
    container = daemon.call(lambda: daemon.parts.registry["web"])

    def lose_sight() -> float:
        if container.busy is not None or container.course.due is None or container.course.due <= proc.uptime():
            return 0.0
        container.unseen = True
        daemon.model.fails.clear()
        return container.course.due

    due = soon(lambda: daemon.call(lose_sight))
    soon(lambda: proc.uptime() > due + 0.5)
    daemon.call(lambda: setattr(container, "unseen", False))
    soon(lambda: info(daemon, "web")["state"] == "running")


def test_the_start_of_a_broken_container_is_not_tried_again(tmp_path: Path) -> None:
    """Its files are read when the daemon begins. Before, it was tried in vain, and its problem grew by a hint each time."""
    with Daemon(tmp_path) as daemon:
        create(daemon, "web", FOREVER)
        daemon.act(Action.STOP, "web")
        own = daemon.paths.container("web")
        spec = own.spec.read_text()
        own.spec.write_text("][")
        own.pending.write_text("start\n")
    with Daemon(tmp_path) as daemon:
        before = info(daemon, "web")["problem"]
        resume(daemon)
        soon(lambda: "failed" in told(daemon, "web"))
        record = info(daemon, "web")
        assert (record["state"], record["problem"], record["failures"]) == ("broken", before, 0)
        assert "backoff" not in told(daemon, "web")
        own.spec.write_text(spec)
        own.pending.unlink()


def test_a_start_of_what_a_patch_took_down_is_not_announced(daemon: Daemon) -> None:
    create(daemon, "web", FOREVER)
    daemon.act(Action.STOP, "web")
    container = daemon.call(lambda: daemon.parts.registry["web"])
    daemon.paths.container("web").pending.write_text("start\n")
    daemon.call(lambda: setattr(container, "resting", True))
    daemon.call(lambda: daemon.parts.registry.start_failed(container, SLOW))
    assert daemon.call(lambda: container.course) == RestartCourse()
    daemon.paths.container("web").pending.unlink()


def test_what_a_patch_took_down_is_not_due_any_more(daemon: Daemon) -> None:
    """Before, `drain --end` and `move` took it for one that is to run."""
    owe_in_vain(daemon)
    soon(lambda: info(daemon, "web")["state"] == "backoff")
    container, fallen = daemon.call(lambda: daemon.parts.registry["web"]), Fallen(daemon.paths)
    daemon.call(lambda: fallen.note(container, "its start failed", "2026-11-28T06:01:44.120Z"))
    assert daemon.call(lambda: (container.resting, container.course.wants_run)) == (True, False)
    daemon.call(lambda: setattr(container, "resting", False))
    daemon.call(lambda: setattr(container, "course", RestartCourse(1, due=1e9)))
    daemon.call(lambda: fallen.tidy([container], []))
    assert daemon.call(lambda: (container.resting, container.course.wants_run)) == (True, False)


def test_what_a_patch_took_down_is_not_due_for_the_next_daemon_either(tmp_path: Path) -> None:
    """Before, a daemon that began started it by its policy, on the patch that had taken it down."""
    with Daemon(tmp_path) as daemon:
        create(daemon, "web", FAILS, restart=RestartType().parse("always delay=100 max_delay=1000"))
        soon(lambda: info(daemon, "web")["state"] == "backoff")
        container = daemon.call(lambda: daemon.parts.registry["web"])
        daemon.call(lambda: daemon.parts.fallen.note(container, "it failed", "2026-11-28T06:01:44.120Z"))
        before = info(daemon, "web")
        assert (before["state"], before["starts_in"]) == ("failed", None)
    with Daemon(tmp_path) as daemon:
        after = info(daemon, "web")
        assert (after["state"], after["starts_in"]) == ("failed", None)
        container = daemon.call(lambda: daemon.parts.registry["web"])
        assert daemon.call(lambda: (container.resting, container.course.wants_run)) == (True, False)
        daemon.act(Action.DESTROY, "web")


class Next(Daemon):
    """A daemon that goes on where another one was killed, as the real one does."""

    async def _recover(self) -> None:
        real = serving.Daemon.__new__(serving.Daemon)
        real._paths, real._parts = self.paths, self.parts
        await real._recover()
        self.parts.fleet.boot.begin()


def fallen_in_its_restart(daemon: Daemon) -> Container:
    """A container that a patch took down: it is noted that it is to run, from before."""
    create(daemon, "web", FOREVER)
    daemon.act(Action.STOP, "web")
    container = daemon.call(lambda: daemon.parts.registry["web"])
    daemon.call(lambda: daemon.parts.fleet.reconciler.want(container, Intent.RUN))
    daemon.call(lambda: daemon.parts.fallen.note(container, "its start failed", "2026-11-28T06:01:44.120Z"))
    return container


def test_a_start_of_what_a_patch_took_down_that_the_daemon_was_killed_in_is_finished(tmp_path: Path) -> None:
    """After the host's boot, say: it stayed down until the next one."""
    with Daemon(tmp_path) as daemon:
        fallen_in_its_restart(daemon)
    with Next(tmp_path) as daemon:
        container = daemon.call(lambda: daemon.parts.registry["web"])
        assert daemon.call(lambda: (container.resting, container.running, container.busy)) == (True, None, None)
        assert "resumed" not in told(daemon, "web")
        steps = daemon.call(lambda: daemon.parts.fleet.reconciler.plan(container, plan.WANTED[Action.START]))
        assert steps[0] == Want(Intent.RUN, must=False)
        daemon.call(lambda: daemon.parts.fleet.reconciler.want(container, Intent.RUN))
    with Next(tmp_path) as daemon:
        soon(lambda: info(daemon, "web")["state"] == "running")
        soon(lambda: not daemon.paths.container("web").pending.exists())
        daemon.act(Action.DESTROY, "web")


def test_what_lxc_stop_ended_before_the_daemon_saw_it_run_stays_down(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process 1 was gone, and its monitor still at the hook that notes lxc-stop: the end counted as a death."""
    create(daemon, "web", FOREVER, restart=ALWAYS)
    daemon.act(Action.STOP, "web")
    own, boot, runs, looks = daemon.paths.container("web"), daemon.launcher._boot, monitor.runs, []

    def boot_and_end(name: str) -> int | None:
        pid: int = boot(name) or 0
        os.kill(pid, signal.SIGKILL)
        soon(lambda: proc.parent_and_start(pid) is None)
        looks.append(name)
        return pid

    def still_runs(name: str, lxc_path: str) -> bool:
        if not looks or own.stopping.exists():
            return runs(name, lxc_path)
        looks.append(name)
        if len(looks) > 3:
            own.stopping.write_bytes(b"\0".join([b"lxc-stop", b"-P", os.fsencode(daemon.paths.lxc), b"web", b"\n"]))
        return True

    monkeypatch.setattr(daemon.launcher, "_boot", boot_and_end)
    monkeypatch.setattr(monitor, "runs", still_runs)
    daemon.act(Action.START, "web")
    record = info(daemon, "web")
    assert (record["state"], record["exit"] and record["exit"]["asked"]) == ("stopped", True)


@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize("reboot", [False, True])
def test_what_lxc_stop_ended_after_a_broken_off_start_stays_down(tmp_path: Path, *, seen: bool, reboot: bool) -> None:
    """The daemon was killed before it could note that the start was done, and the next one started what lxc-stop had stopped.

    ``seen``: whether the killed daemon saw it run; ``reboot``: whether lxc-stop asked for a reboot.
    """
    with Daemon(tmp_path) as daemon:
        create(daemon, "web", FOREVER, restart=ALWAYS)
        own = daemon.paths.container("web")
    if not seen:
        own.runs.unlink()
    own.pending.write_text("start\n")
    own.stopping.write_bytes(b"\0".join([b"lxc-stop", b"-P", os.fsencode(daemon.paths.lxc), b"web", b"\n"]))
    wish, stop = (2, 1) if reboot else (1, 2)
    os.utime(own.pending, (wish, wish))
    os.utime(own.stopping, (stop, stop))
    with Next(tmp_path) as daemon:
        if reboot:
            soon(lambda: info(daemon, "web")["state"] == "running")
        else:
            record = info(daemon, "web")
            assert (record["state"], record["exit"] and record["exit"]["asked"]) == ("stopped", True)
            assert not own.pending.exists()
            assert told(daemon, "web") == ["stopped"]
        daemon.act(Action.DESTROY, "web")


def test_a_start_of_what_a_patch_took_down_that_fails_is_not_owed(daemon: Daemon, cli: Cli) -> None:
    container = fallen_in_its_restart(daemon)
    daemon.model.fails["web"] = SLOW
    assert cli("start", "web").status == 1
    assert not daemon.paths.container("web").pending.exists()
    assert daemon.call(lambda: container.resting)
    daemon.model.fails.clear()
    assert cli("start", "web").status == 0
    assert not daemon.call(lambda: container.resting)


@pytest.mark.usefixtures("hasty")
def test_what_rested_for_a_reboot_that_did_not_come_is_tried_until_it_starts(daemon: Daemon) -> None:
    create(daemon, "web", FOREVER)
    daemon.act(Action.STOP, "web")
    container = daemon.call(lambda: daemon.parts.registry["web"])
    daemon.call(lambda: setattr(container, "resting", True))
    daemon.model.fails["web"] = SLOW
    owe(daemon, "web")
    soon(lambda: info(daemon, "web")["failures"] >= 2)
    daemon.model.fails.clear()
    soon(lambda: info(daemon, "web")["state"] == "running")


def test_a_destroy_that_fails_is_no_start_that_failed(daemon: Daemon, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, a container that waited for its next start was said to have failed to start, as it "can't be removed"."""
    monkeypatch.setattr(restarts, "OWED", Restart(RestartPolicy.ON_FAILURE, delay=50, max_delay=50, attempts=1000))
    owe_in_vain(daemon)
    soon(lambda: info(daemon, "web")["state"] == "backoff")

    def refuse(*_: object) -> None:
        raise HostError("web can't be removed")

    with monkeypatch.context() as patched:
        patched.setattr(Lifecycle, "retire", refuse)
        ran = cli("destroy", "web")
    assert (ran.status, "can't be removed" in ran.err, "start" in ran.err) == (1, True, False), ran
    record = info(daemon, "web")
    assert (record["state"], record["failures"]) == ("backoff", 1)
    assert "/srv/data is not there" in (record["start_error"] or "")
    assert told(daemon, "web").count("backoff") == 1


@pytest.mark.usefixtures("hasty")
def test_a_start_that_comes_due_during_a_destroy_that_fails_is_made_after_it(daemon: Daemon) -> None:
    """Before, it was forgotten, as nothing was owed at that moment."""
    owe_in_vain(daemon)
    container, pending = daemon.call(lambda: daemon.parts.registry["web"]), daemon.paths.container("web").pending

    def destroy() -> float:
        if container.busy is not None or container.course.due is None or container.course.due <= proc.uptime():
            return 0.0
        container.busy = "destroy"
        pending.write_text("destroy\n")
        daemon.model.fails.clear()
        return container.course.due

    due = soon(lambda: daemon.call(destroy))
    soon(lambda: proc.uptime() > due + 0.5)
    pending.write_text("start\n")
    daemon.call(lambda: setattr(container, "busy", None))
    soon(lambda: info(daemon, "web")["state"] == "running")


def test_what_lxcfleet_run_runs_is_left_to_its_caller(daemon: Daemon) -> None:
    create(daemon, "web", FOREVER)
    daemon.act(Action.STOP, "web")
    container = daemon.call(lambda: daemon.parts.registry["web"])
    daemon.paths.container("web").pending.write_text("start\n")
    daemon.call(lambda: setattr(container, "foreground", object()))
    daemon.call(lambda: daemon.parts.registry.start_failed(container, SLOW))
    assert daemon.call(lambda: container.course) == RestartCourse()
    daemon.call(lambda: setattr(container, "foreground", None))
    daemon.paths.container("web").pending.unlink()


def test_a_container_that_is_being_started_again_has_no_wait_before_it(daemon: Daemon, cli: Cli) -> None:
    """Before, its state was shown as “starting 0.0 s”."""
    cli("create", "web", "--restart", "always delay=50", "--", *FAILS)
    soon(lambda: info(daemon, "web")["starts_in"] is not None)
    with mock.patch.object(Container, "in_start", True):
        record = info(daemon, "web")
    assert (record["state"], record["starts_in"]) == ("starting", None)
