"""Programs whose output is confidential: it is kept from logs, core files and other processes, and bounded."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import subprocess
import time
from collections.abc import Callable, Sequence

from lxcfleet.errors import FleetError, HostError, from_body
from lxcfleet.host.kernel import syscalls
from lxcfleet.host.process import proc

_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
_PIECE = 65536
_LEFT_SECONDS = 0.2
"""How long output is still read after the program's end, if a child of it keeps the pipe open."""


def seal() -> None:
    """From now on this process and its children leave no core files, and no other process of the same user can look into
    this one's memory; setrlimit(2), PR_SET_DUMPABLE in prctl(2)."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    syscalls.undumpable()


def output(argv: Sequence[str], *, seconds: float, most: int) -> bytes:
    """The output of ``argv`` on stdout. Raises HostError, which never has any of the program's output: also what it says on
    stderr may have a secret in it.

    The program runs as root, with a small environment of its own and in a process group of its own. The group is killed
    at the end, after ``seconds``, or once there are more than ``most`` bytes.
    """
    deadline = time.monotonic() + seconds
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/", env=_ENVIRONMENT,
            start_new_session=True, preexec_fn=syscalls.die_with_parent,  # noqa: PLW1509  no threads here
        )  # fmt: skip
    except OSError as error:
        raise HostError(f"{argv[0]} can't be run", why=error.strerror or "") from error
    assert process.stdout is not None
    try:
        text, whole = _read(process, deadline, most)
        if len(text) > most:
            raise HostError(f"{argv[0]} wrote more than {most} bytes")
        if not whole or _left(process, deadline):
            raise HostError(f"{argv[0]} did not end within {seconds:g} s")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
        process.stdout.close()
    if status:
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        raise HostError(f"{argv[0]} {how}", hint="run it by hand to see why: its output is not kept, as it may have secrets")
    return text


def in_time(work: Callable[[], bytes], what: str, *, seconds: float) -> bytes:
    """The result of ``work``, in a child of its own: a file on a file system that hangs is not waited for without end.
    ``what`` can't be done then, in the words of the error. Raises FleetError, which ``work`` may raise, too."""
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        proc.finish(lambda: _give(work, there))
    os.close(there)
    try:
        text = _received(here, time.monotonic() + seconds)
    finally:
        os.close(here)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        _reap(child)
    if not text:
        raise HostError(what, why=f"that did not end within {seconds:g} s")
    if text[:1] == _FAILED:
        raise from_body(json.loads(text[1:]))
    return text[1:]


_DONE, _FAILED = b"+", b"-"


def _give(work: Callable[[], bytes], to: int) -> None:
    """In a child: write what it gives, or why it fails."""
    syscalls.die_with_parent()
    try:
        text = _DONE + work()
    except FleetError as error:
        text = _FAILED + json.dumps(error.body()).encode()
    with open(to, "wb") as pipe:
        pipe.write(text)


def _received(descriptor: int, deadline: float) -> bytes:
    """All that comes until the end; nothing if that does not come in time."""
    text = b""
    while select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
        piece = os.read(descriptor, _PIECE)
        if not piece:
            return text
        text += piece
    return b""


def _reap(child: int) -> None:
    """Wait for a child that was killed; not for long, as it may be within the file system. The kernel reaps it later."""
    deadline = time.monotonic() + _LEFT_SECONDS
    while os.waitpid(child, os.WNOHANG)[0] == 0 and time.monotonic() < deadline:
        time.sleep(0.001)


def _read(process: subprocess.Popen[bytes], deadline: float, most: int) -> tuple[bytes, bool]:
    """The output, up to a little more than ``most`` bytes; and whether it came to its end in time."""
    assert process.stdout is not None
    descriptor, text = process.stdout.fileno(), b""
    os.set_blocking(descriptor, False)
    ended: float | None = None
    while len(text) <= most:
        if ended is None and process.poll() is not None:
            ended = time.monotonic() + _LEFT_SECONDS
        left = min(deadline, deadline if ended is None else ended) - time.monotonic()
        if left <= 0:
            return text, ended is not None
        if not select.select([descriptor], [], [], min(left, _LEFT_SECONDS))[0]:
            continue
        piece = os.read(descriptor, _PIECE)
        if not piece:
            return text, True
        text += piece
    return text, True


def _left(process: subprocess.Popen[bytes], deadline: float) -> bool:
    """Whether the program still runs when the time is up, its output having ended."""
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return True
    return False
