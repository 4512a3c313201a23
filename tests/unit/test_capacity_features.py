"""Findings from a mount table: about the root file system and the place of the deltas."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest

from lxcfleet.host.facts import features
from lxcfleet.host.facts.features import Probe
from lxcfleet.host.kernel import syscalls, tree
from lxcfleet.host.kernel.mounts import Mount
from lxcfleet.paths import Paths


def _Mount(point: str, filesystem: str) -> Mount:
    return Mount(0, point, filesystem)


ROOT = _Mount("/", "ext4")


def levels(probes: list[Probe]) -> dict[str, str]:
    return {probe.check: probe.level for probe in probes}


def test_one_file_system_for_programs_is_fine_whatever_data_is_on() -> None:
    mounts = (ROOT, _Mount("/proc", "proc"), _Mount("/home", "xfs"), _Mount("/var/lib/lxc", "btrfs"))
    assert levels(list(features._mount_points(mounts))) == {"root-filesystem": "ok"}


@pytest.mark.parametrize("point", ["/usr", "/var", "/var/lib", "/opt", "/usr/local"])
def test_parts_on_disks_of_their_own_are_fine_and_named(point: str) -> None:
    (probe,) = features._mount_points((ROOT, _Mount("/boot", "vfat"), _Mount(point, "xfs")))
    assert probe == Probe("root-filesystem", "ok", f"programs and libraries are on /, which is ext4, {point} (xfs)")


@pytest.mark.parametrize(
    ("point", "kind"),
    [("/usr", "nfs4"), ("/var", "tmpfs"), ("/var/lib", "overlay"), ("/etc", "ext4"), ("/var/lib/dpkg", "ext4")],
)
def test_directories_that_containers_need_and_cant_have_are_refused_by_name(point: str, kind: str) -> None:
    (probe,) = features._mount_points((ROOT, _Mount(point, kind)))
    assert (probe.check, probe.level) == ("root-filesystem", "fail")
    assert probe.message.startswith(f"{point} ({kind}) is not on the root file system")


def test_directories_that_containers_can_do_without_are_a_warning() -> None:
    found = list(features._mount_points((ROOT, _Mount("/opt", "nfs4"))))
    assert levels(found) == {"root-filesystem": "ok", "empty-directories": "warning"}


def test_of_mounts_over_each_other_the_last_counts() -> None:
    (probe,) = features._mount_points((ROOT, _Mount("/usr", "ext4"), _Mount("/usr", "nfs4")))
    assert probe.level == "fail"


def test_the_deepest_and_last_mount_has_a_directory(tmp_path: Path) -> None:
    deltas = tmp_path / "lxc"
    deltas.mkdir()
    over = (ROOT, _Mount(str(tmp_path), "xfs"), _Mount(str(deltas), "nfs4"), _Mount(str(deltas), "btrfs"))
    assert features._filesystem_of(deltas, over) == "btrfs"
    assert features._filesystem_of(deltas, over[:2]) == "xfs"
    assert features._filesystem_of(tmp_path / "lxc2", (ROOT, _Mount(str(deltas), "nfs4"))) == "ext4"
    assert features._filesystem_of(deltas, ()) == ""


@pytest.mark.parametrize(
    ("filesystem", "level"),
    [("overlay", "fail"), ("nfs4", "fail"), ("vfat", "fail"), ("fuse.sshfs", "fail")],
)
def test_file_systems_that_cant_be_an_upper_layer_are_refused(
    filesystem: str, level: str, tmp_path: Path
) -> None:
    (probe,) = features._delta_directory(tmp_path, filesystem)
    assert probe.level == level
    assert filesystem in probe.message


def test_a_missing_delta_directory_is_refused(tmp_path: Path) -> None:
    (probe,) = features._delta_directory(tmp_path / "none", "ext4")
    assert (probe.level, probe.message) == ("fail", f"{tmp_path}/none does not exist")


@pytest.mark.parametrize(
    ("version", "cgroup", "expected"),
    [
        ("5.0.2", "v2", {"lxc": "ok", "cgroup": "ok"}),
        ("6.0.4", "hybrid", {"lxc": "ok", "cgroup": "ok"}),
        ("7.0.0", "hybrid", {"lxc": "ok", "cgroup": "fail"}),
        ("7.0.0", "v2", {"lxc": "ok", "cgroup": "ok"}),
        ("4.0.6", "v2", {"lxc": "fail", "cgroup": "ok"}),
        ("", "none", {"lxc": "fail", "cgroup": "fail"}),
    ],
)
def test_lxc_and_cgroup_versions(version: str, cgroup: str, expected: dict[str, str]) -> None:
    assert levels(list(features._lxc(version, cgroup))) == expected


def test_an_error_keeps_its_number() -> None:
    probe = features._failed("overlay", "no overlay", OSError(22, "Invalid argument"), "see dmesg")
    assert probe == Probe("overlay", "fail", "no overlay: Invalid argument (EINVAL, errno 22)", "see dmesg")


def test_a_host_that_is_short_of_processes_is_not_told_to_change_its_settings() -> None:
    error = OSError(errno.EAGAIN, "Resource temporarily unavailable")
    probe = features._failed("user-namespace-support", "no user namespace can be made", error, "raise max_user_namespaces")
    assert "EAGAIN" in probe.message
    assert "max_user_namespaces" not in probe.hint
    assert "free -h" in probe.hint


@pytest.mark.reaches("devices", reason="the trial looks for /dev/loop-control")
def test_a_kernel_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before 5.12 there is no mount_setattr(2), so not even privileged containers are possible."""

    def too_old(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented", "/")

    monkeypatch.setattr(syscalls, "unshare_mounts", lambda: None)
    monkeypatch.setattr(syscalls, "unmount", too_old)
    monkeypatch.setattr(syscalls, "user_namespace", lambda *_: os.open("/dev/null", os.O_RDONLY))
    monkeypatch.setattr(syscalls, "clone_read_only", too_old)
    probe = list(features._attempts(tmp_path))[-1]
    assert (probe.check, probe.level) == ("read-only-root", "fail")
    assert probe.message.endswith(": Function not implemented (ENOSYS, errno 38)")
    assert probe.hint == f"it takes Linux 5.12 or later; this is {os.uname().release}"


@pytest.mark.reaches("devices", reason="the trial looks for /dev/loop-control")
def test_a_disk_that_fills_up_within_a_trial_is_told_as_such(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The last block had gone to the trial's own directory: `start` said that the trial had crashed."""
    made: list[Path] = []

    def mkdir(path: Path) -> None:
        made.append(path)
        if len(made) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "mkdir", mkdir)
    monkeypatch.setattr(syscalls, "unshare_mounts", lambda: None)
    *_, last = features._attempts(tmp_path / "probe")
    assert (last.check, last.level) == ("delta-directory", "fail")
    assert last.message == f"nothing can be made in {tmp_path}: No space left on device (ENOSPC, errno 28)"


@pytest.mark.reaches("processes", reason="trials run in a child, which is to crash")
def test_a_trial_that_crashes_is_told_and_lxc_is_not_blamed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def crash(_: Path) -> NoReturn:
        os._exit(1)

    monkeypatch.setattr(features, "_attempts", crash)
    monkeypatch.setattr(features, "_lxc_version", lambda: "5.0.2")
    version, (probe,) = features._try_all(Paths(lxc=tmp_path))
    assert (version, probe.check, probe.level) == ("5.0.2", "features", "fail")


@pytest.mark.reaches("processes", reason="trials run in a child, which is to end at once")
def test_what_an_earlier_look_left_is_removed_by_the_next_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An unlink had failed, or the look was killed. One that another look works in stays."""

    def done(_: Path) -> NoReturn:
        os._exit(0)

    monkeypatch.setattr(features, "_attempts", done)
    monkeypatch.setattr(features, "_lxc_version", lambda: "5.0.2")
    left, used = (tmp_path / f"{Paths.PROBE_PREFIX}{word}" for word in ("left", "used"))
    for each in (left, used):
        (each / "delta").mkdir(parents=True)
    (tmp_path / "web").mkdir()
    lock = os.open(used, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with monkeypatch.context() as patch:
        patch.setattr(tree, "remove", lambda _: None)
        features._try_all(Paths(lxc=tmp_path))
    assert len(os.listdir(tmp_path)) == 4
    features._try_all(Paths(lxc=tmp_path))
    assert sorted(os.listdir(tmp_path)) == [used.name, "web"]
    os.close(lock)


def test_a_directory_that_is_taken_for_one_that_is_left_over_is_made_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lock, taken = fcntl.flock, list[int]()

    def slow(descriptor: int, how: int) -> None:
        if not taken:
            taken.append(descriptor)
            (made,) = tmp_path.iterdir()
            made.rmdir()
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", slow)
    scratch, held = features._scratch(tmp_path)
    assert scratch.is_dir()
    assert held is not None
    os.close(held)


@pytest.mark.parametrize("call", ["pipe", "fork"])
def test_a_host_that_has_no_room_for_a_trial_is_told_as_a_finding(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: str
) -> None:
    """Before, the error left the child that looks, as one that nobody foresaw."""

    def full(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(features, "_lxc_version", lambda: "5.0.2")
    monkeypatch.setattr(os, call, full)
    version, (probe,) = features._try_all(Paths(lxc=tmp_path))
    assert (version, probe.check, probe.level) == ("5.0.2", "features", "fail")
    assert "Cannot allocate memory (ENOMEM" in probe.message
    monkeypatch.setattr(tempfile, "mkdtemp", full)
    version, (probe,) = features._try_all(Paths(lxc=tmp_path))
    assert (version, probe.check, probe.level) == ("5.0.2", "delta-directory", "fail")
    assert not os.listdir(tmp_path)
