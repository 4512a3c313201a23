"""Run a command in many containers, a limited number at once, and keep their output apart."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Protocol

from lxcfleet.api.client import Client
from lxcfleet.api.requests import AttachRequest
from lxcfleet.cli.statuses import SOME_FAILED
from lxcfleet.cli.ui.attach import exit_of, handling, received, send_signal
from lxcfleet.cli.ui.output import on_terminal, say_error, write_bytes
from lxcfleet.errors import FleetError

AT_ONCE = 16
"""Commands that run at the same time: the host has few cores, and the containers share them."""

FAILED = 125
"""Used in place of the exit status of a command that could not be run."""

_PIECE = 1 << 16
_LONGEST = 1 << 20
"""A line of more bytes than this is printed in parts."""


class Sink(Protocol):
    """Takes the commands' output. ``stream`` is 1 (stdout) or 2 (stderr)."""

    def take(self, name: str, stream: int, data: bytes) -> bool:
        """Take some output of the command in a container; returns whether more is wanted."""

    def end(self, name: str, error: FleetError | None) -> None:
        """The command has ended; ``error``: it could not be run, or the connection to it was lost."""


@dataclass
class _Run:
    name: str
    connection: socket.socket
    pipes: dict[int, int] = field(default_factory=dict)
    """One running command. ``pipes``: our end of each pipe that is still open, and the stream that it carries."""
    sent: int = 0
    """How many bytes of the common input it has got."""


class Fanout:
    """Runs one command in many containers from a single thread."""

    def __init__(
        self, client: Client, request: Callable[[str], AttachRequest], sink: Sink, given: int | None = None
    ) -> None:
        """``given``: a descriptor of a file, all of which each command gets as its stdin; None: they get none."""
        self._given = given
        self._client = client
        self._request = request
        self._sink = sink
        self._selector = selectors.DefaultSelector()
        self._waiting: deque[str] = deque()
        self._running: dict[str, _Run] = {}
        self.statuses: dict[str, int] = {}
        """The exit status of each command that has ended."""
        self.signal = 0
        """The signal that interrupted all commands; 0: none did."""

    def run(self, names: Sequence[str]) -> None:
        """Run the command in all containers. After a signal, which is passed on to the running commands, no further command
        begins. A second Ctrl-C leaves at once."""
        self._waiting.extend(names)
        with (
            open(os.devnull, "rb") as nothing,
            handling((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), self._interrupt),
        ):
            while self._waiting or self._running:
                while self._waiting and len(self._running) < AT_ONCE and not self.signal:
                    self._begin(self._waiting.popleft(), nothing.fileno())
                if self._running:
                    for key, _ in self._selector.select():
                        self._handle(key)

    def _interrupt(self, number: int, _frame: FrameType | None) -> None:
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
        self._waiting.clear()
        for run in tuple(self._running.values()):
            send_signal(run.connection, number)

    def _begin(self, name: str, nothing: int) -> None:
        out, out_end = os.pipe()
        error, error_end = os.pipe()
        ours, theirs = {out: 1, error: 2}, [out_end, error_end]
        if self._given is not None:
            in_end, into = os.pipe()
            ours[into] = 0
            theirs.append(in_end)
        try:
            streams = (theirs[2] if self._given is not None else nothing, out_end, error_end)
            connection = self._client.attach(self._request(name), streams)
        except FleetError as problem:
            for pipe in ours:
                os.close(pipe)
            self._end(name, FAILED, problem)
            return
        finally:
            for pipe in theirs:
                os.close(pipe)
        run = self._running[name] = _Run(name, connection, ours)
        self._selector.register(connection, selectors.EVENT_READ, run)
        for pipe, stream in run.pipes.items():
            os.set_blocking(pipe, False)
            self._selector.register(pipe, selectors.EVENT_READ if stream else selectors.EVENT_WRITE, run)
        if self.signal:
            send_signal(connection, self.signal)

    def _handle(self, key: selectors.SelectorKey) -> None:
        run: _Run = key.data
        if run.name not in self._running:
            return  # an earlier event of the same round ended it
        if key.fileobj is not run.connection:
            if run.pipes.get(key.fd) == 0:
                self._write(run, key.fd)
            elif key.fd in run.pipes:
                self._read(run, key.fd)
            return
        status, problem = FAILED, None
        try:
            status = exit_of(received(run.connection), run.name)
        except FleetError as error:
            problem = error
        for pipe in [pipe for pipe, stream in run.pipes.items() if stream]:
            while self._read(run, pipe):
                pass
        self._close(run)
        self._end(run.name, status, problem)

    def _read(self, run: _Run, pipe: int) -> bool:
        """Take the output that has arrived; gives whether more may have arrived already."""
        try:
            data = os.read(pipe, _PIECE)
        except BlockingIOError:
            return False
        if data and self._sink.take(run.name, run.pipes[pipe], data):
            return True
        self._drop(run, pipe)
        return False

    def _write(self, run: _Run, pipe: int) -> None:
        """Give the command a piece of the common input; after the last one its stdin ends."""
        assert self._given is not None
        data = os.pread(self._given, _PIECE, run.sent)
        try:
            run.sent += os.write(pipe, data) if data else 0
        except BlockingIOError:
            return
        except BrokenPipeError:  # the command reads no more
            data = b""
        if not data:
            self._drop(run, pipe)

    def _drop(self, run: _Run, pipe: int) -> None:
        self._selector.unregister(pipe)
        os.close(pipe)
        del run.pipes[pipe]

    def _close(self, run: _Run) -> None:
        self._selector.unregister(run.connection)
        run.connection.close()
        for pipe in run.pipes:  # processes that the command left behind keep them open
            self._selector.unregister(pipe)
            os.close(pipe)
        del self._running[run.name]

    def _end(self, name: str, status: int, error: FleetError | None) -> None:
        self.statuses[name] = status
        self._sink.end(name, error)


class Prefixed:
    """A sink that prints whole lines, each behind its container's name."""

    def __init__(self, names: Sequence[str]) -> None:
        width = max(map(len, names), default=0) + 1
        self._prefixes = {name: f"{name}:".ljust(width).encode() + b" " for name in names}
        self._rest: dict[tuple[str, int], bytearray] = {}
        self._spelled = {stream: os.isatty(stream) for stream in (1, 2)}

    def take(self, name: str, stream: int, data: bytes) -> bool:
        """Print the lines that are complete."""
        rest = self._rest.setdefault((name, stream), bytearray())
        rest += data
        end = rest.rfind(b"\n") + 1
        if not end and len(rest) > _LONGEST:
            end = len(rest)
        if end:
            self._print(name, stream, bytes(rest[:end]))
            del rest[:end]
        return True

    def end(self, name: str, error: FleetError | None) -> None:
        """Print the last line, even if it has no line end."""
        for stream in (1, 2):
            rest = self._rest.pop((name, stream), None)
            if rest:
                self._print(name, stream, bytes(rest))
        if error is not None:
            say_error(error, name)

    def _print(self, name: str, stream: int, data: bytes) -> None:
        prefix = self._prefixes[name]
        lines = data.removesuffix(b"\n").split(b"\n")
        if self._spelled[stream]:
            lines = [on_terminal(line.removesuffix(b"\r")) for line in lines]
        write_bytes(b"".join(prefix + line + b"\n" for line in lines), error=stream == 2)


MOST_OUTPUT = 16 << 20
"""Bytes that are kept of each stream of one command."""
MOST_OUTPUTS = 256 << 20
"""Bytes that are kept of all commands."""


class Collected:
    """A sink that keeps everything, up to a limit: a container's output may never end."""

    def __init__(self) -> None:
        self.output: dict[tuple[str, int], bytearray] = {}
        self.errors: dict[str, FleetError] = {}
        self.cut: set[str] = set()
        """Containers of whose output not all was kept."""
        self._kept = 0

    def take(self, name: str, stream: int, data: bytes) -> bool:
        """Keep the output. A command that gives too much finds its output closed, as that of `yes | head` does."""
        kept = self.output.setdefault((name, stream), bytearray())
        room = min(MOST_OUTPUT - len(kept), MOST_OUTPUTS - self._kept)
        kept += data[:room]
        self._kept += min(room, len(data))
        if len(data) <= room:
            return True
        self.cut.add(name)
        self.errors[name] = FleetError(
            f"{name}: its output was cut off",
            why=f"at most {MOST_OUTPUT >> 20} MiB are kept of a command, and {MOST_OUTPUTS >> 20} MiB of all",
            hint="let it write to a file, or choose one container and no format",
        )
        return False

    def end(self, name: str, error: FleetError | None) -> None:
        """Keep the error."""
        if error is not None:
            self.errors[name] = error

    def text(self, name: str, stream: int) -> str:
        """All output of one stream. Bytes that are not UTF-8 become surrogates, which Python writes as the same bytes."""
        return self.output.get((name, stream), b"").decode("utf-8", "surrogateescape")


def overall(statuses: Sequence[int]) -> int:
    """One exit status for many commands: the status that all of them have (0 without commands), otherwise 3."""
    with contextlib.suppress(ValueError):
        (only,) = set(statuses) or {0}
        return only
    return SOME_FAILED
