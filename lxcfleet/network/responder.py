"""The fleet's second name server, behind dnsmasq: SRV records, and what of the domain is not there.

dnsmasq reads SRV records from its configuration only, once. It sends what it does not know of the fleet's domain
here, to an address of the loopback network. This program reads the same directory of files as dnsmasq does, goes on
when the daemon ends, and answers from what is there at that moment. dnspython reads and writes the messages.

    responder HOSTS DOMAIN ADDRESS PORT PID_FILE USER
"""

from __future__ import annotations

import contextlib
import os
import pwd
import selectors
import signal
import socket
import struct
import sys
import time

from lxcfleet.network.dns import MAX_SIZE, Zone, answer, read_hosts

_UNSURE_SECONDS = 0.05
"""A directory's time moves in steps of some milliseconds: one that changed just now may change again unseen."""
_CONNECTIONS = 64
_IDLE_SECONDS = 30.0


class Names:
    """The zone as the files say it, read again when the directory has changed."""

    def __init__(self, directory: str, domain: str) -> None:
        self._directory = directory
        self._zone = Zone(domain)
        self._read: dict[str, tuple[int, int]] = {}
        self._stamp = -1
        self._sure = False

    def now(self) -> Zone:
        """What is true at this moment."""
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
        with contextlib.suppress(OSError), os.scandir(self._directory) as files:
            for file in files:
                with contextlib.suppress(OSError):
                    found = file.stat()
                    there[file.name] = (found.st_ino, found.st_mtime_ns)
        for name in self._zone.files() - there.keys():
            self._zone.replace(name, {})
        for name, mark in there.items():
            if self._read.get(name) != mark:
                with contextlib.suppress(OSError), open(os.path.join(self._directory, name), encoding="ascii") as text:
                    self._zone.replace(name, read_hosts(text.read()))
        self._read = there


class Connection:
    """One client over TCP: messages with their length before them."""

    def __init__(self, peer: socket.socket) -> None:
        self.peer = peer
        self.until = time.monotonic() + _IDLE_SECONDS
        self._buffer = b""

    def serve(self, names: Names) -> bool:
        """Answer what came; false if there is no more."""
        try:
            data = self.peer.recv(MAX_SIZE)
            self._buffer += data
            while len(self._buffer) >= 2:
                end = 2 + int.from_bytes(self._buffer[:2], "big")
                if len(self._buffer) < end:
                    break
                message, self._buffer = self._buffer[2:end], self._buffer[end:]
                reply = answer(message, names.now(), MAX_SIZE)
                if reply is None:
                    return False
                self.peer.sendall(struct.pack("!H", len(reply)) + reply)
        except OSError:
            return False
        self.until = time.monotonic() + _IDLE_SECONDS
        return bool(data)


class Server:
    """Waits on all sockets at once."""

    def __init__(self, names: Names, udp: socket.socket, tcp: socket.socket) -> None:
        self._names = names
        self._udp = udp
        self._tcp = tcp
        self._wait = selectors.DefaultSelector()
        self._wait.register(udp, selectors.EVENT_READ)
        self._wait.register(tcp, selectors.EVENT_READ)
        self._connections: list[Connection] = []

    def serve(self) -> None:
        """For ever."""
        while True:
            for key, _ in self._wait.select(_IDLE_SECONDS if self._connections else None):
                if key.fileobj is self._udp:
                    self._datagram()
                elif key.fileobj is self._tcp:
                    self._accept()
                elif not key.data.serve(self._names):
                    self._close(key.data)
            now = time.monotonic()
            for connection in [c for c in self._connections if c.until < now]:
                self._close(connection)

    def _datagram(self) -> None:
        with contextlib.suppress(OSError):
            message, peer = self._udp.recvfrom(MAX_SIZE)
            reply = answer(message, self._names.now())
            if reply is not None:
                self._udp.sendto(reply, peer)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            peer, _ = self._tcp.accept()
            peer.settimeout(1.0)
            if len(self._connections) >= _CONNECTIONS:
                self._close(self._connections[0])
            connection = Connection(peer)
            self._connections.append(connection)
            self._wait.register(peer, selectors.EVENT_READ, connection)

    def _close(self, connection: Connection) -> None:
        self._connections.remove(connection)
        self._wait.unregister(connection.peer)
        connection.peer.close()


def main() -> None:
    """Bind, become a user who may do nothing, leave the terminal, serve."""
    directory, domain, address, port, pid_file, user = sys.argv[1:]
    try:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind((address, int(port)))
        udp.setblocking(False)
        tcp = socket.create_server((address, int(port)), backlog=64)
        tcp.setblocking(False)
    except OSError as error:
        sys.exit(f"{address} port {port}: {error.strerror}")
    if os.fork():
        os._exit(0)
    os.setsid()
    with open(pid_file, "w", encoding="ascii") as file:
        file.write(f"{os.getpid()}\n")
    _become(user)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.chdir("/")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    Server(Names(directory, domain), udp, tcp).serve()


def _become(user: str) -> None:
    entry = pwd.getpwnam(user)
    os.setgroups([])
    os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
    os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)


if __name__ == "__main__":
    main()
