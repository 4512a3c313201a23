"""Cgroups that a slow process or a killed monitor leaves after a container's end are removed in the end."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lxcfleet.containers import tidying
from lxcfleet.containers.container import Container, Running
from lxcfleet.containers.tidying import Tidying
from lxcfleet.host.process import cgroup
from lxcfleet.spec.container.spec import Spec

LEFT = frozenset(["/nowhere/lxc.payload.web"])


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[frozenset[Path]]:
    """One entry for each attempt; the third attempt succeeds."""
    tried: list[frozenset[Path]] = []

    def remove(cgroups: Iterable[Path], _most: int | None = None) -> bool:
        tried.append(frozenset(cgroups))
        return len(tried) == 3

    monkeypatch.setattr(cgroup, "remove", remove)
    return tried


@pytest.fixture
def hierarchy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hierarchy of cgroups; its files are plain ones, so that a directory without them is like a cgroup's."""
    monkeypatch.setattr(cgroup, "_hierarchies", lambda: (tmp_path,))
    monkeypatch.setattr(cgroup, "_NEW_SECONDS", 0.0)
    return tmp_path


def make(hierarchy: Path, name: str, process: int | None = None) -> Path:
    own = hierarchy / name
    own.mkdir()
    (own / "cgroup.procs").write_text("" if process is None else f"{process}\n")
    return own


def tidy(containers: dict[str, Container]) -> None:
    """Run until no attempt is to come."""

    async def run() -> None:
        Tidying(containers).later("web", LEFT, 0.001)
        await asyncio.sleep(0.3)

    asyncio.run(run())


def test_cgroups_of_a_container_that_was_destroyed_meanwhile_are_removed(tries: list[frozenset[Path]]) -> None:
    tidy({})
    assert tries == [LEFT] * 3


def test_cgroups_of_a_container_that_is_busy_or_runs_are_left(
    tries: list[frozenset[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tidying, "LAST_SECONDS", 0.1)
    web = Container("web", Spec("web"), busy="create")
    tidy({"web": web})
    assert tries == []
    running: Any = SimpleNamespace(cgroups=LEFT)
    web.busy, web.running = None, running
    tidy({"web": web})
    assert set(tries) == {frozenset()}


def test_what_a_killed_daemon_and_a_killed_monitor_left_is_found(hierarchy: Path) -> None:
    left = {str(make(hierarchy, f"lxc.{name}")) for name in ("payload.web", "monitor.web", "payload.web-2", "monitor.web-2")}
    for other in ("payload.web-3", "payload.db", "payload.web-x", "other.web"):
        make(hierarchy, f"lxc.{other}")
    busy = make(hierarchy, "lxc.payload.web-4", process=os.getpid())
    used = make(hierarchy, "lxc.payload.web-5")
    time.sleep(0.01)
    assert cgroup.left_behind({"web", "web-3"}, {str(used)}) == {"web": left, "web-3": {f"{hierarchy}/lxc.payload.web-3"}}
    assert busy.exists()


def test_a_quite_new_cgroup_is_left_to_whoever_makes_it(hierarchy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "_NEW_SECONDS", 60.0)
    make(hierarchy, "lxc.payload.web")
    assert cgroup.left_behind({"web"}, set()) == {}


def test_cgroups_nested_deeper_than_pythons_stack_are_removed_little_by_little(tmp_path: Path) -> None:
    """1,500 of them made a stop hang for two minutes: Python's stack was not deep enough, and the end was never noted."""
    top = tmp_path / "lxc.payload.web"
    top.mkdir()
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(top)
        for _ in range(1500):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.fchdir(here)
        os.close(here)
    assert not cgroup.remove([str(top)], 64)
    assert top.exists()
    assert cgroup.remove([str(top)])
    assert not top.exists()


def test_the_cgroups_of_a_run_are_removed_at_its_end_whatever_their_names(hierarchy: Path) -> None:
    """liblxc calls them NAME-1 if there is a stale NAME."""
    payload, monitor = hierarchy / "lxc.payload.web-1", hierarchy / "lxc.monitor.web-1"
    payload.mkdir()
    monitor.mkdir()
    running = Running(1, 1, -1, cgroup.Payload({"": str(payload)}), 0.0, 0.0, frozenset([str(monitor)]))
    Tidying({}).ended("web", running)
    assert not payload.exists()
    assert not monitor.exists()
