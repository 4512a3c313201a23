"""How many descriptors a process may have open; setrlimit(2), RLIMIT_NOFILE."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from lxcfleet.host.kernel import small

_MOST = Path("/proc/sys/fs/nr_open")
_USUAL = 1024
_USUAL_HARD = 524288
"""The limits of a login of systemd's; systemd-system.conf(5)."""
_SYS_RESOURCE = 24
"""capabilities(7): CAP_SYS_RESOURCE."""


def usual() -> tuple[int, int]:
    """The usual limits, soft and hard, which containers get whatever the daemon needs for itself.

    Programs that use select(2) can't use more descriptors than the soft limit, and some close every one up to the limit.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    hard = min(hard, _USUAL_HARD) if hard >= 0 else _USUAL_HARD
    return min(_USUAL, hard), hard


def may_raise() -> bool:
    """Whether this process may set the limits of any process: root may, but not in each virtual machine or container."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    capabilities = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    return bool(int(capabilities, 16) >> _SYS_RESOURCE & 1)


def widen(pid: int) -> int:
    """Allow a process as many descriptors as the host allows any, or else as many as its own limits do; returns how many.

    Raises OSError if the process is gone.
    """
    most = int(small.content(_MOST))
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    if soft < most:
        try:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, max(hard, most)))
        except (PermissionError, ValueError):  # we are in a container ourselves
            most = hard
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))
    return most


def count(pid: int) -> int:
    """How many descriptors a process has open. Raises OSError if it is gone.

    Since Linux 6.2 the kernel tells the number at once, in the size of the directory; proc(5).
    """
    return os.stat(f"/proc/{pid}/fd").st_size or len(os.listdir(f"/proc/{pid}/fd"))
