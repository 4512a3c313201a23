"""The server of SRV records: no client can cost another client its answer."""

from __future__ import annotations

import asyncio
import errno
import os
import struct
from pathlib import Path
from typing import Any, NoReturn, cast

import pytest

from lxcfleet.network import responder
from lxcfleet.network.responder import Datagrams, Names, Streams

from .test_dns import GROUP, OK, SRV, question, read

FILE = "10.0.0.1 web1.fleet web.role.fleet\n#srv _http._tcp.web.role.fleet 8080 web1.fleet\n"


@pytest.fixture
def names(tmp_path: Path) -> Names:
    (tmp_path / "web1").write_text(FILE)
    return Names(str(tmp_path), "fleet")


def framed(message: bytes) -> bytes:
    return struct.pack("!H", len(message)) + message


QUESTION = framed(question(GROUP, SRV))


class Client:
    """One client over TCP, as the server sees it."""

    def __init__(self, streams: Streams, *, takes: bool = True) -> None:
        self.reader = asyncio.StreamReader()
        self.transport = self
        self.taken = b""
        self.dropped = False
        self._takes = takes
        self.task = asyncio.get_running_loop().create_task(streams.serve(self.reader, cast(Any, self)))

    def send(self, data: bytes) -> None:
        """Send data to the server."""
        self.reader.feed_data(data)

    # The methods of a writer and its transport that the server uses.

    def set_write_buffer_limits(self, high: int) -> None:
        """Do nothing, as every drain is a flush."""
        assert high == 0

    def write(self, data: bytes) -> None:
        """Take an answer of the server."""
        self.taken += data

    async def drain(self) -> None:
        """Wait for as long as the client takes nothing."""
        if not self._takes:
            await asyncio.get_running_loop().create_future()

    def abort(self) -> None:
        """The server closes the connection."""
        self.dropped = True
        if not self.reader.at_eof():
            self.reader.feed_eof()


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_questions_over_tcp(names: Names) -> None:
    async def play() -> None:
        client = Client(Streams(names))
        for byte in QUESTION:  # in the most pieces that are possible
            client.send(bytes((byte,)))
            await turns()
        client.send(QUESTION * 2)
        await turns()
        size = struct.unpack_from("!H", client.taken)[0]
        assert len(client.taken) == 3 * (2 + size)
        assert read(client.taken[2 : 2 + size]).answers == [(SRV, (0, 8080, "web1.fleet"))]
        client.reader.feed_eof()
        await client.task
        assert client.dropped

    asyncio.run(play())


def test_more_clients_than_there_are_places_end_nothing(names: Names) -> None:
    """Before, the 65th client made the server close a connection that it was about to read, and that ended the server."""

    async def play() -> None:
        streams = Streams(names)
        clients = [Client(streams) for _ in range(responder.CONNECTIONS)]
        await turns()
        clients[0].send(QUESTION)
        await turns()
        more = [Client(streams) for _ in range(3)]
        await turns()
        for client in (*clients, *more):
            client.send(QUESTION) if not client.dropped else None
        await turns()
        # The clients that were quiet for longest had to go; the first one has asked something since.
        assert [c.dropped for c in clients] == [False, True, True, True] + [False] * (len(clients) - 4)
        assert all(c.taken for c in (clients[0], *clients[4:], *more))
        for client in clients[1:4]:
            await client.task

    asyncio.run(play())


@pytest.mark.parametrize(
    "sent",
    [framed(b"x" * (responder.QUESTION_SIZE + 1))[:9], framed(b""), framed(b"\0" * 11), framed(b"\0\7\x80\0" + b"\0" * 20)],
)
def test_a_client_that_asks_nothing_loses_its_place(names: Names, sent: bytes) -> None:
    async def play() -> None:
        client = Client(Streams(names))
        client.send(sent)
        await client.task
        assert (client.dropped, client.taken) == (True, b"")

    asyncio.run(play())


@pytest.mark.parametrize(("sent", "takes"), [(b"", True), (QUESTION[:-1], True), (QUESTION, False)])
def test_a_client_can_not_wait_for_ever(
    names: Names, sent: bytes, takes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(responder, "IDLE_SECONDS", 0.01)

    async def play() -> None:
        client = Client(Streams(names), takes=takes)
        client.send(sent)
        await client.task
        assert client.dropped

    asyncio.run(play())


class Socket:
    """Records each datagram and its receiver."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, object]] = []

    def sendto(self, data: bytes, peer: object) -> None:
        """Send it."""
        self.sent.append((data, peer))


def test_questions_over_udp(names: Names) -> None:
    out = Socket()
    server = Datagrams(names)
    server.connection_made(cast(Any, out))
    for message in (b"", b"\xff" * 11, b"\xff" * 600, b"\0" * 12):
        server.datagram_received(message, "bad")
    server.datagram_received(question(GROUP, SRV), "good")
    assert [peer for _, peer in out.sent] == ["bad", "good"]
    assert read(out.sent[1][0])[:2] == (OK, False)


def test_a_file_that_can_not_be_read_costs_only_its_own_names(names: Names, tmp_path: Path) -> None:
    (tmp_path / "web2").write_bytes(b"10.0.0.2 w\xe4b2.fleet\n")
    (tmp_path / "web3").mkdir()
    assert names.now().exists("web1.fleet")
    assert names.now().files() == {"web1"}


@pytest.mark.parametrize("call", ["scandir", "open"])
@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM])
def test_a_host_that_is_short_of_something_loses_no_name(
    names: Names, tmp_path: Path, call: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No name was answered with that there is none, until its file changed."""
    assert names.now().exists("web1.fleet")

    def short(*_: object, **__: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    (tmp_path / "web2").write_text("10.0.0.2 web2.fleet\n")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, short)
        assert names.now().exists("web1.fleet")
        assert not names.now().exists("web2.fleet")
    assert names.now().exists("web1.fleet")
    assert names.now().exists("web2.fleet")
