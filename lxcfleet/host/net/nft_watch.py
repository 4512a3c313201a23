"""Tells when another program changes the fleet's tables of the packet filter: removes them, as each start of Debian's
nftables.service does, or changes a rule, a set's elements or a policy in them. linux/netfilter/nf_tables.h, nfnetlink.h."""

from __future__ import annotations

import asyncio
import contextlib
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
_GET_TABLE, _NEW_GENERATION, _GET_GENERATION = _NFTABLES | 1, _NFTABLES | 15, _NFTABLES | 16
_TABLE_NAME = 1
"""In messages about tables, chains, rules, sets, their elements and objects alike."""
_NUMBER = 1
"""In messages about generations. Each transaction, whoever makes it, adds one; after the greatest number comes 0."""
_NUMBERS = 1 << 32
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


class TableMessage(NamedTuple):
    """A message of the kernel about a table or what is in it, or that a transaction is over."""

    table: str = ""
    over: bool = False
    generation: int = 0


class TableWatch:
    """Calls ``changed`` after each transaction, whoever made it, and ``gone`` if it changed anything in our tables of this
    name and is not one of ours, which bear a mark: rules are as they were loaded, or somebody else has changed them. (What
    the filter itself adds to a set is told to nobody.)

    Messages may be lost. Then the kernel is asked whether the tables are there, and how many transactions there were. If they
    are more than our own, another one may have changed our tables: ``unknown`` is called. Our own do not count, as a load of
    many rules may overflow the buffer by itself, and would be repeated for ever.
    """

    def __init__(
        self, table: str, gone: Callable[[], None], unknown: Callable[[], None], changed: Callable[[], None],
        loads: Callable[[], int | None],
    ) -> None:  # fmt: skip
        """``loads``: how many transactions of ours there were so far; None: one is going on.

        Raises HostError if the kernel does not report such changes."""
        self._table = table
        self._gone = gone
        self._unknown = unknown
        self._changed = changed
        self._loads = loads
        self._touched = self._ours = False
        """Whether this transaction changed something in our tables so far, and whether it is one of ours."""
        self._lost = False
        """Whether messages were lost since the kernel was last asked for the table."""
        self._known: tuple[int, int] | None = None
        """A generation up to which all messages came, and the number of our own transactions until then."""
        self._again: asyncio.Handle | None = None
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER)
            _enlarge(self._socket)
            self._socket.bind((0, 1 << (_GROUP - 1)))
            self._generation = generation()
        except OSError as error:
            raise HostError.from_os_error("changes of the packet filter can't be watched", error) from error
        self._note_known(self._loads())
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
            done = self._loads()
            if self._lost:
                self._look(done)
            else:
                self._note_known(done)
        except OSError:
            # The buffer overflowed, and the lost messages may have been about our table.
            self._touched, self._lost = False, True
            self._call_again(0)

    def _note_known(self, done: int | None) -> None:
        if done is not None:
            self._known = self._generation, done

    def _call_again(self, seconds: float) -> None:
        if self._again is not None:
            self._again.cancel()
        self._again = asyncio.get_running_loop().call_later(seconds, self._read)

    def _look(self, done: int | None) -> None:
        """Tell what the lost messages may have told."""
        try:
            reached = generation()
            there = is_there(self._table)
        except OSError as error:
            log.debug("the kernel does not say whether %s is there, and is asked again: %s", self._table, error)
            self._call_again(_PAUSE_SECONDS)
            return
        if there and done is None:
            self._call_again(_PAUSE_SECONDS)
            return
        known, self._generation = self._known, reached
        self._note_known(done)
        self._lost = self._touched = self._ours = False
        self._changed()
        if not there:
            self._gone()
        elif done is not None and (known is None or (reached - known[0]) % _NUMBERS != done - known[1]):
            self._unknown()

    def _note(self, message: TableMessage) -> None:
        if message.over:
            # Once messages are lost, the mark may be among them: then the look says what it was.
            touched = self._touched and not self._ours and not self._lost
            self._touched = self._ours = False
            self._generation = message.generation
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
    try:
        for family in (_INET, _BRIDGE):
            _ask(_GET_TABLE, family, attribute)
    except FileNotFoundError:
        return False
    return True


def generation() -> int:
    """The number of the last transaction. Raises OSError."""
    return next((message.generation for message in messages(_ask(_GET_GENERATION, 0))), 0)


def _ask(kind: int, family: int, attributes: bytes = b"") -> bytes:
    """The kernel's answer to a question. Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER) as asks:
        asks.setblocking(False)  # the kernel has answered when it has taken the question
        body = struct.pack("=BBH", family, 0, 0) + attributes
        asks.sendto(struct.pack("=IHHII", 16 + len(body), kind, _REQUEST, 0, 0) + body, (0, 0))
        answer = asks.recv(1 << 16)
    if struct.unpack_from("=H", answer, 4)[0] == _ERROR:
        number = -struct.unpack_from("=i", answer, 16)[0]
        raise OSError(number, os.strerror(number))
    return answer


def _enlarge(watching: socket.socket) -> None:
    """Give a socket the buffer that it needs."""
    try:
        watching.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    except PermissionError:  # in some containers; less is enough for a small fleet
        watching.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)


def messages(data: bytes) -> Iterator[TableMessage]:
    """Those about tables and what is in them, and about generations, which end a transaction."""
    at = 0
    while at + 20 <= len(data):
        size, kind = struct.unpack_from("=IH", data, at)
        if size < 16:
            return
        attributes = data[at + 20 : at + size]
        if kind == _NEW_GENERATION:
            yield TableMessage(over=True, generation=int.from_bytes(_attribute(attributes, _NUMBER)[:4], "big"))
        elif kind & 0xFF00 == _NFTABLES:
            yield TableMessage(_attribute(attributes, _TABLE_NAME).rstrip(b"\0").decode("ascii", "replace"))
        at += (size + 3) & ~3


def _attribute(attributes: bytes, wanted: int) -> bytes:
    at = 0
    with contextlib.suppress(struct.error):
        while at + 4 <= len(attributes):
            size, kind = struct.unpack_from("=HH", attributes, at)
            if kind & 0x3FFF == wanted:
                return attributes[at + 4 : at + size]
            at += max(4, (size + 3) & ~3)
    return b""
