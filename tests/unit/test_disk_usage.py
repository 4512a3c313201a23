"""The space that trees take, as du(1) counts it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lxcfleet.host.kernel import usage as module
from lxcfleet.host.kernel.usage import Usage, usage


def look(top: Path, depth: int = 0, most: int = 20, seconds: float = 20.0) -> Usage:
    return usage(os.fspath(top), depth, most, seconds)


def as_told(top: Path) -> tuple[int, int, int]:
    """What the files take, each inode once."""
    found = {os.lstat(path).st_ino: os.lstat(path) for path in top.rglob("*")}
    disk = sum(status.st_blocks * 512 for status in found.values())
    return disk, sum(status.st_size for status in found.values()), len([*top.rglob("*")])


@pytest.fixture
def top(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    for path in ("var/log/a", "var/log/b/c", "srv/d"):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(b"x" * 50_000)
    with (tree / "srv/sparse").open("wb") as file:
        file.truncate(1 << 30)
    for number in range(5):
        os.link(tree / "srv/d", tree / f"srv/e{number}")
    (tree / "srv/out").symlink_to("/usr")
    return tree


def test_links_count_once_and_holes_take_nothing(top: Path) -> None:
    found = look(top)
    assert (found.whole.disk, found.whole.apparent, found.whole.items) == as_told(top)
    assert found.whole.disk < 1 << 20 < 1 << 30 < found.whole.apparent
    assert (found.paths, found.cut) == ([], False)


def test_the_largest_paths_come_first(top: Path) -> None:
    (top / "var/big").write_bytes(b"x" * 500_000)
    found = look(top, depth=2)
    names = [path for path, _ in found.paths]
    assert names[:2] == ["/var", "/var/big"]
    assert set(names) >= {"/var/log", "/srv", "/srv/sparse"}
    assert "/var/log/a" not in names
    sums = dict(found.paths)
    assert sums["/var"].disk + sums["/srv"].disk == found.whole.disk
    assert sums["/var/log"].items == 4
    assert [path for path, _ in look(top, depth=2, most=1).paths] == ["/var"]
    assert {path for path, _ in look(top, depth=1).paths} == {"/var", "/srv"}


def test_more_links_than_are_remembered_have_a_share_each(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_LINKED", 0)
    assert round(look(top).whole.disk) == as_told(top)[0]


def test_what_takes_too_long_or_is_too_much_is_cut(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert look(top, seconds=-1.0).cut
    monkeypatch.setattr(module, "MOST_WAITING", 1)
    assert look(top).cut


def test_a_deep_tree_is_added_up(tmp_path: Path) -> None:
    """One that is deeper than any path leads is in tests/system/test_disk_use.py."""
    tmp_path.joinpath(*["d" * 20] * 100).mkdir(parents=True)
    found = look(tmp_path, depth=3)
    assert (found.whole.items, found.cut) == (100, False)
    assert [(len(path), one.items) for path, one in found.paths] == [(21, 100), (42, 99), (63, 98)]


def test_what_is_gone_takes_nothing(tmp_path: Path) -> None:
    assert look(tmp_path / "gone").whole.items == 0
