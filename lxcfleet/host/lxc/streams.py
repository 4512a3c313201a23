"""The streams of a container that runs in the foreground: pipes, a terminal, or the log of its console; see foreground."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import stat
import struct
import termios
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

PIECE = 4096
"""Bytes that are written at once: a pipe that poll calls writable takes so many without a wait; pipe(7), PIPE_BUF."""
_READ = 65536
_LOOK_SECONDS = 0.1
"""Seconds between two looks at the log of a console."""
_READER_SECONDS = 0.02
"""Seconds between two looks whether the command has opened its input."""
_LINE_END = re.compile(rb"\r+\n")
"""A console turns a line's end into two characters, also where a program has done so already."""
_RETURNS = 8
_PTS_MAJORS = range(136, 144)


class InitStreams(ABC):
    """The streams that process 1 reads and writes."""

    pause: float | None = None
    """Seconds after which ``serve`` is to be called though nothing is ready; None: never."""

    @abstractmethod
    def register(self, poll: select.poll) -> None:
        """Have the poll tell what this waits for."""

    @abstractmethod
    def serve(self, ready: Mapping[int, int]) -> bool:
        """Copy what can be copied without a wait. True: somebody closed the other end of the output just now."""

    @abstractmethod
    def leave(self) -> None:
        """The client is gone: give its streams up."""

    @abstractmethod
    def finish(self) -> None:
        """Copy the rest: process 1 has ended."""


class _Output:
    """One stream of output on its way to the client and to the log."""

    def __init__(self, pipe: int, target: int | None) -> None:
        self.pipe = pipe
        self.target = target
        self.held = b""

    def send(self) -> bool:
        """Pass a piece on; False: nobody reads it any more."""
        if self.target is None:
            self.held = b""
            return True
        try:
            self.held = self.held[os.write(self.target, self.held[:PIECE]) :]
        except BlockingIOError:
            return True
        except OSError:
            self.target, self.held = None, b""
            return False
        return True

    def send_patiently(self) -> None:
        """Pass a piece on, and wait until it is taken."""
        if self.target is not None:
            poll = select.poll()
            poll.register(self.target, select.POLLOUT)
            poll.poll()
        self.send()


class Copies(InitStreams):
    """Pipes: bytes as they are, stdout and stderr apart. All output goes to the log, too."""

    def __init__(self, directory: str, stdin: int | None, out: int, err: int, log: str, log_bytes: int) -> None:
        """``directory`` has the pipes. ``stdin``: None: the command gets no input. ``log_bytes``: as much a log may have."""
        self._log = Log(log, log_bytes)
        self._outputs = [_Output(_opened(directory, "out"), out), _Output(_opened(directory, "err"), err)]
        self._stdin = stdin
        self._in = None if stdin is None else _opened(directory, "in")
        self._ending: int | None = None
        """The same pipe for writing alone, once there is no more to write; see ``_end_of_input``."""
        self._typed = b""

    def register(self, poll: select.poll) -> None:
        for each in self._outputs:
            if not each.held:
                poll.register(each.pipe, select.POLLIN)
            elif each.target is not None:
                poll.register(each.target, select.POLLOUT)
        if self._in is not None and self._typed:
            poll.register(self._in, select.POLLOUT)
        elif self._in is not None and self._stdin is not None:
            poll.register(self._stdin, select.POLLIN)

    def serve(self, ready: Mapping[int, int]) -> bool:
        broken = False
        for each in self._outputs:
            if not each.held and each.pipe in ready:
                self._take(each)
            if each.held and (each.target is None or _takes(each.target)):
                broken |= not each.send()
        if self._in is not None:
            self._feed(ready)
        if self._ending is not None:
            self._end_once_read()
        return broken

    def leave(self) -> None:
        for each in self._outputs:
            each.target, each.held = None, b""
        self._end_of_input()

    def finish(self) -> None:
        for each in self._outputs:
            while each.held or self._take(each):
                each.send_patiently()

    def _take(self, output: _Output) -> int:
        with contextlib.suppress(BlockingIOError):
            data = os.read(output.pipe, _READ)
            self._log.add(data)
            output.held = data if output.target is not None else b""
            return len(data)
        return 0

    def _feed(self, ready: Mapping[int, int]) -> None:
        assert self._in is not None
        if not self._typed and self._stdin in ready:
            try:
                self._typed = os.read(self._stdin, _READ) if self._stdin is not None else b""
            except BlockingIOError:
                return
            except OSError:
                self._typed = b""
            if not self._typed:
                self._end_of_input()
                return
        if self._typed:
            with contextlib.suppress(BlockingIOError):
                self._typed = self._typed[os.write(self._in, self._typed) :]

    def _end_of_input(self) -> None:
        """Have the command read an end: the pipe is closed once that has it open. Before, to open it would wait for ever
        for somebody to write, and what was written by then would be lost."""
        if self._in is not None:
            self._ending = os.open(f"/proc/self/fd/{self._in}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.close(self._in)
            self.pause = _READER_SECONDS
        self._in, self._stdin, self._typed = None, None, b""

    def _end_once_read(self) -> None:
        assert self._ending is not None
        poll = select.poll()
        poll.register(self._ending, 0)
        if not poll.poll(0):  # POLLERR: nobody has it open for reading; pipe(7)
            os.close(self._ending)
            self._ending = self.pause = None


class Terminal(InitStreams):
    """The container's console. The client copies to and from it by itself; its log is liblxc's."""

    def __init__(self, master: int, pid: int) -> None:
        """``master``: a descriptor of the console, which this owns. ``pid``: of process 1."""
        self.master = master
        self._pid = pid

    def close_master(self) -> None:
        """The client has it now."""
        os.close(self.master)

    def register(self, poll: select.poll) -> None:
        pass

    def serve(self, ready: Mapping[int, int]) -> bool:  # noqa: ARG002
        return False

    def leave(self) -> None:
        pass

    def finish(self) -> None:
        pass

    def resize(self, size: Sequence[Any]) -> None:
        """Give it rows and columns. The kernel tells the programs on it (SIGWINCH).

        Process 1 may have put anything in the place of its stdin, which must not make us wait, nor do more than this.
        """
        if len(size) != 2 or not all(isinstance(each, int) and 0 <= each < 1 << 16 for each in size):
            return
        with contextlib.suppress(OSError):
            flags = os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            path = os.open(f"/proc/{self._pid}/fd/0", os.O_PATH | os.O_CLOEXEC)
            try:
                found = os.fstat(path)
                if not stat.S_ISCHR(found.st_mode) or os.major(found.st_rdev) not in _PTS_MAJORS:
                    return
                terminal = os.open(f"/proc/self/fd/{path}", flags)
            finally:
                os.close(path)
            try:
                fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", size[0], size[1], 0, 0))
            finally:
                os.close(terminal)


class LogTail(InitStreams):
    """The log of a console, from its present end on. Its lines end as a file's do."""

    pause = _LOOK_SECONDS

    def __init__(self, log: str, out: int) -> None:
        self._path = log
        self._out = _Output(-1, out)
        self._file = self._opened()
        if self._file is not None:
            os.lseek(self._file, 0, os.SEEK_END)
        self._return = b""

    def register(self, poll: select.poll) -> None:
        if self._out.held and self._out.target is not None:
            poll.register(self._out.target, select.POLLOUT)

    def serve(self, ready: Mapping[int, int]) -> bool:  # noqa: ARG002
        if not self._out.held:
            self._out.held = self._read()
        if self._out.held and (self._out.target is None or _takes(self._out.target)):
            return not self._out.send()
        return False

    def leave(self) -> None:
        self._out.target, self._out.held = None, b""

    def finish(self) -> None:
        while self._out.held or self._take():
            self._out.send_patiently()

    def _take(self) -> bool:
        self._out.held = self._read()
        return bool(self._out.held)

    def _read(self) -> bytes:
        """The text that was added to the log since the last call, also across a rotation by liblxc."""
        data = b"" if self._file is None else os.read(self._file, _READ)
        if not data and self._is_another():
            if self._file is not None:
                os.close(self._file)
            self._file = self._opened()
            data = b"" if self._file is None else os.read(self._file, _READ)
        text = self._return + data
        whole = text.rstrip(b"\r")
        self._return = text[len(whole) :][-_RETURNS:]
        return _LINE_END.sub(b"\n", whole)

    def _opened(self) -> int | None:
        try:
            return os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None

    def _is_another(self) -> bool:
        try:
            found = os.stat(self._path)
        except OSError:
            return False
        return self._file is None or not os.path.samestat(found, os.fstat(self._file))


class Log:
    """A log that is begun anew when it is full, as liblxc does with those that it writes. The former one is kept.

    What can't be written, as the disk is full, is left out.
    """

    def __init__(self, path: str, most: int) -> None:
        self._path, self._most = path, most
        self._file: int | None = None
        self._size = 0

    def add(self, data: bytes) -> None:
        """Write to its end."""
        with contextlib.suppress(OSError):
            if self._file is not None and self._size + len(data) > self._most:
                os.close(self._file)
                self._file = None
                os.replace(self._path, f"{self._path}.1")
            if self._file is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                self._file = os.open(self._path, flags, 0o600)
                self._size = os.fstat(self._file).st_size
            self._size += os.write(self._file, data)


def _opened(directory: str, name: str) -> int:
    """A pipe, for reading and writing: so it never ends by itself, whoever has it open."""
    return os.open(os.path.join(directory, name), os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def _takes(descriptor: int) -> bool:
    """Whether it takes a piece without a wait. What poll can't ask, as a file, does."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(0))
