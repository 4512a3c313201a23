"""Processes: their parents, and signals that can't hit the wrong process."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from lxcfleet.host.kernel import small

RAN_ANEW = "LXCFLEET_RAN_ANEW"
"""The variable in which a program that runs itself anew, as the same process, says when that was, in seconds since the
epoch."""


def finish(work: Callable[[], object]) -> NoReturn:
    """Do the last work of this forked child, and exit: with 0, or with 1 and a traceback if the work raised."""
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
    """The fields of /proc/PID/stat from field 3 on, as the name in field 2 may have blanks and brackets;
    None if the process is gone. proc(5). Raises OSError if that can't be told, as where no descriptor is left."""
    try:
        return small.content(f"/proc/{pid}/stat").rpartition(b")")[2].split() or None
    except (FileNotFoundError, ProcessLookupError):
        return None


def parent_of(pid: int) -> int | None:
    """The parent's pid; None if the process is gone. Field 4."""
    fields = _stat(pid)
    return None if fields is None else int(fields[1])


def parent_and_start(pid: int) -> tuple[int, float] | None:
    """The parent's pid, and the start as ``began`` gives it, by one look; None if the process is gone."""
    fields = _stat(pid)
    return None if fields is None else (int(fields[1]), _start(fields))


def has_children(pid: int) -> bool:
    """Whether the first thread of the process has started processes that it has not waited for."""
    return bool(children(pid))


def children(pid: int) -> list[int]:
    """The processes that the first thread of the process has started and not waited for."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def has_ended(pid: int, parent: int) -> bool:
    """Whether ``parent`` no longer has a running child ``pid``. A zombie, which the parent has not waited for, does not run.
    Fields 3 (Z: zombie, X: dead) and 4."""
    fields = _stat(pid)
    return fields is None or fields[0] in (b"Z", b"X") or int(fields[1]) != parent


def lives(pid: int, started: float) -> bool:
    """Whether the process ``pid`` that began at ``started``, as ``began`` gives it, has not ended. Field 3."""
    fields = _stat(pid)
    return fields is not None and fields[0] not in (b"Z", b"X") and _start(fields) == started


def is_stopped(pid: int) -> bool:
    """Whether SIGSTOP has stopped the process. Field 3, T."""
    fields = _stat(pid)
    return fields is not None and fields[0] == b"T"


def sleeps(pid: int) -> bool:
    """Whether the process waits for something that may take long, and not for a processor or a disk. Field 3, S."""
    fields = _stat(pid)
    return fields is not None and fields[0] == b"S"


def unignore_signals() -> None:
    """Give all signals that are ignored, or that Python handles, their default action back, for a program that is executed
    next: it can't tell an ignored signal from one that its user wants ignored."""
    for number in signal.valid_signals():
        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            signal.signal(number, signal.SIG_DFL)


def make_thread_urgent() -> None:
    """Let this thread, not the whole process, run before others; setpriority(2), "C library/kernel differences"."""
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), -20)


def open_pid(pid: int) -> int | None:
    """A descriptor that stands for this process, even after its number is reused; None if the process is gone. Raises OSError
    if that can't be told, as where no descriptor is left."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in (errno.ESRCH, errno.EINVAL):
            return None
        raise


def send_signal(pid: int, parent: int, number: int) -> bool:
    """Signal the process ``pid`` if it still is the child of ``parent``; returns False if it is gone."""
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
    """The kernel's id of this boot of the host; random(4)."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def began(pid: int) -> float | None:
    """The start of the process, in seconds since the machine booted; None if it is gone. Field 22.

    Together, pid and start tell a process from all others since the boot.
    """
    fields = _stat(pid)
    return None if fields is None else _start(fields)


def _start(fields: list[bytes]) -> float:
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


def ran_anew(pid: int) -> float | None:
    """When the process ran its program anew and said so in its environment, in seconds since the epoch; None: it did not."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            variables = file.read().split(b"\0")
        said = dict(variable.partition(b"=")[::2] for variable in variables)
        return float(said[RAN_ANEW.encode()])
    except (OSError, KeyError, ValueError):
        return None


def uptime() -> float:
    """Seconds since the machine booted, on the clock of ``began``, which nobody can set. time_namespaces(7)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def as_time(since_boot: float) -> float:
    """A moment on the clock of ``began``, converted to seconds since the epoch."""
    return time.time() - uptime() + since_boot
