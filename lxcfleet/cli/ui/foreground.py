"""Run a container in the foreground: its keeper copies the streams, we pass signals on and learn how it ended."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import termios
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lxcfleet.api.client import Client
from lxcfleet.api.requests import ForegroundRequest, WaitRequest
from lxcfleet.cli.ui import attach, notify, output, relay
from lxcfleet.errors import FleetError, HostError, NotFound, Unreachable, from_body
from lxcfleet.spec.selection import Selection

AGAIN = 75
"""The exit status of a run that is to be begun anew. sysexits.h: EX_TEMPFAIL."""
NOT_KNOWN = 125
_REBOOTED, _SHUT_DOWN = 128 + signal.SIGHUP, 128 + signal.SIGINT
"""How a system container ends that was rebooted or shut down from inside; reboot(2)."""
_PASSED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_PATIENCE = 60.0
"""Seconds that a daemon may take to come back before what it alone knows counts as not known."""
_PAUSE = 0.2
_LOOK_SECONDS = 1.0
"""Seconds between two looks whether there is a daemon, while the container does not begin."""


class _Lost(Exception):
    """The connection ended before the container had begun: the daemon went away."""


def run(connect: Callable[[], Client], request: ForegroundRequest) -> int:
    """Run the container to its end and give the exit status. ``connect`` gives a client, also of a new daemon.

    Raises FleetError.
    """
    attach.fill_gaps()
    notify.tell(f"STATUS=starting {request['run']}")
    client = connect()
    teller = notify.Teller(client, request["run"])
    if os.environ.get("NOTIFY_SOCKET"):
        teller.start()
    try:
        last = _persistently(connect, request, teller)
    finally:
        teller.end()
        notify.tell("STOPPING=1")
    status = last.get("exit")
    if status is None and not last.get("renew"):
        status = _asked(connect, request["run"], last.get("likely"))
        if last.get("system") and status in (_REBOOTED, _SHUT_DOWN):
            last, status = {"renew": status == _REBOOTED}, 0
    if request["remove"]:
        _wait_until_gone(connect, request["run"])
    if last.get("renew"):
        output.say(f"lxcfleet: {request['run']} was ended for a restart: run it again")
        return AGAIN
    return int(status or 0)


def _persistently(connect: Callable[[], Client], request: ForegroundRequest, teller: notify.Teller) -> Mapping[str, Any]:
    """Run it; once more with the next daemon, if the daemon goes away before the container has begun."""
    deadline: float | None = None
    while True:
        attempt = _Run(connect, request, teller)
        try:
            return attempt.to_the_end()
        except _Lost:
            deadline = deadline or time.monotonic() + _PATIENCE
        except Unreachable:
            if deadline is None or time.monotonic() > deadline:
                raise
        for number in attempt.signals:
            if number in _ENDING:
                return {"exit": 128 + number}
        time.sleep(_PAUSE)


class _Run:
    """One attempt."""

    def __init__(self, connect: Callable[[], Client], request: ForegroundRequest, teller: notify.Teller) -> None:
        self._connect, self._request, self._teller = connect, request, teller
        self._began = False
        self.signals: list[int] = []
        """The signals that came."""
        self._unsent: deque[int] = deque()
        self._connection: socket.socket | None = None
        """Where they go; None: nowhere yet."""

    def to_the_end(self) -> Mapping[str, Any]:
        """The keeper's last message. Raises _Lost, FleetError."""
        client = self._connect()
        if self._request["tty"]:
            with relay.nothing() as streams, self._passing(), client.attach(self._request, streams) as connection:
                self._pass_to(connection)
                self._await_word(connection)
                return self._with_terminal(connection)
        with contextlib.closing(relay.Relay(keys=self._request["stdin"])) as pipes:
            first, second, third = pipes.given
            with self._passing(), client.attach(self._request, (first, second, third)) as connection:
                self._pass_to(connection)
                pipes.handed_over()
                self._await_word(connection)
                while (last := self._note(_message(pipes, connection))) is None:
                    self._await_word(connection)
                pipes.drain()
                return last

    def _await_word(self, connection: socket.socket) -> None:
        """Until the container has begun: return once there is a message, and meanwhile have a daemon run.

        If the daemon is killed in the middle of the start, the keeper waits for the next one to go on with that. systemd
        starts that one; on other hosts we have to.
        """
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        while not self._began and not poll.poll(_LOOK_SECONDS * 1000):
            with contextlib.suppress(FleetError):
                self._connect()

    def _note(self, data: bytes) -> Mapping[str, Any] | None:
        """Take note of a message; gives the last one. Raises FleetError."""
        if not data and not self._began:
            raise _Lost
        if not data:
            name = self._request["run"]
            raise HostError(
                f"the process that serves {name} went away", why="it closed the connection: the exit status is lost",
                hint=f"`lxcfleet info {name}` shows how the container is; lxcfleetd stops it in a moment",
            )  # fmt: skip
        said: Mapping[str, Any] = json.loads(data)
        if "error" in said and "exit" in said:
            output.say_error(said["error"])
            return said
        if "error" in said:
            raise from_body(said["error"])
        if "exit" in said:
            return said
        if "status" in said:
            output.say(output.printable(f"lxcfleet: {said['status']}"))
            notify.tell(f"STATUS={said['status']}")
        self._began = self._began or "started" in said
        if "started" in said:
            self._teller.begin()
        return None

    @contextmanager
    def _passing(self) -> Iterator[None]:
        """Take signals from before the daemon is asked: it may have begun before we hear of that. Those that the caller has
        had ignored, as nohup does, stay so."""

        def take(number: int, _frame: FrameType | None) -> None:
            self.signals.append(number)
            self._unsent.append(number)
            self._pass_to(self._connection)

        with attach.handling(_PASSED, take):
            yield

    def _pass_to(self, connection: socket.socket | None) -> None:
        """Pass signals on by this connection from now on, and those that came before. Another signal may come meanwhile."""
        self._connection = connection
        with contextlib.suppress(IndexError):
            while connection is not None:
                attach.send_signal(connection, self._unsent.popleft())

    def _with_terminal(self, connection: socket.socket) -> Mapping[str, Any]:
        while True:
            data, descriptors, _, _ = socket.recv_fds(connection, attach.MESSAGE, 1)
            if descriptors:
                break
            if (last := self._note(data)) is not None:
                return last
            self._await_word(connection)
        master = descriptors[0]
        try:
            with attach.raw(), _resizing(connection):
                copy = attach.Copy(connection, master, typing=self._request["stdin"])
                while (last := self._note(copy.until_message())) is None:
                    pass
                copy.drain()
                return last
        finally:
            os.close(master)


def _message(pipes: relay.Relay, connection: socket.socket) -> bytes:
    pipes.until_readable(connection)
    return attach.received(connection)


@contextmanager
def _resizing(connection: socket.socket) -> Iterator[None]:
    """Keep the container's terminal as large as ours."""

    def resize(_number: int = 0, _frame: FrameType | None = None) -> None:
        for descriptor in attach.OWN:
            with contextlib.suppress(OSError):
                rows, columns, _, _ = memoryview(fcntl.ioctl(descriptor, termios.TIOCGWINSZ, bytes(8))).cast("H").tolist()
                connection.send(json.dumps({"size": [rows, columns]}).encode())
                return

    with attach.handling((signal.SIGWINCH,), resize):
        resize()
        yield


def _wait_until_gone(connect: Callable[[], Client], name: str) -> None:
    """Wait until the daemon has destroyed it, so that the name is free."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        try:
            connect().info(name)
        except NotFound:
            return
        except FleetError:
            time.sleep(_PAUSE)
        time.sleep(_PAUSE / 10)
    output.say(f"lxcfleet: {name} is not destroyed yet: the daemon does that once it runs")


def _asked(connect: Callable[[], Client], name: str, likely: int | None) -> int:
    """The exit status as the daemon knows it; ``likely``: the one to give if it does not."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        try:
            (result,) = connect().wait(WaitRequest(Selection((name,)), "stopped", 10))
        except NotFound:
            break
        except Unreachable:
            time.sleep(_PAUSE)
            continue
        status = result.get("exit_status")
        if status is not None:
            return status
        break
    if likely is not None:
        return likely
    output.say(f"lxcfleet: {name} has ended, and its exit status is not known")
    return NOT_KNOWN
