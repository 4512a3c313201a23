"""Moves between two hosts by the command line: two real daemons over fake launchers, and a stand-in for ssh between them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import leftovers
import pytest

from lxcfleet import __version__
from lxcfleet.api.client import Client
from lxcfleet.api.moves import CheckArrivalRequest
from lxcfleet.cli import main
from lxcfleet.cli.ui import mover, ssh
from lxcfleet.containers import moving, store
from lxcfleet.daemon.uses import archives
from lxcfleet.daemon.uses import moves as sending
from lxcfleet.errors import Busy
from lxcfleet.paths import Paths
from lxcfleet.spec import moves
from lxcfleet.spec.container.fields import stored
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.moves import Journal, MoveStep
from lxcfleet.spec.states import Action

from .conftest import Cli, Spawn, remove, soon
from .kill_trials import end_all
from .real_daemon import Daemon

SLEEP = ("--", "sleep", "infinity")
HOST = "root@other"
ROOT = Path(main.__file__).parents[2]

SSH = """\
#!{python} -I
import json, os, signal, subprocess, sys
arguments = sys.argv[1:]
with open({log!r}, "a") as file:
    file.write("\\0".join(arguments) + "\\n")
host, command = arguments[arguments.index("--") + 1 :]
faults = [line.split(" ") for line in open({faults!r}).read().splitlines()]
word, fault = next((each for each in faults if any(f" {{one}} " in f"{{command}} " for one in each[0].split("|"))), ("", ""))
here = bool(word)
def fail_from_now_on(*lines):
    with open({faults!r}, "w") as file:
        file.write("\\n".join(lines))
def answer(code):
    print(json.dumps({{"error": {{"code": code, "message": "no", "why": "", "hint": ""}}}}))
    sys.exit(0)
if here and fault == "before":
    print("ssh: connect to host other port 22: Connection refused", file=sys.stderr)
    sys.exit(255)
if here and fault == "unknown":
    print("Host key verification failed.", file=sys.stderr)
    sys.exit(255)
if here and fault == "missing":
    sys.exit(subprocess.run(["sh", "-c", "no-such-program-here"]).returncode)
if here and fault == "older":
    print("Error: No such command 'receive'.", file=sys.stderr)
    sys.exit(2)
if here and fault in ("busy", "denied") and "--when-told" not in command:
    fail_from_now_on(*(" ".join(each) for each in faults if each[1] != "busy"))
    answer("busy" if fault == "busy" else "wrong-state")
said = None
if here and fault in ("lost", "granted"):
    said = sys.stdin.buffer.readline()
    fail_from_now_on()
    if fault == "granted":
        name, move = command.split()[3:5]
        script = "import sys; from lxcfleet.api.client import Client; from lxcfleet.paths import Paths; "
        script += "from lxcfleet.api.moves import ArrivalRequest, Do; "
        script += "Client(Paths.from_environment()).arrival(ArrivalRequest(*sys.argv[1:], Do.GRANT))"
        subprocess.run([{python!r}, "-c", script, name, move], env={environment!r}, check=True)
    sys.exit(255)
if here and fault == "killed":
    said = sys.stdin.buffer.readline()
    os.kill(os.getppid(), signal.SIGKILL)
ran = subprocess.run(["sh", "-c", command], env={environment!r}, capture_output=True, input=said)
if here and fault == "cut":
    fail_from_now_on("status|grant|revoke before")
if here and fault in ("after", "cut"):
    sys.exit(255)
if here and fault == "kill":
    os.kill(os.getppid(), signal.SIGKILL)
    sys.exit(255)
sys.stdout.buffer.write(ran.stdout)
sys.stderr.buffer.write(ran.stderr)
sys.exit(ran.returncode)
"""
"""It runs the command on the second host. The file of faults names words of the command, and what goes wrong then."""
LXCFLEET = """\
#!{python}
from lxcfleet.cli import main, session
session._may_start = lambda: False
main.main()
"""
"""It never starts a daemon."""


class Other:
    """The second host."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.paths = Paths(lxc=directory / "lxc", run=directory / "run", etc=directory / "etc")
        self.log, self.faults = directory / "log", directory / "faults"
        self.faults.write_text("")
        self.begin()

    def begin(self) -> None:
        """Start its daemon."""
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.second_host", str(self.directory)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment, start_new_session=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        """Kill its daemon."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()

    def states(self) -> dict[str, str]:
        """The states of its containers."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        found: dict[str, str] = json.loads(self.process.stdout.readline())
        return found

    def fail(self, *faults: tuple[str, str]) -> None:
        """Have something go wrong when certain words are asked for."""
        self.faults.write_text("\n".join(" ".join(each) for each in faults))


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Other]:
    directory = Path(tempfile.mkdtemp(prefix="lxcfleet-"))
    leftovers.note("directory", str(directory))
    programs = tmp_path / "bin"
    programs.mkdir()
    try:
        found = Other(directory)
        environment = {
            **found.paths.environment(), "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        lines = {
            "ssh": SSH.format(
                python=sys.executable, log=str(found.log), faults=str(found.faults), environment=environment
            ),
            "lxcfleet": LXCFLEET.format(python=sys.executable),
        }
        for name, text in lines.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        try:
            yield found
        finally:
            end_all(directory)
            found.kill()
            end_all(directory)  # of a start that was under way
    finally:
        remove(directory)


def state(daemon: Daemon, name: str) -> str:
    return daemon.call(lambda: str(daemon.parts.registry[name].state) if name in daemon.parts.registry else "")


def over(daemon: Daemon) -> None:
    """Return once no client leads a move any more, as far as the daemon has heard, and what followed from that is done."""
    soon(lambda: daemon.call(lambda: not daemon.parts.moves._driven))


def step(paths: Paths, name: str) -> MoveStep | None:
    found = moving.load(paths, name)
    return None if found is None else found.step


def test_a_container_moves(cli: Cli, daemon: Daemon, other: Other) -> None:
    assert cli("create", "web", "-l", "tier=front", "-e", "A=b 'c", *SLEEP).status == 0
    assert cli("create", "still", "--no-start", *SLEEP).status == 0
    planned = cli("move", "web", HOST, "--dry-run")
    assert (planned.status, planned.out.split()[:2]) == (0, ["web", "planned"])
    assert (state(daemon, "web"), other.states()) == ("running", {})

    moved = cli("move", "--all", HOST, "-f", "json")
    results = json.loads(moved.out)["results"]
    assert (moved.status, [each["status"] for each in results]) == (0, ["moved", "moved"]), moved.err
    assert sorted(line for line in moved.err.splitlines() if "exported on" not in line) == [
        "lxcfleet: still: is copied", "lxcfleet: still: was stopped, and stays so there",
        "lxcfleet: web: is copied", "lxcfleet: web: is stopped here", "lxcfleet: web: starts there",
    ]  # fmt: skip
    assert other.states() == {"web": "running", "still": "stopped"}
    assert (state(daemon, "web"), state(daemon, "still")) == ("", "")
    assert not daemon.paths.container("web").directory.exists()
    assert step(other.paths, "web") is None
    spec = store.load(other.paths, "web")
    assert isinstance(spec, Spec)
    assert (spec.labels, spec.environment) == ({"tier": "front"}, {"A": "b 'c"})
    assert cli("move", "--list").out == ""
    for line in other.log.read_text().splitlines():
        arguments = line.split("\0")
        assert arguments[arguments.index("--") + 1] == HOST
        assert {"BatchMode=yes", "ForwardAgent=no", "StrictHostKeyChecking=yes", "ClearAllForwardings=yes"} <= {*arguments}
    words = [line.split()[1:3] for line in cli("events").out.splitlines()]
    assert ["move", "web"] in words


def test_what_others_depend_on_moves_first(cli: Cli, daemon: Daemon, other: Other) -> None:
    for name in ("stock", "db"):
        assert cli("create", name, *SLEEP).status == 0
    assert cli("create", "app", "--depends-on", "stock=started", "--depends-on", "db=started", *SLEEP).status == 0
    moved = cli("move", "--all", HOST)
    assert (moved.status, moved.out.split()[::2]) == (0, ["db", "stock", "app"]), moved.err
    assert other.states() == {"app": "running", "db": "running", "stock": "running"}


def test_one_that_vanishes_before_its_turn_is_told_of_and_the_others_move(
    cli: Cli, daemon: Daemon, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("create", "app", *SLEEP).status == 0
    assert cli("create", "gone", "--no-start", *SLEEP).status == 0
    info: Any = vars(Client)["info"]

    def look(client: Client, name: str) -> Any:
        if name == "gone" and name in daemon.fleet.names:
            assert cli("destroy", "gone").status == 0
        return info.__get__(client, Client)(name)

    monkeypatch.setattr(Client, "info", look)
    moved = cli("move", "--all", HOST)
    assert (moved.status, "no container named gone" in moved.err) == (3, True), (moved.out, moved.err)
    assert other.states() == {"app": "running"}


def test_what_a_drain_has_stopped_runs_there(cli: Cli, daemon: Daemon, other: Other) -> None:
    assert cli("create", "web", *SLEEP).status == 0
    assert cli("create", "still", "--no-start", *SLEEP).status == 0
    assert cli("drain", "--why", "new disks").status == 0
    other.fail(("import", "before"))
    assert cli("move", "web", HOST).status == 1
    assert state(daemon, "web") in ("stopped", "blocked"), "it stays as the drain has it"
    other.fail()
    assert cli("move", "--all", HOST).status == 0
    assert other.states() == {"web": "running", "still": "stopped"}
    assert (state(daemon, "web"), state(daemon, "still")) == ("", "")


def test_what_is_kept_does_not_start(cli: Cli, daemon: Daemon, other: Other) -> None:
    assert cli("create", "web", *SLEEP).status == 0
    assert cli("move", "web", HOST, "--keep").status == 0
    assert other.states() == {"web": "running"}
    listed = cli("move", "--list").out.splitlines()
    assert [line.split()[:3] for line in listed] == [["NAME", "STEP", "HOST"], ["web", "kept", HOST]]
    assert cli("move", "--list", "-q").out == "web\n"
    assert step(daemon.paths, "web") is MoveStep.KEPT
    cli("start", "web")
    assert state(daemon, "web") == "blocked"
    assert "moved to root@other" in cli("move", "web", HOST).err
    assert cli("move", "web", "--abort").status == 1
    assert cli("move", "web", "--forget").status == 0
    assert step(daemon.paths, "web") is None


def test_a_line_that_is_cut_before_the_hand_over_leaves_it_here(cli: Cli, daemon: Daemon, other: Other) -> None:
    assert cli("create", "web", *SLEEP).status == 0
    for word, fault, reason in (
        ("check", "before", "Connection refused"), ("check", "unknown", "take it: ssh root@other"),
        ("check", "missing", "has no lxcfleet"), ("check", "older", "older release"),
        ("import", "before", "Connection refused"), ("import", "after", "can't be reached"),
    ):  # fmt: skip
        other.fail((word, fault))
        ran = cli("move", "web", HOST)
        assert (ran.status, reason in ran.err) == (1, True), ran.err
        over(daemon)
        assert (state(daemon, "web"), step(daemon.paths, "web")) == ("running", None)
    assert other.states() == {}, "the copy goes"
    other.fail()
    assert cli("move", "web", HOST).status == 0
    assert (state(daemon, "web"), other.states()) == ("", {"web": "running"})


@pytest.mark.parametrize(("fault", "way"), [("before", "--abort"), ("cut", "--continue"), ("cut", "--abort")])
def test_a_line_that_is_cut_after_it(
    cli: Cli, daemon: Daemon, other: Other, fault: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other side is asked to start it, and neither answers nor can be asked to give it up."""
    monkeypatch.setattr(mover, "_NO_LINE", 0.0)
    monkeypatch.setattr(mover, "_LINE_AGAIN", 0.1)
    assert cli("create", "web", *SLEEP).status == 0
    other.fail(("grant|revoke", fault))
    # Without a line it is asked again and again for so long; with one, it has to become healthy there meanwhile.
    ran = cli("move", "web", HOST, "--timeout", "1" if fault == "before" else "60")
    assert (ran.status, "what became of it is not known" in ran.err) == (1, True), ran.err
    assert (state(daemon, "web"), step(daemon.paths, "web")) == ("stopped", MoveStep.HANDED)
    assert (cli("destroy", "web", "--force").status, cli("start", "web").status) == (1, 0)
    assert state(daemon, "web") == "blocked"
    findings = json.loads(cli("doctor", "-f", "json").out)["findings"]
    assert any("has not said that it runs there" in each["message"] for each in findings)
    listed = json.loads(cli("move", "--list", "-f", "json").out)
    assert [(each["name"], each["step"], each["authority"]) for each in listed] == [("web", "handed", False)]
    running = [state(daemon, "web"), *other.states().values()].count("running")
    assert running == 0 if fault == "before" else running <= 1
    other.fail()
    ran = cli("move", "web", way)
    if way == "--continue":
        assert ran.status == 0, ran.err
        assert (state(daemon, "web"), other.states()) == ("", {"web": "running"})
    elif fault == "before":
        assert ran.status == 0, ran.err
        assert (state(daemon, "web"), other.states()) == ("running", {})
    else:
        assert (ran.status, "healthy there" in ran.err) == (1, True)
        assert cli("move", "web", "--continue").status == 0
        assert (state(daemon, "web"), other.states()) == ("", {"web": "running"})


@pytest.mark.parametrize("fault", ["lost", "granted", "after"])
def test_a_line_that_is_cut_after_it_for_a_moment(
    cli: Cli, daemon: Daemon, other: Other, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the other side has heard of the hand-over, after it took the container, and after that was seen healthy.

    A good container was stopped there, and what it had written stayed there."""
    monkeypatch.setattr(mover, "_LINE_AGAIN", 0.1)
    assert cli("create", "web", *SLEEP).status == 0
    other.fail(("--when-told", fault))
    moved = cli("move", "web", HOST)
    assert moved.status == 0, moved.err
    assert "can't be reached" in moved.err
    assert (state(daemon, "web"), other.states()) == ("", {"web": "running"})
    assert "receive revoke" not in other.log.read_text()


@pytest.mark.parametrize("fault", ["before", "older"])
def test_the_ssh_that_waits_has_ended_before_the_hand_over(cli: Cli, daemon: Daemon, other: Other, fault: str) -> None:
    """The copy there was destroyed, after the container had been stopped for all that time."""
    assert cli("create", "web", *SLEEP).status == 0
    other.fail(("--when-told", fault))
    moved = cli("move", "web", HOST)
    assert moved.status == 0, moved.err
    assert (state(daemon, "web"), other.states()) == ("", {"web": "running"})
    assert "receive revoke" not in other.log.read_text()


def test_what_is_healthy_there_after_all_is_not_taken_back(
    cli: Cli, daemon: Daemon, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is interrupted, and was confirmed in the same moment. That was told as a container of which nobody knows."""
    interrupted: list[object] = []

    def result(program: ssh.Running) -> object:
        found = ask(program)
        if not interrupted and step(other.paths, "web") is MoveStep.HEALTHY:
            interrupted.append(found)
            raise KeyboardInterrupt
        return found

    ask = ssh.result
    assert cli("create", "web", *SLEEP).status == 0
    monkeypatch.setattr(ssh, "result", result)
    moved = cli("move", "web", HOST)
    assert moved.status == 0, moved.err
    assert "is healthy there" in moved.err
    assert interrupted
    assert (state(daemon, "web"), other.states()) == ("", {"web": "running"})


def test_what_does_not_start_there_runs_here_again(
    cli: Cli, daemon: Daemon, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if something else is at work on it there when it is to be taken back."""
    monkeypatch.setattr(mover, "_LINE_AGAIN", 0.1)
    assert cli("create", "web", *SLEEP).status == 0
    other.fail(("--when-told", "before"), ("grant", "denied"), ("revoke", "busy"))
    ran = cli("move", "web", HOST)
    assert (ran.status, "is not moved, and is here again" in ran.err) == (1, True), ran.err
    assert (state(daemon, "web"), other.states(), step(daemon.paths, "web")) == ("running", {}, None)


def test_what_is_destroyed_there_is_told_as_that(
    cli: Cli, daemon: Daemon, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its operator may have said there that it belongs there: it starts here only if somebody here says so."""
    def hand_over(way: int) -> None:
        hand(way)
        moving.note(other.paths, "web", None)

    hand = sending._hand_over
    assert cli("create", "web", *SLEEP).status == 0
    other.fail(("--when-told", "before"))
    monkeypatch.setattr(sending, "_hand_over", hand_over)
    ran = cli("move", "web", HOST)
    assert (ran.status, "is not on root@other any more" in ran.err) == (1, True), ran.err
    assert (state(daemon, "web"), step(daemon.paths, "web")) == ("stopped", MoveStep.HANDED)
    assert cli("move", "web", "--abort").status == 0
    assert state(daemon, "web") == "running"


def test_a_host_takes_containers_of_an_older_release(
    cli: Cli, daemon: Daemon, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon here is the older one, and then the newer one."""
    assert cli("create", "web", *SLEEP).status == 0
    now = moves.PROTOCOL
    monkeypatch.setattr(moves, "PROTOCOL", now + 1)
    ran = cli("move", "web", HOST)
    assert (ran.status, "upgrade lxcfleet there" in ran.err, state(daemon, "web")) == (1, True, "running"), ran.err
    monkeypatch.setattr(moves, "PROTOCOL", 1)
    moved = cli("move", "web", HOST)
    assert moved.status == 0, moved.err
    assert other.states() == {"web": "running"}


@pytest.mark.parametrize("word", ["import", "grant"])
def test_a_client_that_is_killed(cli: Cli, daemon: Daemon, other: Other, spawn: Spawn, word: str) -> None:
    """Killed just after the other side did something. Exactly one runs."""
    assert cli("create", "web", *SLEEP).status == 0
    other.fail((word, "kill"))
    process = spawn("move", "web", HOST)
    process.communicate(timeout=200)
    assert process.returncode == -signal.SIGKILL
    other.fail()
    over(daemon)
    if word == "import":
        assert state(daemon, "web") == "running"
        assert other.states().get("web", "stopped") != "running"
        assert cli("move", "web", HOST).status == 0, "what was left there goes first"
    else:
        assert (state(daemon, "web"), other.states()) == ("stopped", {"web": "running"})
        assert cli("move", "web", "--continue").status == 0
    assert (state(daemon, "web"), other.states()) == ("", {"web": "running"})


@pytest.mark.parametrize("word", ["import", "destroy"])
def test_a_move_that_is_tried_again_waits_until_the_copy_that_was_broken_off_is_removed(
    cli: Cli, daemon: Daemon, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, it was told that the other host "has a container named web", and to destroy it there."""
    assert cli("create", "web", "--no-start", *SLEEP).status == 0
    container, check = daemon.parts.registry["web"], daemon.parts.moves.check
    spec = {key: row.render(getattr(container.spec, key)) for key, row in stored().items()}
    ask = CheckArrivalRequest("web", moves.PROTOCOL, __version__, "other/1", 0, spec)

    async def story() -> None:
        container.busy = word
        checked = asyncio.ensure_future(check(ask))
        await asyncio.sleep(archives._LOOK_SECONDS * 2)
        assert not checked.done()
        container.busy = None
        await daemon.parts.fleet.actions.act(container, Action.DESTROY, 0.0)
        assert (await checked)["left"] == ""
        daemon.parts.registry.add(container)
        container.busy = word
        monkeypatch.setattr(archives, "SETTLE_SECONDS", 0.0)
        with pytest.raises(Busy, match=f"web is busy: {word}") as refused:
            await check(ask)
        assert "try again" in refused.value.hint
        daemon.parts.registry.forget("web")

    asyncio.run_coroutine_threadsafe(story(), daemon._loop).result(60)


def test_a_client_that_is_killed_in_the_moment_of_the_hand_over(
    cli: Cli, daemon: Daemon, other: Other, spawn: Spawn
) -> None:
    """Before anything there has heard of it. The daemon has told ssh, which goes on by itself: it runs there."""
    assert cli("create", "web", *SLEEP).status == 0
    other.fail(("grant", "killed"))
    process = spawn("move", "web", HOST)
    process.communicate(timeout=200)
    assert process.returncode == -signal.SIGKILL
    soon(lambda: other.states() == {"web": "running"})
    assert (state(daemon, "web"), step(daemon.paths, "web")) == ("stopped", MoveStep.HANDED)
    soon(lambda: step(other.paths, "web") is MoveStep.HEALTHY)
    other.fail()
    over(daemon)
    assert cli("move", "web", "--continue").status == 0
    assert (state(daemon, "web"), other.states()) == ("", {"web": "running"})


@pytest.mark.parametrize("told", [False, True])
def test_a_daemon_that_is_killed_in_the_moment_of_the_hand_over(
    cli: Cli, daemon: Daemon, other: Other, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has noted the hand-over, and told nobody, or just told the other host, which is at work on it therefore.

    The client has the next daemon go on."""
    def hand_over(_: int) -> None:
        raise ConnectionResetError

    monkeypatch.setattr(mover, "_LINE_AGAIN", 0.1)
    if told:
        other.fail(("grant", "busy"))

    assert cli("create", "web", *SLEEP).status == 0
    monkeypatch.setattr(sending, "_hand_over", hand_over)
    moved = cli("move", "web", HOST)
    assert moved.status == 0, moved.err
    assert "another one goes on" in moved.err
    assert ("at work on it" in moved.err) is told
    assert "receive revoke" not in other.log.read_text()
    assert (state(daemon, "web"), other.states()) == ("", {"web": "running"})


def test_the_other_daemon_is_killed(cli: Cli, daemon: Daemon, other: Other) -> None:
    assert cli("create", "web", *SLEEP).status == 0
    other.kill()
    ran = cli("move", "web", HOST)
    assert (ran.status, state(daemon, "web")) == (1, "running")
    other.begin()
    assert cli("move", "web", HOST).status == 0


def test_the_next_daemon_takes_back_what_was_not_handed_over(cli: Cli, daemon: Daemon, other: Other) -> None:
    """As after a kill of the daemon in the middle of the copy: the container is stopped, and its journal says so."""
    assert cli("create", "web", *SLEEP).status == 0
    assert cli("stop", "web").status == 0
    journal = Journal("0" * 16, True, MoveStep.SENDING, HOST, "2026-01-01T00:00:00Z", ran=True)
    moving.note(daemon.paths, "web", journal)
    cli("start", "web")
    assert state(daemon, "web") == "blocked"
    daemon.call(daemon.parts.moves.recover)
    daemon.call(lambda: daemon.parts.fleet.actions.resume(daemon.parts.registry["web"], "begun before"))
    soon(lambda: state(daemon, "web") == "running")
    assert step(daemon.paths, "web") is None


def test_what_is_refused(cli: Cli, daemon: Daemon, other: Other) -> None:
    assert cli("create", "web", *SLEEP).status == 0
    for words in ((), ("--", "web", "-oProxyCommand=x"), ("web", "a b"), ("web", "root@-x"), ("web", "x;y"), ("--continue",)):
        assert cli("move", *words).status == 2, words
    assert not other.log.exists()
    assert cli("move", "web", HOST, "--abort", "--continue").status == 2
    assert cli("move", "web", "--continue").status == 1
    assert cli("move", "none", HOST).status == 1
    assert cli("move", "web", HOST).status == 0
    assert cli("create", "web", *SLEEP).status == 0
    ran = cli("move", "web", HOST)
    assert (ran.status, "the other host has a container named web" in ran.err) == (1, True)
    assert state(daemon, "web") == "running"
    answer = subprocess.run(["ssh", "--", HOST, "lxcfleet receive check </dev/null"], capture_output=True, check=True)
    assert json.loads(answer.stdout)["error"]["code"] == "invalid-input"
    answer = subprocess.run(
        ["ssh", "--", HOST, f"lxcfleet receive grant web {'1' * 16}"], capture_output=True, check=True
    )
    assert json.loads(answer.stdout)["error"]["code"] == "not-found"
