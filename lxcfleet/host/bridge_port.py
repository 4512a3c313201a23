"""Switches of the bridge's ports, in sysfs; Documentation/ABI/testing/sysfs-class-net, brport."""

from __future__ import annotations

import contextlib
from pathlib import Path

from lxcfleet.errors import HostError

_NET = Path("/sys/class/net")


def set_up(interface: str, *, hairpin: bool, isolated: bool) -> None:
    """Set the switches of a port. Fine if there is no such port.

    ``hairpin``: the bridge gives a frame back to the port that it came from. Where br_netfilter is on (Docker loads
    it), the bridge itself forwards what is addressed anew on its way, also from a container to itself.
    ``isolated``: nothing passes between two such ports. So do the rules of net.guard; this holds also while somebody
    has flushed them.
    """
    if hairpin:
        _set(interface, "hairpin_mode")
    if isolated:
        _set(interface, "isolated")


def _set(interface: str, switch: str) -> None:
    try:
        with contextlib.suppress(FileNotFoundError):
            (_NET / interface / "brport" / switch).write_text("1\n", encoding="ascii")
    except OSError as error:
        raise HostError.from_os_error(f"{interface}: the bridge's port can't be set up", error) from error
