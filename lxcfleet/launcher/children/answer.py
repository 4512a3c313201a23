"""The answers of the launcher's children: JSON in datagrams, and large answers in a memory file."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from typing import Any, TypeVar

from lxcfleet.errors import FleetError, HostError
from lxcfleet.launcher.operations import LauncherOperation

R = TypeVar("R")

Reply = socket.socket
_NOTES, _NOTE = 20, 200
"""The most notes in an answer, and the most characters of each (a character takes 12 bytes at most), so that it fits into a
datagram. A container's root determines the notes, and an unreadable answer would cost its whole batch. All notes are in
the container's directory."""


def answer(
    reply: Reply, name: str, error: Exception | None = None, descriptor: int | None = None, notes: Sequence[str] = ()
) -> None:
    """Answer for the container ``name``: done, or the error. Raises exceptions about which no user can do anything."""
    body = None
    if isinstance(error, FleetError):
        body = error.body()
    elif isinstance(error, OSError):
        body = HostError.from_os_error(f"{name} could not be prepared", error).body()
    elif error is not None:
        raise error
    message = json.dumps({"name": name, "error": body, "notes": [note[:_NOTE] for note in notes[:_NOTES]]}).encode()
    socket.send_fds(reply, [message], [] if descriptor is None else [descriptor])


def say(reply: Reply, _: LauncherOperation[Any, R], body: R) -> None:
    """Send an answer of that operation."""
    reply.send(json.dumps(body).encode())


def fail(reply: Reply, error: FleetError) -> None:
    """Send an error as answer."""
    reply.send(json.dumps({"error": error.body()}).encode())


def answer_large(reply: Reply, error: Any, text: bytes) -> None:
    """Send ``text`` as a memory file, as it may be larger than a datagram. ``error``: in the form of FleetError.body."""
    memory = os.memfd_create("answer", os.MFD_CLOEXEC)
    with open(memory, "wb", closefd=False) as file:
        file.write(text)
    os.lseek(memory, 0, os.SEEK_SET)
    socket.send_fds(reply, [json.dumps({"error": error}).encode()], [memory])
