"""Descriptors that come over a Unix socket."""

from __future__ import annotations

import array
import socket

_NUMBER = array.array("i").itemsize


def received(sock: socket.socket, size: int, most: int) -> tuple[bytes, list[int]]:
    """One message of at most ``size`` bytes, with at most ``most`` descriptors, which no program inherits.

    Python's own recv_fds gives descriptors that programs do inherit, whatever flags it is given: it ignores these.
    """
    message, passed, _, _ = sock.recvmsg(size, socket.CMSG_LEN(most * _NUMBER), socket.MSG_CMSG_CLOEXEC)
    numbers = array.array("i")
    for level, kind, data in passed:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(data[: len(data) - len(data) % _NUMBER])
    return message, numbers.tolist()
