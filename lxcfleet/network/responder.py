"""The fleet's second name server, behind dnsmasq: SRV records, and what of the domain is not there.

dnsmasq reads SRV records from its configuration only, once. Questions about the fleet's domain that it has no answer
to it sends here, to an address of the loopback network. This program reads the same directory of files as dnsmasq does,
goes on when the daemon ends, and answers from what is there at that moment. dnspython reads and writes the messages.

Any user of the host can reach it: no question may keep it from answering others.

After a patch of the host the daemon sends SIGHUP: then the program runs itself anew with the same sockets. Questions wait in
the sockets for that moment, and none is lost.

    responder HOSTS DOMAIN ADDRESS PORT PID_FILE USER VERSION
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import pwd
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, cast

from lxcfleet.host.process.proc import RAN_ANEW
from lxcfleet.network.names.dns import MAX_SIZE, Zone, answer, read_hosts
from lxcfleet.spec.reading import ondisk

_UNSURE_SECONDS = 0.05
"""A directory's time moves in steps of some milliseconds: one that changed just now may change again unseen."""
_SHORT = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO}
"""The errors of reading while the host is short of something: they say nothing about which names there are."""
CONNECTIONS = 64
"""Clients over TCP that are served at a time."""
IDLE_SECONDS = 30.0
"""How long a client over TCP may take until it has sent a question and taken the answer."""
_SO_RCVBUFFORCE, _WAITING = 33, 4 << 20
"""socket(7). Bytes that questions may take while they wait, a thousand each: all that dnsmasq passes on at once."""
QUESTION_SIZE = 4096
"""Bytes of the largest question over TCP. One name and some options have fewer."""


ANEW_SECONDS = 1.0
"""The longest time for which clients over TCP are waited for before the program runs itself anew."""
_SOCKETS = "LXCFLEET_SOCKETS"
"""The variable that names the sockets of a program that was run anew."""


class Names:
    """The zone as the files say it, read again when the directory has changed."""

    def __init__(self, directory: str, domain: str) -> None:
        self._directory = directory
        self._zone = Zone(domain)
        self._read: dict[str, tuple[int, int]] = {}
        self._stamp = -1
        self._sure = False

    def now(self) -> Zone:
        """The zone as it is at this moment."""
        try:
            stamp = os.stat(self._directory).st_mtime_ns
        except OSError:
            stamp = 0
        if stamp != self._stamp or not self._sure:
            self._stamp = stamp
            self._sure = time.time() - stamp / 1e9 > _UNSURE_SECONDS
            self._scan()
        return self._zone

    def _scan(self) -> None:
        there: dict[str, tuple[int, int]] = {}
        try:
            with os.scandir(self._directory) as files:
                for file in files:
                    with contextlib.suppress(FileNotFoundError):
                        found = file.stat()
                        there[file.name] = (found.st_ino, found.st_mtime_ns)
        except OSError as error:
            if error.errno in _SHORT:  # what was known stays, and the next question has it read again
                self._sure = False
                return
        for name in self._zone.files() - there.keys():
            self._zone.replace(name, {})
        for name, mark in [*there.items()]:
            if self._read.get(name) == mark:
                continue
            try:
                self._zone.replace(name, read_hosts(ondisk.text(Path(self._directory, name), "ascii", most=ondisk.SMALL)))
            except OSError as error:
                if error.errno in _SHORT:
                    del there[name]
                    self._sure = False
            except ValueError:
                pass  # it is read again once it is another one
        self._read = there


class Datagrams(asyncio.DatagramProtocol):
    """Answers questions over UDP."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is ready."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """A datagram came."""
        reply = answer(data, self._names.now())
        if reply is not None and self._transport is not None:
            self._transport.sendto(reply, addr)


class Streams:
    """Answers questions over TCP: messages with their length before them; RFC 1035, 4.2.2, and RFC 7766.

    A client can't hold more than one of ``CONNECTIONS`` places, nor longer than ``IDLE_SECONDS`` without a whole
    question or without taking its answer. Where all places are taken, the client that was quiet for longest loses its own.
    """

    def __init__(self, names: Names) -> None:
        self._names = names
        self._clients: dict[asyncio.StreamWriter, None] = {}
        """Of all clients, the one that was quiet for longest first."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client to its end."""
        if len(self._clients) >= CONNECTIONS:
            self._drop(next(iter(self._clients)))
        self._clients[writer] = None
        writer.transport.set_write_buffer_limits(0)  # drain() then waits until the client has taken all of its answer
        try:
            while writer in self._clients:
                await asyncio.wait_for(self._answer_next(reader, writer), IDLE_SECONDS)
                await asyncio.sleep(0)  # a client with many questions at once lets others have their turn
        except (OSError, TimeoutError, asyncio.IncompleteReadError, _Refused):
            pass
        finally:
            self._drop(writer)

    async def _answer_next(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(2), "big")
        if size > QUESTION_SIZE:
            raise _Refused
        reply = answer(await reader.readexactly(size), self._names.now(), MAX_SIZE)
        if reply is None:
            raise _Refused
        if writer in self._clients:
            self._clients[writer] = self._clients.pop(writer)
        writer.write(len(reply).to_bytes(2, "big") + reply)
        await writer.drain()

    async def rest(self, seconds: float) -> None:
        """Return once no client is served, or after so many seconds."""
        deadline = time.monotonic() + seconds
        while self._clients and time.monotonic() < deadline:
            await asyncio.sleep(0.01)

    def _drop(self, writer: asyncio.StreamWriter) -> None:
        if writer in self._clients:
            del self._clients[writer]
            writer.transport.abort()


class _Refused(Exception):
    """The client sent something that is no question."""


async def serve(names: Names, udp: socket.socket, tcp: socket.socket) -> None:
    """Until SIGHUP. The sockets stay open: what comes after that waits in them."""
    loop, anew, streams = asyncio.get_running_loop(), asyncio.Event(), Streams(names)
    transport, _ = await loop.create_datagram_endpoint(lambda: Datagrams(names), sock=udp.dup())
    server = await asyncio.start_server(streams.serve, sock=tcp.dup(), limit=QUESTION_SIZE)
    loop.add_signal_handler(signal.SIGHUP, anew.set)
    await anew.wait()
    server.close()
    await streams.rest(ANEW_SECONDS)
    transport.close()


def main() -> None:
    """Bind, become a user who may do nothing, leave the terminal, serve."""
    directory, domain, address, port, pid_file, user, _ = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    passed = os.environ.pop(_SOCKETS, "").split()
    if passed:
        udp, tcp = (socket.socket(fileno=int(number)) for number in passed)
    else:
        udp, tcp = _bind(address, int(port))
        _leave(pid_file)
        _become(user)
    while True:
        asyncio.run(serve(Names(directory, domain), udp, tcp))
        _run_anew(udp, tcp)


def _bind(address: str, port: int) -> tuple[socket.socket, socket.socket]:
    try:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with contextlib.suppress(OSError):  # without the right to that, the kernel's default has to do
            udp.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _WAITING)
        udp.bind((address, port))
        udp.setblocking(False)
        tcp = socket.create_server((address, port), backlog=64)
        tcp.setblocking(False)
    except OSError as error:
        sys.exit(f"{address} port {port}: {error.strerror}")
    return udp, tcp


def _leave(pid_file: str) -> None:
    """Go on in the background; the pid is in the file then."""
    if os.fork():
        os._exit(0)
    os.setsid()
    with open(pid_file, "w", encoding="ascii") as file:
        file.write(f"{os.getpid()}\n")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.chdir("/")


def _run_anew(udp: socket.socket, tcp: socket.socket) -> None:
    """Run the program as it is on disk now, with these sockets. Returns if that can't be done: then this one goes on."""
    if not os.access(__file__, os.R_OK):  # the user that this process is now may not be allowed to
        return
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # stays ignored until the new program is ready for it
    for each in (udp, tcp):
        each.set_inheritable(True)
    variables = {**os.environ, _SOCKETS: f"{udp.fileno()} {tcp.fileno()}", RAN_ANEW: f"{time.time():f}"}
    with contextlib.suppress(OSError):
        os.execve(sys.executable, sys.orig_argv, variables)


def _become(user: str) -> None:
    entry = pwd.getpwnam(user)
    os.setgroups([])
    os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
    os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)


if __name__ == "__main__":
    main()
