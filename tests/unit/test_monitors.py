"""Processes of the host that run replaced files: monitors of containers, and the booter whose copies they are."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lxcfleet.host.packages import dpkg
from lxcfleet.host.process import maps
from lxcfleet.launcher import client
from lxcfleet.launcher.client import HostLauncher
from lxcfleet.paths import Paths


@pytest.mark.reaches("processes", reason="what /proc tells of a real process")
def test_a_mapped_file_of_a_host_process_is_told_once_it_was_replaced(program: Path, process: int) -> None:
    assert maps.replaced(maps.executable(process)) == []
    new = program.with_name("new")
    shutil.copy(program, new)
    new.rename(program)
    assert maps.replaced(maps.executable(process)) == [str(program)], "also by one of the same content"
    assert client._runs_old_code(process), "or its copies, the monitors, would be stale as soon as they began"


@pytest.mark.parametrize("path", ["/memfd:code", "/dev/zero", "/SYSV00000000"])
def test_a_mapping_that_never_was_a_file_was_not_replaced(path: str) -> None:
    mapping = maps.Mapping("1-2", maps.MappedFile("00:01", "1", path, deleted=True))
    assert maps.replaced([mapping]) == []


class Booter:
    """A stand-in for the booter's process."""

    pid = 7

    def __init__(self) -> None:
        self.ended = 0

    async def end(self) -> None:
        """Let it end."""
        self.ended += 1


@pytest.mark.parametrize(("old", "holder", "ended"), [(True, None, 1), (True, 9, 0), (False, None, 0)])
def test_a_booter_that_runs_old_code_boots_nothing_more_unless_dpkg_is_at_work(
    monkeypatch: pytest.MonkeyPatch, old: bool, holder: int | None, ended: int
) -> None:
    """With the policy manual, nothing else would renew it, and a fresh container would have an old monitor."""
    clock, booter = SimpleNamespace(now=0.0), Booter()
    monkeypatch.setattr(client, "_runs_old_code", lambda _: old)
    monkeypatch.setattr(dpkg, "holder", lambda: holder)
    monkeypatch.setattr(client, "time", SimpleNamespace(monotonic=lambda: clock.now))
    launcher = HostLauncher(Paths(), 0)
    monkeypatch.setattr(launcher, "_booter", cast(Any, booter))
    asyncio.run(launcher._freshen())
    asyncio.run(launcher._freshen())
    assert booter.ended == ended, "it is looked once for all boots of a moment"
    clock.now += client.LOOK_SECONDS
    asyncio.run(launcher._freshen())
    assert booter.ended == 2 * ended
