"""The watch over the packet filter's tables, and messages that the kernel could not deliver."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from lxcfleet.host.net import nft_watch
from lxcfleet.host.net.nft_watch import TableWatch

NEW_TABLE, DELETED_TABLE, NEW_GENERATION = 0xA00, 0xA02, 0xA0F
INET = 1


def message(kind: int, name: str = "") -> bytes:
    """A message of nfnetlink's, with the name of a table."""
    text = name.encode() + b"\0"
    attribute = struct.pack("=HH", 4 + len(text), 1) + text
    body = struct.pack("=BBH", INET, 0, 0) + (attribute if name else b"")
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


class Netlink:
    """A socket that gives what it is told to."""

    def __init__(self, *_: object) -> None:
        self.pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.errors: list[OSError] = []

    def say(self, data: bytes) -> None:
        self.pair[1].send(data)

    def lose(self) -> None:
        """The buffer has overflowed: the next read says so, and what came meanwhile is lost. netlink(7)."""
        self.errors.append(OSError(errno.ENOBUFS, "No buffer space available"))
        self.say(b"")

    def recv(self, size: int) -> bytes:
        if self.errors:
            self.pair[0].recv(size)
            raise self.errors.pop()
        return self.pair[0].recv(size)

    def bind(self, _: object) -> None:
        """It is bound."""

    def setsockopt(self, *_: object) -> None:
        """It has no options."""

    def setblocking(self, flag: bool) -> None:
        self.pair[0].setblocking(flag)

    def fileno(self) -> int:
        return self.pair[0].fileno()

    def close(self) -> None:
        for each in self.pair:
            each.close()


@pytest.fixture
def netlink(monkeypatch: pytest.MonkeyPatch) -> Netlink:
    made = Netlink()
    names = {name: getattr(socket, name) for name in ("AF_NETLINK", "SOCK_RAW", "SOCK_CLOEXEC", "SOL_SOCKET", "SO_RCVBUF")}
    monkeypatch.setattr(nft_watch, "socket", SimpleNamespace(socket=lambda *_: made, **names))
    return made


def told(netlink: Netlink, happens: Callable[[], None]) -> list[str]:
    """What the watch tells when that happens, and after it, when the table is removed once more."""
    heard: list[str] = []

    async def watch() -> None:
        own = TableWatch("own", lambda: heard.append("gone"), lambda: heard.append("changed"))
        happens()
        for _ in range(10):
            await asyncio.sleep(0)
        own.close()

    asyncio.run(watch())
    return heard


def test_a_removed_table_is_told_at_the_end_of_its_transaction(netlink: Netlink) -> None:
    def remove() -> None:
        netlink.say(message(DELETED_TABLE, "own") + message(NEW_GENERATION))

    assert told(netlink, remove) == ["changed", "gone"]


def test_a_table_that_is_replaced_is_not_told(netlink: Netlink) -> None:
    def replace() -> None:
        netlink.say(message(DELETED_TABLE, "own") + message(NEW_TABLE, "own") + message(NEW_GENERATION))

    assert told(netlink, replace) == ["changed"]


def test_after_an_overflow_the_table_counts_as_gone_and_the_watch_goes_on(netlink: Netlink) -> None:
    """What was lost may have been the removal of our table. What comes after it is heard."""

    def overflow() -> None:
        netlink.say(message(DELETED_TABLE, "own"))
        netlink.lose()
        netlink.say(message(DELETED_TABLE, "own") + message(NEW_GENERATION))

    assert told(netlink, overflow).count("gone") == 2


def test_a_socket_that_gives_errors_for_ever_does_not_keep_the_loop(netlink: Netlink) -> None:
    """Each error ends one read: the loop goes on between them."""

    def overflow() -> None:
        for _ in range(3):
            netlink.lose()

    assert told(netlink, overflow) == ["gone", "gone", "gone"]
