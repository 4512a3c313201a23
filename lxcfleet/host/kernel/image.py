"""Writing an overlay layer as a small ext4 image.

``mkfs.ext4 -d`` keeps the marks of a layer (see ``entries``). What all containers share has to be an image: a directory
below ``/`` can't be a layer over ``/`` (ELOOP), and tmpfs can't be idmapped before Linux 6.3.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from lxcfleet.errors import HostError, NoCapacity, Unsupported
from lxcfleet.host.kernel.entries import BLOCK, Directory, Entry, Owner, stage
from lxcfleet.host.process import command

_INODE = 256
"""Bytes: enough for the one extended attribute, which would take a block otherwise."""
_SEARCH = "/usr/sbin:/sbin:/usr/bin:/bin"
"""Where mkfs.ext4 may be; a daemon's own PATH may lack the sbin directories."""


def write(entries: Mapping[str, Entry], outside: Callable[[str], str], work: Path, image: Path) -> None:
    """Write the layer ``entries`` (absolute path in the layer to entry) to the file ``image``.

    ``work`` is a directory that only root can enter, on the file system of ``image``; the tree is staged in
    it and removed again. ``outside``: see ``stage``. Raises NoCapacity if the disk is full,
    Unsupported if mkfs.ext4 is missing, FileNotFoundError or NotADirectoryError if the source of a copy is gone,
    and HostError for all other errors; ``image`` may be half written then.
    """
    tree = work / "tree"
    # mkfs makes this directory in every image; as an entry it hides the base's file at its path.
    entries = {**entries, "/lost+found": Directory(Owner(0o700), opaque=True)}
    try:
        tree.mkdir(mode=0o700)
        blocks, inodes = stage(entries, outside, tree)
        _make(tree, image, blocks, inodes)
    except (FileNotFoundError, NotADirectoryError):
        raise
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


def _make(tree: Path, image: Path, blocks: int, inodes: int) -> None:
    program = shutil.which("mkfs.ext4", path=_SEARCH)
    if program is None:
        raise Unsupported(
            "mkfs.ext4 is missing",
            why="the mask is an ext4 image",
            hint="`apt install e2fsprogs`, then try again",
        )
    inodes += 64  # ext4's own, and some room
    size = (blocks + inodes * _INODE // BLOCK + 128) * BLOCK
    with open(image, "xb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
    options = "-q -F -O ^has_journal,^resize_inode -E nodiscard,lazy_itable_init=0 -m 0"
    sizes = f"-b {BLOCK} -I {_INODE} -N {inodes}"
    command.run([program, *options.split(), *sizes.split(), "-d", os.fspath(tree), os.fspath(image)])
    with open(image, "rb") as file:
        os.fsync(file.fileno())
