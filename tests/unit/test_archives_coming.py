"""What the daemon makes of an archive's head, before anything is unpacked."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lxcfleet.containers.lxc_config import Platform
from lxcfleet.containers.reconciling.specs import Specs
from lxcfleet.daemon.uses import archives
from lxcfleet.daemon.uses.archives import Archives
from lxcfleet.daemon.uses.arrivals import VolumeArrivals, WantedVolumes
from lxcfleet.data.archives import head as heads
from lxcfleet.data.archives.head import ArchiveHead
from lxcfleet.errors import InvalidInput
from lxcfleet.launcher.client import Reply
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.spec.container.io import IoLimit
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.container.volumes import Volume


class Child:
    """A child that sends the head of an archive."""

    def __init__(self, text: bytes) -> None:
        self.text = text

    async def hear(self) -> Reply[Any]:
        memory = os.memfd_create("head")
        os.write(memory, self.text)
        os.lseek(memory, 0, os.SEEK_SET)
        return Reply({"error": None}, memory)


def test_the_daemon_goes_on_while_a_head_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    there = ArchiveHead("web", "0.1", "2026-01-01T00:00:00Z", "stopped", {"init": "app"})
    text, going_on = heads.render(there).encode(), threading.Event()
    parse = heads.parse

    def long(text: bytes) -> ArchiveHead:
        assert going_on.wait(60.0), "the loop stood still meanwhile"
        return parse(text)

    async def play() -> ArchiveHead:
        asyncio.get_running_loop().call_later(0.0, going_on.set)
        child: Any = Child(text)
        return await archives._head(child)

    monkeypatch.setattr(heads, "parse", long)
    assert asyncio.run(play()) == there


def test_limits_of_disks_that_this_host_has_not_are_left_out_and_told(tmp_path: Path) -> None:
    """A container of another host is worth more than they are."""
    nobody: Any = None
    paths = Paths(lxc=tmp_path, run=tmp_path, etc=tmp_path)
    files = frozenset({"io.max"})
    disk = {"vda": ["254:0"]}
    platform = Platform(True, frozenset({"io"}), False, False, "", "", tmp_path, files, lambda name: disk.get(name, ()))
    specs = Specs(paths, platform, nobody, nobody, Bus(), 4)

    async def taken(_: object) -> None:
        raise InvalidInput("it is taken", why="another one has it")

    fleet: Any = SimpleNamespace(room=SimpleNamespace(check_static=taken))
    made = Archives(paths, fleet, nobody, specs, nobody, nobody)
    limit = IoLimit(read=1 << 20)
    spec, told = asyncio.run(made.fitted(Spec("web", io={"sda": limit, "vda": limit, "delta": limit})))
    assert dict(spec.io) == {"vda": limit}
    specs.check_limits(spec)
    assert [each for each in told if "sda" in each and "this host has no disk sda" in each]
    assert [each for each in told if "the disk delta" in each]
    assert len(told) == 3
    assert "another address" in told[-1]


def test_an_archive_has_no_volumes_but_those_of_its_container(tmp_path: Path) -> None:
    """Whether they are made, or only unpacked to be checked: each takes a range of ids meanwhile."""
    nobody: Any = None
    volumes = VolumeArrivals(Paths(lxc=tmp_path), nobody, nobody, nobody, Bus())
    made = Archives(nobody, nobody, nobody, nobody, nobody, volumes)
    many = ArchiveHead("web", "0.1", "", "stopped", {}, volumes=tuple(Volume(f"v{number}") for number in range(5000)))
    ask: Any = SimpleNamespace(volumes=WantedVolumes({}, keep=False), check=True)
    with pytest.raises(InvalidInput, match="refused") as caught:
        asyncio.run(made._check(many, Spec("web"), ask, nobody, nobody))
    assert "volume v0" in caught.value.why
    (told,) = made._arrivals.choose(many, Spec("web"), None)[2]
    assert "v0, v1" in told
    assert "4995 more" in told
