"""Addresses as specs and settings have them: ranges, MAC addresses, names of veths. Pure."""


from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Network, ip_address

from lxcfleet.errors import InvalidInput

_IMPOSSIBLE4 = {
    "0.0.0.0/8": "addresses of no host",
    "127.0.0.0/8": "each host's loopback",
    "169.254.0.0/16": "link-local addresses",
    "224.0.0.0/4": "multicast addresses",
    "240.0.0.0/4": "reserved addresses",
}
_IMPOSSIBLE6 = {
    "::/8": "reserved addresses",
    "fe80::/10": "link-local addresses",
    "ff00::/8": "multicast addresses",
}
"""Ranges that no network of hosts can have; IANA's registries of special-purpose addresses."""

AUTO = "auto"
OFF = "none"
_SMALLEST_PREFIX6 = 96


def parse4(text: str) -> IPv4Network:
    """``text`` as a network with room for a bridge and a container; raises InvalidInput."""
    try:
        network = IPv4Network(text)
    except ValueError as error:
        raise InvalidInput(f"network.ipv4: {text!r} is no IPv4 range: {error}", hint="write it like 10.201.0.0/16") from error
    if not 8 <= network.prefixlen <= 29:
        raise InvalidInput(f"network.ipv4: {text} has a prefix length that is not from 8 to 29")
    for impossible, words in _IMPOSSIBLE4.items():
        if network.overlaps(IPv4Network(impossible)):
            raise InvalidInput(f"network.ipv4: {text} overlaps with {impossible}, {words}")
    return network


def parse6(text: str) -> IPv6Network:
    """``text`` as a network; raises InvalidInput."""
    try:
        network = IPv6Network(text)
    except ValueError as error:
        raise InvalidInput(
            f"network.ipv6: {text!r} is no IPv6 range: {error}", hint="write it like fd12:3456:789a:1::/64"
        ) from error
    if network.prefixlen > _SMALLEST_PREFIX6:
        raise InvalidInput(f"network.ipv6: {text} is smaller than /{_SMALLEST_PREFIX6}")
    for impossible, words in _IMPOSSIBLE6.items():
        if network.overlaps(IPv6Network(impossible)):
            raise InvalidInput(f"network.ipv6: {text} overlaps with {impossible}, {words}")
    return network


def parse_address(text: str) -> IPv4Address | IPv6Address:
    """``text`` as a single address of a container; raises InvalidInput."""
    try:
        found = ip_address(text)
    except ValueError as error:
        hint = "write it like 10.201.0.50 or fd12:3456:789a:1::50, without the range's length"
        raise InvalidInput(f"{text[:80]!r} is no address", hint=hint) from error
    if isinstance(found, IPv6Address) and found.scope_id is not None:
        raise InvalidInput(f"{text[:80]!r} names an interface", hint="leave out the % and what follows")
    return found


def check_addresses(addresses: Sequence[IPv4Address | IPv6Address]) -> None:
    """Raise InvalidInput if these are not one IPv4 and one IPv6 address at the most."""
    for version in (4, 6):
        found = [str(each) for each in addresses if each.version == version]
        if len(found) > 1:
            raise InvalidInput(f"{', '.join(found[:3])}: a container has one IPv{version} address")


OUR_HARDWARE = "02:4c:"
"""The first bytes of MAC addresses on the fleet's own bridge. The second bit of the first byte marks them as locally
administered."""


def hardware_address(address: IPv4Address) -> str:
    """The MAC address that belongs to an IP address, so that a container keeps it over restarts."""
    return OUR_HARDWARE + ":".join(f"{byte:02x}" for byte in address.packed)


def interface_name(address: IPv4Address) -> str:
    """The name of the host's end of a container's veth. It fits in IFNAMSIZ (16) for any address."""
    return f"lf{int(address):08x}"


PER_BRIDGE = 1000
"""So many addresses of the fleet's range belong to one bridge: the kernel lets a bridge have 1,023 ports."""
_FURTHER = "lg"


def further_bridge(address: IPv4Interface) -> str | None:
    """The further bridge that a container of this address is on; None: it is on the fleet's own. It fits in IFNAMSIZ (16)."""
    number = (int(address.ip) - int(address.network.network_address)) // PER_BRIDGE
    return f"{_FURTHER}{int(address.network.network_address):08x}-{number:x}" if number else None


def cable(bridge: str) -> tuple[str, str]:
    """The two ends of the cable to a further bridge: the port of the fleet's own bridge, and that of the further one."""
    rest = bridge.removeprefix(_FURTHER)
    return f"lh{rest}", f"li{rest}"


def bridge_behind(port: str) -> str | None:
    """The further bridge to which a port of the fleet's own bridge leads; None: to none."""
    return f"{_FURTHER}{port.removeprefix('lh')}" if port.startswith("lh") else None


_LAN_HARDWARE = re.compile(r"06(:[0-9a-f]{2}){5}")
LAN_HARDWARE = "06"
"""The first byte of MAC addresses that lxcfleet gives on a bridge of the operator: locally administered, unicast, and
distinct from those on the fleet's own bridge."""


def is_hardware(text: str) -> bool:
    """Whether ``text`` could be a MAC address that lxcfleet gave on a bridge of the operator."""
    return _LAN_HARDWARE.fullmatch(text) is not None


def lan_port(mac: str) -> str:
    """The name of the host's end of a veth on a bridge of the operator. It fits in IFNAMSIZ (16)."""
    return "ld" + mac.replace(":", "")[2:]
