"""A client of lxc-monitord, which passes on what liblxc's monitors tell while it is the one that reads their FIFO.

Debian's package of LXC starts it at boot (lxc-monitord.service), and lxc-monitor starts one for itself. It listens on an
abstract socket and sends each client all records; src/lxc/cmd/lxc_monitord.c and src/lxc/monitor.c, LXC 5.0 to 7.0.
"""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from lxcfleet.host.process import peer

_MOST = 105
"""The most bytes of the socket's name: liblxc leaves two of the 108 of a sockaddr_un free."""
_OFFSET, _PRIME = 0xCBF29CE484222325, 0x100000001B3
"""FNV-1a for 64 bits, RFC 9923."""


def connect(lxc_path: Path) -> socket.socket:
    """A connection to the lxc-monitord of root's for the containers below ``lxc_path``; reads and writes don't wait.

    Raises OSError: there is none.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        connection.connect(_address(lxc_path))
        if peer.uid_of(connection) != 0:  # any user may listen on an abstract name that nobody has
            raise PermissionError(errno.EPERM, "another user's process listens in the place of lxc-monitord")
    except BaseException:
        connection.close()
        raise
    return connection


def _address(lxc_path: Path) -> bytes:
    """Where it listens; lxc_monitor_sock_name() of liblxc."""
    path = os.fsencode(lxc_path)
    value = _OFFSET
    for byte in b"lxc/%s/monitor-sock" % path:
        value = (value ^ byte) * _PRIME % 2**64
    return b"\0" + (b"lxc/%016x/%s" % (value, path))[:_MOST]
