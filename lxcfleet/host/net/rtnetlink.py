"""Requests to the kernel about interfaces, several in one datagram; linux/netlink.h, rtnetlink(7).

Without pyroute2, which is large: the daemon itself uses this. A file in /sys costs three system calls for each switch, and
who writes to one while another process changes interfaces tries again and again until that is over.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

_REQUEST, _ACKNOWLEDGE = 0x1, 0x4
NESTED = 0x8000
"""Belongs to the type of an attribute that has others in it."""
_HEADER, _ATTRIBUTE, _ANSWER = struct.Struct("=IHHII"), struct.Struct("=HH"), struct.Struct("=i")


class Request(NamedTuple):
    """A request to the kernel."""

    kind: int
    body: bytes
    flags: int = 0
    """Beside those that each request has."""


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute of a request."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def ask(requests: Sequence[Request]) -> list[int]:
    """Have them carried out in this order, also those after one that fails; returns the errno of each, 0 for success.

    Raises OSError.
    """
    data = b"".join(
        _HEADER.pack(_HEADER.size + len(each.body), each.kind, each.flags | _REQUEST | _ACKNOWLEDGE, number, 0) + each.body
        for number, each in enumerate(requests)
    )
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as netlink:
        netlink.bind((0, 0))
        netlink.send(data)
        return [-int(_ANSWER.unpack_from(netlink.recv(4096), _HEADER.size)[0]) for _ in requests]
