"""The record of how a container ended, and who ended it."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxcfleet.containers import exits
from lxcfleet.containers.container import Container, Running
from lxcfleet.containers.desired import Lack
from lxcfleet.containers.events import Killed
from lxcfleet.containers.exits import Exit, KnownPast, last_lines, mark
from lxcfleet.containers.reconciling.lifecycle import Lifecycle
from lxcfleet.containers.restarts import RestartCourse
from lxcfleet.host.lxc.stopping import stops
from lxcfleet.host.process import cgroup, proc
from lxcfleet.paths import ContainerPaths
from lxcfleet.runtime.bus import Event
from lxcfleet.spec.container.restart import Restart, RestartPolicy
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading.terms import Init
from lxcfleet.spec.states import State

ENDED = Exit(1000.0, 7 << 8, seconds=1.5, lines=("no such file",))

EXITS = st.builds(
    Exit, st.floats(0, 4e9), st.none() | st.integers(0, 255).map(lambda status: status << 8) | st.integers(1, 64),
    st.booleans(), st.booleans(), st.none() | st.floats(0, 1e9), st.lists(st.text(), max_size=20).map(tuple),
)  # fmt: skip
PASTS = st.builds(
    KnownPast, st.none() | EXITS,
    st.builds(
        RestartCourse, st.integers(0, 9), st.lists(st.floats(0, 1e9), max_size=5).map(tuple), st.none() | st.floats(0, 1e9)
    ),
    st.text(max_size=36),
)  # fmt: skip


@given(PASTS)
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, past: KnownPast) -> None:
    own = ContainerPaths(tmp_path_factory.mktemp("web"))
    exits.save(own, past)
    assert exits.load(own) == past


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"exit": null}', '{"exit": 3, "course": {}, "boot": ""}'])
def test_a_record_that_makes_no_sense_is_none(tmp_path: Path, text: str) -> None:
    own = ContainerPaths(tmp_path)
    assert exits.load(own) == KnownPast()
    own.exit.write_text(text)
    assert exits.load(own) == KnownPast()


def test_only_lines_of_the_last_run_are_kept(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    assert (mark(log), last_lines(log)) == (None, ())
    log.write_text("".join(f"{number}\r\n" for number in range(100)))
    begin = mark(log)
    assert last_lines(log) == tuple(map(str, range(80, 100)))
    assert last_lines(log, begin) == ()
    with log.open("ab") as file:
        file.write(b"one\n\xff\x1b[2Jtwo\n")
    assert last_lines(log, begin) == ("one", "\ufffd\x1b[2Jtwo")
    log.rename(tmp_path / "console.log.1")
    log.write_text("rotated\n")
    assert last_lines(log, begin) == ("rotated",)
    with log.open("ab") as file:
        file.write(b"x" * (10 << 20))
    assert len(last_lines(log)) == 1
    assert len(last_lines(log)[0]) <= 16384


@pytest.mark.parametrize(
    ("ended", "course", "policy", "state"),
    [
        (None, RestartCourse(), RestartPolicy.NO, State.STOPPED),
        (replace(ENDED, status=0), RestartCourse(), RestartPolicy.NO, State.EXITED),
        (ENDED, RestartCourse(), RestartPolicy.NO, State.FAILED),
        (replace(ENDED, status=9), RestartCourse(), RestartPolicy.NO, State.FAILED),
        (replace(ENDED, asked=True), RestartCourse(), RestartPolicy.NO, State.STOPPED),
        (replace(ENDED, status=None), RestartCourse(), RestartPolicy.NO, State.STOPPED),
        (ENDED, RestartCourse(due=5.0), RestartPolicy.ALWAYS, State.BACKOFF),
        (ENDED, RestartCourse(due=5.0), RestartPolicy.NO, State.FAILED),
        (replace(ENDED, status=None), RestartCourse(gave_up=True), RestartPolicy.ALWAYS, State.FAILED),
    ],
)
def test_the_state_of_one_that_ended(ended: Exit | None, course: RestartCourse, policy: RestartPolicy, state: State) -> None:
    container = Container("web", Spec("web", restart=Restart(policy)), exit=ended, course=course)
    assert (container.state, container.backs_off) == (state, state is State.BACKOFF)


def test_one_that_lacks_something_is_blocked_whatever_its_last_end_was() -> None:
    spec = Spec("web", restart=Restart(RestartPolicy.ALWAYS))
    container = Container("web", spec, exit=ENDED, course=RestartCourse(due=5.0))
    container.lack = Lack("db not healthy")
    assert (container.state, container.backs_off, container.state.ended) == (State.BLOCKED, False, False)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("web", True), ("-n web", True), ("-nweb", True), ("--name=web", True), ("--name web -k", True),
        ("-k -t 5 -n web", True),
        ("-P /var/lib/lxc -n web", True), ("-P/var/lib/lxc/ -n web", True), ("--lxcpath=/var/lib/lxc web", True),
        ("-n web2", False), ("other", False), ("", False), ("-P /srv/lxc -n web", False), ("--lxcpath /srv/lxc web", False),
        ("-n", False), ("-P", False),
    ],
)  # fmt: skip
def test_whom_lxc_stop_stops(words: str, meant: bool) -> None:
    assert stops(words.split(), "web", "/var/lib/lxc") == meant


@pytest.mark.parametrize("runs", [False, True])
def test_only_a_container_whose_init_still_ran_at_the_end_of_its_time_is_told_as_killed(
    runs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, one whose program had ended in time was, too, if LXC's monitor was slow with its hooks."""
    told: list[Event] = []
    sent: list[int] = []
    running = Running(10, 9, -1, cgroup.Payload({}), proc.uptime(), 0.0)

    def send_signal(_pid: int, _parent: int, number: int) -> bool:
        sent.append(number)
        if number == signal.SIGKILL:
            running.gone.set()
        return True

    monkeypatch.setattr(proc, "send_signal", send_signal)
    monkeypatch.setattr(proc, "has_ended", lambda _pid, _monitor: not runs)
    stub: Any = SimpleNamespace(_bus=SimpleNamespace(publish=told.append), _expect_moves=lambda: None)
    container = Container("web", Spec("web", Init.APP, ("true",)), running=running)
    asyncio.run(Lifecycle.halt(stub, container, 0.01))
    assert sent == [signal.SIGTERM, signal.SIGKILL]
    assert told == ([Killed("web", 0.01)] if runs else [])
