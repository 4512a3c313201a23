"""Command lines at a fifth of their price: forks of a process that has read the command line's modules already.

Each is a process of its own with the arguments, environment and streams that a program would have. What is decided before a
program's first line, such as the encoding that the environment asks for, takes a real one: see ``harness.Fleet.run``.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MOST_ARGUMENTS = 1 << 15
"""How long all arguments together may be: a request is one datagram."""
_MOST = 1 << 20
"""The longest request in bytes."""


class Clients:
    """The process, which ends with this one."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * _MOST)
        self._sending = threading.Lock()
        with theirs:
            program = [sys.executable, "-P", __file__, str(theirs.fileno())]
            self._process = subprocess.Popen(program, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])

    def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], stdin: bytes, timeout: float
    ) -> tuple[int, bytes, bytes]:
        """Run one command line to its end: its exit status, stdout and stderr. Raises TimeoutExpired, and ends it then."""
        request = json.dumps({"arguments": list(arguments), "environment": dict(environment), "directory": os.getcwd()})
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pipes = [os.pipe() for _ in range(3)]
        descriptors = [pipes[0][0], pipes[1][1], pipes[2][1], theirs.fileno()]
        with theirs, self._sending:
            socket.send_fds(self._ours, [request.encode()], descriptors)
        for descriptor in descriptors[:3]:
            os.close(descriptor)
        talk = _Talk(ours, pipes[0][1], pipes[1][0], pipes[2][0], stdin)
        try:
            talk.to_the_end(timeout)
        finally:
            talk.close()
        return talk.status, bytes(talk.out), bytes(talk.err)


class _Talk:
    """What is said to and by one command line."""

    def __init__(self, reply: socket.socket, stdin: int, out: int, err: int, rest: bytes) -> None:
        self._waiting = selectors.DefaultSelector()
        self._reply, self._stdin, self._rest = reply, stdin, memoryview(rest)
        self.out, self.err, self.pid, self.status = bytearray(), bytearray(), 0, 1
        self._streams = {out: self.out, err: self.err}
        os.set_blocking(stdin, False)
        self._waiting.register(reply, selectors.EVENT_READ)
        self._waiting.register(stdin, selectors.EVENT_WRITE)
        for stream in self._streams:
            self._waiting.register(stream, selectors.EVENT_READ)

    def to_the_end(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while self._waiting.get_map():
            ready = self._waiting.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                if self.pid:
                    os.kill(self.pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired("lxcfleet", timeout, bytes(self.out), bytes(self.err))
            for key, _ in ready:
                if key.fileobj is self._reply:
                    self._hear()
                elif key.fd == self._stdin:
                    self._say()
                else:
                    self._read(key.fd)

    def close(self) -> None:
        for key in list(self._waiting.get_map().values()):
            if key.fileobj is not self._reply:
                os.close(key.fd)
        self._waiting.close()
        self._reply.close()

    def _hear(self) -> None:
        said = self._reply.recv(64)
        if not self.pid:
            self.pid = int(said)
        else:
            self.status = int(said)
            self._waiting.unregister(self._reply)

    def _say(self) -> None:
        try:
            self._rest = self._rest[os.write(self._stdin, self._rest[:65536]) :] if self._rest else self._rest
        except BrokenPipeError:
            self._rest = memoryview(b"")
        if not self._rest:
            self._end(self._stdin)

    def _read(self, stream: int) -> None:
        data = os.read(stream, 1 << 16)
        self._streams[stream] += data
        if not data:
            self._end(stream)

    def _end(self, stream: int) -> None:
        self._waiting.unregister(stream)
        os.close(stream)


def serve(requests: socket.socket) -> None:
    """Fork for each request, until the tests have ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, _MOST, 4)
        if not message:
            return
        if os.fork() == 0:
            requests.close()
            _attend(json.loads(message), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _attend(request: dict[str, object], descriptors: Sequence[int]) -> None:
    """Run one command line in a child, and tell its pid, and then its exit status, as subprocess has it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    *streams, reply = descriptors
    pid = os.fork()
    if pid == 0:
        os.close(reply)
        _be(request, streams)
    for stream in streams:
        os.close(stream)
    with contextlib.suppress(OSError), socket.socket(fileno=reply) as connection:
        connection.send(str(pid).encode())
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        connection.send(str(status).encode())
    os._exit(0)


def _be(request: dict[str, object], streams: Sequence[int]) -> None:
    """Be the program."""
    status: object = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        arguments, environment = request["arguments"], request["environment"]
        assert isinstance(arguments, list)
        assert isinstance(environment, dict)
        os.chdir(str(request["directory"]))
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = [str(ROOT / "bin" / "lxcfleet"), *arguments]
        main.main()
    except SystemExit as left:
        status = left.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 0 if status is None else 1)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from lxcfleet.cli import main

    for verb in set(main.VERBS.values()):
        __import__(f"lxcfleet.cli.verbs.{verb}")
    serve(socket.socket(fileno=int(sys.argv[1])))
