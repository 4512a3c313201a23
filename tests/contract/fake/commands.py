"""Commands on the attach socket: the fake launcher runs them on this machine, as the user who runs the tests."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import termios
import threading
from typing import Any


def serve(connection: socket.socket, request: dict[str, Any], descriptors: list[int]) -> None:
    """Run the command with these descriptors as stdin, stdout and stderr, and tell the client its exit status."""
    with connection:
        try:
            status = _run(connection, request, descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        with contextlib.suppress(OSError):
            connection.send(json.dumps({"exit": status}).encode())


def _run(connection: socket.socket, request: dict[str, Any], descriptors: list[int]) -> int:
    streams = list(descriptors)
    if request["tty"]:
        master, slave = os.openpty()
        socket.send_fds(connection, [b'{"terminal": true}'], [master])
        os.close(master)
        streams = [slave] * 3
        descriptors.append(slave)

    def take_terminal() -> None:
        if request["tty"]:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    command = request["command"] or ["/bin/sh"]
    environment = {"PATH": os.environ["PATH"], "NAME": request["name"], **request["environment"]}
    try:
        process = subprocess.Popen(
            command,
            stdin=streams[0],
            stdout=streams[1],
            stderr=streams[2],
            env=environment,
            start_new_session=True,
            preexec_fn=take_terminal,  # noqa: PLW1509
        )
    except FileNotFoundError as error:
        os.write(streams[2], f"{error}\n".encode())
        return 127
    except PermissionError as error:
        os.write(streams[2], f"{error}\n".encode())
        return 126
    for descriptor in descriptors:
        os.close(descriptor)
    descriptors.clear()
    threading.Thread(target=_pass_on, args=(connection, process), daemon=True).start()
    status = process.wait()
    return status if status >= 0 else 128 - status


def _pass_on(connection: socket.socket, process: subprocess.Popen[bytes]) -> None:
    """Pass the client's signals on to the command; send it SIGHUP when the client goes away."""
    with contextlib.suppress(OSError):
        while process.poll() is None:
            data = connection.recv(1 << 16)
            if process.poll() is not None:
                return  # the command has ended, so the client went away
            os.killpg(process.pid, json.loads(data)["signal"] if data else signal.SIGHUP)
            if not data:
                return
