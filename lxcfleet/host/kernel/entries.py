"""The content of an overlay layer, as values, and how it is written into a directory.

A layer is a tree with two kinds of marks (Documentation/filesystems/overlayfs.rst, "whiteouts and opaque
directories"): a character device 0:0 hides what lower layers have at its path, and a directory with the
extended attribute ``trusted.overlay.opaque`` = ``y`` hides what they have below it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lxcfleet.host.kernel.mounts import OPAQUE, PART

_SHORT = 60
"""Bytes of a link's target for which ext4 takes a block."""
BLOCK = 4096
"""Bytes of a block in which files are kept."""


@dataclass(frozen=True)
class Owner:
    """Owner and mode of a node. ``uid`` and ``gid`` are the host's, before any shift."""

    mode: int
    uid: int = 0
    gid: int = 0

    def __str__(self) -> str:
        return f"{self.mode:04o} {self.uid}:{self.gid}"


@dataclass(frozen=True)
class Whiteout:
    """Hides this path, whatever the layers below have there."""

    why: str = ""

    def __str__(self) -> str:
        return "whiteout"


@dataclass(frozen=True)
class Directory:
    """A directory. An opaque one shows only the entries of this layer, any other one those of lower layers
    too."""

    owner: Owner
    opaque: bool = False
    why: str = ""
    part: str = ""
    """The identity of the base's own file system at this path (see ``mounts``); set only for a part."""

    def __str__(self) -> str:
        return f"{'opaque' if self.opaque else 'directory'} {self.owner}{' (a part)' if self.part else ''}"


@dataclass(frozen=True)
class File:
    """A regular file of this content."""

    content: bytes
    owner: Owner
    why: str = ""

    def __str__(self) -> str:
        return f"file {self.owner} {len(self.content)} bytes"


@dataclass(frozen=True)
class Copy:
    """A regular file with the content that the host's ``source`` has when the layer is written, or that it had when it was
    looked at, if ``content`` is set: then nothing that was written to it since gets into the layer."""

    source: str
    owner: Owner
    why: str = ""
    content: bytes | None = None

    def __str__(self) -> str:
        return f"copy {self.owner} of {self.source!r}"


@dataclass(frozen=True)
class Symlink:
    """A symbolic link."""

    target: str
    why: str = ""

    def __str__(self) -> str:
        return f"symlink to {self.target!r}"


def is_whiteout(status: os.stat_result) -> bool:
    """Whether it hides what lower layers have at its path; Documentation/filesystems/overlayfs.rst."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


Entry = Whiteout | Directory | File | Copy | Symlink


def stage(
    entries: Mapping[str, Entry], outside: Callable[[str], str], tree: Path, first_id: int = 0
) -> tuple[int, int]:
    """Make the entries as files in the empty directory ``tree``; returns the most blocks and inodes that they need.

    ``outside``: gives the path by which this host knows the source of a copy. ``first_id`` is added to all owners. Raises
    OSError.
    """
    top = os.fspath(tree)
    whiteouts = _Whiteouts()
    blocks = names = links = 0
    directories: list[tuple[str, Directory]] = []
    for path, entry in sorted(entries.items()):
        target = top + path.rstrip("/")
        names += 12 + len(os.fsencode(target)) - len(os.fsencode(os.path.dirname(target)))
        match entry:
            case Whiteout():
                whiteouts.put(target)
            case Directory():
                if target != top:
                    os.mkdir(target, 0o700)
                directories.append((target, entry))
            case File(content, owner):
                blocks += _put(target, content, owner, first_id)
            case Copy(source, owner, content=None):
                with open(outside(source), "rb") as original:
                    blocks += _put(target, original.read(), owner, first_id)
            case Copy(_, owner, content=bytes(content)):
                blocks += _put(target, content, owner, first_id)
            case Symlink(link):
                os.symlink(link, target)
                os.chown(target, first_id, first_id, follow_symlinks=False)
                links += len(os.fsencode(link)) >= _SHORT  # a shorter one is in the inode
    for target, directory in directories:
        _own(target, directory.owner, first_id)
        if directory.opaque:
            os.setxattr(target, OPAQUE, b"y")
        if directory.part:
            os.setxattr(target, PART, directory.part.encode("ascii"))
    inodes = len(entries) - whiteouts.links + whiteouts.inodes
    # A directory takes a block at least, and long names leave up to half of a block of them unused.
    return blocks + links + len(directories) + 2 * names // BLOCK, inodes


class _Whiteouts:
    """Whiteouts that share inodes, as the kernel's own do: a link is cheaper than a node."""

    MAX_LINKS = 30000
    """Below ext4's limit of 65000 (ext4(5)) and the 16 bits of its link count."""

    def __init__(self) -> None:
        self.links = 0
        self.inodes = 0
        self._first = ""

    def put(self, target: str) -> None:
        if self.links % self.MAX_LINKS == 0:
            self.inodes += 1
            os.mknod(target, 0o020000, os.makedev(0, 0))
            self._first = target
        else:
            os.link(self._first, target)
        self.links += 1


def _put(target: str, content: bytes, owner: Owner, first_id: int) -> int:
    with open(target, "xb") as file:
        file.write(content)
    _own(target, owner, first_id)
    return -(-len(content) // BLOCK)


def _own(target: str, owner: Owner, first_id: int) -> None:
    os.chown(target, first_id + owner.uid, first_id + owner.gid)
    os.chmod(target, owner.mode)  # after chown, which clears set-id bits
