"""The gate before HTTP: who may only read, or only reaches the metrics' port, does not take the daemon from the others."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import socket
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing

import pytest
from aiohttp import web

from lxcfleet.api.client import Client
from lxcfleet.daemon.http import gate
from lxcfleet.daemon.http.gate import Bounds
from lxcfleet.errors import InvalidInput, NotFound
from lxcfleet.spec.selection import Selection

from .conftest import soon
from .real_daemon import Daemon

ASK = b"GET /1.0 HTTP/1.1\r\nHost: x\r\n\r\n"


def connected(daemon: Daemon) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.connect(str(daemon.paths.socket))
    made.settimeout(60)
    return made


def rest(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


def test_a_connection_carries_one_request(daemon: Daemon) -> None:
    with closing(connected(daemon)) as sock:
        sock.sendall(ASK * 3)
        answer = rest(sock)
    assert answer.count(b"HTTP/1.1 200 OK") == 1
    assert b"Connection: close" in answer
    assert daemon.requests.count("GET /1.0") == 1


@pytest.mark.parametrize("pieces", [1, 7, 1000])
def test_a_request_may_come_in_pieces(daemon: Daemon, pieces: int) -> None:
    daemon.fleet.add("a")
    body = json.dumps({"selection": {"patterns": ["a"]}, "until": "running", "timeout": 5}).encode()
    head = f"POST /1.0/wait HTTP/1.1\r\nHost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    whole = head + body
    size = max(1, len(whole) // pieces)
    with closing(connected(daemon)) as sock:
        for start in range(0, len(whole), size):
            sock.sendall(whole[start : start + size])
        answer = rest(sock)
    assert answer.startswith(b"HTTP/1.1 200"), answer


def test_a_body_without_a_length_is_refused(daemon: Daemon) -> None:
    with closing(connected(daemon)) as sock:
        sock.sendall(b"POST /1.0/wait HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")
        answer = rest(sock)
    assert answer.startswith(b"HTTP/1.1 411")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"] == "a request's body must have a length"


PACKED = gzip.compress(b"[" * 1_000_000, mtime=0)
"""Without the time of day: the names of tests are the same in all processes that share them."""


@pytest.mark.parametrize(
    ("headers", "body", "status", "message"),
    [
        (b"Content-Encoding: gzip\r\n", PACKED, 415, "a request's body is read as it is, and not unpacked"),
        (b"Content-encoding :\tdeflate\r\n", b"{}", 415, "a request's body is read as it is, and not unpacked"),
        (b"", b'{"count": 1, "count": 2}', 400, "the request's body is not JSON"),
    ],
)
def test_a_body_that_can_be_read_in_two_ways_is_refused(
    daemon: Daemon, headers: bytes, body: bytes, status: int, message: str
) -> None:
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    with closing(connected(daemon)) as sock:
        sock.sendall(b"POST /1.0/containers HTTP/1.1\r\nHost: x\r\n" + headers + length + body)
        answer = rest(sock)
    assert answer.startswith(b"HTTP/1.1 %d" % status), answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"] == message


def test_a_request_may_name_all_containers_of_the_largest_fleet(daemon: Daemon) -> None:
    names = [f"{'n' * 50}-{number}" for number in range(4096)]
    with pytest.raises(NotFound) as caught:
        Client(daemon.paths).stale(Selection(tuple(names)))
    assert caught.value.message == f"no container named {', '.join(names[:10])} and 4086 more"


def test_a_request_without_an_end_is_refused_with_what_to_do(daemon: Daemon) -> None:
    names = tuple(f"{'n' * 50}-{number}" for number in range(20_000))
    with pytest.raises(InvalidInput) as caught:
        Client(daemon.paths).containers(Selection(names))
    assert caught.value.message == "the request is too long"


NONSENSE = (b"nonsense\r\n\r\n", b"\x16\x03\x01\x02\x00\n", b"GET / HTTP/7.0\r\n\r\n", b"GET / HTTP/1.1\r\nx" * 9000)


@pytest.mark.parametrize("text", NONSENSE)
def test_what_is_not_http_is_answered_at_once(daemon: Daemon, text: bytes) -> None:
    with closing(connected(daemon)) as sock:
        sock.sendall(text)
        assert b" 40" in rest(sock).partition(b"\r\n")[0]


class Served:
    """A server behind a gate for a port."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.asked = 0
        self.go_on = asyncio.Event()
        """Until then nobody gets an answer."""
        self.go_on.set()

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self) -> bytes:
        reader, writer = await self.open()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await reader.read()
        writer.close()
        return answer


@asynccontextmanager
async def served(bounds: Bounds, size: int = 10) -> AsyncIterator[Served]:
    application = web.Application()
    made = Served(0)

    async def answer(_: web.Request) -> web.Response:
        made.asked += 1
        await made.go_on.wait()
        return web.Response(body=bytes(size))

    application.router.add_get("/", answer)
    runner = gate.runner_of(application)
    await runner.setup()
    server = await asyncio.get_running_loop().create_server(gate.for_network(runner, bounds), "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        await runner.cleanup()


async def until_closed(reader: asyncio.StreamReader) -> None:
    """Wait until the other end closes."""
    try:
        async with asyncio.timeout(60):
            while await reader.read(1):
                pass
    except ConnectionError:
        pass


FULL = [Bounds(each=4, total=100), Bounds(each=100, total=4)]


@pytest.mark.parametrize("bounds", FULL)
def test_there_are_so_many_connections_and_no_more(bounds: Bounds) -> None:
    async def run() -> None:
        async with served(bounds) as server:
            server.go_on.clear()
            held = [asyncio.create_task(server.ask()) for _ in range(4)]
            while server.asked < 4:
                await asyncio.sleep(0.01)
            assert (await server.ask()).startswith(b"HTTP/1.1 409")
            server.go_on.set()
            assert all(answer.startswith(b"HTTP/1.1 200") for answer in await asyncio.gather(*held))
            assert (await server.ask()).startswith(b"HTTP/1.1 200")

    asyncio.run(run())


@pytest.mark.parametrize("bounds", FULL)
def test_connections_that_ask_for_nothing_keep_nobody_away(bounds: Bounds) -> None:
    """Whoever held all of them at the metrics' port kept Prometheus away, and 16 did where that is on the same host."""

    async def run() -> None:
        async with served(bounds) as server:
            held = [await server.open() for _ in range(40)]
            held[-1][1].write(b"GET / HT")  # the youngest, whose head has come by half, is the last to go
            for _ in range(3):
                assert (await server.ask()).startswith(b"HTTP/1.1 200")
            held[-1][1].write(b"TP/1.1\r\nHost: x\r\n\r\n")
            assert (await held[-1][0].read()).startswith(b"HTTP/1.1 200")
            for _, writer in held:
                writer.close()

    asyncio.run(run())


@pytest.mark.parametrize("bounds", FULL)
def test_of_a_crowd_that_comes_at_once_each_with_a_question_gets_an_answer(bounds: Bounds) -> None:
    """The loop takes many connections before it reads of the first one."""

    async def run() -> None:
        async with served(bounds) as server:
            loop, crowd = asyncio.get_running_loop(), []
            for number in range(60):
                sock = socket.socket()
                sock.connect(("127.0.0.1", server.port))
                if number == 20:
                    sock.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                sock.setblocking(False)
                crowd.append(sock)
            assert (await loop.sock_recv(crowd[20], 100)).startswith(b"HTTP/1.1 200")
            for sock in crowd:
                sock.close()

    asyncio.run(run())


def slow_head(writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET / HTTP/1.1\r\nHost: ")


def slow_body(writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx")


def nothing(_: asyncio.StreamWriter) -> None:
    pass


@pytest.mark.parametrize("send", [slow_head, slow_body, nothing])
def test_who_takes_too_long_is_cut_off(send: Callable[[asyncio.StreamWriter], None]) -> None:
    async def run() -> None:
        async with served(Bounds(each=4, total=4, head=0.5, body=0.5)) as server:
            reader, writer = await server.open()
            send(writer)
            await until_closed(reader)
            writer.close()

    asyncio.run(run())


def test_an_answer_that_nobody_reads_does_not_stay() -> None:
    async def run() -> None:
        async with served(Bounds(each=4, total=4, unread=0.5), size=50 << 20) as server:
            held = []
            for _ in range(4):
                sock = socket.socket()
                sock.setblocking(False)
                await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
                await asyncio.get_running_loop().sock_sendall(sock, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                held.append(sock)
            for _ in range(1200):
                await asyncio.sleep(0.05)
                if not (await server.ask()).startswith(b"HTTP/1.1 409"):
                    break
            else:
                raise AssertionError("the connections of who reads nothing stay")
            for sock in held:
                sock.close()

    asyncio.run(run())


def test_requests_that_are_sent_ahead_are_not_kept() -> None:
    """Before, 40 connections made the daemon grow by 40 to 3,300 MiB in 15 seconds."""

    async def run() -> None:
        async with served(Bounds(each=100, total=100)) as server:
            many = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 20_000
            for _ in range(20):
                reader, writer = await server.open()
                writer.write(many)
                await until_closed(reader)
                writer.close()
            assert server.asked <= 20

    asyncio.run(run())


def test_who_may_do_everything_is_not_limited(daemon: Daemon) -> None:
    """Root's connections do not count, however many readers there are."""
    held = [connected(daemon) for _ in range(gate.READERS.total + 10)]
    with closing(connected(daemon)) as sock:
        sock.sendall(ASK)
        assert rest(sock).startswith(b"HTTP/1.1 200")
    for each in held:
        each.close()


def test_of_a_connection_that_has_ended_nothing_stays(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of them, until Python looks for garbage, were megabytes of the daemon's."""
    seen: list[weakref.ref[asyncio.BaseTransport]] = []
    admit = gate.Gate.admit

    def noted(self: gate.Gate, connection: gate._Connection, transport: asyncio.BaseTransport) -> asyncio.Protocol:
        seen.append(weakref.ref(transport))
        return admit(self, connection, transport)

    monkeypatch.setattr(gate.Gate, "admit", noted)
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            with closing(connected(daemon)) as sock:
                sock.sendall(b"GET /1.0 HTTP/1.1\r\nHost: x\r\n\r\n")
                rest(sock)
        soon(lambda: sum(transport() is not None for transport in seen) <= 1)  # the last one may end now
    finally:
        gc.enable()
    assert len(seen) == 20
