"""What is mounted where, and which of it are *parts*: file systems below the host's root that containers have, too.

An overlay shows one file system: a part gets an overlay of its own in each container. What is mounted elsewhere is an
empty directory there.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from lxcfleet.host.kernel import syscalls

CANDIDATES = ("/usr", "/var", "/opt", "/usr/local", "/usr/share", "/var/lib")
"""Where parts may be; those further up first."""

_LAYERS = frozenset(("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "bcachefs", "zfs", "erofs", "squashfs"))
"""File systems with software on them, on which owners can be shifted. Some only by later kernels than ours:
``features`` tries it out."""

OPAQUE = "trusted.overlay.opaque"
"""What marks a directory that hides what lower layers have below it; the kernel's overlayfs.rst."""

PART = "trusted.lxcfleet.part"
"""In the mask: this directory is a part, and the mask was made for the one of this identity."""


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


def unescape(field: bytes) -> bytes:
    """Undo the octal escapes that mountinfo has for space, tab, newline and backslash."""
    for code in (b"040", b"011", b"012", b"134"):
        field = field.replace(b"\\" + code, bytes([int(code, 8)]))
    return field


def points() -> frozenset[str]:
    """Every path of this process's root at which something is mounted."""
    return frozenset(mount.point for mount in table())


def can_be_part(mount: Mount) -> bool:
    """Whether containers have what is mounted there, if it is there to be seen."""
    return mount.point in CANDIDATES and mount.filesystem in _LAYERS


def parts() -> dict[str, str]:
    """The host's parts, mount point to identity, those further up first."""
    mounted = {mount.number: mount for mount in table() if can_be_part(mount)}
    found = {}
    for point in CANDIDATES:
        # By its number: another mount may lie over it.
        mount = mounted.get(syscalls.mount_number(point) or 0) if mounted else None
        identity = None if mount is None or mount.point != point else identify(point)
        if identity is not None:
            found[point] = identity
    return found


def identify(point: str) -> str | None:
    """Tells the file system whose top is there from others; None where nothing is."""
    try:
        status, system = os.stat(point), os.statvfs(point)
    except OSError:
        return None
    return f"{status.st_dev:x}.{status.st_ino:x}.{system.f_fsid:x}"


def marked(mask: str) -> dict[str, str]:
    """The parts for which the mask that is mounted there was made."""
    found = {}
    for point in CANDIDATES:
        try:
            found[point] = os.getxattr(mask + point, PART, follow_symlinks=False).decode("ascii")
        except OSError:
            continue
    return found
