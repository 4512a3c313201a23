"""The base's contents at a container's last start: where they are kept, and a start without them."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from lxcfleet.base.merge import reconcile, records
from lxcfleet.base.merge.reconcile import RecordMerger
from lxcfleet.base.stack import base, mask
from lxcfleet.errors import Broken
from lxcfleet.paths import Paths

OWN = "Package: mine\nArchitecture: amd64\nVersion: 7\n\n"


class Host:
    """A base, and a container with a package of its own."""

    def __init__(self, top: Path) -> None:
        self.root = top / "root"
        self.backup = top / "backup"
        self.paths = Paths(lxc=top / "lxc", run=top / "run", etc=top / "etc")
        self.own = self.paths.container("web")
        (self.own.delta / "var/lib/dpkg").mkdir(parents=True)
        (self.root / "var/lib/dpkg").mkdir(parents=True)

    def install(self, version: str) -> None:
        """Install a version of a package on the host."""
        text = f"Package: ssl\nArchitecture: amd64\nVersion: {version}\n\n"
        (self.root / "var/lib/dpkg/status").write_text(text)

    def diverge(self) -> None:
        """Have the container write its own dpkg records."""
        self.status.write_text((self.root / "var/lib/dpkg/status").read_text() + OWN)

    @property
    def status(self) -> Path:
        """The container's dpkg status file."""
        return self.own.delta / "var/lib/dpkg/status"

    def start(self, name: str = "web") -> list[str]:
        """Start the container from a new process; returns the conflicts."""
        lower = (mask(self.paths), base(self.paths)._replace(source=str(self.root)))
        return RecordMerger(self.paths, lower).reconcile(name)

    def versions(self) -> list[str]:
        """The versions of the packages, as the container sees them."""
        return [line.split()[1] for line in self.status.read_text().splitlines() if line.startswith("Version")]

    def kept(self) -> list[str]:
        """The names of the container's snapshots."""
        return sorted(path.name.removeprefix("base-") for path in self.own.directory.glob("base-*"))

    def base(self) -> str:
        """The name of the snapshot that the container began with."""
        return str(json.loads(self.own.base_record.read_text())["base"])

    def restore(self) -> None:
        """Restore the container from a backup, on a host without anything of the fleet."""
        shutil.rmtree(self.paths.lxc)
        shutil.copytree(self.backup, self.own.directory)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    found = Host(tmp_path)
    found.install("1")
    assert found.start() == []
    found.diverge()
    return found


def test_a_restored_container_is_merged(host: Host) -> None:
    shutil.copytree(host.own.directory, host.backup)
    host.install("2")
    host.restore()
    assert host.start() == []
    assert host.versions() == ["2", "7"]
    host.install("3")
    assert host.start() == []
    assert host.versions() == ["3", "7"]


def test_the_snapshot_is_one_file_for_all(host: Host) -> None:
    for name in ("a", "b"):
        host.paths.container(name).delta.mkdir(parents=True)
        host.start(name)
    (shared,) = host.paths.base_snapshots.iterdir()
    assert shared.stat().st_nlink == 4
    assert shared.stat().st_mode & 0o777 == 0o600
    assert host.kept() == [host.base()]


def test_the_snapshot_is_one_file_also_where_two_make_it_at_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.install("2")
    host.paths.container("a").delta.mkdir(parents=True)
    write = reconcile._write

    def second(file: Path, content: bytes) -> None:
        monkeypatch.setattr(reconcile, "_write", write)
        host.start("a")
        write(file, content)

    monkeypatch.setattr(reconcile, "_write", second)
    host.start()
    assert host.paths.base_snapshot(host.base()).stat().st_nlink == 3
    assert [file.name for file in host.paths.base_snapshots.iterdir() if file.name.startswith(".")] == []


def test_the_former_snapshot_goes(host: Host) -> None:
    first = host.kept()
    host.install("2")
    host.start()
    assert host.kept() == [host.base()] != first


def test_on_a_file_system_of_its_own_a_container_has_a_copy(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    host.install("2")
    assert host.start() == []
    (copy,) = host.own.directory.glob("base-*")
    assert (copy.stat().st_nlink, copy.stat().st_mode & 0o777) == (1, 0o600)
    assert copy.read_bytes() == host.paths.base_snapshot(host.base()).read_bytes()
    shutil.copytree(host.own.directory, host.backup)
    host.install("3")
    host.restore()
    assert host.start() == []
    assert host.versions() == ["3", "7"]


def test_a_lost_snapshot_is_told_at_each_start_and_nothing_is_merged(host: Host) -> None:
    (kept,) = host.own.directory.glob("base-*")
    kept.unlink()
    shutil.copytree(host.own.directory, host.backup)
    host.install("2")
    host.restore()
    base = host.base()
    for version in ("2", "2", "3"):
        host.install(version)
        (told,) = host.start()
        assert "docs/packages.md" in told
        assert reconcile.conflicts(host.paths, "web") == [told]
        assert (host.versions(), host.base()) == (["1", "7"], base)
    # A backup of another container with the same base may still have the snapshot.
    kept.write_bytes(b"var/lib/dpkg/status 0\n")
    assert len(host.start()) == 1  # that is a snapshot of another base
    shutil.copy2(_snapshot_of(host, "1"), kept)
    assert host.start() == []
    assert host.versions() == ["3", "7"]
    assert host.kept() == [host.base()] != [base]


def _snapshot_of(host: Host, version: str) -> Path:
    other = Host(host.backup / "other")
    other.install(version)
    other.start()
    (file,) = other.own.directory.glob("base-*")
    return file


def test_the_shared_snapshot_serves_while_it_exists(host: Host) -> None:
    (kept,) = host.own.directory.glob("base-*")
    kept.unlink()
    host.install("2")
    assert host.start() == []
    assert host.versions() == ["2", "7"]


def test_a_link_that_is_gone_or_damaged_comes_back(host: Host) -> None:
    (kept,) = host.own.directory.glob("base-*")
    kept.unlink()
    host.start()
    assert kept.samefile(host.paths.base_snapshot(host.base()))
    os.truncate(kept, 0)  # this truncates the shared one, too
    host.start()
    assert kept.samefile(host.paths.base_snapshot(host.base()))
    assert kept.stat().st_size > 0


def test_a_container_without_records_of_its_own_needs_no_snapshot(host: Host) -> None:
    host.status.unlink()
    shutil.rmtree(host.paths.base_snapshots)
    shutil.rmtree(host.backup, ignore_errors=True)
    for file in host.own.directory.glob("base-*"):
        file.unlink()
    host.install("2")
    assert host.start() == []
    host.diverge()
    host.install("3")
    assert host.start() == []
    assert host.versions() == ["3", "7"]


@pytest.mark.parametrize(
    "base", ['"../../../etc/passwd"', '"\\u0000"', '"\\ud800"', "5", '["a"]', "{}", '""', '"' + "x" * 5000 + '"']
)
def test_a_start_survives_any_content_of_the_record(host: Host, base: str) -> None:
    host.own.base_record.write_text(f'{{"base": {base}}}')
    host.install("2")
    assert len(host.start()) == 1
    assert host.versions() == ["1", "7"]


def test_snapshots_without_a_container_go_after_a_while(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "_KEPT_SECONDS", -1.0)
    for version in ("2", "3"):
        host.install(version)
        host.start()
    host.install("4")
    host.start()
    names = {path.name for path in host.paths.base_snapshots.iterdir()}
    assert len(names) == 2  # the former snapshot was its base until just now
    assert host.own.base_snapshot(host.base()).name in names


def test_a_file_that_is_too_large_is_not_merged_and_that_is_told_at_each_start(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """60 MiB of a container's took two minutes and 3.7 GB, while others waited for the same child."""
    monkeypatch.setitem(records.MOST, records.STATUS, 100)
    host.status.write_text(host.status.read_text() + OWN * 3)
    before = host.status.read_text()
    host.install("2")
    for _ in range(2):
        (told,) = host.start()
        assert told == f"/var/lib/dpkg/status: not merged with the host's, as it has {len(before)}, and at most 100 are read"
        assert host.status.read_text() == before
    monkeypatch.setitem(records.MOST, records.STATUS, 10_000)
    assert host.start() == []
    assert "Version: 2" in host.status.read_text()


def foreseen(host: Host) -> list[list[str]]:
    """The versions that the container has on record, would have after a start, and that the base has."""
    lower = (mask(host.paths), base(host.paths)._replace(source=str(host.root)))
    found = RecordMerger(host.paths, lower).foresee("web")
    assert found is not None
    return [[line.split()[1].decode() for line in each.splitlines() if line.startswith(b"Version")] for each in found]


def test_what_a_start_would_merge_is_foreseen_and_nothing_is_changed(host: Host) -> None:
    host.install("2")
    before = {path: path.read_bytes() for path in host.paths.lxc.parent.rglob("*") if path.is_file()}
    assert foreseen(host) == [["1", "7"], ["2", "7"], ["2"]]
    assert {path: path.read_bytes() for path in host.paths.lxc.parent.rglob("*") if path.is_file()} == before
    host.start()
    assert host.versions() == ["2", "7"]
    # The way back is the same way.
    host.install("1")
    assert foreseen(host) == [["2", "7"], ["1", "7"], ["1"]]
    host.start()
    host.install("2")
    host.start()
    assert host.versions() == ["2", "7"]


def test_what_nobody_knows_is_not_foreseen(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.install("2")
    for file in (host.own.base_snapshot(host.base()), host.paths.base_snapshot(host.base())):
        file.unlink()
    with pytest.raises(Broken, match="not known any more"):
        foreseen(host)
    monkeypatch.setitem(records.MOST, records.STATUS, 10)
    with pytest.raises(Broken, match="at most"):
        foreseen(host)
    host.status.unlink()
    lower = (mask(host.paths), base(host.paths)._replace(source=str(host.root)))
    assert RecordMerger(host.paths, lower).foresee("web") is None, "it has no records of its own"
    host.status.symlink_to("/etc/passwd")
    assert RecordMerger(host.paths, lower).foresee("web") is None


def test_accounts_with_the_same_id_are_merged_quickly() -> None:
    """The time grew with the square of their number."""
    own = b"".join(b"u%d:x:5:5::/:\n" % number for number in range(40_000))
    groups = b"".join(b"g%d:x:5:\n" % number for number in range(40_000))
    old = {records.PASSWD: b"a:x:1:1\n", records.GROUP: b"g:x:1:\n"}
    host = {records.PASSWD: b"b:x:2:7\n", records.GROUP: b"h:x:7:\n"}
    began = time.process_time()
    merged, _ = records.merge(old, host, {records.PASSWD: own, records.GROUP: groups})
    assert time.process_time() - began < 5
    assert merged[records.PASSWD].count(b"\n") == 40_001
