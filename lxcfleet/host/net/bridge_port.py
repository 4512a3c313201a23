"""The settings of a bridge and its ports, in sysfs; Documentation/ABI/testing/sysfs-class-net, brport."""

from __future__ import annotations

import errno
from pathlib import Path

from lxcfleet.errors import HostError, Unsupported
from lxcfleet.host.net import neighbours

_NET = Path("/sys/class/net")


def check_bridge(name: str) -> None:
    """Raise Unsupported if the host has no such bridge."""
    if not (_NET / name / "bridge").is_dir():
        what = "is no bridge" if (_NET / name).exists() else "is not there"
        raise Unsupported(
            f"network.bridge: {name} {what}", why="with `addresses: dhcp` it is the host's to make",
            hint=f"make it (interfaces(5), systemd.netdev(5), nmcli) with the network's interface as a port: "
            f"`ip -d link show {name}`; or name another one in lxcfleet.yaml",
        )  # fmt: skip


def set_up(interface: str, *, hairpin: bool, isolated: bool, only: str | None = None, leaf: bool | None = None) -> None:
    """Set the switches of a port; does nothing if there is no such port. Raises HostError.

    ``hairpin``: the bridge may send a frame back to the port that it came from. With br_netfilter, which Docker loads, the
    bridge itself forwards frames whose address is rewritten on the way, even from a container to itself.
    ``isolated``: no frame passes between two such ports. The rules of network.guard say the same; this setting holds even
    after somebody has flushed the rules.
    ``only``: the one MAC address behind this port. Then the bridge sends it no frames for addresses that it does not know,
    as those of a container that has just died. None: there may be others.
    ``leaf``: no bridge is behind this port. If it sends bridge frames, it is shut: on a bridge with spanning tree, it could
    rearrange the network. The packet filter does not see these frames. None: this setting stays as it is.
    """
    if hairpin:
        _set(interface, "hairpin_mode")
    if isolated:
        _set(interface, "isolated")
    if only is None or _pin(interface, only):
        _set(interface, "unicast_flood", on=only is None)
    if leaf is not None:
        _set(interface, "bpdu_guard", on=leaf)


def _pin(interface: str, hardware: str) -> bool:
    try:
        index = int((_NET / interface / "ifindex").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return False
    return neighbours.pin(index, hardware)


def _set(interface: str, switch: str, *, on: bool = True) -> None:
    file = _NET / interface / "brport" / switch
    try:
        file.write_text("1\n" if on else "0\n", encoding="ascii")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):  # not there, or gone since the file was opened
            return
        raise HostError.from_os_error(f"{interface}: the bridge's port can't be set up", error, path=file) from error
