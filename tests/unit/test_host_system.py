"""What the host is, and its clock: a release upgrade or another time zone comes while a daemon runs."""

from __future__ import annotations

import asyncio
import os
import time
import zoneinfo
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lxcfleet.daemon.uses import archives
from lxcfleet.data.archives.head import ArchiveHead
from lxcfleet.host.facts import system
from lxcfleet.patch.cve.sets import Sets
from lxcfleet.patch.holds import Hold
from lxcfleet.patch.verify import prover
from lxcfleet.spec.policies.cves import CveSettings
from lxcfleet.spec.policies.windows import PatchSettings

from .test_cve_sets import Launcher

OLD = 'PRETTY_NAME="Debian 12"\nID=debian\n# VERSION_ID=\nnothing\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n'
NEW = OLD.replace("12", "13").replace("bookworm", "trixie")


@pytest.fixture
def upgraded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], object]:
    """Upgrades the host."""
    file = tmp_path / "os-release"
    file.write_text(OLD)
    monkeypatch.setattr(system, "FILES", (tmp_path / "none", file))
    return lambda: file.write_text(NEW)


def test_after_a_release_upgrade_everybody_knows_the_new_release(upgraded: Callable[[], object]) -> None:
    """Before, the daemon looked for the CVEs of the former release, for as long as it lived."""
    launcher: Any = Launcher()
    of = Sets(launcher, CveSettings)
    head = ArchiveHead("web", "1", "", "", {}, {"ID": "debian", "VERSION_ID": "13", "PRETTY_NAME": "Debian 13"})

    def known() -> list[object]:
        asyncio.run(of.of([]))
        return [launcher.asked[-1]["suite"], prover._system(), archives._notes(head)]

    assert known() == ["bookworm", "Debian 12", ["it was exported on Debian 13, and this host has Debian 12"]]
    upgraded()
    assert known() == ["trixie", "Debian 13", []]


def test_a_host_that_does_not_say_what_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(system, "FILES", (tmp_path, tmp_path / "none"))
    assert system.release() == {}
    assert prover._system() == os.uname().sysname


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Gives the host another time zone, without a word to this process."""
    yield lambda name: monkeypatch.setenv("TZ", name)
    monkeypatch.undo()
    time.tzset()


def test_the_windows_follow_the_time_zone_that_the_host_has_now(zone: Callable[[str], None]) -> None:
    settings = PatchSettings(windows=("02:00-03:00",))
    night = datetime(2026, 11, 21, 2, 30, tzinfo=UTC)
    hold = Hold(1, "2026-11-21", "")
    found = []
    for name in ("UTC0", "XXX-9", "UTC0"):
        zone(name)
        found.append((settings.is_open(night), hold.ends() % 86400))
    assert found == [(True, 86399.0), (False, 86399.0 - 9 * 3600), (True, 86399.0)]


def test_an_upgrade_of_time_zones_holds_for_the_windows_at_once(tmp_path: Path) -> None:
    source = Path("/usr/share/zoneinfo")
    if not (source / "Asia/Tokyo").exists():
        pytest.skip("this host has no time zones")
    zoneinfo.reset_tzpath(to=[str(tmp_path)])
    try:
        settings = PatchSettings(windows=("02:00-03:00",), time_zone="Test_zone")
        night = datetime(2026, 11, 21, 2, 30, tzinfo=UTC)
        found = []
        for name in ("Etc/UTC", "Asia/Tokyo"):
            (tmp_path / "Test_zone").write_bytes((source / name).read_bytes())
            found.append(settings.is_open(night))
        assert found == [True, False]
    finally:
        zoneinfo.reset_tzpath()
