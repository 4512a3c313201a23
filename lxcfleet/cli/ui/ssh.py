"""lxcfleet on another host, by ssh: a command line there, with what it reads and what it says.

Nothing is asked: ssh has to get in by itself, and to know the other host's key. Nothing of ours is lent to the other host: no
agent, no display, no forwarded port.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shlex
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, cast

from lxcfleet.errors import (
    ErrorBody,
    FleetError,
    HostError,
    InvalidInput,
    NotFound,
    Unreachable,
    Unsupported,
    from_body,
)
from lxcfleet.spec.moves import check_host

_OPTIONS = (
    "BatchMode=yes", "StrictHostKeyChecking=yes", "UpdateHostKeys=no", "ForwardAgent=no", "ForwardX11=no",
    "ClearAllForwardings=yes", "PermitLocalCommand=no", "RequestTTY=no", "RemoteCommand=none", "ControlMaster=no",
    "EscapeChar=none", "ConnectTimeout=15", "ServerAliveInterval=5", "ServerAliveCountMax=4", "LogLevel=ERROR",
)  # fmt: skip
"""A line that is cut is noticed within 20 seconds."""
_OWN_FAILURE, _NO_PROGRAM, _USAGE = 255, 127, 2
_MOST_ANSWER = 1 << 22
_MOST_SAID = 1 << 14
_MOST_ERRORS = 1 << 20
"""Bytes of messages: ssh ends where the other host sends more of them, as they are in a file of ours."""
_PIECE = 1 << 16


@dataclass(frozen=True)
class Way:
    """How ssh reaches the other host."""

    host: str
    port: int = 0
    config: str = ""

    def arguments(self, words: Sequence[str]) -> list[str]:
        """The command line of ssh that has ``words`` run there. Each of them arrives as it is."""
        check_host(self.host)
        options = [part for option in _OPTIONS for part in ("-o", option)]
        more = [*(["-p", str(self.port)] if self.port else []), *(["-F", self.config] if self.config else [])]
        return ["ssh", "-T", *options, *more, "--", self.host, shlex.join(words)]


class Running:
    """A command line that runs there. ``stdin`` is what it reads, until that is closed."""

    def __init__(self, way: Way, pid: int, stdin: int, output: int, errors: IO[bytes]) -> None:
        self.way = way
        self._pid = pid
        self.stdin = stdin
        self._output = output
        self._errors = errors
        self._status: int | None = None
        self.answered = False

    def close_stdin(self) -> None:
        """There is nothing more to read."""
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1

    def answer(self) -> Any:
        """The answer that it gave in the end, as JSON. Raises FleetError."""
        self.close_stdin()
        self.answered = True
        text = b""
        while piece := os.read(self._output, _PIECE):
            text += piece
            if len(text) > _MOST_ANSWER:  # nobody waits for its end: that may never come
                raise no_sense(self.way, "it is longer than any answer")
        status = self._wait()
        with contextlib.suppress(ValueError, RecursionError):
            found = json.loads(text)
            if isinstance(found, dict):
                return found
        raise self._failure(status)

    def _wait(self) -> int:
        if self._status is None:
            self._status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return self._status

    def runs(self) -> bool:
        """Whether it has not ended yet."""
        if self._status is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status is None

    def _failure(self, status: int) -> FleetError:
        host = self.way.host
        self._errors.seek(0)
        said = self._errors.read(_MOST_SAID).decode("utf-8", "replace").strip().splitlines()
        why = "".join(c if c.isprintable() else "?" for c in (said or [f"exit status {status}"])[-1])[:500]
        if status == _OWN_FAILURE:
            hint = f"try it: ssh -o BatchMode=yes {host} lxcfleet --version"
            if "host key" in why.lower():
                hint = f"look at its key, and take it: ssh {host}"
            elif "denied" in why.lower():
                hint = f"ssh asks for nothing here: give it a key for {host}, or an agent"
            return Unreachable(f"{host} can't be reached by ssh", why=why, hint=hint)
        if status == _NO_PROGRAM:
            return NotFound(f"{host} has no lxcfleet", why=why, hint="install it there, of the same release or a newer one")
        if status == _USAGE:
            return Unsupported(f"lxcfleet on {host} is of an older release", why=why, hint="upgrade it there")
        return HostError(f"lxcfleet on {host} failed", why=why, hint=f"try it: ssh {host} lxcfleet list")

    def end(self) -> None:
        """End it, if it still runs, and close all that belongs to it."""
        self.close_stdin()
        os.close(self._output)
        self._errors.close()
        if self._status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGTERM)
            self._wait()


@contextmanager
def running(way: Way, words: Sequence[str]) -> Iterator[Running]:
    """A command line there. Raises FleetError."""
    with contextlib.ExitStack() as opened:
        errors = tempfile.TemporaryFile(prefix="lxcfleet-")  # noqa: SIM115  it is closed by ``end``
        theirs, ours = os.pipe()
        opened.callback(os.close, theirs)
        output, said = os.pipe()
        opened.callback(os.close, said)
        streams = (theirs, said, errors.fileno())
        actions = [(os.POSIX_SPAWN_DUP2, descriptor, number) for number, descriptor in enumerate(streams)]
        try:
            # A group of its own: what is typed at the terminal ends us, and we end it in our own order.
            # SIGXFSZ, which Python ignores, ends it if it says too much.
            pid = os.posix_spawnp(
                "ssh", way.arguments(words), os.environ, file_actions=actions, setpgroup=0, setsigdef=[signal.SIGXFSZ]
            )
        except OSError as error:
            for each in (ours, output):
                os.close(each)
            errors.close()
            raise HostError.from_os_error("can't run ssh", error, hint="apt install openssh-client") from error
        opened.close()
        found = Running(way, pid, ours, output, errors)
    try:
        with contextlib.suppress(OSError):  # it has ended already
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (_MOST_ERRORS, _MOST_ERRORS))
        yield found
    finally:
        found.end()


def ask(way: Way, words: Sequence[str], data: object = None) -> Any:
    """Have a command line run there, and give the result that it says. Raises FleetError: also that of the other side."""
    with running(way, words) as program:
        if data is not None:
            with contextlib.suppress(BrokenPipeError):
                _write(program.stdin, json.dumps(data).encode())
        return result(program)


def result(program: Running) -> Any:
    """The result that a command line there says in the end. Raises FleetError: also that of the other side."""
    found = program.answer()
    if found.get("error"):
        raise error_of(program.way, found["error"])
    if not isinstance(found.get("result", ""), dict | None):
        raise no_sense(program.way, "it has no result")
    return found["result"]


def error_of(way: Way, body: object) -> FleetError:
    """The error that the other host tells of, whatever it says."""
    keys = ("code", "message", "why", "hint")
    if not isinstance(body, dict) or not all(isinstance(body.get(key), str) for key in keys):
        return no_sense(way, "its error is none")
    return from_body(cast(ErrorBody, body))


def no_sense(way: Way, why: str) -> FleetError:
    """An error about an answer that lxcfleet does not give."""
    return InvalidInput(f"lxcfleet on {way.host} gave an answer that makes no sense", why=why)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
