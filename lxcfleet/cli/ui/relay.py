"""Pipes in the place of our terminals: a command in a container never gets hold of a terminal of ours.

Whoever has a terminal open can read what is typed next, print what looks like a prompt, and turn the echo off, also when the
command has ended that the terminal was handed to. So each of our standard streams that is a terminal is copied to or from a
pipe; the others, files and pipes, are handed over as they are.

Output to the journal is copied, too: journald takes a line for one of the unit whose process writes it (journald-stream.c),
and it is to be one of our unit.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager

_PIECE = 1 << 16
_LEFT = 1 << 20
"""Bytes to print at most of a command that has ended; processes that it left behind could write for ever."""
_BACKGROUND = 500
"""Milliseconds between two looks whether we are in the foreground, and so may read what is typed."""


def terminals() -> tuple[int, ...]:
    """Which of our standard streams are terminals."""
    return tuple(number for number in range(3) if os.isatty(number))


def to_journal(number: int) -> bool:
    """Whether this standard stream of ours is a connection to the journal; systemd.exec(5), JOURNAL_STREAM."""
    try:
        found = os.fstat(number)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


@contextmanager
def nothing() -> Iterator[tuple[int, int, int]]:
    """Standard streams for a command that gets a terminal of its container's."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield null, null, null
    finally:
        os.close(null)


class Relay:
    """The pipes, and the copying."""

    def __init__(self, *, keys: bool = True) -> None:
        """``keys``: whether our stdin is handed over; /dev/null otherwise."""
        ours = terminals()
        outputs = [number for number in (1, 2) if number in ours or to_journal(number)]
        self._keys: int | None = None
        """Where what is typed goes."""
        self._typed = b""
        self._prints: dict[int, int] = {}
        """Which of our streams each pipe's output goes to."""
        self.given: list[int] = [0, 1, 2]
        """The standard streams to hand over."""
        if not keys:
            self.given[0] = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        elif 0 in ours:
            self.given[0], self._keys = os.pipe()
            os.set_blocking(self._keys, False)
        for number in outputs:
            if number == 2 and 1 in outputs and os.path.samestat(os.fstat(1), os.fstat(2)):
                self.given[2] = self.given[1]  # so that the order stays
                continue
            reading, self.given[number] = os.pipe()
            os.set_blocking(reading, False)
            self._prints[reading] = number

    def handed_over(self) -> None:
        """Close our copies of what was handed over."""
        for descriptor in set(self.given) - {0, 1, 2}:
            os.close(descriptor)
        self.given = []

    def close(self) -> None:
        """Close all pipes."""
        self.handed_over()
        for pipe in self._prints:
            os.close(pipe)
        self._prints = {}
        self._end_of_keys()

    def until_readable(self, connection: socket.socket) -> None:
        """Copy until there is a message on the connection, or its end."""
        while True:
            ready = self._wait(connection)
            for pipe in [pipe for pipe in self._prints if pipe in ready]:
                self._print(pipe)
            if 0 in ready:
                self._read_keys()
            if self._keys in ready:
                self._send_keys()
            if connection.fileno() in ready:
                return

    def drain(self) -> None:
        """Copy what a command that has ended had written."""
        for pipe in list(self._prints):
            left = _LEFT
            while left > 0 and (count := self._print(pipe)):
                left -= count

    def _wait(self, connection: socket.socket) -> set[int]:
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        for pipe in self._prints:
            poll.register(pipe, select.POLLIN)
        timeout = None
        if self._keys is not None:
            poll.register(self._keys, select.POLLOUT if self._typed else 0)  # POLLERR: nobody reads it any more
            if not self._typed and _in_foreground():
                poll.register(0, select.POLLIN)
            elif not self._typed:
                timeout = _BACKGROUND
        return {descriptor for descriptor, _ in poll.poll(timeout)}

    def _read_keys(self) -> None:
        try:
            self._typed = os.read(0, _PIECE)
        except BlockingIOError:
            return
        except OSError:  # hung up
            self._typed = b""
        if self._typed:
            self._send_keys()
        else:
            self._end_of_keys()

    def _send_keys(self) -> None:
        if self._keys is None:
            return
        try:
            self._typed = self._typed[os.write(self._keys, self._typed) :]
        except BlockingIOError:
            return
        except OSError:
            self._end_of_keys()

    def _end_of_keys(self) -> None:
        if self._keys is not None:
            os.close(self._keys)
        self._keys, self._typed = None, b""

    def _print(self, pipe: int) -> int:
        """Print the output that has arrived, and give its length in bytes."""
        try:
            data = os.read(pipe, _PIECE)
        except BlockingIOError:
            return 0
        if data:
            with contextlib.suppress(OSError):  # hung up
                _write(self._prints[pipe], data)
        else:
            os.close(pipe)
            del self._prints[pipe]
        return len(data)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # some other program has set the terminal so
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()


def _in_foreground() -> bool:
    """Whether we may read what is typed: in the background a program that does so is stopped."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:  # it is not the terminal that controls us
        return True
