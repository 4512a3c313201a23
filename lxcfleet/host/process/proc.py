"""Processes: who is whose parent, signals that can't hit the wrong one."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn


def finish(work: Callable[[], object]) -> NoReturn:
    """Do the last thing that this forked child does, and exit: with 0, or with 1 and a traceback if it raised."""
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _stat(pid: int) -> list[bytes] | None:
    """What /proc/PID/stat has from field 3 on, which is the first here: the name before may have blanks and brackets;
    None if the process is gone. proc(5)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split() or None
    except OSError:
        return None


def parent_of(pid: int) -> int | None:
    """The parent's pid; None if the process is gone. Field 4."""
    fields = _stat(pid)
    return None if fields is None else int(fields[1])


def has_ended(pid: int, parent: int) -> bool:
    """Whether ``parent`` has no child ``pid`` any more that runs: one that it has not asked about runs no more either.
    Fields 3 (Z: zombie, X: dead) and 4."""
    fields = _stat(pid)
    return fields is None or fields[0] in (b"Z", b"X") or int(fields[1]) != parent


def open_pid(pid: int) -> int | None:
    """A descriptor that stands for this very process, also after its number was used again; None if it is gone."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def send_signal(pid: int, parent: int, number: int) -> bool:
    """Signal the process ``pid`` if it still is the child of ``parent``; False if it is gone."""
    with _opened(pid) as descriptor:
        if descriptor is None or parent_of(pid) != parent:
            return False
        try:
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        return True


@contextmanager
def _opened(pid: int) -> Iterator[int | None]:
    descriptor = open_pid(pid)
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def boot_id() -> str:
    """What the kernel calls this boot of the host; random(4)."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def began(pid: int) -> float | None:
    """When the process began, in seconds since the machine booted; None if it is gone. Field 22.

    With the pid it tells a process from all others since the boot.
    """
    fields = _stat(pid)
    return None if fields is None else int(fields[19]) / os.sysconf("SC_CLK_TCK")


def uptime() -> float:
    """Seconds since the machine booted, on the clock of ``began``: nobody can set it. time_namespaces(7)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def as_time(since_boot: float) -> float:
    """A moment on the clock of ``began`` in seconds since the epoch."""
    return time.time() - uptime() + since_boot
