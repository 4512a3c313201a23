"""The host's interfaces as /proc and /sys show them: cheap enough for the daemon to look at every few seconds."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import sys
from array import array
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import NamedTuple

from lxcfleet.spec.container.addresses import OUR_HARDWARE, cable

_NET = Path("/sys/class/net")
_ROUTES = Path("/proc/net/route")
_ROUTES6 = Path("/proc/net/ipv6_route")
_ADDRESSES6 = Path("/proc/net/if_inet6")
_COUNTERS = Path("/proc/net/dev")
MADE_BY = "lxcfleet"
"""The alias of our bridges, by which one is known whose MAC address somebody has changed."""
UP = 0x1
"""IFF_UP, linux/if.h."""
_GET_ADDRESSES = 0x8912
_GET_NUMBER = 0x8933
"""SIOCGIFCONF, SIOCGIFINDEX; linux/sockios.h."""
_REQUEST, _LIST = struct.Struct("=16sH22x" if sys.maxsize > 1 << 32 else "=16sH14x"), struct.Struct("@iP")
"""struct ifreq, struct ifconf; linux/if.h."""
_NUMBER = struct.Struct("=16si20x" if sys.maxsize > 1 << 32 else "=16si12x")
"""struct ifreq with ifr_ifindex."""


def is_up(name: str) -> bool:
    """Whether the interface is there and was not set down."""
    try:
        return bool(int((_NET / name / "flags").read_text(encoding="ascii"), 16) & UP)
    except (OSError, ValueError):
        return False


def index(name: str) -> int:
    """The kernel's index of the interface. Raises OSError, with ENODEV if it is not there.

    socket.if_nametoindex() gives no errno before Python 3.14, and so none for a lack of descriptors, either.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asks:
        found: int = _NUMBER.unpack(fcntl.ioctl(asks, _GET_NUMBER, _NUMBER.pack(name.encode(), 0)))[1]
    return found


def has_address(name: str, address: IPv4Address | IPv6Address) -> bool:
    """Whether this interface has the address."""
    if address.version == 4:
        return (name, str(address)) in _addresses4()
    own = f"{int(address):032x}"
    try:
        lines = [line.split() for line in _ADDRESSES6.read_text(encoding="ascii").splitlines()]
    except OSError:
        return False
    return any(words[0] == own and words[5] == name for words in lines if len(words) == 6)


def is_foreign(name: str) -> bool:
    """Whether there is an interface of that name that lxcfleet has not made."""
    try:
        alias = (_NET / name / "ifalias").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return False
    return alias != MADE_BY and not hardware(name).startswith(OUR_HARDWARE)


def addresses() -> set[str]:
    """The addresses of all interfaces of the host. Raises OSError."""
    found = {address for _, address in _addresses4()}
    if _ADDRESSES6.exists():  # not where the kernel has no IPv6
        numbers = (line.split()[0] for line in _ADDRESSES6.read_text(encoding="ascii").splitlines())
        found |= {str(IPv6Address(int(number, 16))) for number in numbers}
    return found


def hardware(name: str) -> str:
    """Its MAC address; empty: it is not there."""
    try:
        return (_NET / name / "address").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _addresses4() -> set[tuple[str, str]]:
    """Interfaces and their IPv4 addresses; netdevice(7): SIOCGIFCONF. A socket can't be bound to try it: where
    net.ipv4.ip_nonlocal_bind is set, as for keepalived, that succeeds for any address."""
    size = 1 << 14
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asks:
        while True:
            buffer = array("B", bytes(size))
            request = _LIST.pack(size, buffer.buffer_info()[0])
            used: int = _LIST.unpack(fcntl.ioctl(asks, _GET_ADDRESSES, request))[0]
            if used + _REQUEST.size <= size:  # else some may have had no room
                return addresses4(buffer.tobytes()[:used])
            size *= 2


def addresses4(table: bytes) -> set[tuple[str, str]]:
    """``table``: records of a label, which is the interface's name or begins with that and a colon, and a sockaddr_in."""
    found = set()
    for at in range(0, len(table) - _REQUEST.size + 1, _REQUEST.size):
        label = table[at : at + 16].partition(b"\0")[0].decode("utf-8", "replace")
        found.add((label.partition(":")[0], str(IPv4Address(table[at + 20 : at + 24]))))
    return found


MOST_PORTS = 1023
"""So many ports the kernel lets a bridge have: BR_MAX_PORTS in net/bridge/br_private.h, less number 0."""


def ports(bridge: str) -> set[str]:
    """The interfaces that are on the bridge; none if there is no such bridge."""
    try:
        return {each.name for each in (_NET / bridge / "brif").iterdir()}
    except OSError:
        return set()


def extends(bridge: str, further: str) -> bool:
    """Whether a further bridge is up, and hangs on the fleet's own by its cable."""
    here, there = cable(further)
    whole = here in ports(bridge) and there in ports(further)
    return whole and all(is_up(name) for name in (further, here, there))


def present(names: Iterable[str]) -> set[str]:
    """Those of the interfaces that are there."""
    return {name for name in names if (_NET / name).exists()}


def number(name: str) -> int:
    """The interface's number; 0: it is not there."""
    return _read_number(_NET / name / "ifindex")


def mtu(name: str) -> int:
    """Its MTU; 0: it is not there."""
    return _read_number(_NET / name / "mtu")


def _read_number(file: Path) -> int:
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def switched_on(bridge: str) -> list[str]:
    """The settings of a bridge that are on, and that ours never have on. Spanning tree and VLANs would keep containers apart
    from each other or from the host by settings of ports, a querier by reports that the guard drops. Snooping for such
    reports finds none, and takes time: for each port that comes or goes, the kernel starts the timers of all ports anew
    (br_multicast_enable_port)."""
    return [name for name in SWITCHED_OFF if _read_number(_NET / bridge / "bridge" / name) != 0]


SWITCHED_OFF = ("stp_state", "vlan_filtering", "multicast_querier", "multicast_snooping")
"""Files in /sys/class/net/BRIDGE/bridge."""


def has_route(name: str, network: IPv4Network | IPv6Network) -> bool:
    """Whether the host sends by this interface what is for the network."""
    try:
        if network.version == 4:
            first, mask = (f"{int.from_bytes(each.packed, sys.byteorder):08X}"
                           for each in (network.network_address, network.netmask))  # fmt: skip
            lines = [line.split() for line in _ROUTES.read_text(encoding="ascii").splitlines()[1:]]
            return any(words[0] == name and words[1] == first and words[7] == mask for words in lines if len(words) > 7)
        start = f"{int(network.network_address):032x} {network.prefixlen:02x} "
        lines6 = _ROUTES6.read_text(encoding="ascii").splitlines()
        return any(line.startswith(start) and line.split()[-1] == name for line in lines6)
    except OSError:
        return True  # not known


def routed() -> list[str]:
    """The interfaces that IPv4 routes go out by, but for bridges of lxcfleet's own: each by which the host has a neighbour,
    or a way to others. proc_net(5), route."""
    try:
        lines = _ROUTES.read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return []
    names = {line.split()[0] for line in lines if line.split()}
    return sorted(name for name in names - {"lo", "*"} if not hardware(name).startswith(OUR_HARDWARE))


class Traffic(NamedTuple):
    """The traffic at the host's end of a container's veth, as the container sees it: what it received left the host here."""

    received_bytes: int
    received_packets: int
    received_drops: int
    """Frames for it that did not reach it."""
    sent_bytes: int
    sent_packets: int
    sent_drops: int


def traffic() -> dict[str, Traffic]:
    """The counters of all interfaces of the host by name, in one read: a thousand containers have six files each in /sys."""
    try:
        return counters(_COUNTERS.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return {}


def counters(table: str) -> dict[str, Traffic]:
    """``table``: as proc_net(5) has it, dev: eight numbers of what came in at this end, and eight of what went out."""
    found = {}
    for line in table.splitlines()[2:]:
        name, _, rest = line.rpartition(":")
        with contextlib.suppress(ValueError, IndexError):
            numbers = [int(word) for word in rest.split()]
            found[name.strip()] = Traffic(numbers[8], numbers[9], numbers[11], numbers[0], numbers[1], numbers[3])
    return found
