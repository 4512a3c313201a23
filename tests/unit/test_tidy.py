"""Cgroups that a slow process leaves after a container's end are removed in the end."""

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
    """One entry for each attempt; the third attempt succeeds."""
    tried: list[str] = []

    def remove(name: str) -> bool:
        tried.append(name)
        return len(tried) == 3

    monkeypatch.setattr(cgroup, "remove", remove)
    return tried


def tidy(registry_: Registry) -> None:
    """Run until no attempt is to come."""

    async def run() -> None:
        registry_._tidy("web", 0.001)
        await asyncio.sleep(0.3)

    asyncio.run(run())


def test_cgroups_of_a_container_that_was_destroyed_meanwhile_are_removed(tries: list[str], tmp_path: Path) -> None:
    tidy(Registry(Paths(tmp_path, tmp_path, tmp_path), NOBODY, Bus()))
    assert tries == ["web"] * 3


def test_cgroups_of_a_container_that_is_busy_or_runs_are_left(
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
