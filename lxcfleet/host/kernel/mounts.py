"""The mount table, and the *parts* in it: file systems below the host's root that containers have, too.

An overlay shows one file system, so a part gets an overlay of its own in each container. Any other mount point is an empty
directory there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from lxcfleet.errors import HostError
from lxcfleet.host.kernel import syscalls

CANDIDATES = ("/usr", "/var", "/opt", "/usr/local", "/usr/share", "/var/lib")
"""The places where parts may be; those nearest to the root first."""

_LAYERS = frozenset(("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "bcachefs", "zfs", "erofs", "squashfs"))
"""File systems with software on them, on which owners can be shifted. Some of them need a later kernel than ours:
``features`` tries it out."""

OPAQUE = "trusted.overlay.opaque"
"""This attribute marks a directory that hides the entries of lower layers below it; the kernel's overlayfs.rst."""

PART = "trusted.lxcfleet.part"
"""This attribute, in the mask, marks the directory of a part with the identity of the part that the mask was made for."""


class Mount(NamedTuple):
    """One line of the mount table."""

    number: int
    point: str
    filesystem: str


def table() -> list[Mount]:
    """The mounts that this process sees, in the order they were mounted; proc_pid_mountinfo(5)."""
    with open("/proc/self/mountinfo", "rb") as file:
        return [parse(line) for line in file]


def parse(line: bytes) -> Mount:
    """A line of mountinfo."""
    fields, _, rest = line.partition(b" - ")
    words = fields.split(b" ")
    return Mount(int(words[0]), os.fsdecode(unescape(words[4])), os.fsdecode(rest.split(b" ")[0]))


def options_of(point: str) -> frozenset[str]:
    """The options of the file system that is mounted at ``point``; none if nothing is."""
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            if parse(line).point == point:
                return frozenset(os.fsdecode(line.split()[-1]).split(","))
    return frozenset()


def source_of(directory: Path) -> str:
    """The source of the mount where a directory is, such as /dev/sda1; empty: that can't be told."""
    number = syscalls.mount_number(str(directory))
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            if parse(line).number == number:
                return os.fsdecode(unescape(line.partition(b" - ")[2].split(b" ")[1]))
    return ""


def unescape(field: bytes) -> bytes:
    """Undo the octal escapes that mountinfo has for space, tab, newline and backslash."""
    for code in (b"040", b"011", b"012", b"134"):
        field = field.replace(b"\\" + code, bytes([int(code, 8)]))
    return field


def points() -> frozenset[str]:
    """Every path of this process's root at which something is mounted."""
    return frozenset(mount.point for mount in table())


def refuse_removal(what: str, directories: Iterable[Path], *, tops: bool = True) -> None:
    """Raise HostError if something is mounted at or below one of ``directories``, which are to be removed.

    No removal leads onto a mount; but one that meets a mount has removed by then what came before it. The mount table has
    real paths, and directories of ours may be reached through links of the operator's. ``what``: what is to be removed, in
    words; ``tops``: whether mounts at the directories themselves count.
    """
    present = points()
    for directory in directories:
        place = os.path.join(os.path.realpath(directory.parent), directory.name)
        mounted = sorted(each for each in present if each.startswith(f"{place}/") or (tops and each == place))
        if mounted:
            raise HostError(
                f"{what} can't be removed", why=f"something is mounted at {mounted[0]}",
                hint="unmount it first: files on it are not removed",
            )  # fmt: skip


def can_be_part(mount: Mount, root: str = "") -> bool:
    """Whether containers get this file system, if no other mount hides it."""
    return mount.point.removeprefix(root) in CANDIDATES and mount.filesystem in _LAYERS


def parts(root: str = "") -> dict[str, str]:
    """The host's parts, mount point to identity; those nearest to the root first. ``root``: of another base than the host's,
    without a slash at its end."""
    mounted = {mount.number: mount for mount in table() if can_be_part(mount, root)}
    found = {}
    for point in CANDIDATES:
        place = f"{root}{point}"
        # By the mount's number, as another mount may lie over it.
        mount = mounted.get(syscalls.mount_number(place) or 0) if mounted else None
        identity = None if mount is None or mount.point != place else identify(place)
        if identity is not None:
            found[point] = identity
    return found


def identify(point: str) -> str | None:
    """The identity of the file system whose top is at ``point``; None if there is none."""
    try:
        status, system = os.stat(point), os.statvfs(point)
    except OSError:
        return None
    return f"{status.st_dev:x}.{status.st_ino:x}.{system.f_fsid:x}"


def marked(mask: str) -> dict[str, str]:
    """The parts that the mask at ``mask`` was made for."""
    found = {}
    for point in CANDIDATES:
        try:
            found[point] = os.getxattr(mask + point, PART, follow_symlinks=False).decode("ascii")
        except OSError:
            continue
    return found
