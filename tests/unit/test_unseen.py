"""A container whose monitor runs while nobody can tell its processes, as on a disk that gives errors: it is not stopped."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import pytest

from lxcfleet.containers.container import Container
from lxcfleet.containers.events import Exited
from lxcfleet.containers.reconciling.reconciler import refuse_unseen
from lxcfleet.containers.registry import Registry
from lxcfleet.containers.supervision.boot import BootStarts
from lxcfleet.errors import HostError
from lxcfleet.host.lxc import monitor
from lxcfleet.host.process import proc
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.states import State


class Blind:
    """A launcher whose child can't tell process 1, or dies."""

    def __init__(self) -> None:
        self.answers: list[Any] = []

    async def each(self, _operation: str, _names: list[str]) -> AsyncIterator[Any]:
        for answer in self.answers:
            yield answer


@pytest.fixture
def launcher() -> Blind:
    return Blind()


@pytest.fixture
def registry(tmp_path: Path, launcher: Blind, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setattr(monitor, "claimed", lambda _: {"web"})
    monkeypatch.setattr(monitor, "listener", lambda *_: monitor.ROOT)
    own = Registry(Paths(tmp_path, tmp_path, tmp_path), cast(Any, launcher), Bus())
    own.add(Container("web", Spec("web")))
    own.add(Container("db", Spec("db")))
    return own


@pytest.mark.parametrize("answers", [[], [{"name": "web", "pid": None}]])
def test_what_can_not_be_told_is_unknown_and_not_stopped(
    registry: Registry, launcher: Blind, monkeypatch: pytest.MonkeyPatch, answers: list[Any]
) -> None:
    """A new daemon on a read-only disk called running containers stopped, and `stop` of them "unchanged"."""
    launcher.answers = answers
    asyncio.run(registry.observe())
    assert (registry["web"].state, registry["db"].state) == (State.UNKNOWN, State.STOPPED)
    assert not State.UNKNOWN.alive
    with pytest.raises(HostError, match="not known"):
        refuse_unseen(registry["web"])
    refuse_unseen(registry["db"])
    boot: Any = SimpleNamespace(_registry=registry, _boot="x")
    assert BootStarts._seen(boot).running == ("web",), "it starts again after a boot"
    monkeypatch.setattr(monitor, "claimed", lambda _: set())
    asyncio.run(registry.observe())
    assert registry["web"].state is State.STOPPED


def test_an_action_under_way_is_not_disturbed(registry: Registry) -> None:
    registry["web"].busy = "start"
    asyncio.run(registry.observe())
    assert registry["web"].state is State.STARTING


@pytest.mark.parametrize("call", ["open", "pidfd_open"])
def test_a_daemon_without_a_descriptor_does_not_take_what_runs_for_ended(
    registry: Registry, launcher: Blind, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end was told, and a restart policy would have started it once more."""
    ended: list[Exited] = []
    registry._bus.subscribe("test", Exited, ended.append)
    launcher.answers = [{"name": "web", "pid": os.getpid()}]

    def none_left(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, none_left)
        with pytest.raises(HostError, match="can't be watched"):
            registry.watch(registry["web"], os.getpid())
        asyncio.run(registry.observe())
    assert registry["web"].state is State.UNKNOWN
    assert not ended


@pytest.mark.parametrize("look", [proc.parent_and_start, proc.open_pid])
def test_of_a_process_that_is_gone_there_is_nothing(look: Callable[[int], object]) -> None:
    assert look(2**22 + 1) is None
