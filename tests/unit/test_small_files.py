"""Small files are read and written with few system calls, and as wholly as large ones."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lxcfleet.host.kernel import small, tree
from lxcfleet.host.process import cgroup, copying, proc


def test_a_record_of_the_kernel_is_read_whole() -> None:
    assert small.content("/proc/self/stat").startswith(b"%d (" % os.getpid())
    assert proc.parent_and_start(os.getpid()) == (os.getppid(), proc.began(os.getpid()))
    assert proc.parent_and_start(2**22 + 1) is None


def test_a_list_of_many_records_is_read_to_its_end() -> None:
    """The kernel gives a page of it at a time."""
    directory = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with open("/proc/kallsyms", "rb") as file:
            assert small.listed("kallsyms", directory) == file.read()
    finally:
        os.close(directory)


def test_the_members_of_a_cgroup_are_all_found(tmp_path: Path) -> None:
    below = tmp_path / "below"
    below.mkdir()
    (tmp_path / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in range(1, 3000)))
    (below / "cgroup.procs").write_text("7000\n")
    assert cgroup.members(str(tmp_path)) == ([*range(1, 3000), 7000], True)


def test_a_file_that_is_there_is_replaced_and_another_one_is_made(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for text in ("one\n", "two\n"):
        tree.write_first(file, text)
        assert file.read_text() == text
    assert [*tmp_path.iterdir()] == [file]


def test_nothing_is_left_of_a_file_that_has_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", lambda *_: 0)
    with pytest.raises(OSError, match="No space left") as raised:
        tree.write_first(tmp_path / "file", "one\n")
    assert raised.value.errno == errno.ENOSPC
    assert not [*tmp_path.iterdir()]


def test_a_look_whether_copies_share_blocks_leaves_nothing_on_a_disk_that_turned_read_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "unlink", fail)
    copying.shares_blocks(tmp_path)
    assert not list(tmp_path.iterdir())
    assert not copying.shares_blocks(tmp_path / "missing")


@pytest.mark.parametrize("kind", ["directory", "fifo", "link", "nothing", "under a file"])
def test_what_a_container_left_in_the_place_of_a_record_is_no_file(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "etc" / "shadow"
    place.parent.mkdir()
    if kind == "directory":
        place.mkdir()
    elif kind == "fifo":
        os.mkfifo(place)
    elif kind == "link":
        place.symlink_to("/etc/passwd")
    elif kind == "under a file":
        place.parent.rmdir()
        place.parent.write_text("x")
    opened = len(os.listdir("/proc/self/fd"))
    assert tree.read_within(tmp_path, "/etc/shadow", 1000) is None
    assert tree.size_within(tmp_path, "/etc/shadow") == 0
    assert len(os.listdir("/proc/self/fd")) == opened
