"""Run a command in one container with our own stdin, stdout and stderr, or on a terminal of its own. It never gets a terminal
of ours; see relay."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from lxcfleet.api.client import Client
from lxcfleet.api.requests import AttachRequest
from lxcfleet.cli.ui import relay
from lxcfleet.errors import FleetError, Unreachable, from_body

OWN: tuple[int, int, int] = (0, 1, 2)

MESSAGE = 1 << 16
"""Bytes that a message on the attach socket may have."""

_PIECE = 1 << 16
_LEFT = 1 << 20
"""Bytes to print at most from a terminal whose command has ended; processes that it left behind could write for ever."""
_QUIET = 100
"""Milliseconds without output after which a terminal whose command has ended counts as drained."""


def run(client: Client, request: AttachRequest) -> int:
    """Run the command and give its exit status; raises FleetError if it could not be run."""
    fill_gaps()
    if request["tty"]:
        with relay.nothing() as streams, client.attach(request, streams) as connection:
            return _with_terminal(connection, request["name"])
    with contextlib.closing(relay.Relay()) as pipes:
        first, second, third = pipes.given
        with client.attach(request, (first, second, third)) as connection, _passing_on(connection):
            pipes.handed_over()
            pipes.until_readable(connection)
            pipes.drain()
            return exit_of(received(connection), request["name"])


def received(connection: socket.socket) -> bytes:
    """The next message on the connection; empty once it is closed."""
    try:
        return connection.recv(MESSAGE)
    except ConnectionError:
        return b""


def exit_of(data: bytes, name: str) -> int:
    """The exit status in the last message; raises the error if the message has one. ``name``: the container's name."""
    if not data:
        raise Unreachable(
            f"how the command in {name} ended can't be told",
            # liblxc ends the process that attaches with it, if the container ends just then.
            why="the exit status is lost: the container ended just then, or lxcfleetd's process that served it",
            hint=f"`lxcfleet exec {name} -- ps aux` shows whether the command still runs; run it again if it does not",
        )  # fmt: skip
    message = json.loads(data)
    try:
        failure = from_body(message["error"]) if "error" in message else None
        status = int(message["exit"]) if "exit" in message else None
    except (KeyError, TypeError) as error:
        raise FleetError(f"the daemon's last message about the command in {name} can't be read", why=repr(error)) from error
    if failure is not None:
        raise failure
    if status is None:
        raise FleetError("the daemon gave the command no terminal")
    return status


def send_signal(connection: socket.socket, number: int) -> None:
    """Send the command a signal. A command that has just ended needs none, so errors don't matter."""
    with contextlib.suppress(OSError):
        connection.send(json.dumps({"signal": number}).encode())


def fill_gaps() -> None:
    """Open the standard streams that the caller closed, so that no other descriptor of ours gets such a number."""
    for descriptor in OWN:
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


@contextmanager
def handling(
    numbers: tuple[signal.Signals, ...], handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """Have ``handler`` called for these signals, except for those that the caller has had ignored (as nohup does)."""
    before = {number: signal.getsignal(number) for number in numbers}
    mine = [number for number, old in before.items() if old is not signal.SIG_IGN]
    for number in mine:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, before[number])


@contextmanager
def _passing_on(connection: socket.socket) -> Iterator[None]:
    """Pass signals on to the command: it is not in our process group, so a terminal's Ctrl-C does not reach it."""
    with handling(
        (signal.SIGINT, signal.SIGTERM, signal.SIGHUP), lambda number, _: send_signal(connection, number)
    ):
        yield


def _with_terminal(connection: socket.socket, name: str) -> int:
    data, descriptors, _flags, _address = socket.recv_fds(connection, MESSAGE, 1)
    if not descriptors:
        return exit_of(data, name)
    master = descriptors[0]
    try:
        with leaving(), raw(), _resizing(master):
            copy = Copy(connection, master)
            status = exit_of(copy.until_message(), name)
            copy.drain()
            return status
    finally:
        os.close(master)


@contextmanager
def leaving() -> Iterator[None]:
    """End at the signals that end a program, and put our terminal back before."""

    def leave(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)  # SystemExit runs the ``finally`` of ``raw``

    with handling((signal.SIGTERM, signal.SIGHUP), leave):
        yield


@contextmanager
def raw() -> Iterator[None]:
    """Our terminal in raw mode: each key goes to the terminal inside the container, which decides what Ctrl-C means."""
    import termios
    import tty

    if not os.isatty(0):
        yield
        return
    before = termios.tcgetattr(0)
    try:
        tty.setraw(0, termios.TCSADRAIN)
        yield
    finally:
        with contextlib.suppress(termios.error):  # hung up
            termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextmanager
def _resizing(master: int) -> Iterator[None]:
    """Keep the terminal inside the container as large as ours."""
    import fcntl
    import termios

    def resize(*_: object) -> None:
        for descriptor in OWN:
            with contextlib.suppress(OSError):
                window = fcntl.ioctl(descriptor, termios.TIOCGWINSZ, bytes(8))
                fcntl.ioctl(master, termios.TIOCSWINSZ, window)
                return

    with handling((signal.SIGWINCH,), resize):
        resize()
        yield


class Copy:
    """Copies between our terminal and the one inside the container, both ways."""

    def __init__(self, connection: socket.socket, master: int, *, typing: bool = True) -> None:
        """``typing``: whether our stdin is copied, too."""
        self._connection = connection
        self._master = master
        self._keys = b""  # typed here, and not yet accepted by the terminal inside
        self._typing = typing
        self._open = True
        # A command that reads no input must not block us: its output has to be shown.
        os.set_blocking(master, False)

    def until_message(self) -> bytes:
        """Copy until there is a message on the connection, or its end, and give that."""
        while True:
            ready = self._wait()
            if 0 in ready:
                self._read_keys()
            if ready.get(self._master, 0) & select.POLLOUT:
                self._send_keys()
            if ready.get(self._master, 0) & ~select.POLLOUT:
                self._show()
            if self._connection.fileno() in ready:
                return received(self._connection)

    def _wait(self) -> dict[int, int]:
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        if self._open:
            poll.register(self._master, select.POLLIN | (select.POLLOUT if self._keys else 0))
            if self._typing and not self._keys:
                poll.register(0, select.POLLIN)
        return dict(poll.poll())

    def _read_keys(self) -> None:
        try:
            self._keys = os.read(0, _PIECE)
        except OSError:  # hung up
            self._keys = b""
        if not self._keys:
            self._typing = False
            self._keys = b"\x04"  # Ctrl-D: how a terminal says that nothing more will come
        self._send_keys()

    def _send_keys(self) -> None:
        try:
            sent = os.write(self._master, self._keys)
        except BlockingIOError:
            return
        except OSError:
            self._open = False
            return
        self._keys = self._keys[sent:]

    def _show(self) -> int:
        """Print the output that has arrived, and give its length in bytes."""
        try:
            data = os.read(self._master, _PIECE)
        except BlockingIOError:
            return 0
        except OSError:  # EIO: no process inside has the terminal open any more
            data = b""
        self._open = bool(data)
        count = len(data)
        while data:
            data = data[os.write(1, data) :]
        return count

    def drain(self) -> None:
        """Print the rest, once the command has ended: the kernel may deliver a terminal's output only after that."""
        poll = select.poll()
        poll.register(self._master, select.POLLIN)
        left = _LEFT
        while self._open and left > 0 and poll.poll(_QUIET):
            left -= self._show()
