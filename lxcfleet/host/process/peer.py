"""The process at the other end of a Unix socket, by the kernel's word; and who may connect."""

from __future__ import annotations

import contextlib
import grp
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_SO_PEERGROUPS = 59
"""asm-generic/socket.h, since Linux 4.13; Python has no name for it."""
_MOST = 1024
"""Bytes that Python's getsockopt accepts: 256 groups. A process with more counts as a member of its primary group only."""
_ACCESS_ACL = "system.posix_acl_access"


class Connection(Protocol):
    """A socket, or asyncio's substitute for one."""

    def getsockopt(self, level: int, option: int, length: int, /) -> bytes:
        """See socket.socket."""


@dataclass(frozen=True)
class Peer:
    """The process that connected, as it was at that moment."""

    pid: int
    uid: int
    groups: frozenset[int]


def peer(connection: Connection) -> Peer:
    """The other end of a connected Unix socket; unix(7), SO_PEERCRED and SO_PEERGROUPS. Raises OSError."""
    pid, uid, gid = _credentials(connection)
    more = b""
    with contextlib.suppress(OSError):
        more = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST)
    return Peer(pid, uid, frozenset((gid, *struct.unpack(f"{len(more) // 4}I", more))))


def uid_of(connection: Connection) -> int:
    """The uid of the other end alone, which is quicker. Raises OSError."""
    return _credentials(connection)[1]


def _credentials(connection: Connection) -> tuple[int, int, int]:
    size = struct.calcsize("3i")
    pid, uid, gid = struct.unpack("3I", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return pid, uid, gid


def group(name: str) -> int | None:
    """The id of a group of the host; None if there is no such group."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def admit(path: Path, full: int | None, more: int | None) -> None:
    """Let root, the group ``full`` (as the socket's own) and the group ``more`` connect to the socket at ``path``.

    acl(5); the layout is the kernel's posix_acl_xattr.h. Raises OSError.
    """
    if full is not None:
        os.chown(path, 0, full)
    os.chmod(path, 0o660)
    if more is None:
        return
    nobody, rw = 0xFFFFFFFF, 6
    entries = ((0x01, rw, nobody), (0x04, rw, nobody), (0x08, rw, more), (0x10, rw, nobody), (0x20, 0, nobody))
    value = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(path, _ACCESS_ACL, value)
