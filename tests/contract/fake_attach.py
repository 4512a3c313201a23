"""The attach socket of the fake daemon: runs the commands on this machine, as we are."""

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
from pathlib import Path
from typing import Any

from lxcfleet.errors import FleetError, InvalidInput, WrongState
from lxcfleet.spec.names import check_variable
from lxcfleet.spec.reader import Fields

from .fake_fleet import FakeFleet


class AttachServer:
    """Listens on ``path``, a thread for each command."""

    def __init__(self, fleet: FakeFleet, path: Path) -> None:
        self._fleet = fleet
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.bind(str(path))
        self._socket.listen(64)
        self._path = path
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """No more commands."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._path.unlink()

    def hang_up(self) -> None:
        """Break all connections off."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self._connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            data, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, 3)
            try:
                request = _request(data, descriptors)
                container = self._fleet.get(request["name"])
                if not container.state.alive:
                    raise WrongState(f"{container.name} is {container.state}")
                answer: dict[str, Any] = {"exit": _run(connection, request, descriptors)}
            except FleetError as error:
                answer = {"error": error.body()}
            finally:
                for descriptor in descriptors:
                    with contextlib.suppress(OSError):
                        os.close(descriptor)
            with contextlib.suppress(OSError):
                connection.send(json.dumps(answer).encode())


def _request(data: bytes, descriptors: list[int]) -> dict[str, Any]:
    try:
        fields = Fields(json.loads(data), "request")
    except (ValueError, RecursionError) as error:
        raise InvalidInput("the request is not JSON", why=str(error)) from error
    request = {
        "name": fields.text("name"),
        "command": fields.texts("command"),
        "environment": fields.pairs("environment", check_variable),
        "tty": fields.flag("tty"),
    }
    fields.finish("the request is not valid")
    if not request["name"] or len(descriptors) != 3:
        raise InvalidInput("a request needs a name and three descriptors")
    return request


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
    """Signals that the client sends; SIGHUP when it goes away."""
    with contextlib.suppress(OSError):
        while process.poll() is None:
            data = connection.recv(1 << 16)
            if process.poll() is not None:
                return  # its end is what the client went away for
            os.killpg(process.pid, json.loads(data)["signal"] if data else signal.SIGHUP)
            if not data:
                return
