"""One benchmark at a time on a host."""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

LOCK = Path("/run/lxcfleet-bench.lock")
_held: list[int] = []


def hold(lock: Path = LOCK) -> None:
    """Wait until no other process measures on this host, and keep others from it until this one ends.

    Two benchmarks share directories, names of containers, a bridge and a line of /etc/subuid; each removes what the other has
    just made. Even if they did not, each would be in the other's figures.
    """
    if _held:
        return
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        other = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another benchmark"
        print(f"{other} measures on this host; two at once would break each other: waiting for its end", file=sys.stderr)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{Path(sys.argv[0]).name} (pid {os.getpid()})\n".encode(), 0)
    _held.append(descriptor)
