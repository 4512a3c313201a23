"""System calls that Python's ``os`` lacks (as of 3.11): mounts and namespaces.

Each function is one call, raises OSError with the path it was about, and names its manual page.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

StrPath = str | os.PathLike[str]

_libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWPID = 0x20000000
_CLONE_NEWNET = 0x40000000
_CLONE_VM = 0x00000100

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
_MS_MOVE = 0x2000
MS_REC = 0x4000
MS_SLAVE = 0x80000
_MNT_DETACH = 2

_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_OPENAT2 = 437
_SYS_PIDFD_GETFD = 438
_SYS_MOUNT_SETATTR = 442
"""These numbers are the same on every architecture: all of these calls came after the tables were unified (Linux 5.1)."""

_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 0x04
_MOVE_MOUNT_T_EMPTY_PATH = 0x40
_MOUNT_ATTR_IDMAP = 0x100000
_MS_PRIVATE = 0x40000

_RESOLVE_NO_XDEV = 0x01
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_RESOLVE_IN_ROOT = 0x10


def _check(result: int, path: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result


def unshare_mounts() -> None:
    """Give this process a mount namespace of its own; unshare(2). What is mounted in it is not mounted outside as well, where
    it would hide files from all. Later mounts of the namespace that this process was in appear here, too."""
    _check(_libc.unshare(CLONE_NEWNS), "mount namespace")
    make_slave("/")


def enter_mounts(namespace: int) -> None:
    """Enter the mount namespace that the descriptor stands for; setns(2)."""
    _check(_libc.setns(namespace, CLONE_NEWNS), "mount namespace")


def enter_container(process: int, *, users: bool) -> None:
    """Enter the mount namespace of the process that the pidfd stands for and, with ``users``, its user namespace as root;
    setns(2), with a pidfd since Linux 5.8."""
    _check(_libc.setns(process, CLONE_NEWNS | (_CLONE_NEWUSER if users else 0)), "container")
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def enter_network(namespace: int, *, pids: bool = False) -> None:
    """Enter the network namespace of the process whose pidfd this is, or the namespace whose descriptor it is. ``pids``:
    later children are in the process's PID namespace, too; setns(2)."""
    _check(_libc.setns(namespace, _CLONE_NEWNET | (_CLONE_NEWPID if pids else 0)), "network namespace")


def leave_pids(namespace: int) -> None:
    """Have later children in the PID namespace that the descriptor stands for; setns(2)."""
    _check(_libc.setns(namespace, _CLONE_NEWPID), "PID namespace")


def descriptor_of(process: int, number: int) -> int:
    """A copy of descriptor ``number`` of the process that the pidfd ``process`` stands for; pidfd_getfd(2)."""
    return _check(_libc.syscall(_SYS_PIDFD_GETFD, process, number, 0), f"descriptor {number}")


def make_slave(path: StrPath) -> None:
    """Let mounts of the parent namespace appear here, but not the reverse; mount(2), MS_SLAVE | MS_REC."""
    target = os.fspath(path)
    _check(_libc.mount(None, target.encode(), None, ctypes.c_ulong(MS_SLAVE | MS_REC), None), target)


def mount(source: str, target: StrPath, filesystem: str, flags: int, options: str) -> None:
    """Mount a file system; mount(2)."""
    path = os.fspath(target)
    _check(
        _libc.mount(source.encode(), path.encode(), filesystem.encode(), ctypes.c_ulong(flags), os.fsencode(options)),
        path,
    )


def move(source: StrPath, target: StrPath) -> None:
    """Move the top mount at ``source``; mount(2), MS_MOVE."""
    path = os.fspath(target)
    _check(_libc.mount(os.fsencode(source), path.encode(), None, ctypes.c_ulong(_MS_MOVE), None), path)


def unmount(target: Path) -> None:
    """Take the top mount off ``target``: at once for new users, and for old ones when they have closed it; umount2(2)."""
    path = os.fspath(target)
    _check(_libc.umount2(path.encode(), _MNT_DETACH), path)


class _MountAttributes(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def clone_read_only(source: StrPath, target: StrPath, user_namespace: int | None) -> None:
    """Show the mount at ``source``, without the mounts below it, read-only at ``target``.

    With a user namespace owners are shifted through its id map: file owner 0 becomes the first id of its range.
    open_tree(2), mount_setattr(2), move_mount(2); idmapped mounts need Linux 5.12 and a file system that allows
    them (ext4, xfs, btrfs; tmpfs since 6.3).
    """
    path = os.fspath(source)
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC
    tree = _check(_libc.syscall(_SYS_OPEN_TREE, _AT_FDCWD, path.encode(), flags), path)
    try:
        _set_attributes(tree, _MountAttributes(MS_RDONLY, 0, 0, 0), user_namespace, path)
        where = os.fspath(target)
        _check(
            _libc.syscall(_SYS_MOVE_MOUNT, tree, b"", _AT_FDCWD, where.encode(), _MOVE_MOUNT_F_EMPTY_PATH), where
        )
    finally:
        os.close(tree)


def _set_attributes(tree: int, attributes: _MountAttributes, user_namespace: int | None, path: str) -> None:
    if user_namespace is not None:
        attributes.attr_set |= _MOUNT_ATTR_IDMAP
        attributes.userns_fd = user_namespace
    size = ctypes.sizeof(attributes)
    _check(_libc.syscall(_SYS_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, ctypes.byref(attributes), size), path)


def clone_apart(source: int, flags: int, user_namespace: int | None, path: str) -> int:
    """A descriptor of a new mount, which is nowhere yet: it shows the directory ``source``, without the mounts below it.

    ``source``: a descriptor; ``flags``: of MS_RDONLY, MS_NOSUID, MS_NODEV and MS_NOEXEC, which are the same numbers for
    mount_setattr(2); ``user_namespace``: as for ``clone_read_only``; ``path``: the source's name, for errors. What is
    mounted on the source's file system later does not appear in the new mount.
    """
    how = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_EMPTY_PATH
    tree = _check(_libc.syscall(_SYS_OPEN_TREE, source, b"", how), path)
    try:
        _set_attributes(tree, _MountAttributes(flags, 0, _MS_PRIVATE, 0), user_namespace, path)
    except BaseException:
        os.close(tree)
        raise
    return tree


def attach_at(tree: int, target: int, path: str) -> None:
    """Mount what ``clone_apart`` gave on the directory whose descriptor is ``target``; move_mount(2)."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
    _check(_libc.syscall(_SYS_MOVE_MOUNT, tree, b"", target, b"", flags), path)


def open_apart(path: Path) -> int:
    """A descriptor of the directory that does not keep its mount from being unmounted.

    A path that is found from it by file handle begins at the top of the mount; open_tree(2).
    """
    name = os.fspath(path)
    tree = _check(_libc.syscall(_SYS_OPEN_TREE, _AT_FDCWD, name.encode(), _OPEN_TREE_CLONE | os.O_CLOEXEC), name)
    try:
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tree)
    finally:
        os.close(tree)


_PR_SET_PDEATHSIG = 1


@contextlib.contextmanager
def unhurried() -> Iterator[None]:
    """Suspend alarm(2), for work that takes longer the more files there are.

    Instead, this process ends with its parent (PR_SET_PDEATHSIG in prctl(2)), so the work may be broken off anywhere.
    """
    left = signal.alarm(0)
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    try:
        yield
    finally:
        _libc.prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0)
        signal.alarm(left)


_PR_SET_DUMPABLE = 4


def undumpable() -> None:
    """Leave no core file of this process, and let none without CAP_SYS_PTRACE look into it; PR_SET_DUMPABLE in prctl(2)."""
    _check(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "dumpable")


def die_with_parent() -> None:
    """End this process when its parent does; PR_SET_PDEATHSIG in prctl(2), which holds over execve(2)."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of all descendants that lose theirs; PR_SET_CHILD_SUBREAPER in prctl(2)."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, True, 0, 0, 0), "orphans")


_PR_GET_SECUREBITS = 27
_PR_SET_SECUREBITS = 28
_SECBIT_NO_SETUID_FIXUP = 0x4

_stack = ctypes.create_string_buffer(16384)


@contextlib.contextmanager
def acting_as(uid: int, gid: int = 0) -> Iterator[None]:
    """Have these effective ids within, and still all capabilities of root; capabilities(7), SECBIT_NO_SETUID_FIXUP."""
    kept = _libc.prctl(_PR_GET_SECUREBITS, 0, 0, 0, 0)
    # Without this bit root would lose its capabilities with its effective uid.
    _check(_libc.prctl(_PR_SET_SECUREBITS, kept | _SECBIT_NO_SETUID_FIXUP, 0, 0, 0), "securebits")
    try:
        try:
            os.setegid(gid)
            os.seteuid(uid)
            yield
        finally:
            os.seteuid(0)
            os.setegid(0)
    finally:
        _libc.prctl(_PR_SET_SECUREBITS, kept, 0, 0, 0)


def user_namespace(first_id: int, size: int, inside: int = 0) -> int:
    """A descriptor of a new user namespace that maps the ids from ``inside`` on to those from ``first_id`` on, ``size`` of
    them; user_namespaces(7).

    It belongs to first_id, not to root: the kernel charges what is made in a user namespace to its owner as well
    (kernel/ucount.c), so each container has the host's limit of inotify instances, namespaces and the like
    to itself. An owner has all rights in the namespace from outside, but no process outside has that uid.

    A namespace is made with a process in it. That process shares our memory (CLONE_VM) and runs nothing but
    libc's ``pause`` on a stack of its own until it is killed. So no page table is copied, and this takes 0.1 ms, where a
    fork of the interpreter takes 2 ms.
    """
    return user_namespace_of(first_id, [(inside, first_id, size)])


def user_namespace_of(owner: int, ranges: Sequence[tuple[int, int, int]]) -> int:
    """The same with several ranges of ids: the first inside, the first outside, and how many."""
    top = (ctypes.addressof(_stack) + len(_stack)) & ~15
    flags = _CLONE_NEWUSER | _CLONE_VM | signal.SIGCHLD
    function = ctypes.cast(_libc.pause, ctypes.c_void_p)
    with acting_as(owner):
        pid = _check(_libc.clone(function, ctypes.c_void_p(top), flags, None), "user namespace")
    try:
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{pid}/{name}", "w", encoding="ascii") as file:
                file.write("\n".join(f"{inside} {outside} {size}" for inside, outside, size in ranges))
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_beneath(directory: int, name: str) -> int:
    """Open the directory ``name`` in ``directory``, refusing symlinks and mount points, bind mounts too.

    openat2(2) with RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV: the kernel itself makes sure that
    nothing beyond this file system's own tree is reached (Linux 5.6).
    """
    how = _OpenHow(
        os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW,
        0,
        _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_XDEV,
    )
    size = ctypes.sizeof(how)
    return _check(_libc.syscall(_SYS_OPENAT2, directory, os.fsencode(name), ctypes.byref(how), size), name)


def look_beneath(directory: int, name: str) -> int:
    """A descriptor of the file ``name`` below ``directory``, not opened for use. ``name`` may have slashes.

    A symlink at the end stands for itself. Refuses symlinks on the way (ELOOP) and mount points (EXDEV); openat2(2).
    """
    how = _OpenHow(
        os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW, 0, _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_XDEV
    )
    size = ctypes.sizeof(how)
    return _check(_libc.syscall(_SYS_OPENAT2, directory, os.fsencode(name), ctypes.byref(how), size), name)


def look_across(directory: int, name: str) -> int:
    """As ``look_beneath``, but across mount points."""
    how = _OpenHow(os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW, 0, _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS)
    size = ctypes.sizeof(how)
    return _check(_libc.syscall(_SYS_OPENAT2, directory, os.fsencode(name), ctypes.byref(how), size), name)


def look_inside(root: int, name: str) -> int:
    """A descriptor of the file ``name``, not opened for use, as a process with the root ``root`` has it: no link leads out.

    openat2(2) with RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS.
    """
    how = _OpenHow(os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    return _check(_libc.syscall(_SYS_OPENAT2, root, os.fsencode(name), ctypes.byref(how), ctypes.sizeof(how)), name)


@contextlib.contextmanager
def as_owner(uid: int) -> Iterator[None]:
    """Have this thread access files as ``uid``, without root's rights to files; setfsuid(2)."""
    _libc.setfsuid(uid)
    try:
        yield
    finally:
        _libc.setfsuid(0)


_RESOLVE_CACHED = 0x20
"""Only names that the kernel has looked up already; Linux 5.12."""
_REMEMBERED = _OpenHow(
    os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW, 0,
    _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_XDEV | _RESOLVE_CACHED,
)  # fmt: skip
_ASKED = 3
"""A name that is not there is asked for again: the kernel says so, too, if something was mounted or renamed anywhere at
that moment (50 of a million questions on a busy host)."""
_CACHED_ONLY = ctypes.byref(_REMEMBERED), ctypes.sizeof(_REMEMBERED)


def look_remembered(directory: int, name: str) -> int | None:
    """Like ``look_beneath``, but only if the kernel has the name in its cache and need not ask the file system.

    None: the kernel has no entry for ``name`` in its cache. Raises FileNotFoundError if it has an entry which says that
    nothing is there.
    """
    for _ in range(_ASKED):
        handle: int = _libc.syscall(_SYS_OPENAT2, directory, os.fsencode(name), *_CACHED_ONLY)
        if handle >= 0 or ctypes.get_errno() != errno.EAGAIN:
            return _check(handle, name)
    return None  # by far the most frequent answer, and there are thousands of questions


_STATX_BTIME = 0x800
_AT_SYMLINK_NOFOLLOW = 0x100
_BTIME_AT = 80
"""The offset of the seconds and nanoseconds of the birth in ``struct statx``."""
_STATX_MNT_ID = 0x1000
_MNT_ID_AT = 144
_AT_NO_AUTOMOUNT = 0x800
_STATX_BYTES = 256


def mount_number(path: str) -> int | None:
    """The number that the mount table has for the mount of ``path``; None if nothing is there; statx(2), Linux 5.8."""
    answer = ctypes.create_string_buffer(_STATX_BYTES)
    flags = _AT_SYMLINK_NOFOLLOW | _AT_NO_AUTOMOUNT
    if _libc.statx(_AT_FDCWD, os.fsencode(path), flags, _STATX_MNT_ID, answer) < 0:
        return None
    (number,) = struct.unpack_from("Q", answer, _MNT_ID_AT)
    return int(number)


def born(path: str | int) -> float | None:
    """The birth time of the file in seconds since the epoch; None if its file system keeps none, or it is gone; statx(2)."""
    answer = ctypes.create_string_buffer(_STATX_BYTES)
    place, name, flag = (path, "", _AT_EMPTY_PATH) if isinstance(path, int) else (_AT_FDCWD, path, _AT_SYMLINK_NOFOLLOW)
    if _libc.statx(place, os.fsencode(name), flag, _STATX_BTIME, answer) < 0:
        return None
    (mask,) = struct.unpack_from("I", answer)
    seconds, nanoseconds = struct.unpack_from("qI", answer, _BTIME_AT)
    return float(seconds + nanoseconds / 1e9) if mask & _STATX_BTIME else None


def sync_file_system(directory: int) -> None:
    """Have on disk all that was written to the file system of what is open; syncfs(2)."""
    _check(_libc.syncfs(directory), "file system")


_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2


def exchange(one: Path, other: Path) -> None:
    """Give each of two paths what the other one has, in one step; renameat2(2)."""
    first, second = os.fspath(one), os.fspath(other)
    _check(_libc.renameat2(_AT_FDCWD, first.encode(), _AT_FDCWD, second.encode(), _RENAME_EXCHANGE), second)


def rename_new(old: Path, new: Path) -> None:
    """Rename ``old``, or fail with EEXIST if ``new`` exists, even as an empty directory; renameat2(2)."""
    source, target = os.fspath(old), os.fspath(new)
    _check(
        _libc.renameat2(_AT_FDCWD, source.encode(), _AT_FDCWD, target.encode(), _RENAME_NOREPLACE), target
    )
