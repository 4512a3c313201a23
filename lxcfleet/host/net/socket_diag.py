"""Sockets in a container that wait for others, as the kernel's own list of them has them; sock_diag(7), linux/inet_diag.h.

The tables in /proc/PID/net cost milliseconds each, as the kernel goes through all places for connections of all namespaces.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address

from lxcfleet.host.kernel import syscalls
from lxcfleet.host.net.bridge_look import split

log = logging.getLogger(__name__)

_NETLINK_SOCK_DIAG, _BY_FAMILY = 4, 20
_REQUEST_LIST = 0x301
"""NLM_F_REQUEST, NLM_F_DUMP."""
_ERROR, _DONE = 2, 3
_WAITING = {"tcp": (socket.IPPROTO_TCP, 1 << 10), "udp": (socket.IPPROTO_UDP, 1 << 7)}
"""The states of sockets that wait for anybody: net/tcp_states.h, TCP_LISTEN and TCP_CLOSE."""
_HEADER, _ASKED, _FOUND = struct.Struct("=IHHII"), struct.Struct("=BBBxI48x"), struct.Struct("=BBxx2s2s16s")


def listening(pid: int, protocols: Iterable[str]) -> set[tuple[str, int]]:
    """Protocols and ports on which programs in the network namespace of a process wait for others than themselves.

    Raises OSError; ProcessLookupError or FileNotFoundError if the process has ended.
    """
    with _socket_inside(pid) as inside:
        return {
            (protocol, port)
            for protocol in protocols
            for family in (socket.AF_INET, socket.AF_INET6)
            for port in _ports(inside, family, protocol)
        }


def _socket_inside(pid: int) -> socket.socket:
    """A socket of another network namespace. The calling thread enters that for a moment, and no other one is in it: one that
    is made for this takes a hundred times as long, and milliseconds on a busy host."""
    with open("/proc/thread-self/ns/net", "rb") as own, open(f"/proc/{pid}/ns/net", "rb") as other:
        syscalls.enter_network(other.fileno())
        try:
            return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)
        finally:
            _return(own.fileno())


def _return(own: int) -> None:
    try:
        syscalls.enter_network(own)
    except OSError:  # the kernel has no reason to refuse that
        log.critical("the daemon can't get back into the host's network, and ends")
        os.abort()  # rather than serve a container


def _ports(inside: socket.socket, family: int, protocol: str) -> Iterator[int]:
    number, states = _WAITING[protocol]
    body = _ASKED.pack(family, number, 0, states)
    inside.send(_HEADER.pack(_HEADER.size + len(body), _BY_FAMILY, _REQUEST_LIST, 0, 0) + body)
    while True:
        for kind, _, message in split(inside.recv(1 << 17)):
            if kind == _DONE:
                return
            if kind == _ERROR:
                code = -struct.unpack_from("=i", message)[0]
                raise OSError(code, os.strerror(code))
            port = waits_for_others(message)
            if port is not None:
                yield port


def waits_for_others(message: bytes) -> int | None:
    """The port of a socket; None: it waits for the machine itself only."""
    family, _, port, _, source = _FOUND.unpack_from(message)
    if family == socket.AF_INET:
        address: IPv4Address | IPv6Address = IPv4Address(source[:4])
    else:
        six = IPv6Address(source)
        address = six.ipv4_mapped or six
    return None if address.is_loopback else int.from_bytes(port, "big")
