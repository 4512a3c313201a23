"""A visit to the network of a container that runs: the process that was meant, and the way back."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from lxcfleet.host.kernel import syscalls
from lxcfleet.host.process import proc


@contextmanager
def process(pid: int, began: float) -> Iterator[int]:
    """A descriptor that stands for the process ``pid``, which began at ``began``. Raises ProcessLookupError if that one has
    ended, also if its number stands for another one by now."""
    descriptor = os.pidfd_open(pid)
    try:
        # Asked after it was opened: a number that is given to another process in between is noticed.
        if proc.began(pid) != began:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def network(container: int, *, pids: bool = False) -> Iterator[None]:
    """Be in the network of the process whose pidfd this is, and then in one's own again. ``pids``: children that are forked
    meanwhile are in its PID namespace, too. Raises ProcessLookupError if it has ended, OSError."""
    with ExitStack() as back:
        own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        back.callback(os.close, own)
        if pids:
            own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
            back.callback(os.close, own_pids)
        syscalls.enter_network(container, pids=pids)
        back.callback(syscalls.enter_network, own)
        if pids:
            back.callback(syscalls.leave_pids, own_pids)
        yield
