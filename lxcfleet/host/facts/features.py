"""The features of the kernel, the file systems and the installed programs, tried out where possible.

``read`` forks, takes some 20 ms, and up to 20 s on a host that hangs: the daemon has a child of the launcher do it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from lxcfleet.errors import FleetError
from lxcfleet.host.kernel import mounts, quota, syscalls, tree
from lxcfleet.host.kernel.mounts import Mount
from lxcfleet.paths import Paths

_PROBE_SECONDS = 20
_SHORT = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
"""The errors of a host that is short of memory, processes or descriptors at the moment. They say nothing of its features."""
_SEE = "see what the host lacks at the moment: `free -h`, `dmesg | tail`; then try again"
_SCRATCH_TRIES = 3
_PROBE_ID = 0x70000000
_PROBE_RANGE = 65536
_OVERLAY_OPTIONS = "index=off,metacopy=off,redirect_dir=off,xino=off"

_TINI = Path("/usr/bin/tini-static")
_SECCOMP = Path("/usr/share/lxc/config/common.seccomp")
_SYSTEMD = Path("/lib/systemd/systemd")
_PROGRAM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

_NO_UPPER = frozenset((
    "overlay", "nfs", "nfs4", "cifs", "smb3", "vfat", "exfat", "msdos", "ntfs", "ntfs3", "9p", "ecryptfs",
    "fuse", "fuseblk", "squashfs", "erofs", "iso9660",
))  # fmt: skip
"""An upper layer needs trusted.* attributes, d_type and whiteouts, and must not be read-only; see the kernel's
Documentation/filesystems/overlayfs.rst. Some of these file systems mount as one, and break later."""

_MUST_SHARE = frozenset((
    "/bin", "/etc", "/lib", "/lib64", "/sbin", "/usr", "/usr/bin", "/usr/lib", "/var", "/var/lib",
    "/var/lib/dpkg",
))  # fmt: skip
"""If these were on file systems that containers can't have, a clone would find them empty, and could not boot."""

_SHOULD_SHARE = frozenset(("/opt", "/usr/local", "/usr/share"))


class Probe(NamedTuple):
    """The result of one trial. ``level``: ok, warning or fail, as in ``doctor``."""

    check: str
    level: str
    message: str
    hint: str = ""


@dataclass(frozen=True)
class Features:
    """The features of this host."""

    probes: tuple[Probe, ...]

    def to_json(self) -> dict[str, Any]:
        """For the answer of the process that tried."""
        return vars(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Features:
        """The features that ``to_json`` wrote."""
        return cls(tuple(Probe(*probe) for probe in data["probes"]))


def read(paths: Paths) -> Features:
    """Try everything once. Never raises: a failure is a finding. Leaves nothing behind, even if it is killed
    (but for a small directory with ``Paths.PROBE_PREFIX``)."""
    table = _mounts()
    filesystem = _filesystem_of(paths.lxc, table)
    version, tried = _try_all(paths)
    apparmor = _first_line(Path("/sys/module/apparmor/parameters/enabled")) == "Y"
    return Features((
        *_mount_points(table),
        *_lxc(version, _cgroup()),
        *_delta_directory(paths.lxc, filesystem),
        _disk_limits(paths.lxc, filesystem),
        *tried,
        *_programs(apparmor, _SECCOMP.is_file()),
        *_volumes(paths.volumes),
    ))  # fmt: skip


def _mounts() -> tuple[Mount, ...]:
    with contextlib.suppress(OSError):
        return tuple(mounts.table())
    return ()


def _filesystem_of(directory: Path, table: tuple[Mount, ...]) -> str:
    """Type of the file system that ``directory`` is on."""
    path = os.path.realpath(directory)
    above = [m for m in table if m.point in ("/", path) or path.startswith(m.point + "/")]
    # The deepest mount point above it counts, and if several mounts are on that point, the last one.
    return max(enumerate(above), key=lambda pair: (len(pair[1].point), pair[0]))[1].filesystem if above else ""


def _mount_points(table: tuple[Mount, ...]) -> Iterator[Probe]:
    last = {mount.point: mount for mount in table}
    apart = [f"{m.point} ({m.filesystem})" for m in last.values() if m.point in _MUST_SHARE and not mounts.can_be_part(m)]
    if apart:
        yield Probe(
            "root-filesystem",
            "fail",
            f"{', '.join(sorted(apart))} is not on the root file system, and would be empty in the containers",
            f"on disks of their own may be {', '.join(sorted(mounts.CANDIDATES))}, with ext4, xfs or btrfs",
        )
    else:
        where = {"/": f"/, which is {last['/'].filesystem if '/' in last else 'unknown'}"}
        where |= {point: f"{point} ({last[point].filesystem})" for point in mounts.CANDIDATES if point in last}
        parts = [text for point, text in where.items() if point == "/" or mounts.can_be_part(last[point])]
        yield Probe("root-filesystem", "ok", f"programs and libraries are on {', '.join(parts)}")
    empty = sorted(point for point, m in last.items() if point in _SHOULD_SHARE and not mounts.can_be_part(m))
    if empty:
        yield Probe(
            "empty-directories",
            "warning",
            f"{', '.join(empty)} is on a file system that containers can't have, and so is empty in them",
        )


def _lxc(version: str, cgroup: str) -> Iterator[Probe]:
    if not version:
        yield Probe("lxc", "fail", "python3-lxc can't be imported", "apt-get install lxc python3-lxc")
    elif _major(version) < 5:
        hint = "Debian 12 and later have one"
        yield Probe("lxc", "fail", f"LXC {version} is too old: 5.0 or later is needed", hint)
    else:
        yield Probe("lxc", "ok", f"LXC {version}")
    if cgroup == "none":
        yield Probe("cgroup", "fail", "no cgroup file system is mounted", "mount cgroup2 on /sys/fs/cgroup")
    elif cgroup != "v2" and _major(version or "0") >= 7:
        message = f"LXC {version} works with cgroup v2 only, and this host has {cgroup}"
        yield Probe("cgroup", "fail", message, "boot without systemd.unified_cgroup_hierarchy=0")
    else:
        yield Probe("cgroup", "ok", f"cgroup {cgroup}")


def _major(version: str) -> int:
    number = version.partition(".")[0]
    return int(number) if number.isdigit() else 0


def _cgroup() -> str:
    top = Path("/sys/fs/cgroup")
    if (top / "cgroup.controllers").exists():
        return "v2"
    if (top / "unified/cgroup.controllers").exists():
        return "hybrid"
    return "v1" if any((top / name).is_dir() for name in ("systemd", "memory", "devices")) else "none"


def _delta_directory(directory: Path, filesystem: str) -> Iterator[Probe]:
    if not directory.is_dir():
        hint = "apt-get install lxc makes it; or make it yourself, owned by root"
        yield Probe("delta-directory", "fail", f"{directory} does not exist", hint)
    elif filesystem in _NO_UPPER or filesystem.startswith("fuse."):
        yield Probe(
            "delta-directory",
            "fail",
            f"{directory} is on {filesystem}, which can't hold containers' changes",
            f"mount ext4, xfs or btrfs on {directory}",
        )
    elif os.stat(directory).st_uid != 0:
        message = f"{directory} belongs to uid {os.stat(directory).st_uid} instead of root"
        yield Probe("delta-directory", "fail", message, f"chown root:root {directory}")
    elif filesystem in ("tmpfs", "ramfs"):
        message = f"{directory} is on {filesystem}: all changes inside containers are gone at the next boot"
        yield Probe("delta-directory", "warning", message)
    else:
        yield Probe("delta-directory", "ok", f"{directory} is on {filesystem}")


def _disk_limits(directory: Path, filesystem: str) -> Probe:
    if quota.enforced(directory):
        return Probe("disk-limits", "ok", f"the file system of {directory} keeps containers' disk limits")
    message = f"containers' disk space can't be limited: {directory} is on {filesystem} without project quotas"
    return Probe("disk-limits", "warning", message, quota.advice(filesystem, directory))


def _volumes(directory: Path) -> Iterator[Probe]:
    """Try to show a directory of volumes with other owners. Without volumes there is nothing to tell."""
    try:
        handle = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        namespace = syscalls.user_namespace(_PROBE_ID, _PROBE_RANGE)
        try:
            os.close(syscalls.clone_apart(handle, 0, namespace, str(directory)))
        finally:
            os.close(namespace)
    except OSError as error:
        hint = f"mount ext4, xfs or btrfs on {directory}"
        probe = _failed("volumes", f"volumes in {directory} can't be mounted in containers", error, hint)
        yield probe._replace(level="warning")  # containers without volumes can do without
    else:
        yield Probe("volumes", "ok", f"volumes in {directory} can be mounted in containers")
    finally:
        os.close(handle)


def _programs(apparmor: bool, seccomp: bool) -> Iterator[Probe]:
    wanted = [("mkfs.ext4", "e2fsprogs"), ("mount", "mount")]
    if apparmor:
        wanted.append(("apparmor_parser", "apparmor"))
    for program, package in wanted:
        if shutil.which(program, path=_PROGRAM_PATH) is None:
            yield Probe(program, "fail", f"the program {program} is missing", f"apt-get install {package}")
    if not os.access(_TINI, os.X_OK):
        yield Probe(
            "tini", "fail", f"{_TINI}, the init of app containers, is missing", "apt-get install tini"
        )
    if not os.access(_SYSTEMD, os.X_OK):
        hint = "give a command for an app container, or apt-get install systemd"
        yield Probe("systemd", "fail", f"{_SYSTEMD}, the init of system containers, is missing", hint)
    if not seccomp:
        message = f"{_SECCOMP} is missing, so containers would run without LXC's filter of system calls"
        yield Probe("seccomp", "warning", message, "apt-get install liblxc-common")
    if not apparmor:
        message = (
            "AppArmor is off: containers are confined by user namespaces, capabilities and seccomp alone"
        )
        yield Probe("apparmor", "warning", message, "Debian's kernel has it on by default; see aa-enabled(1)")


def _first_line(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    except OSError:
        return ""


def _try_all(paths: Paths) -> tuple[str, tuple[Probe, ...]]:
    """LXC's version, and the findings of a child of ours that did the same as a container's start.

    A child, as liblxc need not stay in the daemon's memory, and the mounts go when the child ends.
    """
    _remove_left(paths.lxc)
    try:
        scratch, lock = _scratch(paths.lxc)
    except OSError as error:
        version, _ = _in_child(None)
        if not paths.lxc.is_dir():  # _delta_directory reports this
            return version, ()
        return version, (_nothing_made(paths.lxc, error),)
    try:
        version, probes = _in_child(scratch)
    finally:
        # The mounts were in the child's own namespace: below here are only the few plain files that it made.
        _remove(scratch, lock)
    # If another trial crashed, that says nothing about LXC.
    return version or _in_child(None)[0], probes


def _nothing_made(place: Path, error: OSError) -> Probe:
    hint = "check the disk and the rights of the directory"
    return _failed("delta-directory", f"nothing can be made in {place}", error, hint)


def _scratch(place: Path) -> tuple[Path, int | None]:
    """A new directory, and a descriptor with its lock: by that, others see that it is not left over. Raises OSError."""
    for _ in range(_SCRATCH_TRIES - 1):
        made = Path(tempfile.mkdtemp(prefix=Paths.PROBE_PREFIX, dir=place))
        lock = _locked(made, fcntl.LOCK_EX)
        if lock is not None:
            return made, lock
        if made.is_dir():  # else somebody took it for one that is left over, in the moment before it was locked
            return made, None
    return Path(tempfile.mkdtemp(prefix=Paths.PROBE_PREFIX, dir=place)), None


def _remove_left(place: Path) -> None:
    """Remove what earlier looks left: they were killed, or the disk gave errors then."""
    for left in place.glob(f"{Paths.PROBE_PREFIX}*"):
        lock = _locked(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if lock is not None:
            _remove(left, lock)


def _remove(directory: Path, lock: int | None) -> None:
    """Remove a directory in which overlays were tried, and give its lock up. If that fails, the next look tries it again."""
    with contextlib.suppress(FleetError):
        tree.remove(directory)
    if lock is not None:
        os.close(lock)


def _locked(directory: Path, how: int) -> int | None:
    """A descriptor with the lock of a directory; None: somebody else has that, or the directory is gone."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, how)
        if os.path.samestat(os.stat(directory), os.fstat(descriptor)):
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _in_child(scratch: Path | None) -> tuple[str, tuple[Probe, ...]]:
    try:
        receive, send = os.pipe()
    except OSError as error:
        return _lxc_version(), (_untried(error),)
    try:
        pid = os.fork()
    except OSError as error:
        os.close(receive)
        os.close(send)
        return _lxc_version(), (_untried(error),)
    if pid == 0:
        os.close(receive)
        _child(scratch, send)
    os.close(send)
    with open(receive, "rb") as file:
        answer = file.read()
    with contextlib.suppress(ChildProcessError):  # the caller may ignore SIGCHLD
        os.waitpid(pid, 0)
    if not answer:
        message = f"trying out the kernel's features crashed, or did not end within {_PROBE_SECONDS} s"
        return "", (Probe("features", "fail", message, "`dmesg | tail` may have the reason"),)
    version, rows = json.loads(answer)
    return version, tuple(Probe(*row) for row in rows)


def _untried(error: OSError) -> Probe:
    return _failed("features", "the kernel's features can't be tried out, as no process can be made for that", error, _SEE)


def _child(scratch: Path | None, send: int) -> NoReturn:
    """Try everything, write the findings to ``send`` as JSON, and exit without any clean-up of the parent's."""
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_PROBE_SECONDS)
        probes = list(_attempts(scratch)) if scratch is not None else []
        os.write(send, json.dumps((_lxc_version(), probes)).encode())
    finally:
        os._exit(0)


def _lxc_version() -> str:
    try:
        return str(importlib.import_module("lxc").version)
    except (ImportError, OSError):
        return ""


def _failed(check: str, message: str, error: OSError, hint: str) -> Probe:
    name = errno.errorcode.get(error.errno or 0, "?")
    if error.errno in _SHORT:
        hint = _SEE
    return Probe(check, "fail", f"{message}: {error.strerror} ({name}, errno {error.errno})", hint)


_REAL_ROOT = "lxcfleet needs a real root: it runs on the host, not in an unprivileged container"


def _attempts(scratch: Path) -> Iterator[Probe]:
    """The steps of a start, in order; each is tried only if the steps that it needs work."""
    yield _loop_devices()
    try:
        syscalls.unshare_mounts()
    except OSError as error:
        yield _failed("mount-namespace", "mounts can't be made apart from the host's", error, _REAL_ROOT)
        return
    try:
        for name in ("base", "root", "delta", "work"):
            (scratch / name).mkdir()
    except OSError as error:
        yield _nothing_made(scratch.parent, error)
        return
    base = scratch / "base"
    places = ["/", *mounts.parts()]
    try:
        namespace = syscalls.user_namespace(_PROBE_ID, _PROBE_RANGE)
    except OSError as error:
        namespace = None
        hint = "raise user.max_user_namespaces, or create with --privileged, which is less safe"
        yield _failed("user-namespace-support", "no user namespace can be made", error, hint)
    else:
        yield Probe("user-namespace-support", "ok", "user namespaces work")
    try:
        if namespace is not None:
            yield _idmapped(places, base, namespace)
        else:
            _show(places, base, None)
    except OSError as error:
        what = f"the file system of {error.filename} can't be shown read-only"
        old = error.errno == errno.ENOSYS
        hint = f"it takes Linux 5.12 or later; this is {os.uname().release}" if old else _REAL_ROOT
        yield _failed("read-only-root", what, error, hint)
        return
    yield _overlay(scratch)
    for point in places[1:]:
        probe = _part_overlay(scratch, point)
        if probe is not None:
            yield probe


def _show(places: list[str], base: Path, namespace: int | None) -> None:
    for place in places:
        syscalls.clone_read_only(place, f"{base}{place}", namespace)


def _idmapped(places: list[str], base: Path, namespace: int) -> Probe:
    """Mount with shifted owners, or else with unshifted ones, which raises OSError if not even that works."""
    check = "idmapped-root"
    try:
        _show(places, base, namespace)
    except OSError as error:
        hint = "it takes Linux 5.12 and ext4, xfs or btrfs; --privileged does without, and is less safe"
        probe = _failed(check, f"the file system of {error.filename} can't be shown with shifted owners", error, hint)
        with contextlib.suppress(OSError):  # the first mount may have failed
            syscalls.unmount(base)
        _show(places, base, None)
        return probe
    finally:
        os.close(namespace)
    if (base / "etc").stat().st_uid != _PROBE_ID:
        return Probe(check, "fail", "the root file system is shown with wrong owners when shifted")
    return Probe(check, "ok", f"{', '.join(places)} can be shown with shifted owners")


def _overlay(scratch: Path) -> Probe:
    """Mount an overlay as a start does, then write, hide a file of the base and replace a directory in it."""
    check = "overlay"
    root, delta = scratch / "root", scratch / "delta"
    try:
        os.setxattr(delta, "trusted.overlay.lxcfleet", b"y")
    except OSError as error:
        hint = "use ext4, xfs or btrfs for the containers' directory"
        return _failed(check, "the deltas' file system has no trusted.* attributes", error, hint)
    try:
        _mount_overlay(scratch, "")
    except OSError as error:
        return _failed(check, f"no overlay of / can be mounted with its upper layer in {delta}", error, _NO_OVERLAY)
    try:
        (root / "etc/passwd").unlink()
        (root / "etc/lxcfleet-probe").write_text("written", encoding="ascii")
        visible = os.listdir(root / "etc")
    except OSError as error:
        return _failed(check, "an overlay of / can be mounted but not changed", error, "see `dmesg | tail`")
    if "passwd" in visible or "lxcfleet-probe" not in visible:
        message = "files that a container removes stay visible: the deltas' file system lacks d_type"
        return Probe(check, "fail", message, "make it anew: ext4, or xfs with ftype=1")
    return Probe(check, "ok", "overlays of / work with the deltas' file system")


_NO_OVERLAY = "`modprobe overlay`, and `dmesg | tail`, have the kernel's reason"


def _mount_overlay(scratch: Path, point: str) -> None:
    suffix = point.replace("/", "-")
    upper, work = scratch / f"delta{suffix}", scratch / f"work{suffix}"
    upper.mkdir(exist_ok=True)
    work.mkdir(exist_ok=True)
    options = f"lowerdir={scratch}/base{point},upperdir={upper},workdir={work},{_OVERLAY_OPTIONS}"
    syscalls.mount("lxcfleet", scratch / "root", "overlay", 0, options)


def _part_overlay(scratch: Path, point: str) -> Probe | None:
    try:
        _mount_overlay(scratch, point)
        os.listdir(scratch / "root")
    except OSError as error:
        return _failed("overlay", f"no overlay of {point} can be mounted", error, _NO_OVERLAY)
    return None


def _loop_devices() -> Probe:
    try:
        os.close(os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return _failed(
            "loop-devices", "there are no loop devices (the mask needs one)", error, "modprobe loop"
        )
    return Probe("loop-devices", "ok", "loop devices work")
