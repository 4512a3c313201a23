"""The host's devices that a container is given: nodes of its own, with the numbers of the host's.

The host's nodes can't be shown themselves: their owners are the host's, so root of an unprivileged container may not open
them, and devtmpfs can't be mounted with shifted owners. The nodes are on a small tmpfs in the container's mount namespace
alone, belong to its root, and LXC binds those that are asked for into its /dev.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from lxcfleet.errors import HostError
from lxcfleet.host.kernel import syscalls
from lxcfleet.spec.container.devices import DEVICES

_MODE = 0o666
"""Every user of the container: it is the container that was given the device."""


def check(names: Sequence[str], host: Path = Path("/dev")) -> dict[str, int]:
    """The nodes of these devices by their paths below /dev, with their numbers. Raises HostError: the host has none."""
    found: dict[str, int] = {}
    for name in names:
        device = DEVICES[name]
        place = host / device.path
        nodes = {f"{device.path}/{each}": place / each for each in _names(place, device.nodes)} if device.nodes else {}
        for path, node in (nodes or {device.path: place}).items():
            try:
                status = node.stat()
            except OSError:
                status = None
            if status is None or not stat.S_ISCHR(status.st_mode):
                lacking = "/".join(filter(None, ("/dev", device.path, device.nodes)))
                hint = "its kernel module may not be loaded, or the machine lacks it"
                raise HostError(f"this host has no device {name}", why=f"there is no {lacking}", hint=hint)
            found[path] = status.st_rdev
    return found


def mount(place: Path, names: Sequence[str], first_id: int) -> None:
    """Make the nodes below ``place``, in a mount namespace of the container's own. Raises HostError, OSError.

    ``first_id``: the container's root, as this host numbers it.
    """
    if not names:
        return
    nodes = check(names)
    place.mkdir(mode=0o755, exist_ok=True)
    syscalls.mount("tmpfs", place, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NOEXEC, "mode=0755,size=64k")
    for path, number in nodes.items():
        node = place / path
        node.parent.mkdir(parents=True, exist_ok=True)
        os.mknod(node, stat.S_IFCHR | _MODE, number)
        os.chown(node, first_id, first_id)
        node.chmod(_MODE)


def _names(place: Path, pattern: str) -> list[str]:
    try:
        return sorted(each for each in os.listdir(place) if fnmatchcase(each, pattern))
    except OSError:
        return []
