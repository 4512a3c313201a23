"""A directory as an image that can be mounted with shifted owners, and so be a layer of an overlay: erofs, or ext4 where the
host can't make or mount erofs.

erofs takes as much room as its files, and can't be written to at all. Its mounts can be shifted since Linux 5.19, those of
ext4 since 5.12; mount_setattr(2).
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import stat
from pathlib import Path

from lxcfleet.errors import HostError, Unsupported
from lxcfleet.host.kernel.entries import BLOCK
from lxcfleet.host.process import command

_SEARCH = "/usr/sbin:/sbin:/usr/bin:/bin"
_INODE = 256
_SECONDS = 600
_MAGICS = {"erofs": (1024, bytes.fromhex("e2e1f5e0")), "ext4": (1080, bytes.fromhex("53ef"))}
"""Where the kernel looks for the file system's mark, and the mark."""
_SHIFTED = (5, 19)


def without_erofs() -> str:
    """Why this host can't have erofs images as layers; empty: it can."""
    version = re.match(r"(\d+)\.(\d+)", platform.release())
    if version is None or (int(version[1]), int(version[2])) < _SHIFTED:
        return f"the kernel {platform.release()} can't shift the owners of erofs"
    if shutil.which("mkfs.erofs", path=_SEARCH) is None:
        return "mkfs.erofs is missing (apt install erofs-utils)"
    if not _known():
        with contextlib.suppress(HostError):
            command.run(["modprobe", "-q", "erofs"])
        if not _known():
            return "the kernel has no erofs"
    return ""


def _known() -> bool:
    return "\terofs\n" in Path("/proc/filesystems").read_text(encoding="ascii")


def pack(tree: Path, image: Path) -> str:
    """Write the files below ``tree`` to the new file ``image``; gives why it is ext4, or nothing if it is erofs. Raises
    HostError, Unsupported, OSError; ``image`` may be half written then."""
    why = without_erofs()
    program = shutil.which("mkfs.erofs", path=_SEARCH)
    if not why and program is not None:
        command.run([program, "-x-1", os.fspath(image), os.fspath(tree)], timeout=_SECONDS)
    else:
        _pack_ext4(tree, image)
    image.chmod(0o400)
    with open(image, "rb") as file:
        os.fsync(file.fileno())
    return why


def _pack_ext4(tree: Path, image: Path) -> None:
    program = shutil.which("mkfs.ext4", path=_SEARCH)
    if program is None:
        raise Unsupported("mkfs.ext4 is missing", why="a layer is an image", hint="`apt install e2fsprogs`, then try again")
    blocks = inodes = 0
    for directory, directories, files in os.walk(tree):
        blocks += 2 + sum(len(os.fsencode(name)) + 16 for name in (*directories, *files)) * 2 // BLOCK
        for name in files:
            status = os.lstat(f"{directory}/{name}")
            inodes += 1
            blocks += 1 + (-(-status.st_size // BLOCK) if stat.S_ISREG(status.st_mode) else 0)
        inodes += 1
    inodes += 64  # ext4's own, and some room
    size = (blocks + blocks // 50 + inodes * _INODE // BLOCK + 512) * BLOCK
    with open(image, "xb") as file:
        file.truncate(size)  # what is not written takes no room on the disk
    options = "-q -F -O ^has_journal,^resize_inode -E nodiscard,lazy_itable_init=0 -m 0"
    sizes = f"-b {BLOCK} -I {_INODE} -N {inodes}"
    command.run([program, *options.split(), *sizes.split(), "-d", os.fspath(tree), os.fspath(image)], timeout=_SECONDS)


def filesystem(image: Path) -> str:
    """The kernel's name of an image's file system. Raises HostError for another file, OSError."""
    with open(image, "rb") as file:
        head = file.read(BLOCK)
    for name, (place, magic) in _MAGICS.items():
        if head[place : place + len(magic)] == magic:
            return name
    raise HostError(f"{image} is no image of a layer", why="it has neither erofs nor ext4")
