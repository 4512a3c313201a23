"""Disk limits of containers: project quotas of ext4 and xfs; quotactl(2), ioctl_xfs_fsgetxattr(2).

A project is a number that a directory hands down to everything that is made in it; the file system counts the space of each.
A container's project is the first id of its range: that number is unique on the host, it stays the same, and needs no record.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import secrets
import stat
import struct
from collections.abc import Sequence
from pathlib import Path

from lxcfleet.errors import HostError, Unsupported
from lxcfleet.host.kernel import syscalls

_libc = ctypes.CDLL(None, use_errno=True)

_SYS_QUOTACTL_FD = 443
"""Linux 5.14; the same on every architecture."""
_PROJECTS = 2
_Q_GETQUOTA = 0x800007
_Q_SETQUOTA = 0x800008
_Q_XGETQSTATV = 0x5808
"""linux/quota.h has PRJQUOTA and the first two commands, linux/dqblk_xfs.h has the last one."""
_COUNTED_AND_KEPT = 0x30
"""FS_QUOTA_PDQ_ACCT | FS_QUOTA_PDQ_ENFD."""
_RECORD = struct.Struct("=8QI4x")
"""struct if_dqblk: limits and use of space in KiB, KiB and bytes, of inodes, two times, and flags for the valid fields."""
_LIMITS = 0x5
"""QIF_LIMITS."""

_FS_IOC_FSGETXATTR = 0x801C581F
_FS_IOC_FSSETXATTR = 0x401C5820
"""linux/fs.h."""
_ATTRIBUTES = struct.Struct("=5I8x")
"""struct fsxattr: flags, extent size, extents, project, extent size of copies."""
_INHERIT = 0x200

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC

_HOW = {
    "ext4": "`tune2fs -O project,quota -Q prjquota` while it is not mounted, and mount it with prjquota",
    "xfs": "mount it with prjquota",
}
_SEE = "resources.md of the documentation tells how (/usr/share/doc/lxcfleet)"


def enforced(directory: Path) -> bool:
    """Whether the file system of ``directory`` enforces limits of projects."""
    state = ctypes.create_string_buffer(b"\1", 512)  # FS_QSTATV_VERSION1
    try:
        _control(directory, _Q_XGETQSTATV, 0, state)
    except OSError:
        return False
    (flags,) = struct.unpack_from("=H", state, 2)
    return bool(flags & _COUNTED_AND_KEPT == _COUNTED_AND_KEPT)


def check(directory: Path) -> None:
    """Raise Unsupported unless a limit in ``directory`` would be enforced."""
    if not enforced(directory):
        raise Unsupported(
            "the disk limit that was asked for can't be kept",
            why=f"the file system of {directory} has no project quotas in force",
            hint=f"{_SEE} to get them; `disk: 0` in the settings or in the container's lxcfleet.yaml does without",
        )  # fmt: skip


def advice(filesystem: str, directory: Path) -> str:
    """How to make a file system of that type enforce limits."""
    return f"{_HOW.get(filesystem, f'mount ext4 or xfs with prjquota on {directory}')}; {_SEE}"


def files_for(size: int) -> int:
    """How many files may go with ``size`` bytes: as many as mke2fs makes inodes on a disk of that size; mke2fs.conf(5)."""
    return max(size >> 14, min(size >> 12, 1 << 17))


def keep(trees: Sequence[Path], project: int, size: int) -> int:
    """Limit the sum of what is in ``trees``, the last of which is the delta, to ``size`` bytes; 0: no limit.

    Returns the project that counts them; 0 if none does. A tree that came from elsewhere, for instance from a backup, is
    walked once. No process may be at work in the trees. Raises Unsupported, HostError.
    """
    top = trees[-1]
    if size:
        check(top)
    elif project_of(top) != project:
        return project_of(top)
    try:
        if project_of(top) != project:
            with syscalls.unhurried():
                mark(trees[0], project)
                for tree in trees:
                    _mark_tree(tree, project, trees[0])
        _limit(top, project, size)
    except OSError as error:
        raise HostError.from_os_error(f"the disk limit of {top} can't be set", error) from error
    return project


def change(delta: Path, size: int) -> None:
    """Change the limit of a container that may run, and that is counted already; 0: no limit. Raises HostError."""
    project = own_project(delta)
    if not project:  # project 0 is that of all files without a project
        raise HostError(f"the disk limit of {delta} can't be set", why="its files are not counted")
    try:
        _limit(delta, project, size)
    except OSError as error:
        raise HostError.from_os_error(f"the disk limit of {delta} can't be set", error) from error


def _limit(top: Path, project: int, size: int) -> None:
    limits = _RECORD.pack(-(-size // 1024), 0, 0, files_for(size) if size else 0, 0, 0, 0, 0, _LIMITS)
    _control(top, _Q_SETQUOTA, project, ctypes.create_string_buffer(limits, _RECORD.size))


def mark(directory: Path, project: int) -> None:
    """Have the new and empty ``directory``, and everything made in it, counted; 0: do nothing. Raises OSError."""
    if project:
        handle = os.open(directory, _DIRECTORY)
        try:
            _mark(handle, project)
        finally:
            os.close(handle)


def project_of(directory: Path) -> int:
    """The project that counts the directory; 0: none does."""
    try:
        handle = os.open(directory, _DIRECTORY)
    except OSError:
        return 0
    try:
        project: int = _attributes(handle)[3]
    except OSError:
        return 0
    finally:
        os.close(handle)
    return project


def own_project(delta: Path) -> int:
    """The project of the delta, if it is the container's own; 0: the container has no limit, or another project counts it."""
    try:
        owner = os.lstat(delta).st_uid
    except OSError:
        return 0
    return owner if owner and project_of(delta) == owner else 0


def used(delta: Path) -> int | None:
    """The bytes of a container's files, without looking at them; None if they are not counted."""
    return counted(delta, own_project(delta))


def counted(directory: Path, project: int) -> int | None:
    """The bytes that a project takes; None if it does not count ``directory``."""
    if not project or project_of(directory) != project:
        return None
    record = ctypes.create_string_buffer(_RECORD.size)
    try:
        _control(directory, _Q_GETQUOTA, project, record)
    except OSError:
        return None
    return int(_RECORD.unpack(record.raw)[2])


def forget(directory: Path, project: int) -> None:
    """Remove the limit of a project that no container has any more, as its number may be used again."""
    try:
        _control(directory, _Q_SETQUOTA, project, ctypes.create_string_buffer(_RECORD.pack(*8 * (0,), _LIMITS)))
    except OSError as error:
        if error.errno not in (errno.ESRCH, errno.ENOSYS, errno.ENOENT):  # limits were turned off since
            raise


def _control(directory: Path, command: int, project: int, record: ctypes.Array[ctypes.c_char]) -> None:
    handle = os.open(directory, _DIRECTORY)
    try:
        word = ctypes.c_uint(command << 8 | _PROJECTS)
        if _libc.syscall(_SYS_QUOTACTL_FD, handle, word, ctypes.c_uint(project), record) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), os.fspath(directory))
    finally:
        os.close(handle)


def _attributes(handle: int) -> tuple[int, ...]:
    return _ATTRIBUTES.unpack(fcntl.ioctl(handle, _FS_IOC_FSGETXATTR, bytes(_ATTRIBUTES.size)))


def _mark(handle: int, project: int) -> None:
    flags, extent, extents, _, copies = _attributes(handle)
    if stat.S_ISDIR(os.fstat(handle).st_mode):
        flags |= _INHERIT
    fcntl.ioctl(handle, _FS_IOC_FSSETXATTR, _ATTRIBUTES.pack(flags, extent, extents, project, copies))


def _mark_tree(top: Path, project: int, scratch: Path) -> None:
    """Have everything below ``top`` counted, and ``top`` itself last: if this is interrupted, the next start repeats it.

    This uses one descriptor and no recursion, as a container may have made directories of any depth. The way up is "..", as
    no directory moves.
    """
    current = os.open(top, _DIRECTORY)
    above = [(os.fstat(current), os.listdir(current))]
    try:
        while above:
            found, names = above[-1]
            if names:
                below = _mark_entry(current, names.pop(), project, scratch)
                if below is not None:
                    os.close(current)
                    current = below
                    above.append((os.fstat(current), os.listdir(current)))
                continue
            os.utime(current, ns=(found.st_atime_ns, found.st_mtime_ns))  # replacing links in it changed its times
            _mark(current, project)
            above.pop()
            if above:
                outer = os.open("..", _DIRECTORY, dir_fd=current)
                os.close(current)
                current = outer
    finally:
        os.close(current)


def _mark_entry(directory: int, name: str, project: int, scratch: Path) -> int | None:
    """Have the entry ``name`` counted; returns a descriptor if it is a directory, whose entries are still to be done.

    What is mounted there is somebody else's, and stays as it is: also a bind mount, which has the number of this file system.
    """
    try:
        entry = syscalls.look_beneath(directory, name)
    except OSError as error:
        if error.errno == errno.EXDEV:
            return None
        raise
    try:
        found = os.fstat(entry)
        if stat.S_ISDIR(found.st_mode):
            return os.open(".", _DIRECTORY, dir_fd=entry)
        if stat.S_ISREG(found.st_mode):
            handle = os.open(f"/proc/self/fd/{entry}", _FILE)
            try:
                _mark(handle, project)
            finally:
                os.close(handle)
        else:
            _make_anew(directory, name, found, scratch)
    finally:
        os.close(entry)
    return None


def _make_anew(directory: int, name: str, found: os.stat_result, scratch: Path) -> None:
    """Replace a symlink, a whiteout or the like by one that is counted.

    No descriptor leads to such a file that could be marked, and the kernel refuses to rename or link a file into a directory
    with another project (EXDEV). ``scratch`` is a directory that is counted already.
    """
    old, new = f"/proc/self/fd/{directory}/{name}", scratch / f".lxcfleet-{secrets.token_hex(8)}"
    if stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(name, dir_fd=directory), new)
    else:
        os.mknod(new, found.st_mode, found.st_rdev)
    os.chown(new, found.st_uid, found.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode):
        os.chmod(new, stat.S_IMODE(found.st_mode))
    for attribute in os.listxattr(old, follow_symlinks=False):
        value = os.getxattr(old, attribute, follow_symlinks=False)
        os.setxattr(new, attribute, value, follow_symlinks=False)
    os.utime(new, ns=(found.st_atime_ns, found.st_mtime_ns), follow_symlinks=False)
    os.rename(new, name, dst_dir_fd=directory)
