"""Looking at files as a container's own root sees them."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lxcfleet.errors import HostError
from lxcfleet.host.kernel import syscalls
from lxcfleet.host.process import proc

_HASHED = 1 << 20
"""The most bytes of a file that are compared."""
_SECONDS = 20
"""Seconds: a container's root can mount a file system that never answers."""


@dataclass(frozen=True)
class FileMark:
    """The marks by which a file is recognized."""

    path: str
    kind: int
    """The file type's bits of its mode; stat(2)."""
    inode: int
    size: int
    changed: int
    """Nanoseconds; mtime."""

    @classmethod
    def of(cls, path: str, status: os.stat_result) -> FileMark:
        """The mark of the file with this lstat result."""
        return cls(path, stat.S_IFMT(status.st_mode), status.st_ino, status.st_size, status.st_mtime_ns)


def digest(path: str) -> str:
    """The digest of the beginning of a file. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        return hashlib.sha256(file.read(_HASHED)).hexdigest()


def readable(pid: int, name: str, marks: Sequence[FileMark]) -> list[tuple[str, str | None]]:
    """The host's files that root of a container can read at their path. Each comes with a digest if the container's file only
    has the same size, and so may be a copy.

    ``pid`` is the container's process 1. A child does this: it enters the container's mount and user namespaces, and has
    no more rights than the container's root. Raises HostError.
    """
    try:
        process = os.pidfd_open(pid)
        other_users = os.stat(f"/proc/{pid}/ns/user").st_ino != os.stat("/proc/self/ns/user").st_ino
    except OSError as error:
        raise HostError.from_os_error(f"{name} can't be looked at", error) from error
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        proc.finish(lambda: _answer(process, marks, writing, other_users=other_users))
    os.close(writing)
    os.close(process)
    with open(reading, "rb") as pipe:
        answer = pipe.read()
    if os.waitpid(child, 0)[1] != 0:
        why = f"it ended, or did not answer within {_SECONDS} s"
        raise HostError(f"{name} can't be looked at", why=why, hint="a mount in it that hangs does that, too")
    found: list[Any] = json.loads(answer)
    return [(path, mark) for path, mark in found]


def _answer(process: int, marks: Sequence[FileMark], writing: int, *, other_users: bool) -> None:
    signal.alarm(_SECONDS)
    syscalls.enter_container(process, users=other_users)
    os.chdir("/")
    with open(writing, "w", encoding="ascii") as pipe:
        json.dump(_look(marks), pipe)


def _look(marks: Sequence[FileMark]) -> list[tuple[str, str | None]]:
    found: list[tuple[str, str | None]] = []
    for mark in marks:
        try:
            status = os.lstat(mark.path)
        except (OSError, ValueError):
            continue
        # The overlay gives a file of a lower layer the inode number that it has there.
        same = FileMark.of(mark.path, status) == mark
        if stat.S_IFMT(status.st_mode) != mark.kind or not (same or status.st_size == mark.size):
            continue
        if mark.kind != stat.S_IFREG:
            if same:
                found.append((mark.path, None))
            continue
        try:
            content = digest(mark.path)
        except OSError:  # an unreadable file is not exposed
            continue
        if same:
            found.append((mark.path, None))
        elif mark.size:
            found.append((mark.path, content))
    return found
