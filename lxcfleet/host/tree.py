"""Removing and writing below directories that a container's root may have filled."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import struct
from collections.abc import Iterator
from pathlib import Path

from lxcfleet.errors import HostError
from lxcfleet.host import kernel


def write(path: Path, text: str, *, sync: bool = False) -> None:
    """Replace ``path`` in one step; a crash of ours leaves the old text or the new, with ``sync`` one of the host, too."""
    beside = path.with_name(f".{path.name}.new")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        if sync:
            file.flush()
            os.fsync(file.fileno())
    os.rename(beside, path)


_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
_FS_TOPDIR_FL = 0x00020000


def spread(directory: Path) -> None:
    """Have ext4 put each new directory in ``directory`` into a block group of its own, as chattr(1) +T does.

    ext4 passes over inodes that were deleted within the last minute, one by one (fs/ext4/ialloc.c,
    recently_deleted): with all containers in one group a restart or a create after a destroy spends a sixth of
    its time there. Other file systems don't know the flag, and don't need it.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            (flags,) = struct.unpack("l", fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, bytes(struct.calcsize("l"))))
            if not flags & _FS_TOPDIR_FL:
                fcntl.ioctl(descriptor, _FS_IOC_SETFLAGS, struct.pack("l", flags | _FS_TOPDIR_FL))
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove ``path`` and all below it; fine if it is not there.

    The kernel refuses to lead us through a symlink or onto another mount, bind mounts included (openat2(2)): with
    the host's own root for a lower layer, a mount left below ``path`` must stop us. Raises HostError then.
    """
    try:
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        _remove(parent, path.name)
    except OSError as error:
        hint = "something is mounted there; unmount it, then try again" if error.errno in (18, 16) else ""
        raise HostError.from_os_error(f"{path} can't be removed", error, hint=hint) from error
    finally:
        os.close(parent)


def _remove(parent: int, name: str) -> None:
    """Depth first, without recursion: a container may have made directories deeper than Python's stack."""
    try:
        directory = kernel.open_beneath(parent, name)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        os.unlink(name, dir_fd=parent)
        return
    except OSError as error:
        if error.errno != 40:  # ELOOP: a symlink, which goes as what it is
            raise
        os.unlink(name, dir_fd=parent)
        return
    # Descending more than a few thousand levels would use up descriptors, so each level deeper than that is
    # first moved up to the top.
    stack = [(directory, _entries(directory))]
    names = [name]
    try:
        while stack:
            current, entries = stack[-1]
            if not entries:
                os.close(current)
                stack.pop()
                above = stack[-1][0] if stack else parent
                os.rmdir(names.pop(), dir_fd=above)
                continue
            entry, is_directory = entries.pop()
            if not is_directory:
                os.unlink(entry, dir_fd=current)
            elif len(stack) >= _DEEP:
                lifted = f".lxcfleet-{secrets.token_hex(8)}"  # one that is there already could not be replaced
                os.rename(entry, lifted, src_dir_fd=current, dst_dir_fd=stack[0][0])
                stack[0][1].append((lifted, True))
            else:
                below = kernel.open_beneath(current, entry)
                stack.append((below, _entries(below)))
                names.append(entry)
    finally:
        for left, _ in stack:
            os.close(left)


_DEEP = 200


def _entries(directory: int) -> list[tuple[str, bool]]:
    with os.scandir(directory) as found:
        return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]


def disk_usage(path: Path) -> int:
    """Bytes on disk of all below ``path``, without following symlinks or leaving its file system."""
    total = 0
    for total in disk_usage_steps(path):  # noqa: B007  # the last one counts
        pass
    return total


_STEP = 500


def disk_usage_steps(path: Path) -> Iterator[int]:
    """``disk_usage`` for those that have other things to do: the sum so far after every few hundred files."""
    total = count = 0
    try:
        device = os.lstat(path).st_dev
    except OSError:
        return
    waiting = [os.fspath(path)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    found = entry.stat(follow_symlinks=False)
                    total += found.st_blocks * 512
                    if entry.is_dir(follow_symlinks=False) and found.st_dev == device:
                        waiting.append(entry.path)
                    count += 1
                    if count % _STEP == 0:
                        yield total
        except OSError:  # it changes while we look
            continue
    yield total
