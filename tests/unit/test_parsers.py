"""All that is read of a container, or comes from its network, may have any content. Each reader gives a value or refuses.

``tests/corpora`` has a directory for each reader, with usual content and with what once broke it: each file is tried as it
is, and changed in random ways. What a reader is found to break on is put there, with the mend.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from lxcfleet.base.merge import records
from lxcfleet.cli.ui import attach as client_attach
from lxcfleet.cli.ui import output
from lxcfleet.cli.verbs.logs import plain_line_ends
from lxcfleet.daemon import attach
from lxcfleet.daemon.http import gate
from lxcfleet.errors import FleetError, InvalidInput
from lxcfleet.health.judge import read_systemd
from lxcfleet.host.kernel import mounts
from lxcfleet.host.lxc import monitor_fifo
from lxcfleet.host.process import cgroup, maps
from lxcfleet.launcher.children import archives
from lxcfleet.network.names import dns
from lxcfleet.network.rules import lan

CORPORA = Path(__file__).resolve().parents[1] / "corpora"

HOST_ACCOUNTS = b"root:x:0:0:root:/root:/bin/bash\nwww-data:x:33:33::/var/www:/usr/sbin/nologin\n"
HOST_STATUS = b"Package: ssl\nStatus: install ok installed\nArchitecture: amd64\nVersion: 3\n\n"


def text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def merged(merge: Callable[[bytes, bytes, bytes], records.MergedFile], host: bytes) -> Callable[[bytes], None]:
    """A merge with a container's file, which must also bear its own result."""

    def read(data: bytes) -> None:
        for old in (b"", host, data):
            again = merge(old, host, data).content
            merge(host, host, again)

    return read


def status(data: bytes) -> None:
    merged(records.packages, HOST_STATUS)(data)
    for name, version in records.versions(data).items():
        assert isinstance(name, str)
        assert isinstance(version, str)


def map_names(data: bytes) -> None:
    """Names of files in ``maps``: whatever a name is, it makes no line of its own, and is read as it is."""
    name = b"/" + data.replace(b"\0", b"")
    line = b"55d0-55d1 r-xp 00002000 00:2f 131 " + name.replace(b"\n", b"\\012") + b"\n"
    usual = b"7f00-7f10 r-xp 00000000 fe:01 77 /usr/bin/sleep\n"
    for text in (line, usual + line, line + usual):
        found = {mapping.range: mapping.file.path for mapping in maps._lines(text, b"xp ")}
        assert found.keys() == {"55d0-55d1", "7f00-7f10"} & set(text.decode(errors="replace").split())
    maps.replaced(maps._lines(line, b"xp "))


def request_to_attach(data: bytes) -> None:
    with open(os.devnull, "rb") as null:
        attach._parse(attach._read(data, [null.fileno()] * 3))


def console(data: bytes) -> None:
    """Nothing that a container prints reaches a terminal, or a table, as a control character."""
    middle = len(data) // 2
    joined = b"".join(plain_line_ends([data[:middle], data[middle:]]))
    assert joined.count(b"\n") == data.count(b"\n")
    for line in joined.splitlines():
        shown = output.on_terminal(line)
        assert not [c for c in shown if (c < 32 and c != 9) or c == 127]
        assert not [c for c in text(shown) if "\udc80" <= c <= "\udc9f"]
        assert output.printable(text(line)).isprintable()
        output.columns([[text(line), ""]])
    shown_as: list[Callable[[object], str]] = [output.to_json, output._to_yaml]
    for style in shown_as:
        style({text(data): [text(data)]}).encode("utf-8", "surrogateescape")


def question(data: bytes) -> None:
    zone = dns.Zone("fleet")
    zone.replace("web", dns.read_hosts("10.0.0.2 web.fleet\n"))
    for limit in (0, 512):
        answer = dns.answer(data, zone, limit)
        assert answer is None or answer[:2] == data[:2]


def numbers(data: bytes) -> None:
    found = cgroup.number(text(data)), cgroup.cpu_v1(text(data))
    assert all(value is None or value >= 0 for value in found)


def system(data: bytes) -> None:
    """What os-release says stands in an archive's head, and in messages."""
    for value in archives._system(data).values():
        assert value.isprintable()
        assert len(value) <= 100


class Wire(asyncio.Transport):
    """A connection: what the server writes to it, and whether it closed it."""

    def __init__(self) -> None:
        super().__init__({"peername": ("10.0.0.1", 1)})
        self.closed = False
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0


def http(data: bytes) -> None:
    """Whatever comes on a connection, at most one request is carried out, and no more is written than one answer."""

    async def served() -> None:
        application, asked = web.Application(), []

        async def answer(request: web.Request) -> web.Response:
            asked.append(await request.read())
            return web.Response(text="answer")

        application.router.add_route("*", "/{path:.*}", answer)
        runner = gate.runner_of(application)
        await runner.setup()
        try:
            wire, connection = Wire(), gate.for_network(runner)()
            connection.connection_made(wire)
            assert isinstance(connection, asyncio.Protocol)
            for start in range(0, len(data), 40):
                connection.data_received(data[start : start + 40])
                await asyncio.sleep(0)
            for _ in range(10):
                await asyncio.sleep(0)
            assert len(asked) <= 1
            assert wire.written.count(b"\r\nConnection: close\r\n") <= 1
            connection.connection_lost(None)
        finally:
            await runner.cleanup()

    asyncio.run(served())


READERS: dict[str, tuple[Callable[[bytes], Any], tuple[type[Exception], ...]]] = {
    "dpkg-status": (status, ()),
    "passwd": (merged(records.users, HOST_ACCOUNTS), ()),
    "group": (merged(records.groups, b"root:x:0:\nadm:x:4:syslog\n"), ()),
    "shadow": (merged(records.hashes, b"root:*:19000:0:99999:7:::\n"), ()),
    "maps": (map_names, ()),
    "dns": (question, ()),
    "systemd": (lambda data: read_systemd(text(data)), ()),
    "console": (console, ()),
    "attach": (request_to_attach, (InvalidInput,)),
    "attach-exit": (lambda data: client_attach.exit_of(data, "web"), (FleetError, ValueError)),
    "monitor-fifo": (monitor_fifo.parse, ()),
    "lease": (lambda data: lan.parse_lease(text(data)), (ValueError,)),
    "cgroup-numbers": (numbers, ()),
    "cgroup-cpu": (lambda data: [read(text(data)) for read in (cgroup.cpu_v2, cgroup.throttled, cgroup.stalled)], ()),
    "cgroup-io": (lambda data: (cgroup.io_v1(text(data)), cgroup.io_v2(text(data))), ()),
    "os-release": (system, ()),
    "http": (http, ()),
    "cgroup-events": (lambda data: cgroup.out_of_memory(text(data)), ()),
}
"""For each directory: what reads such content, and which errors are refusals."""

KERNELS = {"cgroup-cpu", "cgroup-io", "cgroup-events", "mountinfo", "if-inet6"}
"""What only the kernel writes: a container chooses names in it, and not its form. These are tried as they are."""

ODD = [b"\0", b"\r", b"\n", b"\n\n", b":", b" ", b"\t", b",", b"\xff", b"-", b"\\012", " ²٣\u2028".encode(), b"9" * 5000]


@st.composite
def changed(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """One of the seeds, cut, doubled, spliced with another, and with odd bytes put in."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 5))):
        low, high = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
        match draw(st.integers(0, 3)):
            case 0:
                data = data[:low] + data[high:]
            case 1:
                data = data[:high] + data[low:]
            case 2:
                data = data[:low] + draw(st.sampled_from(ODD) | st.binary(max_size=8)) + data[high:]
            case 3:
                data = data[:low] + draw(st.sampled_from(seeds))[low:]
    return data


def seeds_of(reader: str) -> list[bytes]:
    return [file.read_bytes() for file in sorted((CORPORA / reader).iterdir())]


def read(reader: str, data: bytes) -> None:
    """Have a reader read; it may refuse."""
    function, refusals = READERS[reader]
    with contextlib.suppress(*refusals):
        function(data)


@pytest.mark.parametrize("reader", READERS)
def test_kept_content_is_read_or_refused(reader: str) -> None:
    for seed in seeds_of(reader):
        read(reader, seed)


@pytest.mark.parametrize("reader", sorted(READERS.keys() - KERNELS))
def test_content_that_a_container_may_have_written_is_read_or_refused(reader: str) -> None:
    @settings(max_examples=int(os.environ.get("LXCFLEET_TEST_EXAMPLES", "60")), deadline=None)
    @given(changed(seeds_of(reader)))
    def each(data: bytes) -> None:
        read(reader, data)

    each()


def test_the_kernels_tables_are_read() -> None:
    for line in (CORPORA / "mountinfo/usual").read_bytes().splitlines():
        assert mounts.parse(line)
    table = (CORPORA / "if-inet6/usual").read_text()
    assert lan.routed6(table, "02:11:22:33:44:55") == []


def test_each_corpus_has_its_reader() -> None:
    assert {path.name for path in CORPORA.iterdir()} == READERS.keys() | {"mountinfo", "if-inet6"}
