"""The ports of bridges as the kernel tells them, in one answer: cheap enough for a thousand of them every few seconds.

linux/rtnetlink.h, if_link.h, if_bridge.h (struct __fdb_entry)."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from lxcfleet.host.net.interfaces import UP

_NET = Path("/sys/class/net")
_GET_LINK, _REQUEST_LIST = 18, 0x301
"""RTM_GETLINK; NLM_F_REQUEST, NLM_F_DUMP."""
_ERROR, _DONE = 2, 3
_CHANGED_MEANWHILE = 0x10
"""NLM_F_DUMP_INTR."""
_AF_BRIDGE = 7
_NAME, _MTU, _MASTER, _PORT_SETTINGS = 3, 4, 10, 12
_NUMBER = 18
"""IFLA_BRPORT_NO, by which a bridge's table of addresses calls the port."""
_TYPE = 0x3FFF
_RUNNING = 0x40
"""IFF_RUNNING: there is somebody at the other end of the cable."""
_HEADER, _LINK, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=BxHiII"), struct.Struct("=HH")
_ENTRY = struct.Struct("=6sBBIBxH")
_TRIES = 3


class BridgePort(NamedTuple):
    """A port of some bridge."""

    name: str
    bridge: int
    """The number of the bridge's interface."""
    flags: int
    mtu: int
    number: int
    settings: Mapping[int, int]
    """By their numbers in linux/if_link.h; a kernel has those that it knows."""

    @property
    def is_up(self) -> bool:
        """Whether it was not set down."""
        return bool(self.flags & UP)

    @property
    def runs(self) -> bool:
        """Whether frames could pass: only then the kernel has it forward."""
        return bool(self.flags & _RUNNING)


class Ports:
    """The ports of all bridges of the host, as they were at the last look. Mostly nothing has changed since then: only what
    the kernel says in other words than before is read."""

    def __init__(self) -> None:
        self._said: dict[bytes, BridgePort] = {}

    def look(self) -> dict[str, BridgePort]:
        """Each by its name. Raises OSError."""
        for _ in range(_TRIES):
            messages, whole = _ask()
            if whole:
                break
        self._said = {message: self._said.get(message) or read(message) for message in messages}
        return {port.name: port for port in self._said.values()}


def _ask() -> tuple[list[bytes], bool]:
    """The kernel's message about each, and whether nothing changed meanwhile."""
    found: list[bytes] = []
    whole = True
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as netlink:
        netlink.bind((0, 0))
        body = _LINK.pack(_AF_BRIDGE, 0, 0, 0, 0)
        netlink.send(_HEADER.pack(_HEADER.size + len(body), _GET_LINK, _REQUEST_LIST, 0, 0) + body)
        while True:
            for kind, flags, message in split(netlink.recv(1 << 17)):
                whole = whole and not flags & _CHANGED_MEANWHILE
                if kind == _DONE:
                    return found, whole
                if kind == _ERROR:
                    code = -struct.unpack_from("=i", message)[0]
                    if code == errno.EOPNOTSUPP:  # a kernel that has had no bridge yet
                        return [], True
                    raise OSError(code, os.strerror(code))
                found.append(message)


def split(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The messages in a datagram: kind, flags and what follows the header."""
    at = 0
    while at + _HEADER.size <= len(data):
        size, kind, flags, _, _ = _HEADER.unpack_from(data, at)
        if size < _HEADER.size:
            return
        yield kind, flags, data[at + _HEADER.size : at + size]
        at += (size + 3) & ~3


def read(message: bytes) -> BridgePort:
    """One port, as the kernel tells it."""
    _, _, _, flags, _ = _LINK.unpack_from(message)
    told = dict(attributes(message[_LINK.size :]))
    settings = {kind: int.from_bytes(value, "little") for kind, value in attributes(told.get(_PORT_SETTINGS, b""))}
    return BridgePort(
        told.get(_NAME, b"").rstrip(b"\0").decode("utf-8", "replace"), _number(told.get(_MASTER, b"")), flags,
        _number(told.get(_MTU, b"")), settings.get(_NUMBER, 0), settings,
    )  # fmt: skip


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The types and values of the attributes in a message, or in one of them."""
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, at)
        if size < _ATTRIBUTE.size:
            return
        yield kind & _TYPE, data[at + _ATTRIBUTE.size : at + size]
        at += (size + 3) & ~3


def _number(value: bytes) -> int:
    return int.from_bytes(value, "little")


def pinned(bridge: str) -> dict[str, int]:
    """The MAC addresses that the bridge knows for good, each with the number of the port that it is at; none if it is gone.

    One that was learned this very moment looks the same, and no longer does a moment later.
    """
    try:
        table = (_NET / bridge / "brforward").read_bytes()
    except OSError:
        return {}
    whole = len(table) - len(table) % _ENTRY.size
    return {
        hardware.hex(":"): low | high << 8
        for hardware, low, is_local, age, high, _ in _ENTRY.iter_unpack(table[:whole])
        if not is_local and age == 0
    }
