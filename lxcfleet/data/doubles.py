"""A container that has never run gets a copy of another one's delta, with its own ids in the place of the other's.

The copy is written through a mount that shows the owners of the one as those of the other. So the kernel itself changes the
ids in owners, access lists and capabilities of files. It has to be the copy that is mounted so, and not the original:
Linux 6.1 gives the ids of an access list that is read through such a mount unchanged, while it maps those of one that is
written (tried; 6.18 maps both).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from lxcfleet.data import snapshots
from lxcfleet.host.kernel import syscalls
from lxcfleet.host.process import copying
from lxcfleet.paths import Paths
from lxcfleet.spec.reading.terms import RANGE_SIZE

_LAST_ID = (1 << 32) - 2
"""user_namespaces(7): the id after it stands for none."""
_OWN = (("etc", "machine-id"), ("var/lib/dbus", "machine-id"))
"""The files of the machine id. No two containers may share it: addresses are leased by it, and systemd chooses it once
more."""


def make(paths: Paths, source: tuple[str, int], target: tuple[str, int], asker: int) -> None:
    """Copy a delta, and what goes with it. Each container is its name and the first of its ids (0: those of the host).

    What is half copied stays: whoever had the container made removes it. Raises FleetError, OSError.
    """
    (name, first_id), (to, to_first_id) = source, target
    own, new = paths.container(name), paths.container(to)
    handle = os.open(new.delta, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if first_id == to_first_id:
            copying.copy_to(own.delta, handle, asker)
        else:
            _copy_shifted(paths, source, target, handle, asker)
        _forget_identity(handle)
    finally:
        os.close(handle)
    snapshots.keep_base(own, new)


def _copy_shifted(paths: Paths, source: tuple[str, int], target: tuple[str, int], handle: int, asker: int) -> None:
    path = str(paths.container(target[0]).delta)
    users = syscalls.user_namespace_of(target[1], exchanged(source[1], target[1]))
    try:
        mounted = syscalls.clone_apart(handle, 0, users, path)
    finally:
        os.close(users)
    try:
        shifted = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mounted)
        try:
            copying.copy_to(paths.container(source[0]).delta, shifted, asker)
        finally:
            os.close(shifted)
    finally:
        os.close(mounted)


def exchanged(one: int, other: int, size: int = RANGE_SIZE) -> Sequence[tuple[int, int, int]]:
    """The ranges of a user namespace in which two ranges of ids have changed places, and all others are themselves. Pure.

    All ids have a place in it: root has no right to a file whose owner has none.
    """
    low, high = sorted((one, other))
    between = (low + size, low + size, high - low - size)
    after = (high + size, high + size, _LAST_ID + 1 - high - size)
    found = [(0, 0, low), (low, high, size), between, (high, low, size), after]
    return [each for each in found if each[2] > 0]


def _forget_identity(delta: int) -> None:
    for directory, name in _OWN:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            above = _opened(delta, directory)
            try:
                os.unlink(name, dir_fd=above)
            finally:
                os.close(above)


def _opened(delta: int, directory: str) -> int:
    """The directory in the delta; NotADirectoryError also if a link is in its way: then what it leads to is the base's."""
    try:
        return syscalls.open_beneath(delta, directory)
    except OSError as error:
        raise NotADirectoryError(error.errno, error.strerror, directory) from error
