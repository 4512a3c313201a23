"""Writing an overlay layer as a small ext4 image.

A layer is a tree with two kinds of marks (Documentation/filesystems/overlayfs.rst, "whiteouts and opaque
directories"): a character device 0:0 hides what lower layers have at its path, and a directory with the
extended attribute ``trusted.overlay.opaque`` = ``y`` hides what they have below it. ``mkfs.ext4 -d`` keeps
both. It has to be an image: a directory below ``/`` can't be a layer over ``/`` (ELOOP), and tmpfs can't be
idmapped before Linux 6.3.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lxcfleet.errors import HostError, NoCapacity, Unsupported
from lxcfleet.host.kernel.mounts import OPAQUE, PART
from lxcfleet.host.process import command

_BLOCK = 4096
_INODE = 256
"""Bytes: enough for the one extended attribute, which would take a block otherwise."""
_SEARCH = "/usr/sbin:/sbin:/usr/bin:/bin"
"""Where mkfs.ext4 may be; a daemon's own PATH may lack the sbin directories."""


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
    """A regular file with the content that the host's ``source`` has when the image is written."""

    source: str
    owner: Owner
    why: str = ""

    def __str__(self) -> str:
        return f"copy {self.owner} of {self.source!r}"


@dataclass(frozen=True)
class Symlink:
    """A symbolic link."""

    target: str
    why: str = ""

    def __str__(self) -> str:
        return f"symlink to {self.target!r}"


Entry = Whiteout | Directory | File | Copy | Symlink


def write(entries: Mapping[str, Entry], root: Path, work: Path, image: Path) -> None:
    """Write the layer ``entries`` (absolute path in the layer to entry) to the file ``image``.

    ``work`` is a directory that only root can enter, on the file system of ``image``; the tree is staged in
    it and removed again. Copies are read below ``root``. Raises NoCapacity if the disk is full,
    Unsupported if mkfs.ext4 is missing, and HostError for all other errors; ``image`` may be half
    written then.
    """
    tree = work / "tree"
    # mkfs makes this directory in every image; as an entry it hides the base's file at its path.
    entries = {**entries, "/lost+found": Directory(Owner(0o700), opaque=True)}
    try:
        blocks, inodes = _stage(entries, root, tree)
        _make(tree, image, blocks, inodes)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoCapacity(
                "no room for the mask",
                why=f"{error.filename or work}: {error.strerror}",
                hint=f"free some space or inodes in the file system of {work}",
            ) from error
        raise HostError.from_os_error("the mask can't be written", error) from error
    finally:
        # Root made this tree in a directory of root's. Even so, rmtree follows no symlink in it.
        shutil.rmtree(tree, ignore_errors=True)


def _stage(entries: Mapping[str, Entry], root: Path, tree: Path) -> tuple[int, int]:
    """Make the entries as files in ``tree``; returns the most blocks and inodes that they need."""
    tree.mkdir(mode=0o700)
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
                blocks += _put(target, content, owner)
            case Copy(source, owner):
                with open(os.fspath(root).rstrip("/") + source, "rb") as original:
                    blocks += _put(target, original.read(), owner)
            case Symlink(link):
                os.symlink(link, target)
                links += 1
    for target, directory in directories:
        _own(target, directory.owner)
        if directory.opaque:
            os.setxattr(target, OPAQUE, b"y")
        if directory.part:
            os.setxattr(target, PART, directory.part.encode("ascii"))
    inodes = len(entries) - whiteouts.links + whiteouts.inodes
    # A directory takes a block at least, and long names leave up to half of a block of them unused.
    return blocks + links + len(directories) + 2 * names // _BLOCK, inodes


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


def _put(target: str, content: bytes, owner: Owner) -> int:
    with open(target, "xb") as file:
        file.write(content)
    _own(target, owner)
    return -(-len(content) // _BLOCK)


def _own(target: str, owner: Owner) -> None:
    os.chown(target, owner.uid, owner.gid)
    os.chmod(target, owner.mode)  # after chown, which clears set-id bits


def _make(tree: Path, image: Path, blocks: int, inodes: int) -> None:
    program = shutil.which("mkfs.ext4", path=_SEARCH)
    if program is None:
        raise Unsupported(
            "mkfs.ext4 is missing",
            why="the mask is an ext4 image",
            hint="`apt install e2fsprogs`, then try again",
        )
    inodes += 64  # ext4's own, and some room
    size = (blocks + inodes * _INODE // _BLOCK + 128) * _BLOCK
    with open(image, "xb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
    options = "-q -F -O ^has_journal,^resize_inode -E nodiscard,lazy_itable_init=0 -m 0"
    sizes = f"-b {_BLOCK} -I {_INODE} -N {inodes}"
    command.run([program, *options.split(), *sizes.split(), "-d", os.fspath(tree), os.fspath(image)])
    with open(image, "rb") as file:
        os.fsync(file.fileno())
