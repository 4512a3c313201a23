"""Starts that plain lxc-start begins are announced by LXC's hook, so that the daemon need not find them by chance."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lxcfleet.containers import announcements
from lxcfleet.containers.announcements import StartAnnouncements, announce
from lxcfleet.containers.container import Container
from lxcfleet.containers.events import StartAnnounced
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.runtime.tasks import Tasks
from lxcfleet.spec.container.spec import Spec

from .network_parts import own_paths, registry_of, run


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return own_paths(tmp_path)


class Story:
    """Containers web1 and web2; ``runs`` says at which look each of them is found running."""

    def __init__(self, paths: Paths, monkeypatch: pytest.MonkeyPatch, **runs: int) -> None:
        self.paths = paths
        self.looks = 0
        self.heard: list[str] = []
        monkeypatch.setattr(announcements, "FIRST_PAUSE", 0.001)
        monkeypatch.setattr(announcements, "LONGEST_PAUSE", 0.02)
        containers = [Container(name, Spec(name)) for name in ("web1", "web2")]
        registry: Any = registry_of(paths, *containers)
        bus = Bus()
        bus.subscribe("test", StartAnnounced, lambda event: self.heard.append(event.container.name))

        async def observe() -> None:
            self.looks += 1
            for container in containers:
                if runs.get(container.name) == self.looks:
                    run(container)

        registry.observe = observe
        self.part = StartAnnouncements(paths, registry, bus, Tasks())

    def play(self, *names: str) -> None:
        """Have containers of these names announced."""

        async def whole() -> None:
            self.part.begin()
            for name in names:
                announce(self.paths, name)
            await self.part.look()

        asyncio.run(whole())


def test_an_announced_container_is_looked_for_until_it_runs(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story(paths, monkeypatch, web1=2, web2=3)
    story.play("web1", "web2")
    assert (story.heard, story.looks, list(paths.starting.iterdir())) == (["web1", "web2"], 3, [])


def test_a_container_that_does_not_start_is_not_looked_for_for_ever(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story(paths, monkeypatch)
    story.play("web1", "nobody")
    assert (story.heard, story.looks) == (["web1"], 5)


def test_nothing_is_announced_without_a_daemon_that_listens(paths: Paths) -> None:
    announce(paths, "web1")
    assert not paths.starting.exists()


def test_an_earlier_daemons_announcements_are_forgotten(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    paths.starting.mkdir()
    (paths.starting / "web1").touch()
    story = Story(paths, monkeypatch)
    story.play()
    assert (story.heard, story.looks, list(paths.starting.iterdir())) == ([], 0, [])
