"""Whether a name server answers, asked from the host or from a container's network."""

from __future__ import annotations

import secrets
import socket
import struct
import time

from lxcfleet.errors import HostError
from lxcfleet.host.net.dnsmasq import PORT
from lxcfleet.host.process import entering

TRIES = 3
"""So many datagrams are sent, as one may get lost."""
_HEADER = struct.Struct(">6H")
_RECURSION = 0x0100
_ADDRESS, _INTERNET = 1, 1


def question(name: str, number: int) -> bytes:
    """A query for the IPv4 address of ``name``; RFC 1035, 4.1."""
    labels = b"".join(bytes([len(label)]) + label for label in name.encode("ascii").split(b".") if label)
    return _HEADER.pack(number, _RECURSION, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", _ADDRESS, _INTERNET)


def answered(server: str, name: str, seconds: float, port: int = PORT) -> bool:
    """Whether the server answers a query for ``name`` within so many seconds, whatever the answer says."""
    number = secrets.randbelow(1 << 16)
    query = question(name, number)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asking:
        for _ in range(TRIES):
            deadline = time.monotonic() + seconds / TRIES
            try:
                asking.connect((server, port))
                asking.send(query)
                while (left := deadline - time.monotonic()) > 0:
                    asking.settimeout(left)
                    if asking.recv(512)[:2] == query[:2]:
                        return True
            except OSError:  # nobody listens, no route, or no answer in time
                time.sleep(max(0.0, deadline - time.monotonic()))
    return False


def answered_inside(pid: int, began: float, server: str, name: str, seconds: float) -> bool | None:
    """The same from the network of the container whose process 1 is ``pid``, begun at ``began``; None: it has ended.

    Raises HostError.
    """
    try:
        with entering.process(pid, began) as container, entering.network(container):
            return answered(server, name, seconds)
    except ProcessLookupError:
        return None
    except OSError as error:
        raise HostError.from_os_error("a container's network can't be entered", error) from error
