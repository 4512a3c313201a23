"""Messages of the packet filter, and a socket that has them."""

from __future__ import annotations

import errno
import socket
import struct
from types import SimpleNamespace

import pytest

from lxcfleet.host.net import nft, nft_watch

NEW_TABLE, DELETED_TABLE, NEW_GENERATION = 0xA00, 0xA02, 0xA0F
NEW_CHAIN, NEW_RULE, DELETED_RULE, DELETED_ELEMENT, DELETED_OBJECT = 0xA03, 0xA06, 0xA08, 0xA0E, 0xA14
INET = 1


def message(kind: int, name: str = "", chain: str = "", generation: int | None = None) -> bytes:
    """A message of nfnetlink's, with the name of a table, and that of a chain; or with the number of a generation."""
    body = struct.pack("=BBH", INET, 0, 0)
    if generation is not None:
        body += struct.pack("=HH", 8, 1) + struct.pack("!I", generation)
    for number, text in ((1, name), (2, chain)):
        if text:
            attribute = struct.pack("=HH", 5 + len(text), number) + text.encode() + b"\0"
            body += attribute + bytes(-len(attribute) % 4)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def mark() -> bytes:
    """What a transaction of ours begins with."""
    return message(NEW_TABLE, nft.MARK) + message(DELETED_TABLE, nft.MARK)


class Netlink:
    """A socket that gives what it is told to."""

    def __init__(self, *_: object) -> None:
        self.pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.errors: list[OSError] = []
        self.failed = 0
        """How often a read failed."""

    def say(self, data: bytes) -> None:
        self.pair[1].send(data)

    def lose(self) -> None:
        """The buffer has overflowed: the next read says so, and what came meanwhile is lost. netlink(7)."""
        self.errors.append(OSError(errno.ENOBUFS, "No buffer space available"))
        self.say(b"")

    def recv(self, size: int) -> bytes:
        if self.errors:
            self.pair[0].recv(size)
            self.failed += 1
            raise self.errors.pop()
        return self.pair[0].recv(size)

    def empty(self) -> bool:
        """Whether all was read."""
        try:
            self.pair[0].recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        return False

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


def watched_netlink(monkeypatch: pytest.MonkeyPatch) -> Netlink:
    """The socket that the next watch has."""
    made = Netlink()
    monkeypatch.setattr(nft_watch, "generation", lambda: 0)
    names = {name: getattr(socket, name) for name in ("AF_NETLINK", "SOCK_RAW", "SOCK_CLOEXEC", "SOL_SOCKET", "SO_RCVBUF")}
    monkeypatch.setattr(nft_watch, "socket", SimpleNamespace(socket=lambda *_: made, **names))
    return made
