"""A process that takes requests on a socket, and forks a child for each.

One request is one datagram: an operation's name and its argument, with a reply socket and any other descriptors.
A request too large for a datagram comes in a memfd. The child answers on the reply socket, and no other process keeps a
copy of it. So when the socket closes without an answer, the daemon knows that the child died. No program that a child
becomes or runs inherits a descriptor: one in a container could hold the reply socket for ever, and answer in the child's
place.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence

from lxcfleet.host.process import passing
from lxcfleet.launcher.operations import CHILD_SECONDS

MAX_DATAGRAM = 65536
_MOST_DESCRIPTORS = 8


def serve(requests: socket.socket, work: Callable[[bytes, Sequence[int]], None], name: str) -> None:
    """Have a child do each request, until the daemon closes the socket. ``work`` gets the request and its descriptors, and
    ends the child."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.disable()
    gc.freeze()
    while True:
        message, descriptors = passing.received(requests, MAX_DATAGRAM, _MOST_DESCRIPTORS)
        if not message and not descriptors:
            return
        if _fork(name) == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.alarm(CHILD_SECONDS)
            work(message, descriptors)
            os._exit(1)  # it never returns
        for descriptor in descriptors:
            os.close(descriptor)


def whole(message: bytes, descriptors: Sequence[int]) -> tuple[bytes, Sequence[int]]:
    """The request, which may have come in a memfd, and the descriptors that belong to it."""
    if message:
        return message, descriptors
    answers, memory, *others = descriptors
    with open(memory, "rb") as file:
        return file.read(), [answers, *others]  # this is their order in a request that fits into a datagram


def _fork(name: str) -> int:
    """Like os.fork, but -1 if the host has no room for another process: the request stays unanswered then.

    If the launcher ended, its mounted mask would go, too; to mount that again takes many more processes.
    """
    try:
        return os.fork()
    except OSError as error:
        print(f"lxcfleet.launcher.{name}: fork: {error.strerror}", file=sys.stderr, flush=True)
        return -1
