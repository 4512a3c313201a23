"""Which packages have the version that a container began with."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import pytest

from lxcfleet.base.merge import reconcile
from lxcfleet.base.merge.records import STATUS
from lxcfleet.host.packages.sightings import GONE, Sighting
from lxcfleet.patch.stale.versions import Versions
from lxcfleet.paths import Paths


def stanza(name: str, version: str, architecture: str = "amd64") -> str:
    return f"Package: {name}\nStatus: install ok installed\nArchitecture: {architecture}\nVersion: {version}\n\n"


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    """A container began with one record, and the host has another one."""
    paths = Paths(lxc=tmp_path / "lxc", run=tmp_path, etc=tmp_path)
    began = stanza("libc6", "1") + stanza("libc6", "1", "i386") + stanza("python3-x", "1", "all") + stanza("gone", "1")
    packed = reconcile._pack({STATUS: began.encode()})
    base = reconcile._digest(packed)
    for directory in (paths.base_snapshots, paths.container("web").directory):
        directory.mkdir(parents=True)
    paths.base_snapshot(base).write_bytes(packed)
    paths.container("web").base_record.write_text(json.dumps({"base": base}))
    status = tmp_path / "status"
    taker = stanza("taker", "1").replace("Version", "Replaces: gone (<< 2)\nVersion")
    same = stanza("libc6", "1") + stanza("python3-x", "1", "all")
    status.write_text(same + stanza("libc6", "2", "i386") + stanza("new", "1") + taker)
    for each in ("libc6", "python3-x", "new", "taker", "removed"):
        (tmp_path / "doc" / each).mkdir(parents=True)
    assert hashlib.sha256(packed).hexdigest().startswith(base)
    return Versions(paths, status, tmp_path / "doc")


@pytest.mark.parametrize(
    ("package", "same"),
    [("python3-x", True), ("libc6:amd64", True), ("libc6:i386", False), ("libc6", False), ("gone", False), ("new", False)],
)
def test_a_package_is_as_at_the_start_if_it_has_the_same_version(versions: Versions, package: str, same: bool) -> None:
    assert versions.as_at_start("web", package) is same


def test_what_is_not_known_is_not_as_at_the_start(versions: Versions, tmp_path: Path) -> None:
    assert not versions.as_at_start("other", "python3-x")
    assert not Versions(Paths(lxc=tmp_path / "lxc", run=tmp_path, etc=tmp_path), tmp_path / "no").as_at_start("web", "libc6")


SINCE = 10_000.0
"""The container's start, in seconds since the epoch; it began 50 seconds after the boot."""


@pytest.mark.parametrize(
    ("package", "stamp", "seen", "settled"),
    [
        ("python3-x", SINCE - 60, 40, True),
        ("python3-x", SINCE - 60, 60, False),  # somebody set the clock back
        ("python3-x", SINCE - 7200, 60, True),
        ("python3-x", SINCE + 7200, 60, True),  # its files are younger than the start, and so are compared
        ("libc6:i386", SINCE - 60, 40, False),  # another version came between the mount and the start
        ("libc6:amd64", SINCE - 60, 40, True),
    ],
)
def test_a_container_is_settled_if_all_that_changed_lately_was_there_at_its_start(
    versions: Versions, tmp_path: Path, package: str, stamp: float, seen: float, *, settled: bool
) -> None:
    paths = Paths(lxc=tmp_path / "lxc", run=tmp_path, etc=tmp_path)
    found = Versions(paths, tmp_path / "status", tmp_path / "doc", sightings={package: Sighting(int(stamp * 1e9), seen)})
    assert found.is_settled("web", SINCE, 50) is settled
    assert not found.is_settled("other", SINCE, 50) or abs(stamp - SINCE) > 3600, "what it began with is not known"


def test_a_removal_after_the_start_settles_nothing(versions: Versions, tmp_path: Path) -> None:
    paths = Paths(lxc=tmp_path / "lxc", run=tmp_path, etc=tmp_path)
    for seen, settled in ((40, True), (60, False)):
        sightings = {"removed": Sighting(GONE, seen)}
        found = Versions(paths, tmp_path / "status", tmp_path / "doc", sightings=sightings)
        assert found.is_settled("web", SINCE, 50) is settled


@pytest.mark.parametrize(
    ("package", "new"),
    [("new", True), ("new:amd64", True), ("new:i386", False), ("libc6", False), ("taker", False), ("removed", False)],
)
def test_a_package_is_new_if_it_was_not_there_at_the_start_and_takes_no_files_from_others(
    versions: Versions, package: str, new: bool
) -> None:
    file = "/usr/lib/python3/dist-packages/file.py"
    assert versions.is_new("web", package, file, time.time() - 60) is new
    assert not versions.is_new("web", package, file, time.time() + 60), "the process is younger than the package"
    assert not versions.is_new("other", package, file, 0), "which packages it began with is not known"


def test_a_host_without_documentation_has_the_directories_of_modules(versions: Versions, tmp_path: Path) -> None:
    (tmp_path / "doc/new").rmdir()
    modules = tmp_path / "modules"
    assert not versions.is_new("web", "new", f"{modules}/file.py", 0)
    modules.mkdir()
    assert versions.is_new("web", "new", f"{modules}/file.py", time.time() - 60)
    assert not versions.is_new("web", "libc6", f"{modules}/file.py", time.time() - 60)
    (tmp_path / "link").symlink_to(modules)
    assert not versions.is_new("web", "new", f"{tmp_path}/link/file.py", 0), "dpkg makes a link anew with each version"
