"""The walk through directories that a container's root fills: however deep, whatever is exchanged meanwhile."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lxcfleet.host.kernel import descent
from lxcfleet.host.kernel.descent import Descent
from lxcfleet.host.kernel.tree import disk_usage
from lxcfleet.host.process import cgroup

MIB = 1 << 20


@pytest.fixture
def top(tmp_path: Path) -> Iterator[Path]:
    """A directory that is removed whatever is in it: pytest can't remove the deepest ones."""
    own = tmp_path / "top"
    own.mkdir()
    before = os.getcwd()
    yield own
    os.chdir(before)
    while any(deep := list(own.glob("*/" * 15))):
        for number, each in enumerate(deep):
            each.rename(tmp_path / f"lifted{number}")
            (tmp_path / f"lifted{number}").rename(own / f"lifted{number}")
        shutil.rmtree(own / "lifted0", ignore_errors=True)


def deep(top: Path, levels: int, name: str) -> None:
    """Enter directories in one another; the current directory is the last."""
    os.chdir(top)
    for _ in range(levels):
        os.mkdir(name)
        os.chdir(name)


def names(descriptor: int) -> list[str]:
    with os.scandir(descriptor) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def test_files_below_a_path_that_is_too_long_count(top: Path) -> None:
    """200 MiB below 5,000 characters were told as 0."""
    deep(top, 20, "a" * 250)
    Path("big").write_bytes(os.urandom(MIB))
    assert disk_usage(top) >= MIB


def test_a_file_with_many_names_counts_once(top: Path) -> None:
    (top / "0").write_bytes(os.urandom(MIB))
    alone = disk_usage(top)
    for number in range(1, 100):
        os.link(top / "0", top / str(number))
    assert alone <= disk_usage(top) < 2 * MIB


def test_a_directory_that_becomes_a_link_meanwhile_is_not_followed(top: Path, tmp_path: Path) -> None:
    """As in CVE-2018-15664: the walk was led to the host's /usr."""
    outside = tmp_path / "outside"
    (outside / "in").mkdir(parents=True)
    (top / "real").mkdir()
    seen = []

    def look(descriptor: int) -> list[str]:
        seen.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        found = names(descriptor)
        if found == ["real"]:
            (top / "real").rmdir()
            (top / "real").symlink_to(outside)
        return found

    walk = Descent(str(top), look)
    walk.run()
    assert seen == [str(top)]
    assert walk.whole


def test_a_way_up_that_leads_elsewhere_is_not_taken(
    top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descent, "_HELD", 2)
    (tmp_path / "outside").mkdir()
    (top / "a/b/c/d/e").mkdir(parents=True)
    (top / "z").mkdir()
    seen = []

    def look(descriptor: int) -> list[str]:
        name = os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))
        seen.append(name)
        if name == "e":
            (top / "a/b/c/d").rename(tmp_path / "outside/d")
        return names(descriptor)

    walk = Descent(str(top), look)
    walk.run()
    assert sorted(seen) == ["a", "b", "c", "d", "e", "top", "z"]
    assert not walk.whole


def test_each_directory_is_left_after_all_in_it(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descent, "_HELD", 3)
    for path in ("a/b/c/d/e/f", "a/b/g", "a/h/i/j/k"):
        (top / path).mkdir(parents=True)
    Descent(str(top), names, lambda above, name: os.rmdir(name, dir_fd=above)).run()
    assert list(top.iterdir()) == []


def test_what_is_too_deep_is_told(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descent, "DEEPEST", 3)
    (top / "a/b").mkdir(parents=True)
    walk = Descent(str(top), names)
    walk.run()
    assert walk.whole
    (top / "a/b/c/d").mkdir(parents=True)
    walk = Descent(str(top), names)
    walk.run()
    assert not walk.whole


def test_a_process_in_the_deepest_cgroup_is_found(top: Path) -> None:
    """A stale process there was "proven" to be none: no path of more than 4,096 bytes can be opened."""
    (top / "cgroup.procs").write_text("5\n")
    deep(top, 20, "a" * 250)
    Path("cgroup.procs").write_text("7\n")
    for _ in range(19):
        os.chdir("..")
        Path("cgroup.procs").write_text("")
    assert cgroup.members(str(top)) == ([5, 7], True)


def test_cgroups_that_can_not_be_looked_at_are_told(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descent, "DEEPEST", 3)
    (top / "cgroup.procs").write_text("5\n")
    here = top
    for name in "abcd":
        here /= name
        here.mkdir()
        (here / "cgroup.procs").write_text("6\n")
    found, whole = cgroup.members(str(top))
    assert found == [5, 6, 6, 6]
    assert not whole
    assert cgroup.members(str(top / "nothing")) == ([], True)


def test_all_that_is_frozen_in_a_container_is_thawed_before_it_ends(top: Path) -> None:
    (top / "x/y").mkdir(parents=True)
    for each in (top, top / "x", top / "x/y"):
        (each / "freezer.state").write_text("FROZEN")
    cgroup.thaw(cgroup.Payload({"freezer": str(top)}))
    assert {each.read_text() for each in top.rglob("freezer.state")} == {"THAWED"}
    cgroup.thaw(cgroup.Payload({"": str(top)}))
