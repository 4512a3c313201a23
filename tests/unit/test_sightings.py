"""When packages were first seen in their present state, and what follows for the files that are compared."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lxcfleet.host.packages import dpkg
from lxcfleet.host.packages.sightings import GONE, Sighting, Sightings, read
from lxcfleet.host.process import proc


class Host:
    """dpkg's directory, and a clock that nobody sets."""

    def __init__(self, directory: Path) -> None:
        self.info, self.record = directory / "info", directory / "seen.json"
        self.clock, self.half_done = 100.0, ""
        self._lists = 0
        self.info.mkdir()
        self.sightings = self.begin()

    def begin(self) -> Sightings:
        """A daemon begins."""
        self.sightings = Sightings(self.record, self.info)
        return self.sightings

    def installs(self, package: str, stamp: int) -> None:
        """A package comes, or another version of it; the clock of the wall may say anything."""
        listed = self.info / f"{package}.list"
        listed.write_text("/.\n")
        os.utime(listed, (stamp, stamp))
        self._changed()

    def removes(self, package: str) -> None:
        (self.info / f"{package}.list").unlink()
        self._changed()

    def _changed(self) -> None:
        self._lists += 1
        os.utime(self.info, (self._lists, self._lists))

    def look(self, clock: float) -> dict[str, Sighting]:
        self.clock = clock
        found = self.sightings.update()
        assert found is None or found == read(self.record)
        assert found is None or found is self.sightings.update(), "nothing changed in between"
        return read(self.record)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path)
    monkeypatch.setattr(proc, "uptime", lambda: made.clock)
    monkeypatch.setattr(dpkg, "trouble", lambda _: made.half_done)
    return made


def test_a_package_keeps_the_moment_of_its_first_sight_until_it_changes(host: Host) -> None:
    host.installs("libc6:amd64", 1000)
    assert host.look(100) == {"libc6:amd64": Sighting(1000 * 10**9, 100)}
    host.installs("greet", 500)
    host.begin()
    assert host.look(200) == {"libc6:amd64": Sighting(1000 * 10**9, 100), "greet": Sighting(500 * 10**9, 200)}
    host.installs("libc6:amd64", 900)
    assert host.look(300)["libc6:amd64"] == Sighting(900 * 10**9, 300), "the clock of the wall was set back meanwhile"
    host.removes("greet")
    assert host.look(400)["greet"] == host.look(500)["greet"] == Sighting(GONE, 400)
    host.installs("greet", 500)
    assert host.look(600)["greet"] == Sighting(500 * 10**9, 600)


def test_nothing_is_noted_while_dpkg_has_left_packages_half_way(host: Host) -> None:
    host.installs("greet", 500)
    host.half_done = "greet is unpacked, not configured"
    assert host.look(100) == {}
    host.half_done = ""
    assert host.look(200) == {"greet": Sighting(500 * 10**9, 200)}


def test_nothing_is_noted_if_dpkg_begins_meanwhile(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.installs("greet", 500)

    def begins() -> float:
        host.installs("greet", 501)
        monkeypatch.setattr(proc, "uptime", lambda: 200.0)
        return 100.0

    monkeypatch.setattr(proc, "uptime", begins)
    host.sightings.update()
    assert read(host.record) == {}
    host.sightings.update()
    assert read(host.record) == {"greet": Sighting(501 * 10**9, 200)}


@pytest.mark.parametrize("content", ["", "[]", '{"x": 1}', '{"x": ["a", 1]}', "{"])
def test_a_damaged_record_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "record").write_text(content)
    assert read(tmp_path / "record") == {}
