"""The settings of a bridge's ports, and its table that says which MAC address is at which port; linux/if_link.h,
linux/if_bridge.h, linux/neighbour.h."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from lxcfleet.errors import HostError, Unsupported
from lxcfleet.host.net import interfaces, rtnetlink, sysctl
from lxcfleet.host.net.bridge_look import BridgePort
from lxcfleet.host.net.rtnetlink import Request, attribute

_NET = Path("/sys/class/net")
_NO_PORT = (errno.ENODEV, errno.ENXIO, errno.EOPNOTSUPP)
"""No such interface, or it is on no bridge."""
_SET_LINK, _NEW_NEIGHBOUR = 19, 28
_REPLACE, _CREATE = 0x100, 0x400
_AF_BRIDGE = 7
_STATIC, _AT_MASTER = 0x40, 0x04
"""NUD_NOARP: it neither ages nor is learned anew at another port. NTF_MASTER."""
_HARDWARE_ADDRESS = 2
_PORT_SETTINGS = 12 | rtnetlink.NESTED
_STATE, _HAIRPIN, _BPDU_GUARD, _UNICAST_FLOOD, _ISOLATED = 1, 4, 5, 9, 33
_FORWARDING = 3
"""BR_STATE_FORWARDING."""
NAMES = {
    _STATE: "state", _HAIRPIN: "hairpin", _BPDU_GUARD: "guard", 6: "root_block", 8: "learning", _UNICAST_FLOOD: "flood",
    10: "proxy_arp", 12: "proxy_arp_wifi", 27: "mcast_flood", 28: "mcast_to_unicast", 29: "vlan_tunnel", 30: "bcast_flood",
    32: "neigh_suppress", _ISOLATED: "isolated", 39: "locked",
}  # fmt: skip
"""A port's settings, by the words of bridge(8)."""
_PLAIN = {6: False, 8: True, 10: False, 12: False, 27: True, 28: False, 29: False, 30: True, 32: False, 39: False}
"""Those that we leave as the kernel makes them. The kernel passes over those that it does not know."""
_MTU = 4
_LINK, _NEIGHBOUR = struct.Struct("=BxHiII"), struct.Struct("=BxxxiHBB")


def check_bridge(name: str) -> None:
    """Raise Unsupported if the host has no such bridge."""
    if not (_NET / name / "bridge").is_dir():
        what = "is no bridge" if (_NET / name).exists() else "is not there"
        raise Unsupported(
            f"network.bridge: {name} {what}", why="with `addresses: dhcp` it is the host's to make",
            hint=f"make it (interfaces(5), systemd.netdev(5), nmcli) with the network's interface as a port: "
            f"`ip -d link show {name}`; or name another one in lxcfleet.yaml",
        )  # fmt: skip


class Switches(NamedTuple):
    """How a port is to be.

    ``hairpin``: the bridge may send a frame back to the port that it came from. With br_netfilter, which Docker loads, the
    bridge itself forwards frames whose address is rewritten on the way, even from a container to itself.
    ``isolated``: no frame passes between two such ports. The rules of network.guard say the same; this setting holds even
    while somebody has flushed the rules.
    ``only``: the one MAC address behind this port. Then the bridge sends it no frames for addresses that it does not know,
    as those of a container that has just died. None: there may be others.
    ``leaf``: no bridge is behind this port. If it sends bridge frames, it is shut: on a bridge with spanning tree, it could
    rearrange the network. The packet filter does not see these frames. None: this setting stays as it is.
    ``mtu``: that of the bridge. 0: it is the operator's, whose ports may be set in ways of its own.
    """

    hairpin: bool
    isolated: bool
    only: str | None = None
    leaf: bool | None = None
    mtu: int = 0

    def settings(self) -> dict[int, bool]:
        """Those of the bridge's settings that differ between ports."""
        found = {_HAIRPIN: self.hairpin, _UNICAST_FLOOD: self.only is None, _ISOLATED: self.isolated}
        return found if self.leaf is None else {**found, _BPDU_GUARD: self.leaf}

    def whole(self) -> dict[int, bool]:
        """All that are ours to set."""
        return {**_PLAIN, _BPDU_GUARD: False, **self.settings()} if self.mtu else self.settings()

    def wrong(self, port: BridgePort) -> list[str]:
        """The settings of ``port`` that are otherwise, in the words of bridge(8)."""
        found = [NAMES[kind] for kind, wanted in self.whole().items() if port.settings.get(kind, wanted) != wanted]
        if self.mtu and port.runs and port.settings.get(_STATE, _FORWARDING) != _FORWARDING:
            found.append(NAMES[_STATE])
        return sorted(found)


def set_up(interface: str, wanted: Switches, *, anew: bool = False) -> None:
    """Set the switches of a port; does nothing if there is no such port. Raises HostError.

    ``anew``: somebody may have set it otherwise. One that has just been made is as the kernel makes them.

    The host itself has no address at a port. Without this, the kernel gives each port an IPv6 address and three routes, and
    each change of those is told to all who listen, and has dnsmasq look at all addresses of the host.
    """
    try:
        index = interfaces.index(interface)
        requests = [] if wanted.only is None else [_pin(index, wanted.only)]
        requests.append(_switch(index, wanted.whole() if anew else wanted.settings()))
        # The kernel refuses the rest while nobody is at the other end of the cable, and then it is no matter.
        rest = [_forward(index), _limit(index, wanted.mtu)] if anew and wanted.mtu else []
        for code in rtnetlink.ask([*requests, *rest])[: len(requests)]:
            if code:
                raise OSError(code, os.strerror(code))
    except OSError as error:
        if error.errno in _NO_PORT:  # not there, or gone since its number was asked for
            return
        raise HostError.from_os_error(f"{interface}: the bridge's port can't be set up", error) from error
    with contextlib.suppress(HostError):  # it costs time alone if that can't be done, as where /proc/sys is read-only
        sysctl.refuse_ipv6(interface)


def _pin(index: int, hardware: str) -> Request:
    """The bridge always sends frames for this MAC address to this port, also before anything came from there."""
    address = bytes(int(part, 16) for part in hardware.split(":"))
    body = _NEIGHBOUR.pack(_AF_BRIDGE, index, _STATIC, _AT_MASTER, 0) + attribute(_HARDWARE_ADDRESS, address)
    return Request(_NEW_NEIGHBOUR, body, _CREATE | _REPLACE)


def _forward(index: int) -> Request:
    return _switch(index, {_STATE: _FORWARDING})


def _limit(index: int, mtu: int) -> Request:
    return Request(_SET_LINK, _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0) + attribute(_MTU, struct.pack("=I", mtu)))


def _switch(index: int, switches: Mapping[int, int]) -> Request:
    settings = b"".join(attribute(kind, bytes([on])) for kind, on in switches.items())
    return Request(_SET_LINK, _LINK.pack(_AF_BRIDGE, 0, index, 0, 0) + attribute(_PORT_SETTINGS, settings))
