"""Which containers lost a process because memory ran out, by the kernel's log.

The counter in a container's cgroup says so, too, but it is gone as soon as the container has ended. Each read of /dev/kmsg
gives one message (Documentation/ABI/testing/dev-kmsg, Linux).
"""

from __future__ import annotations

import os
import re

_LONGEST = 8192
_KERNEL = 8
"""Messages with a lower priority field are the kernel's own; programs can write others."""
_KILL = re.compile(rb"(\d+),[^;]*;oom-kill:.*?,task_memcg=/(?:[^/,]+/)*?lxc\.payload\.([^/,]+)")


class KernelLog:
    """The kernel's messages from now on."""

    def __init__(self) -> None:
        self._descriptor: int | None = None

    def begin(self) -> None:
        """Leave out all messages so far. Without a kernel log that can be read, nothing is found."""
        if self._descriptor is None:
            try:
                self._descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                os.lseek(self._descriptor, 0, os.SEEK_END)
            except OSError:
                self.close()

    def out_of_memory(self) -> list[str]:
        """The containers of which a process was killed since the last call, each as often as that happened."""
        found: list[str] = []
        while self._descriptor is not None:
            try:
                message = os.read(self._descriptor, _LONGEST)
            except BrokenPipeError:  # some messages are gone already; the next read gives the oldest of the others
                continue
            except OSError:  # all were read
                break
            name = killed(message)
            if name is not None:
                found.append(name)
        return found

    def close(self) -> None:
        """Read no more."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def killed(message: bytes) -> str | None:
    """The container of which this message says that the kernel killed a process; None: it says something else."""
    found = _KILL.match(message)
    return found[2].decode(errors="surrogateescape") if found is not None and int(found[1]) < _KERNEL else None
