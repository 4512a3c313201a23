"""tar and zstd: how a directory becomes an archive, and an archive a stream of bytes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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
_NO_ZSTD = "unsupported format"
"""In what zstd says of a file that it never wrote."""
_SAID = 500
_URGENT = 10
"""So much nicer are others than the reading of files."""
_KEPT, _SHARE = 64 << 20, 16
"""The most bytes that wait for zstd in memory, and the part of the free memory that they may take."""
_MEMORY = "--memory=64MB"
"""As much as reading takes of what zstd's levels up to 19 made."""


class TooSlow(HostError):
    """The time for an archive was up before it was whole."""


@dataclass(frozen=True)
class Heard:
    """The functions that hear how far an archive is."""

    size: Callable[[int], None]
    """Called now and then with the bytes so far. It may raise to have it broken off."""
    read: Callable[[], None]
    """Called once all of the files is read, while the rest is still compressed."""


def pack(
    directory: Path, members: Sequence[str], attributes: Sequence[str], output: int, level: int, seconds: float,
    heard: Heard, *, changing: bool = False,
) -> int:  # fmt: skip
    """Write ``members`` of ``directory`` as a compressed archive to the descriptor ``output``. Gives the bytes before
    compression.

    ``attributes``: the extended attributes that it gets, as patterns; ``seconds``: the longest time until all is read;
    ``heard``: hears how far it is; ``changing``: whether others may write to the files meanwhile. Raises HostError, TooSlow.
    """
    patterns = [f"--xattrs-include={each}" for each in attributes]
    packing = [
        "tar", "--create", "--format=posix", "--numeric-owner", "--xattrs", *patterns, "--sparse", "--one-file-system",
        "--sort=name", "--pax-option=delete=atime,delete=ctime", "--warning=no-file-ignored", f"--directory={directory}",
        "--file=-", "--", *members,
    ]  # fmt: skip
    with contextlib.ExitStack() as started:
        errors = [started.enter_context(_memory()) for _ in range(2)]
        compressing = ["zstd", "-q", "-c", f"-{level}", "-T0"]
        zstd = started.enter_context(_running(compressing, subprocess.PIPE, output, errors[1]))
        urgent = started.enter_context(contextlib.ExitStack())
        urgent.enter_context(_urgent())
        tar = started.enter_context(_running(packing, subprocess.DEVNULL, subprocess.PIPE, errors[0]))
        assert tar.stdout is not None
        assert zstd.stdin is not None
        between = _Between(tar.stdout.fileno(), zstd.stdin.fileno())
        deadline = time.monotonic() + seconds
        while between.reads:
            if time.monotonic() > deadline:
                raise TooSlow("the archive was not made", why=f"it was not read after {seconds:g} s")
            if not between.step(min(_PAUSE, max(0.01, deadline - time.monotonic()))) or between.due():
                heard.size(between.read)
        if not between.broken:
            if tar.wait() > (_CHANGED if changing else 0):
                raise HostError("the archive can't be made", why=_said(errors[0]) or f"tar ended with {tar.returncode}")
            heard.read()
        urgent.close()
        while between.kept:
            if not between.step(_PAUSE) or between.due():
                heard.size(between.read)
        with contextlib.suppress(BrokenPipeError):
            zstd.stdin.close()
        ended = started.enter_context(_ended(zstd.pid))
        while zstd.poll() is None:
            if not ended.poll(_PAUSE * 1000):
                heard.size(between.read)
        if zstd.returncode or between.broken:
            raise HostError("the archive can't be written", why=_said(errors[1]) or f"zstd ended with {zstd.returncode}")
    return between.read


@contextlib.contextmanager
def _urgent() -> Iterator[None]:
    """Let this process, and those that it begins meanwhile, go before others: a container stands still until all is read."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with contextlib.suppress(PermissionError):  # root in a container may not do that
        os.setpriority(os.PRIO_PROCESS, 0, before - _URGENT)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


class _Between:
    """The bytes that one program has written and the next one has not read yet: some of them are kept in memory.

    tar is several times faster than zstd. So the files are read, and their container goes on, long before all is compressed.
    """

    def __init__(self, source: int, target: int) -> None:
        self._source, self._target = source, target
        for descriptor in (source, target):
            os.set_blocking(descriptor, False)
            with contextlib.suppress(OSError):  # more than a user may have
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _BUFFER)
        self._pieces: deque[memoryview] = deque()
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        self._most = max(_BUFFER, min(_KEPT, free // _SHARE))
        self._told = time.monotonic()
        self.kept = 0
        """Bytes that are kept."""
        self.read = 0
        """Bytes that were read."""
        self.reads = True
        """Whether there may be more to read."""
        self.broken = False
        """Whether the next program takes no more."""

    def step(self, seconds: float) -> bool:
        """Pass on what can be passed on within this time; whether there was anything."""
        poll = select.poll()
        if self.reads and self.kept < self._most:
            poll.register(self._source, select.POLLIN)
        if self.kept:
            poll.register(self._target, select.POLLOUT)
        found = poll.poll(seconds * 1000)
        for descriptor, _ in found:
            if descriptor == self._source:
                self._take()
            else:
                self._give()
        return bool(found)

    def due(self) -> bool:
        """Whether it is time to tell how far it is."""
        if time.monotonic() - self._told < _PAUSE:
            return False
        self._told = time.monotonic()
        return True

    def _take(self) -> None:
        piece = os.read(self._source, _BUFFER)
        self.reads = bool(piece)
        if piece:
            self._pieces.append(memoryview(piece))
            self.kept += len(piece)
            self.read += len(piece)

    def _give(self) -> None:
        try:
            count = os.write(self._target, self._pieces[0])
        except BlockingIOError:
            return
        except BrokenPipeError:
            self.broken, self.reads, self.kept = True, False, 0
            return
        self.kept -= count
        self._pieces[0] = self._pieces[0][count:]
        if not self._pieces[0]:
            self._pieces.popleft()


class Stream:
    """The output of a program, as long as somebody waits for it."""

    def __init__(self, output: int, waits: int) -> None:
        """``output``: a descriptor of the program's output; ``waits``: one of a socket, whose other end is who waits."""
        self._output = output
        self._poll = select.poll()
        self._poll.register(output, select.POLLIN)
        self._waits = waits
        self._poll.register(waits, select.POLLRDHUP)  # POLLHUP comes unasked
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
    """The content of the compressed archive on a descriptor, as a stream. Raises InvalidInput at the end if it is damaged.

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
    said = _said(errors) or "zstd can't read it"
    if _NO_ZSTD in said:
        return InvalidInput("this is no archive of a container", why=f"{said}: `lxcfleet export` writes .tar.zst")
    return InvalidInput("this archive is not whole", why=said, hint="nothing of it was kept; copy or export it again")


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
