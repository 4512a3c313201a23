"""Tells when tables are removed from the packet filter, as by `nft flush ruleset` or each
start of Debian's nftables.service. linux/netfilter/nf_tables.h, nfnetlink.h."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Iterator

from lxcfleet.errors import HostError

_NETFILTER = 12
_GROUP = 7
"""NFNLGRP_NFTABLES."""
_NFTABLES = 10 << 8
_NEW_TABLE, _DELETED_TABLE, _NEW_GENERATION = _NFTABLES, _NFTABLES | 2, _NFTABLES | 15
_TABLE_NAME = 1
_BUFFER = 1 << 20


class TableWatch:
    """Calls ``changed`` after each transaction, whoever made it, and ``gone`` if it has removed our table of this name."""

    def __init__(self, table: str, gone: Callable[[], None], changed: Callable[[], None]) -> None:
        """Raises HostError if the kernel does not report such changes."""
        self._table = table
        self._gone = gone
        self._changed = changed
        self._missing: set[int] = set()
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            self._socket.bind((0, 1 << (_GROUP - 1)))
        except OSError as error:
            raise HostError.from_os_error("changes of the packet filter can't be watched", error) from error
        self._socket.setblocking(False)
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def close(self) -> None:
        """Stop watching."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        try:
            while True:
                for kind, family, name in messages(self._socket.recv(1 << 16)):
                    self._note(kind, family, name)
        except BlockingIOError:
            return
        except OSError:
            # The buffer overflowed, and the lost messages may have been about our table.
            self._missing.clear()
            self._gone()

    def _note(self, kind: int, family: int, name: str) -> None:
        if kind == _NEW_GENERATION:
            self._changed()
            if self._missing:
                self._missing.clear()
                self._gone()
        elif name == self._table:
            (self._missing.add if kind == _DELETED_TABLE else self._missing.discard)(family)


def messages(data: bytes) -> Iterator[tuple[int, int, str]]:
    """Type, family and name of each message about tables; a generation, which ends a transaction, has no name."""
    at = 0
    while at + 20 <= len(data):
        size, kind = struct.unpack_from("=IH", data, at)
        if size < 16:
            return
        if kind in (_NEW_TABLE, _DELETED_TABLE):
            yield kind, data[at + 16], _name(data[at + 20 : at + size])
        elif kind == _NEW_GENERATION:
            yield kind, 0, ""
        at += (size + 3) & ~3


def _name(attributes: bytes) -> str:
    at = 0
    with contextlib.suppress(struct.error):
        while at + 4 <= len(attributes):
            size, kind = struct.unpack_from("=HH", attributes, at)
            if kind & 0x3FFF == _TABLE_NAME:
                return attributes[at + 4 : at + size].rstrip(b"\0").decode("ascii", "replace")
            at += max(4, (size + 3) & ~3)
    return ""
