"""The table of a bridge that says which MAC address is at which port (forwarding database), over netlink.

linux/neighbour.h, rtnetlink(7); without pyroute2, which is large: the daemon itself uses this.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

from lxcfleet.errors import HostError

_NO_PORT = (errno.ENODEV, errno.ENXIO, errno.EOPNOTSUPP)
"""No such interface, or it is on no bridge."""
_NEW_NEIGHBOUR = 28
_REQUEST, _ACKNOWLEDGE, _REPLACE, _CREATE = 0x1, 0x4, 0x100, 0x400
_AF_BRIDGE = 7
_STATIC = 0x40
"""NUD_NOARP: it neither ages nor is learned anew at another port."""
_AT_MASTER = 0x04
_HARDWARE_ADDRESS = 2
_HEADER, _NEIGHBOUR = struct.Struct("=IHHII"), struct.Struct("=BxxxiHBB")
_ANSWER = struct.Struct("=i")


def pin(index: int, hardware: str) -> bool:
    """Have a bridge always send frames for this MAC address to this port, also before anything came from there.

    ``index``: the interface's number. False: it is no port of a bridge. Raises HostError.
    """
    try:
        code = _ask(index, bytes(int(part, 16) for part in hardware.split(":")))
    except OSError as error:
        if error.errno in _NO_PORT:
            return False
        raise _failure(error) from error
    if code in _NO_PORT:
        return False
    if code:
        raise _failure(OSError(code, os.strerror(code)))
    return True


def _ask(index: int, hardware: bytes) -> int:
    """The errno that the kernel answers, 0 for success."""
    attribute = struct.pack("=HH", 4 + len(hardware), _HARDWARE_ADDRESS) + hardware + bytes(-len(hardware) % 4)
    body = _NEIGHBOUR.pack(_AF_BRIDGE, index, _STATIC, _AT_MASTER, 0) + attribute
    flags = _REQUEST | _ACKNOWLEDGE | _CREATE | _REPLACE
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as netlink:
        netlink.bind((0, 0))
        netlink.send(_HEADER.pack(_HEADER.size + len(body), _NEW_NEIGHBOUR, flags, 1, 0) + body)
        answer = netlink.recv(4096)
    return -int(_ANSWER.unpack_from(answer, _HEADER.size)[0])


def _failure(error: OSError) -> HostError:
    return HostError.from_os_error("a bridge can't be told whose port it has", error)
