"""Reading the mount table, and which file systems containers have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lxcfleet.errors import HostError
from lxcfleet.host.kernel import mounts, syscalls
from lxcfleet.host.kernel.mounts import Mount

LINES = [
    b"21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n",
    b"30 21 254:1 / /opt rw,nosuid shared:5 master:2 - xfs /dev/vdb rw\n",
    b"31 21 0:40 / /usr/local rw - nfs4 server:/x rw\n",
    b"32 21 254:2 / /var/lib rw - ext4 /dev/old rw\n",
    b"33 21 0:41 / /mnt/a\\040b rw - tmpfs - rw\n",
]
TABLE = [mounts.parse(line) for line in LINES]


def test_lines_of_the_mount_table() -> None:
    assert TABLE[1] == Mount(30, "/opt", "xfs")
    assert TABLE[4] == Mount(33, "/mnt/a b", "tmpfs")


def test_only_disks_at_known_places_can_be_parts() -> None:
    assert [mount.point for mount in TABLE if mounts.can_be_part(mount)] == ["/opt", "/var/lib"]


def test_what_lies_under_another_mount_is_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"/opt": 30, "/usr/local": 31, "/var/lib": 99}
    monkeypatch.setattr(mounts, "table", lambda: TABLE)
    monkeypatch.setattr(syscalls, "mount_number", there.get)
    monkeypatch.setattr(mounts, "identify", lambda point: f"of {point}")
    assert mounts.parts() == {"/opt": "of /opt"}


def test_the_kernel_numbers_mounts_as_the_table_does() -> None:
    numbers = {mount.number: mount.point for mount in mounts.table()}
    assert numbers[syscalls.mount_number("/proc/self/status") or 0] == "/proc"
    assert syscalls.mount_number("/not/there") is None


def test_identities_tell_file_systems_apart(tmp_path: Path) -> None:
    here = mounts.identify(str(tmp_path))
    assert here is not None
    assert here == mounts.identify(os.fspath(tmp_path))
    assert here != mounts.identify("/proc")
    assert mounts.identify(str(tmp_path / "none")) is None


def test_a_directory_without_marks(tmp_path: Path) -> None:
    (tmp_path / "usr").mkdir()
    assert mounts.marked(str(tmp_path)) == {}


def test_nothing_in_which_something_is_mounted_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a link of the operator's leads to the directory: the mount table has real paths."""
    (tmp_path / "disk/web").mkdir(parents=True)
    (tmp_path / "state").symlink_to(tmp_path / "disk")
    web, real = tmp_path / "state/web", tmp_path / "disk/web"
    for place, tops, told in (
        (f"{real}/delta/home", True, True),
        (f"{real}", True, True),
        (f"{real}", False, False),
        (f"{real}/delta", False, True),
        (f"{real}2/delta", True, False),
        (f"{tmp_path}/disk", True, False),
    ):
        monkeypatch.setattr(mounts, "points", lambda place=place: frozenset(("/", place)))
        if told:
            with pytest.raises(HostError, match=f"web can't be removed\nsomething is mounted at {place}\nunmount it first"):
                mounts.refuse_removal("web", [web], tops=tops)
        else:
            mounts.refuse_removal("web", [web], tops=tops)


def test_a_link_itself_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "web").symlink_to(tmp_path / "elsewhere")
    monkeypatch.setattr(mounts, "points", lambda: frozenset((f"{tmp_path}/elsewhere/disk",)))
    mounts.refuse_removal("web", [tmp_path / "web"])
