"""Files that packages had and have no more."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from lxcfleet.host.packages import lists, losses
from lxcfleet.host.packages.losses import Loss, Losses
from lxcfleet.patch.stale.served import SLACK_SECONDS, Candidates, ComparedFiles

NOW = 4e9
"""A moment in seconds since the epoch."""


class Host:
    """Packages with files below a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.info, self.files = directory / "info", directory / "files"
        self.copy, self.record = directory / "copy", directory / "record"
        self.info.mkdir()
        self.files.mkdir()
        self._time = 1_000_000
        self.losses = self.begin()

    def begin(self) -> Losses:
        """A daemon begins."""
        self.losses = Losses(self.copy, self.record, (str(self.files / "doc"),), self.info)
        return self.losses

    def has(self, package: str, names: Sequence[str]) -> None:
        """dpkg installs the package with these files."""
        self._time += 1
        for name in names:
            (self.files / name).touch()
        listed = self.info / f"{package}.list"
        listed.with_suffix(".new").write_text("/.\n" + "".join(f"{self.files / name}\n" for name in names))
        os.utime(listed.with_suffix(".new"), (self._time, self._time))
        listed.with_suffix(".new").rename(listed)
        os.utime(self.info, (self._time, self._time))

    def loses(self, *names: str) -> None:
        """Files go."""
        for name in names:
            (self.files / name).unlink()

    def lost(self) -> set[tuple[str, str]]:
        """Package and name of each lost file."""
        return {(loss.package, Path(loss.path).name) for loss in losses.read(self.record)}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_file_that_a_new_version_has_not_is_lost(host: Host) -> None:
    host.has("certs", ["good", "bad"])
    host.losses.update(NOW)
    assert host.lost() == set()
    host.has("certs", ["good", "new"])
    host.loses("bad")
    host.losses.update(NOW + 1)
    assert losses.read(host.record) == [Loss("certs", str(host.files / "bad"), NOW + 1)]
    assert host.losses.problem == ""


def test_patches_while_no_daemon_runs_are_seen_by_the_next(host: Host) -> None:
    host.has("certs", ["bad"])
    host.has("whole", ["program"])
    host.losses.update(NOW)
    host.has("certs", [])
    (host.info / "whole.list").unlink()
    host.loses("bad", "program")
    host.begin().update(NOW)
    assert host.lost() == {("certs", "bad"), ("whole", "program")}
    host.begin().update(NOW)
    assert host.lost() == {("certs", "bad"), ("whole", "program")}


def test_a_file_that_moved_to_another_package_or_came_back_is_not_lost(host: Host) -> None:
    host.has("one", ["moved", "back"])
    host.losses.update(NOW)
    host.has("one", [])
    host.has("other", ["moved"])
    host.loses("back")
    host.losses.update(NOW)
    assert host.lost() == {("one", "back")}
    host.has("one", ["back"])
    lost = losses.read(host.record)
    assert Candidates(ComparedFiles(packages=("one",)), NOW, lost).directories == {}


def test_documentation_does_not_matter(host: Host) -> None:
    host.has("one", ["doc"])
    host.losses.update(NOW)
    host.has("one", [])
    host.loses("doc")
    host.losses.update(NOW)
    assert host.lost() == set()


def test_files_that_a_packages_script_made_are_lost_with_it(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    made = host.directory / "made"
    made.mkdir()
    (made / "bad.pem").touch()
    monkeypatch.setattr(lists, "GENERATED", {"certs": (str(made),)})
    host.has("certs", [])
    host.losses.update(NOW)
    (made / "bad.pem").unlink()
    os.utime(made, (5e9, 5e9))
    host.losses.update(NOW)
    assert host.lost() == {("certs", "bad.pem")}


def test_losses_add_up(host: Host) -> None:
    for name in ("one", "two"):
        host.has("some", [name])
        host.losses.update(NOW)
        host.has("some", [])
        host.loses(name)
        host.losses.update(NOW)
    assert host.lost() == {("some", "one"), ("some", "two")}


@pytest.mark.parametrize("broken", ["one 1", "\x1f\x8b"])
def test_a_copy_that_can_not_be_read_is_told(host: Host, broken: str) -> None:
    host.copy.write_text(broken)
    host.has("one", ["file"])
    host.losses.update(NOW)
    assert host.losses.problem
    host.copy.unlink()
    host.losses.update(NOW)
    assert host.losses.problem == ""


def test_lost_files_are_compared_if_they_went_after_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("changed_since", "of"):
        monkeypatch.setattr(lists, name, lambda *_: {})
    monkeypatch.setattr(lists, "generated", lambda *_: ())
    lost = [Loss("certs", f"{tmp_path}/bad", 2e6)]

    def chosen(wanted: ComparedFiles, since: float) -> list[str]:
        found = Candidates(wanted, since + SLACK_SECONDS, lost).directories
        return [candidate.name for some in found.values() for candidate in some if candidate.lost]

    assert chosen(ComparedFiles(), 1e6) == ["bad"]
    assert chosen(ComparedFiles(), 3e6) == []
    assert chosen(ComparedFiles(packages=("certs",)), 3e6) == ["bad"]
    assert chosen(ComparedFiles(changed=False, packages=("other",)), 1e6) == []
