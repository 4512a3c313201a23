"""A stand-in for the name server while that is exchanged: it hands questions to another server, and the answers back.

Its UDP socket has the name server's address. Of several sockets with one address (SO_REUSEADDR), the kernel gives datagrams
to the one that was bound last. So the stand-in takes over when it is made, and the new name server when that is started.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections import OrderedDict
from typing import Any

from lxcfleet.errors import HostError
from lxcfleet.host.net.dnsmasq import PORT

_SIZE = 65535
_OPEN = 4096
"""The most questions that wait for an answer. If there are more, the oldest is given up, as any name server does."""
_TICK = 0.05
_END_SECONDS = 5.0
"""Seconds for which answers are waited for in the end: by then a client has asked again."""


class Questions:
    """The questions that wait for an answer. Each gets a number of our own, as clients' numbers may be equal. Pure."""

    def __init__(self) -> None:
        self._last = 0
        self._waiting: OrderedDict[int, tuple[Any, bytes]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def ask(self, message: bytes, client: Any) -> bytes:
        """The message of a client as it is sent on."""
        self._last = (self._last + 1) % 65536
        self._waiting.pop(self._last, None)
        self._waiting[self._last] = client, message[:2]
        if len(self._waiting) > _OPEN:
            self._waiting.popitem(last=False)
        return self._last.to_bytes(2, "big") + message[2:]

    def answer(self, message: bytes) -> tuple[bytes, Any] | None:
        """The answer as it is sent to a client, and that client; None if nobody waits for it."""
        client, number = self._waiting.pop(int.from_bytes(message[:2], "big"), (None, b""))
        return None if client is None else (number + message[2:], client)


class StandIn:
    """Answers at ``address`` from now on, in a thread of its own, with what the server at ``behind`` says."""

    def __init__(self, address: str, behind: tuple[str, int], port: int = PORT) -> None:
        """Raises HostError."""
        self._questions = Questions()
        self._ending: float | None = None
        self._front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._back = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._front.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._back.connect(behind)
            self._front.bind((address, port))
        except OSError as error:
            self._front.close()
            self._back.close()
            raise HostError.from_os_error(f"nobody can stand in for the name server at {address}", error) from error
        for each in (self._front, self._back):
            each.setblocking(False)
        self._thread = threading.Thread(target=self._serve, name="stand-in", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer what came before another socket took over, and end. This takes some seconds if an answer is missing."""
        self._ending = time.monotonic() + _END_SECONDS
        self._thread.join()
        self._front.close()
        self._back.close()

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([self._front, self._back], [], [], _TICK)
            if self._front in ready:
                self._pass_question()
            if self._back in ready:
                self._pass_answer()
            over = self._ending is not None and (not self._questions or time.monotonic() > self._ending)
            if over and not ready:
                return

    def _pass_question(self) -> None:
        with contextlib.suppress(OSError):
            message, client = self._front.recvfrom(_SIZE)
            if len(message) > 2:
                self._back.send(self._questions.ask(message, client))

    def _pass_answer(self) -> None:
        with contextlib.suppress(OSError):
            found = self._questions.answer(self._back.recv(_SIZE))
            if found is not None:
                self._front.sendto(*found)
