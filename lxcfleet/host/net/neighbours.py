"""Which MAC address is at which port of a bridge (forwarding database), and whose address it is (neighbour table), over
netlink.

linux/neighbour.h, rtnetlink(7); without pyroute2, which is large: the daemon itself uses this.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Collection, Iterable
from ipaddress import IPv4Address, IPv6Address

from lxcfleet.errors import HostError

_NO_PORT = (errno.ENODEV, errno.ENXIO, errno.EOPNOTSUPP)
"""No such interface, or it is on no bridge."""
_NEW_NEIGHBOUR, _DELETE_NEIGHBOUR = 28, 29
_REQUEST, _ACKNOWLEDGE, _REPLACE, _CREATE = 0x1, 0x4, 0x100, 0x400
_AF_BRIDGE = 7
_STATIC, _PERMANENT = 0x40, 0x80
"""NUD_NOARP: it neither ages nor is learned anew at another port; NUD_PERMANENT."""
_AT_MASTER = 0x04
_ADDRESS, _HARDWARE_ADDRESS = 1, 2
_HEADER, _NEIGHBOUR = struct.Struct("=IHHII"), struct.Struct("=BxxxiHBB")
_ANSWER = struct.Struct("=i")


def pin(index: int, hardware: str) -> bool:
    """Have a bridge always send frames for this MAC address to this port, also before anything came from there.

    ``index``: the interface's number. False: it is no port of a bridge. Raises HostError.
    """
    body = _NEIGHBOUR.pack(_AF_BRIDGE, index, _STATIC, _AT_MASTER, 0) + _attribute(_HARDWARE_ADDRESS, _packed(hardware))
    return _carry_out([(_NEW_NEIGHBOUR, body)], _NO_PORT)


def know(index: int, hardware: str, addresses: Iterable[IPv4Address | IPv6Address]) -> bool:
    """Have the host know whose these addresses are, so that it need not ask all who are on the interface.

    False: there is no such interface. Raises HostError.
    """
    link = _attribute(_HARDWARE_ADDRESS, _packed(hardware))
    return _carry_out([(_NEW_NEIGHBOUR, _neighbour(index, each) + link) for each in addresses], _NO_PORT)


def forget(index: int, addresses: Iterable[IPv4Address | IPv6Address]) -> None:
    """Undo ``know``: nobody has these addresses now. Raises HostError."""
    _carry_out([(_DELETE_NEIGHBOUR, _neighbour(index, each)) for each in addresses], (*_NO_PORT, errno.ENOENT))


def _neighbour(index: int, address: IPv4Address | IPv6Address) -> bytes:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    return _NEIGHBOUR.pack(family, index, _PERMANENT, 0, 0) + _attribute(_ADDRESS, address.packed)


def _packed(hardware: str) -> bytes:
    return bytes(int(part, 16) for part in hardware.split(":"))


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _carry_out(messages: Iterable[tuple[int, bytes]], harmless: Collection[int]) -> bool:
    """Whether the kernel took all of them; False if it refused some for a reason that is harmless."""
    taken = True
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as netlink:
            netlink.bind((0, 0))
            for kind, body in messages:
                code = _ask(netlink, kind, body)
                if code and code not in harmless:
                    raise OSError(code, os.strerror(code))
                taken = taken and not code
    except OSError as error:
        raise _failure(error) from error
    return taken


def _ask(netlink: socket.socket, kind: int, body: bytes) -> int:
    """The errno that the kernel answers, 0 for success."""
    flags = _REQUEST | _ACKNOWLEDGE | (_CREATE | _REPLACE if kind == _NEW_NEIGHBOUR else 0)
    netlink.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body)
    return -int(_ANSWER.unpack_from(netlink.recv(4096), _HEADER.size)[0])


def _failure(error: OSError) -> HostError:
    return HostError.from_os_error("a bridge can't be told who is on it", error)
