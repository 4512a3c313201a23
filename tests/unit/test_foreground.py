"""Containers that `lxcfleet run` runs: the note, the configuration, and the streams on their way."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lxcfleet.cli.ui import foreground as ui
from lxcfleet.containers import foreground, store
from lxcfleet.containers.container import Container
from lxcfleet.containers.foreground import Foreground
from lxcfleet.containers.lxc_config import arguments, init_command
from lxcfleet.daemon.uses.foreground import Foregrounds
from lxcfleet.errors import Unreachable
from lxcfleet.host.lxc import foreground as keeping
from lxcfleet.host.lxc.streams import Copies, Log, LogTail
from lxcfleet.host.process import proc
from lxcfleet.patch.rollout import planner
from lxcfleet.patch.rollout.state import LiveState, Member, MemberPhase, Rollout, RolloutKind
from lxcfleet.paths import Paths
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.policies.rollout import RolloutSettings
from lxcfleet.spec.reading.terms import Init
from lxcfleet.spec.results import Result
from lxcfleet.spec.states import Action

NOTE = Foreground(stdin=True, remove=True)


def test_the_note_is_read_as_it_was_written(tmp_path: Path) -> None:
    paths = Paths(lxc=tmp_path)
    (tmp_path / "a").mkdir()
    assert foreground.read(paths, "a") is None
    foreground.write(paths, "a", NOTE)
    assert foreground.read(paths, "a") == NOTE
    renewed = Foreground(stdin=True, remove=True, renew=True)
    assert foreground.renewed(paths, "a", NOTE) == foreground.read(paths, "a") == renewed
    paths.container("a").foreground.write_text('{"later": 1, "detach": true}')  # of another version
    assert foreground.read(paths, "a") == Foreground(detach=True)
    paths.container("a").foreground.write_text("[]")
    assert foreground.read(paths, "a") == Foreground()  # in doubt, it is not the daemon's, and nothing of it is removed
    foreground.write(paths, "a", None)
    assert foreground.read(paths, "a") is None


def test_pipes_are_made_anew_and_removed(tmp_path: Path) -> None:
    pipes = tmp_path / "foreground" / "a"
    foreground.make_pipes(pipes, os.getuid())
    foreground.make_pipes(pipes, os.getuid())
    assert (pipes.stat().st_mode & 0o777, sorted(os.listdir(pipes))) == (0o700, sorted(foreground.PIPES))
    assert {(pipes / name).stat().st_mode & 0o777 for name in foreground.PIPES} == {0o666}
    foreground.remove_pipes(pipes)
    foreground.remove_pipes(pipes)
    assert not pipes.exists()


def test_only_what_runs_in_the_foreground_waits_for_its_keeper() -> None:
    spec = Spec("a", init=Init.APP, command=("true",))
    assert arguments(spec) == ("/usr/bin/tini-static", "--", "true")
    shell, _, script, *rest = arguments(spec, NOTE)
    assert (shell, rest) == ("/bin/sh", ["lxcfleet", "/usr/bin/tini-static", "--", "true"])
    assert "<$d/in" in script
    assert "go" in script
    assert "</dev/null" in arguments(spec, Foreground())[2]
    assert "/in" not in arguments(spec, Foreground(tty=True))[2]
    assert "foreground" not in init_command(spec)
    assert "lxcfleet" in init_command(spec, NOTE)


def copies(tmp_path: Path, out: int, err: int, stdin: int | None = None) -> tuple[Copies, Path]:
    pipes = tmp_path / "foreground" / "a"
    foreground.make_pipes(pipes, os.getuid())
    return Copies(str(pipes), stdin, out, err, str(tmp_path / "log"), 1 << 20), pipes


def work(streams: Copies, times: int = 20) -> bool:
    """Serve what is ready; gives whether somebody closed the output."""
    broken = False
    for _ in range(times):
        poll = select.poll()
        streams.register(poll)
        broken |= streams.serve(dict(poll.poll(0)))
    return broken


def test_output_stays_apart_and_goes_to_the_log_too(tmp_path: Path) -> None:
    (out, to_out), (err, to_err) = os.pipe(), os.pipe()
    streams, pipes = copies(tmp_path, to_out, to_err)
    (pipes / "out").write_bytes(b"a\r\n\0")
    (pipes / "err").write_bytes(b"b\n")
    work(streams)
    assert (os.read(out, 100), os.read(err, 100)) == (b"a\r\n\0", b"b\n")
    (pipes / "out").write_bytes(b"last")
    streams.finish()
    assert os.read(out, 100) == b"last"
    assert sorted((tmp_path / "log").read_bytes()) == sorted(b"a\r\n\0b\nlast")


def test_a_reader_that_went_away_is_told_once_and_the_log_goes_on(tmp_path: Path) -> None:
    out, to_out = os.pipe()
    streams, pipes = copies(tmp_path, to_out, os.open(os.devnull, os.O_WRONLY))
    os.close(out)
    (pipes / "out").write_bytes(b"x")
    assert work(streams)
    (pipes / "out").write_bytes(b"y")
    assert not work(streams)
    assert (tmp_path / "log").read_bytes() == b"xy"


def test_a_reader_that_does_not_read_holds_the_command_up_and_nobody_else(tmp_path: Path) -> None:
    _, to_out = os.pipe()
    streams, pipes = copies(tmp_path, to_out, os.open(os.devnull, os.O_WRONLY))
    writer = os.open(pipes / "out", os.O_WRONLY | os.O_NONBLOCK)
    total = 0
    for _ in range(100):
        try:
            total += os.write(writer, bytes(65536))
        except BlockingIOError:
            break
        work(streams)  # never waits
    assert 65536 < total < 100 * 65536


def test_the_command_reads_the_end_of_our_input(tmp_path: Path) -> None:
    given, giving = os.pipe()
    null = os.open(os.devnull, os.O_WRONLY)
    streams, pipes = copies(tmp_path, null, null, given)
    reader = os.open(pipes / "in", os.O_RDONLY | os.O_NONBLOCK)
    os.write(giving, b"typed")
    work(streams)
    assert os.read(reader, 100) == b"typed"
    os.close(giving)
    work(streams)
    assert os.read(reader, 100) == b""


def test_an_input_that_ends_before_the_command_opens_it_is_read_all_the_same(tmp_path: Path) -> None:
    """With `lxcfleet run -i … </dev/null` the pipe was closed by then: the command waited for ever for somebody to write, and
    what had been written was lost."""
    reading, writing = os.pipe()
    null = os.open(os.devnull, os.O_WRONLY)
    streams, pipes = copies(tmp_path, null, null, reading)
    os.write(writing, b"all of it")
    os.close(writing)
    work(streams)
    assert streams.pause is not None, "it is looked whether the command has opened it"
    command = os.open(pipes / "in", os.O_RDONLY | os.O_NONBLOCK)
    assert os.read(command, 100) == b"all of it"
    with pytest.raises(BlockingIOError):
        os.read(command, 100)  # somebody may write still, so an open that waits does not wait for ever
    work(streams)
    assert os.read(command, 100) == b""
    assert streams.__dict__["pause"] is None


def test_a_log_is_begun_anew_when_it_is_full(tmp_path: Path) -> None:
    log = Log(str(tmp_path / "log"), 10)
    for piece in (b"12345678", b"abc", b"d"):
        log.add(piece)
    assert ((tmp_path / "log.1").read_bytes(), (tmp_path / "log").read_bytes()) == (b"12345678", b"abcd")


def test_a_console_s_log_is_followed_across_its_rotation(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_bytes(b"of the run before\r\n")
    out, to_out = os.pipe()
    follower = LogTail(str(file), to_out)
    with file.open("ab") as log:
        log.write(b"one\r\ntwo\r")
    follower.serve({})
    with file.open("ab") as log:
        log.write(b"\nthree\r\n")
    file.rename(tmp_path / "log.1")
    file.write_bytes(b"four\r\n")
    follower.finish()
    assert os.read(out, 100) == b"one\ntwo\nthree\nfour\n"


@pytest.mark.parametrize("way", ["signal", "gone"])
def test_a_start_that_waits_is_given_up_when_the_caller_does_not_wait_any_more(way: str) -> None:
    """For as long as it takes, the client is told why; no container is left that nobody waits for."""
    client, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    daemon, keepers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    request = {"name": "a", "system": False, "log": "", "pending": "/none", "detach": False}
    with client, daemon, theirs, keepers:
        keeper = keeping._Keeper(request, theirs, (0, 1, 2), "/none")
        daemon.send(b'{"waits": "a: blocked: db1 not healthy"}')
        if way == "signal":
            client.send(json.dumps({"signal": int(signal.SIGTERM)}).encode())
            assert keeper.begun(keepers) is None
            assert json.loads(client.recv(1000)) == {"status": "a: blocked: db1 not healthy"}
            assert json.loads(client.recv(1000)) == {"exit": 143, "renew": False}
        else:
            client.close()
            assert keeper.begun(keepers) is None


def test_a_stop_that_comes_during_the_start_is_passed_on_once_the_command_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Process 1 is a shell at first, without handlers for signals, and the kernel drops these."""
    client, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    daemon, keepers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    request = {"name": "a", "system": False, "log": "", "pending": "/none", "detach": False}
    has_child, sent = [False], list[int]()
    monkeypatch.setattr(proc, "has_children", lambda pid: pid == 7 and has_child[0])
    with client, daemon, theirs, keepers:
        keeper = keeping._Keeper(request, theirs, (0, 1, 2), "/none")
        monkeypatch.setattr(keeper, "_send", sent.append)
        client.send(json.dumps({"signal": int(signal.SIGTERM)}).encode())
        daemon.send(b'{"pid": 7}')
        assert keeper.begun(keepers) == 7
        keeper._pid = 7
        keeper._pass_on_early()
        keeper._look_at_the_clock()
        assert sent == []
        assert keeper._patience() is not None, "it is looked at again"
        has_child[0] = True
        keeper._look_at_the_clock()
        keeper._look_at_the_clock()
        assert sent == [signal.SIGTERM]
        assert keeper._patience() is None


@pytest.mark.parametrize("unread", [False, True], ids=["gave up", "killed before it read"])
def test_a_start_that_waits_is_not_owed_any_more_once_its_keeper_is_gone(unread: bool, tmp_path: Path) -> None:
    """Before, one whose keeper was killed with a message unread was started later, for nobody."""
    paths, container, done = Paths(lxc=tmp_path), Container("a", Spec("a"), foreground=NOTE), []
    (tmp_path / "a").mkdir()
    paths.container("a").pending.write_text("start\n")

    async def act(_: Container, action: Action, timeout: float) -> None:
        done.append((action, timeout))

    registry = SimpleNamespace(knows=lambda _: True, noted=lambda container: store.noted(paths, container.name))
    fleet: Any = SimpleNamespace(registry=registry, actions=SimpleNamespace(act=act))
    runs = Foregrounds(paths, fleet, None, None)  # type: ignore[arg-type]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        if unread:
            ours.send(b"{}")
        theirs.close()
        asyncio.run(runs._until_it_runs(container, Result("a", "blocked", False), ours))
    assert done == [(Action.STOP, 0.0)]


def test_systemd_takes_an_end_for_a_restart_for_no_failure() -> None:
    unit = (Path(keeping.__file__).parents[3] / "systemd" / "lxcfleet-run@.service.in").read_text()
    said = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line and not line.startswith("#"))
    assert said["RestartForceExitStatus"] == str(ui.AGAIN)
    assert str(ui.AGAIN) in said["SuccessExitStatus"].split()


@pytest.mark.parametrize("phase", [MemberPhase.RESTARTING, MemberPhase.GATED])
def test_a_rollout_waits_for_the_caller_to_begin_it_anew_and_goes_on_without(phase: MemberPhase) -> None:
    member = Member("a", "1@1.00", phase=phase, healthy_deadline=10.0)
    plan = Rollout("r1", RolloutKind.RESTART, RolloutSettings(), "now", {"a": member})
    assert planner.settle(plan, {"a": LiveState(None, down_for=9.0)}).members["a"] == member
    back = LiveState("2@2.00", healthy=True, healthy_for=100.0, running_for=100.0)
    assert planner.settle(plan, {"a": back}).members["a"].phase is MemberPhase.DONE
    left = planner.settle(plan, {"a": LiveState(None, down_for=11.0)}).members["a"]
    assert (left.phase, "not begun anew" in left.note) == (MemberPhase.SKIPPED, True)
    assert planner.settle(plan, {"a": LiveState(None)}).members["a"].phase is MemberPhase.FAILED  # any other container


def test_what_ended_in_the_foreground_is_no_container_that_waits_for_its_restart_policy() -> None:
    assert not Container("a", Spec("a"), foreground=NOTE).backs_off


def test_signals_from_before_the_connection_is_there_are_passed_on_in_their_order() -> None:
    """The daemon may have begun the run by then. A signal that nobody took would kill us, and with us the run."""
    request: Any = {"run": "a"}
    run = ui._Run(lambda: pytest.fail("nobody is to be asked"), request, SimpleNamespace())  # type: ignore[arg-type]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sent = (signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR2)
    with ours, theirs:
        with run._passing():
            for number in sent[:2]:
                signal.raise_signal(number)
            run._pass_to(ours)
            signal.raise_signal(sent[2])
        assert [json.loads(theirs.recv(100)) for _ in sent] == [{"signal": number} for number in sent]
    assert run.signals == [*sent]


def test_until_the_container_has_begun_a_daemon_is_looked_for_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that is killed meanwhile is followed by none, where systemd does not start it."""
    monkeypatch.setattr(ui, "_LOOK_SECONDS", 0.001)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    looks = []

    def connect() -> Any:
        looks.append("")
        if len(looks) == 3:
            theirs.send(b"{}")
        raise Unreachable("nobody answers")

    request: Any = {"run": "a"}
    run = ui._Run(connect, request, SimpleNamespace())  # type: ignore[arg-type]
    with ours, theirs:
        run._await_word(ours)
        assert (len(looks), ours.recv(10)) == (3, b"{}")
        run._began = True
        run._await_word(ours)  # from here on the keeper needs no daemon
