"""Switches of the bridge's ports, in sysfs; Documentation/ABI/testing/sysfs-class-net, brport."""

from __future__ import annotations

import contextlib
from pathlib import Path

from lxcfleet.errors import HostError

_NET = Path("/sys/class/net")


def set_hairpin(interface: str) -> None:
    """Let the bridge give a frame back to the port that it came from. Fine if there is no such port.

    Where br_netfilter is on (Docker loads it), the bridge itself forwards what is addressed anew on its way, also
    from a container to itself.
    """
    _set(interface, "hairpin_mode")


def _set(interface: str, switch: str) -> None:
    try:
        with contextlib.suppress(FileNotFoundError):
            (_NET / interface / "brport" / switch).write_text("1\n", encoding="ascii")
    except OSError as error:
        raise HostError.from_os_error(f"{interface}: the bridge's port can't be set up", error) from error
