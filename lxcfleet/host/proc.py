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


def parent_of(pid: int) -> int | None:
    """The parent's pid; None if the process is gone. proc(5), /proc/PID/stat, field 4."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None


def has_ended(pid: int, parent: int) -> bool:
    """Whether ``parent`` has no child ``pid`` any more that runs: one that it has not asked about runs no more either.
    proc(5), /proc/PID/stat, fields 3 (Z: zombie, X: dead) and 4."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, above = file.read().rpartition(b")")[2].split()[:2]
    except (OSError, ValueError):
        return True
    return state in (b"Z", b"X") or int(above) != parent


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
    """When the process began, in seconds since the machine booted; None if it is gone. proc(5), field 22.

    With the pid it tells a process from all others since the boot.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None
    return ticks / os.sysconf("SC_CLK_TCK")


def uptime() -> float:
    """Seconds since the machine booted, on the clock of ``began``: nobody can set it. time_namespaces(7)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def as_time(since_boot: float) -> float:
    """A moment on the clock of ``began`` in seconds since the epoch."""
    return time.time() - uptime() + since_boot
