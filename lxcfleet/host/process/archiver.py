"""tar and zstd: how a directory becomes an archive, and an archive a stream of bytes."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from lxcfleet.errors import HostError, InvalidInput
from lxcfleet.host.kernel import syscalls

_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
"""Nothing of ours: TAR_OPTIONS, ZSTD_CLEVEL and the like would change the archive."""
_NOBODY = 65534
_BUFFER = 1 << 20
_CHANGED = 1
"""tar's exit status if a file changed while it was read; tar(1)."""
_PAUSE = 0.25
"""Seconds between two reports of how far it is."""
_SAID = 500
_MEMORY = "--memory=64MB"
"""As much as reading takes of what zstd's levels up to 19 made."""


class TooSlow(HostError):
    """The time for an archive was up before it was whole."""


def pack(
    directory: Path, members: Sequence[str], attributes: Sequence[str], output: int, level: int, seconds: float,
    told: Callable[[int], None], *, changing: bool = False,
) -> int:  # fmt: skip
    """Write ``members`` of ``directory`` as a compressed archive to the descriptor ``output``. Gives the bytes before
    compression.

    ``attributes``: the extended attributes that it gets, as patterns; ``seconds``: the longest time; ``told``: called now and
    then with the bytes so far, and may raise to have it broken off; ``changing``: whether others may write to the files
    meanwhile. Raises HostError, TooSlow.
    """
    patterns = [f"--xattrs-include={each}" for each in attributes]
    packing = [
        "tar", "--create", "--format=posix", "--numeric-owner", "--xattrs", *patterns, "--sparse", "--one-file-system",
        "--sort=name", "--pax-option=delete=atime,delete=ctime", "--warning=no-file-ignored", f"--directory={directory}",
        "--file=-", "--", *members,
    ]  # fmt: skip
    written = 0
    with contextlib.ExitStack() as started:
        errors = [started.enter_context(_memory()) for _ in range(2)]
        tar = started.enter_context(_running(packing, subprocess.DEVNULL, subprocess.PIPE, errors[0]))
        compressing = ["zstd", "-q", "-c", f"-{level}", "-T0"]
        zstd = started.enter_context(_running(compressing, tar.stdout, output, errors[1]))
        assert tar.stdout is not None
        tar.stdout.close()  # so that tar hears of zstd's end
        deadline = time.monotonic() + seconds
        ended = started.enter_context(_ended(zstd.pid))
        while zstd.poll() is None:
            if time.monotonic() > deadline:
                raise TooSlow("the archive was not made", why=f"it was not whole after {seconds:g} s")
            if not ended.poll(min(_PAUSE, max(0.01, deadline - time.monotonic())) * 1000):
                written = max(written, _written(tar.pid))
                told(written)
        written = max(written, _written(tar.pid))
        if zstd.returncode:
            raise HostError("the archive can't be written", why=_said(errors[1]) or f"zstd ended with {zstd.returncode}")
        if tar.wait() > (_CHANGED if changing else 0):
            raise HostError("the archive can't be made", why=_said(errors[0]) or f"tar ended with {tar.returncode}")
    return written


class Stream:
    """What a program writes, as long as somebody waits for it."""

    def __init__(self, output: int, waits: int) -> None:
        """``output``: a descriptor of the program's output; ``waits``: one of a socket, whose other end is who waits."""
        self._output = output
        self._poll = select.poll()
        self._poll.register(output, select.POLLIN)
        self._waits = waits
        self._poll.register(waits, 0)  # POLLHUP comes unasked
        self._kept, self._at = b"", 0

    def read(self, count: int) -> bytes:
        """At most ``count`` bytes; none at the end. Raises BrokenPipeError once nobody waits."""
        if self._at == len(self._kept):
            if any(descriptor == self._waits for descriptor, _ in self._poll.poll()):
                raise BrokenPipeError
            self._kept, self._at = os.read(self._output, _BUFFER), 0
        piece = self._kept[self._at : self._at + count]
        self._at += len(piece)
        return piece


@contextlib.contextmanager
def unpacked(archive: int, waits: int) -> Iterator[Stream]:
    """What the compressed archive on a descriptor has, as a stream. Raises InvalidInput at the end if it is damaged.

    Who made it is not known, so zstd is a process of nobody's, with little memory. ``waits``: see Stream.
    """
    with _memory() as errors:
        arguments = ["zstd", "-d", "-q", "-c", "--no-progress", _MEMORY]
        with _running(arguments, archive, subprocess.PIPE, errors, user=_NOBODY) as zstd:
            assert zstd.stdout is not None
            with zstd.stdout:
                stream = Stream(zstd.stdout.fileno(), waits)
                try:
                    yield stream
                except InvalidInput:
                    # If zstd has given up, its reason says more than that the data make no sense.
                    if stream.read(1) or zstd.wait() == 0:
                        raise
                    raise _damaged(errors) from None
                if stream.read(1) or zstd.wait():
                    raise _damaged(errors)


def _damaged(errors: IO[bytes]) -> InvalidInput:
    return InvalidInput(
        "this archive is not whole", why=_said(errors) or "zstd can't read it",
        hint="nothing of it was kept; copy or export it again",
    )  # fmt: skip


@contextlib.contextmanager
def _running(
    arguments: Sequence[str], stdin: IO[bytes] | int | None, stdout: int, stderr: IO[bytes], user: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs, and is killed in the end if it still does."""
    group: Sequence[int] | None = None if user is None else []
    try:
        process = subprocess.Popen(
            arguments, bufsize=_BUFFER, stdin=stdin, stdout=stdout, stderr=stderr, env=_ENVIRONMENT, cwd="/", user=user,
            group=user, extra_groups=group, preexec_fn=syscalls.die_with_parent,  # noqa: PLW1509  no threads here
        )  # fmt: skip
    except OSError as error:
        raise HostError(f"can't run {arguments[0]}", why=str(error.strerror), hint=f"apt install {arguments[0]}") from error
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@contextlib.contextmanager
def _memory() -> Iterator[IO[bytes]]:
    with open(os.memfd_create("errors", os.MFD_CLOEXEC), "w+b", buffering=0) as file:
        yield file


def _said(errors: IO[bytes]) -> str:
    """The last line of what a program said, for people."""
    errors.seek(0)
    lines = errors.read(1 << 16).decode("utf-8", "replace").strip().splitlines()
    last = lines[-1].replace("/*stdin*\\", "its input") if lines else ""
    return "".join(c if c.isprintable() else "?" for c in last)[:_SAID]


@contextlib.contextmanager
def _ended(pid: int) -> Iterator[select.poll]:
    """Readable once the process has ended. Popen's own waiting with a timeout looks 20 times a second."""
    descriptor = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        yield poll
    finally:
        os.close(descriptor)


def _written(pid: int) -> int:
    """The bytes that a process has written; proc(5), /proc/PID/io. 0 once it has ended."""
    try:
        with open(f"/proc/{pid}/io", encoding="ascii") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("wchar:")), 0)
    except OSError:
        return 0
