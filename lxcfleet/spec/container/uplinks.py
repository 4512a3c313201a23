"""A network of the host's that a container is on by itself, beside the fleet's bridge. Values only."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.reading.parts import PartsType
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.reading.rows import row
from lxcfleet.spec.reading.terms import NetworkMode
from lxcfleet.spec.reading.types import Choice, Interface, Text, Whole

MAX_VLAN = 4094
"""IEEE 802.1Q: 0 and 4095 are no networks."""
_PARENT = re.compile(r"[^\s/:'\"]{1,15}")
VLAN_PREFIX = "lv"


def check_parent(text: str) -> str:
    """``text`` itself, if an interface of the host may have that name; raises InvalidInput."""
    if not _PARENT.fullmatch(text) or text in (".", ".."):
        raise InvalidInput(f"{text[:80]!r} can't be an interface's name", hint="`ip link` shows those of the host")
    return text


def vlan_device(parent: str, vlan: int) -> str:
    """The name of the interface that lxcfleet makes for a VLAN. It fits in IFNAMSIZ (16)."""
    return f"{VLAN_PREFIX}{vlan}-{zlib.crc32(parent.encode()):08x}"


@dataclass(frozen=True)
class Uplink:
    """An interface of the host's, and a container's place on the network behind it."""

    parent: str = row(
        Text(check_parent, _PARENT.pattern), "The host's interface, such as eth0. It stays the host's.", default=""
    )
    vlan: int = row(
        Whole(0, MAX_VLAN), "The number of a VLAN on it; 0: none. lxcfleet makes an interface for it.", default=0
    )
    address: IPv4Interface | None = row(
        Interface(IPv4Interface), "Its address with the length of the network's prefix, such as 192.0.2.5/24; none: a DHCP"
        " server there gives it one.",
    )
    gateway: IPv4Address | None = row(
        Interface(IPv4Address), "The router to other networks, beside an address; none: there is none.",
    )
    address6: IPv6Interface | None = row(
        Interface(IPv6Interface), "An IPv6 address of its own, such as 2001:db8:30::5/64, with or without one of IPv4; none:"
        " as the network's router says. With an address of either kind no DHCP server is asked.",
    )
    gateway6: IPv6Address | None = row(
        Interface(IPv6Address), "The router to other networks by IPv6, beside such an address; it may be link-local, such as"
        " fe80::1. None: as the network's router says.",
    )

    @property
    def device(self) -> str:
        """The host's interface that the container's own is on."""
        return vlan_device(self.parent, self.vlan) if self.vlan else self.parent

    @property
    def addresses(self) -> tuple[IPv4Interface | IPv6Interface, ...]:
        """The addresses that the operator gave it; none: a DHCP server is asked."""
        return tuple(each for each in (self.address, self.address6) if each is not None)

    @property
    def words(self) -> str:
        """It, as messages name it."""
        return f"VLAN {self.vlan} of {self.parent}" if self.vlan else self.parent

    def problems(self) -> Iterator[str]:
        """The reasons why its values don't go together."""
        if not self.parent:
            yield "it names no interface of the host: parent=eth0"
        yield from _problems(self.address, self.gateway)
        yield from _problems(self.address6, self.gateway6)


def _problems(address: IPv4Interface | IPv6Interface | None, gateway: IPv4Address | IPv6Address | None) -> Iterator[str]:
    """The problems of an address and its gateway, both of one kind."""
    if address is None:
        if gateway is not None and gateway.version == 4:
            yield "a gateway goes with an address; a DHCP server names its own"
        elif gateway is not None:
            yield "a gateway6 goes with an address6; without one the network's router says where it is"
        return
    network, ip = address.network, address.ip
    if network.prefixlen == network.max_prefixlen:
        yield f"{ip} has no length of the network's prefix: write it like {ip}/{24 if ip.version == 4 else 64}"
    elif network.prefixlen < network.max_prefixlen - 1 and ip in _not_for_hosts(network):
        yield f"{ip} can't be a container's in {network}"
    elif ip.version == 6 and (ip.is_link_local or ip.is_multicast or ip.is_loopback or ip.is_unspecified):
        yield f"{ip} can't be a container's: an interface gives itself link-local addresses, and others are of no network"
    elif gateway is not None and gateway not in network and not (gateway.version == 6 and gateway.is_link_local):
        yield f"the gateway {gateway} is not in {network}"
    elif gateway == ip:
        yield f"{gateway} can't be the container and its gateway"


def _not_for_hosts(network: IPv4Network | IPv6Network) -> tuple[IPv4Address | IPv6Address, ...]:
    """The addresses of a network that no host has: of IPv6 only the routers' (RFC 4291, 2.6.1)."""
    first = network.network_address
    return (first,) if network.version == 6 else (first, network.broadcast_address)


NO_UPLINK = Uplink()


class NetworkType(Choice[NetworkMode]):
    """How a container is connected, in a word."""

    def read(self, fields: Fields, key: str) -> NetworkMode | None:
        """See ValueType. What belongs into ``uplink`` is known by its form."""
        said = fields.raw(key)
        if isinstance(said, Mapping):
            fields.skip(key)
            inner = ", ".join(f"{each}: {value}" for each, value in said.items())
            fields.complain(key, f"it is a word; write `{key}: uplink` and `uplink: {{{inner}}}`")
            return None
        return super().read(fields, key)


UPLINK = PartsType(Uplink, "[network](network.md#an-interface-of-the-hosts)")
