"""lxcfleet's own parts: which files of theirs are old, and how they are renewed."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
import threading
import time
from dataclasses import replace as changed
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lxcfleet.daemon import systemd
from lxcfleet.daemon.turnover import Moment, is_time
from lxcfleet.errors import HostError
from lxcfleet.host.net.stand_in import Questions, StandIn
from lxcfleet.host.process import outdated, proc, sessions
from lxcfleet.host.process.standing import Standing
from lxcfleet.patch import own
from lxcfleet.patch.notice import NoticePhase
from lxcfleet.patch.own import DAEMON, OwnParts, OwnProcess
from lxcfleet.patch.rollout.state import Status
from lxcfleet.patch.stale.judge import OldFile, Process, Why
from lxcfleet.runtime.bus import Bus, Event
from lxcfleet.runtime.tasks import Tasks


def replace(program: Path, more: bytes) -> None:
    new = program.with_name("new")
    shutil.copy(program, new)
    with new.open("ab") as file:
        file.write(more)
    new.rename(program)


@pytest.mark.reaches("processes", reason="what /proc tells of a real process")
@pytest.mark.skipif(os.geteuid() != 0, reason="map_files takes CAP_SYS_ADMIN")
def test_a_file_is_old_if_its_content_changed(program: Path, process: int) -> None:
    assert outdated.files(process) == []
    replace(program, b"")
    assert outdated.files(process) == [], "the same bytes in another file are no reason for a restart"
    replace(program, b"new")
    assert outdated.files(process) == [(str(program), False)]
    program.unlink()
    assert outdated.files(process) == [(str(program), True)]
    assert outdated.files(1 << 22) == [], "no process"


STANDARD = f"{own._STANDARD}asyncio/events.py"
AIOHTTP, DNS = "/usr/lib/python3/dist-packages/aiohttp/web.py", "/usr/lib/python3/dist-packages/dns/name.py"
OURS = "/usr/lib/python3/dist-packages/lxcfleet/paths.py"
LOADED = {STANDARD, AIOHTTP, OURS}


@pytest.mark.parametrize(
    ("name", "read"),
    [
        (DAEMON, {STANDARD, AIOHTTP}), ("launcher", {STANDARD}), ("forwarder", {STANDARD}),
        ("responder", {STANDARD, DNS}), ("booter", set()), ("dnsmasq", set()),
    ],
)  # fmt: skip
def test_modules_that_a_part_may_have_read(name: str, read: set[str]) -> None:
    """Modules of lxcfleet itself do not count, as the package restarts what has them."""
    assert {path for path in (STANDARD, AIOHTTP, DNS, OURS) if own.may_have_read(name, path, LOADED)} == read


class World:
    """Parts that run old code, and a note of what was done to them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *old: str) -> None:
        self.old, self.done, self.failing = set(old), list[str](), ""
        self.told: list[str] = []
        bus = Bus()
        bus.subscribe("test", Event, lambda event: self.told.append(told.message) if (told := event.told()) else None)
        monkeypatch.setattr(own, "_look", lambda _: [self.part(name) for name in sorted(ALL)])
        network = SimpleNamespace(programs=dict, renew=self.renew)
        launcher = SimpleNamespace(processes={}, renew=self.end)
        forwarder = SimpleNamespace(pid=7, renew=lambda: self.end(["forwarder"]))
        self.parts = OwnParts(
            cast(Any, launcher), network, cast(Any, None), bus, Tasks(), Path("/none"), cast(Any, forwarder)
        )

    def part(self, name: str) -> OwnProcess:
        """The part as it is now."""
        file = OldFile("/lib/libc.so.6", Why.REPLACED, "base", (Process(7, name),))
        return OwnProcess(name, 7, (file,) if name in self.old else ())

    async def renew(self, name: str) -> None:
        """Renew a program of the network."""
        if name == self.failing:
            raise HostError("it does not start")
        await self.end([name])

    async def end(self, names: Any) -> None:
        """End processes of the launcher."""
        self.done += names
        self.old -= set(names)


ALL = {DAEMON, "launcher", "booter", "forwarder", "dnsmasq", "responder"}


def test_what_runs_old_code_is_renewed_and_the_daemon_last(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, *ALL)
    asyncio.run(world.parts.renew(daemon=True))
    assert world.done == ["booter", "launcher", "forwarder", "responder", "dnsmasq"]
    assert world.parts.daemon_due
    assert world.parts.renewing == {DAEMON}
    assert world.told == [f"{name} ran old code and was renewed" for name in world.done]


def test_what_is_fresh_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    asyncio.run(world.parts.renew(daemon=True))
    assert (world.done, world.parts.daemon_due, world.parts.renewing) == ([], False, set())


def test_a_daemon_that_just_began_does_not_start_itself_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would do so for ever where files have times of the future."""
    world = World(monkeypatch, *ALL)
    asyncio.run(world.parts.renew(daemon=False))
    assert not world.parts.daemon_due
    assert world.old == {DAEMON}


def test_a_part_that_can_not_be_renewed_keeps_no_other_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, *ALL)
    world.failing = "responder"
    asyncio.run(world.parts.renew(daemon=True))
    assert world.old == {DAEMON, "responder"}
    assert world.parts.renewing == {DAEMON}, "the responder is not about to be renewed any more"


# the daemon


IDLE = Moment()


@pytest.mark.parametrize(
    ("moment", "may"),
    [
        (IDLE, True), (changed(IDLE, operations=1), False), (changed(IDLE, answering=1), False),
        (changed(IDLE, busy=True), False), (changed(IDLE, packages=True), False), (changed(IDLE, rebooting=True), False),
        (changed(IDLE, rollout=Status.RUNNING), False), (changed(IDLE, rollout=Status.HALTED), True),
        (changed(IDLE, rollout=Status.PAUSED), True), (changed(IDLE, phase=NoticePhase.READY), False),
        (changed(IDLE, phase=NoticePhase.QUIET), False), (changed(IDLE, phase=NoticePhase.WINDOW), True),
    ],
)  # fmt: skip
def test_the_daemon_starts_anew_only_while_nothing_is_under_way(moment: Moment, may: bool) -> None:
    assert is_time(moment) is may


def test_with_systemd_the_daemon_ends_so_that_systemd_starts_it_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NOTIFY_SOCKET", "INVOCATION_ID"):
        monkeypatch.setenv(name, "x")
    with pytest.raises(SystemExit) as ended:
        systemd.run_anew([])
    unit = (Path(own.__file__).parents[2] / "systemd" / "lxcfleet.service.in").read_text()
    assert ended.value.code == systemd.ANEW
    assert f"RestartForceExitStatus={systemd.ANEW}\nSuccessExitStatus={systemd.ANEW}\n" in unit


# the stand-in for the name server


def test_equal_numbers_of_two_clients_are_told_apart() -> None:
    questions = Questions()
    first, second = questions.ask(b"\0\7one", "a"), questions.ask(b"\0\7two", "b")
    assert first[:2] != second[:2]
    assert questions.answer(second[:2] + b"2") == (b"\0\0072", "b")
    assert questions.answer(first[:2] + b"1") == (b"\0\0071", "a")
    assert questions.answer(first[:2] + b"1") is None, "nobody waits any more"
    assert len(questions) == 0


def test_questions_without_an_answer_do_not_pile_up() -> None:
    questions = Questions()
    for _ in range(70000):
        questions.ask(b"\0\7", "a")
    assert len(questions) <= 4096


def _server(port: int = 0) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("127.0.0.1", port))
    made.settimeout(60)
    return made


@pytest.mark.reaches("loopback", reason="the kernel decides which of several sockets gets a datagram")
def test_the_stand_in_takes_over_and_answers_until_the_new_server_does() -> None:
    with _server() as old, _server() as behind, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        port = old.getsockname()[1]
        client.settimeout(60)
        client.connect(("127.0.0.1", port))
        stand_in = StandIn("127.0.0.1", behind.getsockname(), port)
        client.send(b"\1\2question")
        message, place = behind.recvfrom(100)
        assert message[2:] == b"question"
        with _server(port) as new:
            client.send(b"\3\4next")
            assert new.recv(100) == b"\3\4next", "the one that was bound last gets it"
            closing = threading.Thread(target=stand_in.close)
            closing.start()
            behind.sendto(message[:2] + b"answer", place)
            assert client.recv(100) == b"\1\2answer", "a question from before is still answered"
            closing.join(60)


# a program that runs itself anew


ANEW = """
import os, signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_IGN)
open(sys.argv[1], "w").write(str(os.getpid()))
def anew(*_):
    os.execve(sys.executable, sys.orig_argv, {**os.environ, "LXCFLEET_RAN_ANEW": repr(time.time())})
if sys.argv[2] == "obeys": signal.signal(signal.SIGHUP, anew)
while True: time.sleep(1)
"""


@pytest.mark.reaches("processes", reason="a real program runs itself anew")
@pytest.mark.parametrize(("kind", "does"), [("obeys", True), ("does not", False)])
def test_a_program_is_asked_to_run_itself_anew(
    kind: str, does: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lxcfleet.host.process.standing._ANEW_SECONDS", 60.0 if does else 0.2)
    argv = [sys.executable, "-c", ANEW, str(tmp_path / "pid"), kind]
    child = os.posix_spawn(sys.executable, argv, os.environ)
    program = Standing("the program", argv, tmp_path / "pid")
    try:
        deadline = time.monotonic() + 60
        while program.running() is None or not _is_ready(child, does):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert proc.ran_anew(child) is None
        assert program.run_anew() is does
        assert (proc.ran_anew(child) is not None) is does
        assert program.running() == child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _is_ready(pid: int, handles: bool) -> bool:
    """Whether the program has set what it does on SIGHUP; proc(5)."""
    fields = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    return bool(int(fields["SigCgt" if handles else "SigIgn"], 16) & 1)


@pytest.mark.reaches("processes", reason="sessions are told from the kernel's present processes")
def test_a_session_is_known_while_it_runs(tmp_path: Path) -> None:
    """Also if it was killed, or its number belongs to another process."""
    noted = tmp_path / "sessions"
    assert sessions.running(noted) == []
    with sessions.noted(noted, "web1"):
        (session,) = sessions.running(noted)
        assert (session.container, session.pid, session.began) == ("web1", os.getpid(), proc.began(os.getpid()))
        assert session.loaded == proc.began(os.getppid()), "it has the modules of the process that forked it"
        (noted / str(os.getppid())).write_text('["web2", 1.0, 1.0]')
        (noted / "4194304").write_text('["web3", 1.0, 1.0]')
        (noted / "1").write_text("half a")
        assert sessions.running(noted) == [session]
        assert [file.name for file in noted.iterdir()] == [str(os.getpid())]
    assert [*noted.iterdir()] == []


def test_a_session_goes_on_where_it_can_not_be_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sessions").write_text("in the way")
    with sessions.noted(tmp_path / "sessions", "web1"):
        pass
    assert "a session in web1 is not noted" in capsys.readouterr().err
