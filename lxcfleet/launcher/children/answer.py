"""How the launcher's children answer: JSON in datagrams, what is large in a memory file."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from typing import Any, TypeVar

from lxcfleet.errors import FleetError, HostError
from lxcfleet.launcher.operations import Operation

R = TypeVar("R")

Reply = socket.socket
MAX_DATAGRAM = 65536
_NOTES, _NOTE = 20, 200
"""So many, and of each so many characters (a character takes 12 bytes at most), fit into a datagram: a container's root
writes what they are about, and one answer that can't be read would cost all of its batch. All are in its directory."""


def answer(
    reply: Reply, name: str, error: Exception | None = None, descriptor: int | None = None, notes: Sequence[str] = ()
) -> None:
    """Say how it went with one container, ``name``: done, or the error. Raises what no user can do anything about."""
    body = None
    if isinstance(error, FleetError):
        body = error.body()
    elif isinstance(error, OSError):
        body = HostError.from_os_error(f"{name} could not be prepared", error).body()
    elif error is not None:
        raise error
    message = json.dumps({"name": name, "error": body, "notes": [note[:_NOTE] for note in notes[:_NOTES]]}).encode()
    socket.send_fds(reply, [message], [] if descriptor is None else [descriptor])


def say(reply: Reply, _: Operation[Any, R], body: R) -> None:
    """An answer to that operation."""
    reply.send(json.dumps(body).encode())


def fail(reply: Reply, error: FleetError) -> None:
    """An answer that says what went wrong instead."""
    reply.send(json.dumps({"error": error.body()}).encode())


def answer_large(reply: Reply, error: Any, text: bytes) -> None:
    """Send ``text`` as a memory file: an answer may be larger than a datagram. ``error``: as FleetError.body has it."""
    memory = os.memfd_create("answer", os.MFD_CLOEXEC)
    with open(memory, "wb", closefd=False) as file:
        file.write(text)
    os.lseek(memory, 0, os.SEEK_SET)
    socket.send_fds(reply, [json.dumps({"error": error}).encode()], [memory])
