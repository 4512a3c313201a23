"""Tells when another program changes the fleet's tables of the packet filter: removes them, as each start of Debian's
nftables.service does, or changes a rule, a set's elements or a policy in them. linux/netfilter/nf_tables.h, nfnetlink.h."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from lxcfleet.errors import HostError
from lxcfleet.host.net.nft import MARK

log = logging.getLogger(__name__)

_NETFILTER = 12
_GROUP = 7
"""NFNLGRP_NFTABLES."""
_NFTABLES = 10 << 8
_GET_TABLE, _NEW_GENERATION = _NFTABLES | 1, _NFTABLES | 15
_TABLE_NAME = 1
"""In messages about tables, chains, rules, sets, their elements and objects alike."""
_ERROR, _REQUEST = 2, 1
"""NLMSG_ERROR, NLM_F_REQUEST; linux/netlink.h."""
_INET, _BRIDGE = 1, 7
"""NFPROTO_INET, NFPROTO_BRIDGE; linux/netfilter.h. The fleet has a table in each of these families."""
_SO_RCVBUFFORCE = 33
"""asm-generic/socket.h. Without it the buffer is no larger than net.core.rmem_max: 208 KiB on Debian's kernels."""
_BUFFER = 16 << 20
"""A load of all rules tells each element of the sets; 100,000 of them fit."""
_PAUSE_SECONDS = 1.0
"""After which the kernel is asked again that could not say whether the tables are there."""


class Message(NamedTuple):
    """What the kernel tells of a table or what is in it, or that a transaction is over."""

    table: str = ""
    over: bool = False


class TableWatch:
    """Calls ``changed`` after each transaction, whoever made it, and ``gone`` if it changed anything in our tables of this
    name and is not one of ours, which bear a mark: rules are as they were loaded, or somebody else has changed them. (What
    the filter itself adds to a set is told to nobody.)

    Messages may be lost. Then the kernel is asked whether the table is there: a load of many rules of our own may overflow
    the buffer, and would be repeated for ever if each loss counted as a removal.
    """

    def __init__(self, table: str, gone: Callable[[], None], changed: Callable[[], None]) -> None:
        """Raises HostError if the kernel does not report such changes."""
        self._table = table
        self._gone = gone
        self._changed = changed
        self._touched = self._ours = False
        """Whether this transaction changed something in our tables so far, and whether it is one of ours."""
        self._lost = False
        """Whether messages were lost since the kernel was last asked for the table."""
        self._again: asyncio.Handle | None = None
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER)
            _enlarge(self._socket)
            self._socket.bind((0, 1 << (_GROUP - 1)))
        except OSError as error:
            raise HostError.from_os_error("changes of the packet filter can't be watched", error) from error
        self._socket.setblocking(False)
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def close(self) -> None:
        """Stop watching."""
        if self._again is not None:
            self._again.cancel()
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        try:
            while True:
                for message in messages(self._socket.recv(1 << 16)):
                    self._note(message)
        except BlockingIOError:
            # Not earlier: until the buffer is empty, the kernel drops messages without another word.
            if self._lost:
                self._look()
        except OSError:
            # The buffer overflowed, and the lost messages may have been about our table.
            self._touched, self._lost = False, True
            self._call_again(0)

    def _call_again(self, seconds: float) -> None:
        if self._again is not None:
            self._again.cancel()
        self._again = asyncio.get_running_loop().call_later(seconds, self._read)

    def _look(self) -> None:
        """Tell what the lost messages may have told."""
        try:
            there = is_there(self._table)
        except OSError as error:
            log.debug("the kernel does not say whether %s is there, and is asked again: %s", self._table, error)
            self._call_again(_PAUSE_SECONDS)
            return
        self._lost = self._touched = self._ours = False
        self._changed()
        if not there:
            self._gone()

    def _note(self, message: Message) -> None:
        if message.over:
            # Once messages are lost, the mark may be among them: then the look says what it was.
            touched = self._touched and not self._ours and not self._lost
            self._touched = self._ours = False
            self._changed()
            if touched:
                self._gone()
        elif message.table == MARK:
            self._ours = True
        else:
            self._touched = self._touched or message.table == self._table


def is_there(table: str) -> bool:
    """Whether the packet filter has the fleet's tables of this name. Raises OSError."""
    name = table.encode() + b"\0"
    attribute = struct.pack("=HH", 4 + len(name), _TABLE_NAME) + name
    attribute += bytes(-len(attribute) % 4)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER) as asks:
        asks.setblocking(False)  # the kernel has answered when it has taken the question
        for family in (_INET, _BRIDGE):
            body = struct.pack("=BBH", family, 0, 0) + attribute
            asks.sendto(struct.pack("=IHHII", 16 + len(body), _GET_TABLE, _REQUEST, 0, 0) + body, (0, 0))
            answer = asks.recv(1 << 16)
            if struct.unpack_from("=H", answer, 4)[0] == _ERROR:
                number = -struct.unpack_from("=i", answer, 16)[0]
                if number != errno.ENOENT:
                    raise OSError(number, os.strerror(number))
                return False
    return True


def _enlarge(watching: socket.socket) -> None:
    """Give a socket the buffer that it needs."""
    try:
        watching.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    except PermissionError:  # in some containers; less is enough for a small fleet
        watching.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)


def messages(data: bytes) -> Iterator[Message]:
    """Those about tables and what is in them, and about generations, which end a transaction."""
    at = 0
    while at + 20 <= len(data):
        size, kind = struct.unpack_from("=IH", data, at)
        if size < 16:
            return
        if kind == _NEW_GENERATION:
            yield Message(over=True)
        elif kind & 0xFF00 == _NFTABLES:
            yield Message(_name(data[at + 20 : at + size], _TABLE_NAME))
        at += (size + 3) & ~3


def _name(attributes: bytes, wanted: int) -> str:
    at = 0
    with contextlib.suppress(struct.error):
        while at + 4 <= len(attributes):
            size, kind = struct.unpack_from("=HH", attributes, at)
            if kind & 0x3FFF == wanted:
                return attributes[at + 4 : at + size].rstrip(b"\0").decode("ascii", "replace")
            at += max(4, (size + 3) & ~3)
    return ""
