"""Whether dpkg is at work, and whether it left its packages complete."""

from __future__ import annotations

import fcntl
import functools
import os
import struct
from pathlib import Path

from lxcfleet.errors import HostError
from lxcfleet.host.packages import database
from lxcfleet.units import some

_ADMIN = Path("/var/lib/dpkg")
_LOCKS = ("lock-frontend", "lock")
"""apt and its kin hold the first lock from their first call of dpkg to their last. dpkg itself holds the second one."""
_FLOCK = "hhqqi"
"""struct flock: type, whence, start, length, pid; fcntl(2)."""
_HALF = {"H": "half-installed", "U": "unpacked, not configured", "F": "half-configured", "W": "waiting for triggers",
         "t": "waiting for its triggers to run"}  # fmt: skip
"""States of packages that dpkg has not finished; dpkg-query(1), db:Status-Abbrev."""


def holder(admin: Path = _ADMIN, *, waiting: bool = False) -> int | None:
    """The process that holds one of dpkg's locks; None if none does. ``waiting``: an apt that has not called dpkg yet, as it
    waits for its hooks (DPkg::Pre-Invoke), does not count.

    Asks without taking the lock (F_GETLK): otherwise an apt that starts at this moment would fail.
    """
    for name in _LOCKS[1:] if waiting else _LOCKS:
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
    """The packages that dpkg left unfinished, in words; empty if there are none. Raises HostError for unreadable records.

    The same as `dpkg --audit`, without harmless states such as a package without checksums. Takes 0.05 s if dpkg's records
    have changed since the last call. A host without dpkg has no unfinished packages.
    """
    try:
        status = os.stat(admin / "status")
    except OSError:
        return ""
    journal = [name for name in os.listdir(admin / "updates") if name.isdigit()] if (admin / "updates").is_dir() else []
    if journal:
        process = holder(admin)
        return "dpkg was interrupted" if process is None else f"dpkg is at work ({_named(process)} holds its lock)"
    return _wrong(admin, status.st_ino, status.st_mtime_ns)


@functools.lru_cache(1)
def _wrong(admin: Path, *_stamp: int) -> str:
    """The unfinished packages in the records. dpkg always writes its records to a new file."""
    wrong = []
    for name, state in database.states(admin=None if admin == _ADMIN else admin):
        if state[2:3] == "R":
            wrong.append(f"{name} must be reinstalled")
        elif state[1:2] in _HALF:
            wrong.append(f"{name} is {_HALF[state[1]]}")
    return some(wrong, 3)


def trouble(admin: Path = _ADMIN) -> str:
    """The same as ``half_done``, or the reason why that is unknown."""
    try:
        return half_done(admin)
    except HostError as error:
        return f"the host's packages can't be read ({error.why or error.message})"


def in_pieces(admin: Path = _ADMIN) -> str:
    """The reason why no container should be started on the present host; empty: there is none."""
    process = holder(admin)
    if process is not None:
        return f"{_named(process)} holds dpkg's lock"
    return trouble(admin)


def _named(process: int) -> str:
    return f"process {process}" if process > 0 else "a process"


def stamp(admin: Path = _ADMIN) -> tuple[int, ...]:
    """Differs as soon as dpkg has written its records: it always writes them to a new file, and first to its journal."""
    found = []
    for path in (admin / "status", admin / "updates"):
        try:
            status = path.stat()
        except OSError:
            found += [0, 0]
        else:
            found += [status.st_ino, status.st_mtime_ns]
    return tuple(found)
