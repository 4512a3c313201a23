"""Whether dpkg is at work, and whether it left the host in one piece."""

from __future__ import annotations

import fcntl
import functools
import os
import struct
from pathlib import Path

from lxcfleet.errors import HostError
from lxcfleet.host.packages import database

_ADMIN = Path("/var/lib/dpkg")
_LOCKS = ("lock-frontend", "lock")
"""The first one apt and its kin hold from their first call of dpkg to their last, the second one dpkg itself."""
_FLOCK = "hhqqi"
"""struct flock: type, whence, start, length, pid; fcntl(2)."""
_HALF = {"H": "half-installed", "U": "unpacked, not configured", "F": "half-configured", "W": "waiting for triggers",
         "t": "waiting for its triggers to run"}  # fmt: skip
"""States of a package in the middle of something; dpkg-query(1), db:Status-Abbrev."""


def holder(admin: Path = _ADMIN) -> int | None:
    """The process that holds one of dpkg's locks; None if nobody does.

    Asks without taking the lock (F_GETLK): else an apt that comes at this moment would fail.
    """
    for name in _LOCKS:
        try:
            descriptor = os.open(admin / name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
        finally:
            os.close(descriptor)
        if kind != fcntl.F_UNLCK:
            return int(pid)
    return None


def half_done(admin: Path = _ADMIN) -> str:
    """What dpkg left in the middle, in words; empty if all is well. Raises HostError if the records can't be read.

    As `dpkg --audit`, but for what does no harm, such as a package without checksums. Takes 0.05 s where dpkg's records
    have changed since it was asked last. On a host without dpkg all is well.
    """
    try:
        status = os.stat(admin / "status")
    except OSError:
        return ""
    journal = [name for name in os.listdir(admin / "updates") if name.isdigit()] if (admin / "updates").is_dir() else []
    if journal:
        return "dpkg was interrupted"
    return _wrong(admin, status.st_ino, status.st_mtime_ns)


@functools.lru_cache(1)
def _wrong(admin: Path, *_stamp: int) -> str:
    """What is not in order by the records, which dpkg always writes to a new file."""
    wrong = []
    for name, state in database.states(admin=None if admin == _ADMIN else admin):
        if state[2:3] == "R":
            wrong.append(f"{name} must be reinstalled")
        elif state[1:2] in _HALF:
            wrong.append(f"{name} is {_HALF[state[1]]}")
    more = len(wrong) - 3
    return ", ".join(wrong[:3]) + (f" and {more} more" if more > 0 else "")


def trouble(admin: Path = _ADMIN) -> str:
    """As ``half_done``, or why that can't be told."""
    try:
        return half_done(admin)
    except HostError as error:
        return f"the host's packages can't be read ({error.why or error.message})"


def in_pieces(admin: Path = _ADMIN) -> str:
    """Why no container should be started anew on the host as it is now; empty: nothing speaks against it."""
    process = holder(admin)
    if process is not None:
        return f"{f'process {process}' if process > 0 else 'a process'} holds dpkg's lock"
    return trouble(admin)
