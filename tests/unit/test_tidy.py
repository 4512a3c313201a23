"""What a process that takes long to end leaves of a container's cgroups is removed in the end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lxcfleet.containers import registry
from lxcfleet.containers.container import Container
from lxcfleet.containers.registry import Registry
from lxcfleet.host.process import cgroup
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.spec.spec import Spec

NOBODY: Any = None


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One for each time that somebody tried; the third succeeds."""
    tried: list[str] = []

    def remove(name: str) -> bool:
        tried.append(name)
        return len(tried) == 3

    monkeypatch.setattr(cgroup, "remove", remove)
    return tried


def tidy(registry_: Registry) -> None:
    """Until nothing more is to come."""

    async def run() -> None:
        registry_._tidy("web", 0.001)
        await asyncio.sleep(0.3)

    asyncio.run(run())


def test_of_one_that_was_destroyed_meanwhile(tries: list[str], tmp_path: Path) -> None:
    tidy(Registry(Paths(tmp_path, tmp_path, tmp_path), NOBODY, Bus()))
    assert tries == ["web"] * 3


def test_not_of_one_that_somebody_has_in_hand_or_that_runs(
    tries: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_TIDIED_SECONDS", 0.1)
    fleet = Registry(Paths(tmp_path, tmp_path, tmp_path), NOBODY, Bus())
    web = Container("web", Spec("web"), busy="create")
    fleet.add(web)
    tidy(fleet)
    running: Any = SimpleNamespace()
    web.busy, web.running = None, running
    tidy(fleet)
    assert tries == []
