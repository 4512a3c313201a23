"""The host's mount namespace, for a process that works in one of its own.

The launcher and its children have a mount namespace of their own, which goes with the launcher. What has to stay is mounted
in the host's, which the launcher began in.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from lxcfleet.host.kernel import syscalls

_NAMESPACE = "/proc/self/ns/mnt"
_FIRST = "/proc/1/ns/mnt"
_kept: list[int] = []


def keep() -> None:
    """Note that the mount namespace of this process is the host's; its children know it, too. Raises OSError."""
    _kept.append(os.open(_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC))


def is_known() -> bool:
    """Whether ``keep`` was called in this process, or in one that it descends from."""
    return bool(_kept)


@contextlib.contextmanager
def entered() -> Iterator[None]:
    """Be in the host's mount namespace within; setns(2). Raises OSError.

    A process for which ``keep`` was not called takes that of the host's process 1.
    """
    before = os.open(_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _kept:
            syscalls.enter_mounts(_kept[-1])
        else:
            first = os.open(_FIRST, os.O_RDONLY | os.O_CLOEXEC)
            try:
                syscalls.enter_mounts(first)
            finally:
                os.close(first)
        try:
            yield
        finally:
            syscalls.enter_mounts(before)
    finally:
        os.close(before)
