"""A network of the host's that a container is on by itself, beside the fleet's bridge. Values only."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.reading.parts import PartsType
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.reading.rows import row
from lxcfleet.spec.reading.terms import Network
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

    @property
    def device(self) -> str:
        """The host's interface that the container's own is on."""
        return vlan_device(self.parent, self.vlan) if self.vlan else self.parent

    @property
    def words(self) -> str:
        """It, as messages name it."""
        return f"VLAN {self.vlan} of {self.parent}" if self.vlan else self.parent

    def problems(self) -> Iterator[str]:
        """What does not go together."""
        if not self.parent:
            yield "it names no interface of the host: parent=eth0"
        if self.address is None:
            if self.gateway is not None:
                yield "a gateway goes with an address; a DHCP server names its own"
            return
        network = self.address.network
        if network.prefixlen == 32:
            yield f"{self.address.ip} has no length of the network's prefix: write it like {self.address.ip}/24"
        elif network.prefixlen < 31 and self.address.ip in (network.network_address, network.broadcast_address):
            yield f"{self.address.ip} can't be a container's in {network}"
        elif self.gateway is not None and self.gateway not in network:
            yield f"the gateway {self.gateway} is not in {network}"
        elif self.gateway == self.address.ip:
            yield f"{self.gateway} can't be the container and its gateway"


NO_UPLINK = Uplink()


class NetworkType(Choice[Network]):
    """How a container is connected, in a word."""

    def read(self, fields: Fields, key: str) -> Network | None:
        """See ValueType. What belongs into ``uplink`` is known by its form."""
        said = fields.raw(key)
        if isinstance(said, Mapping):
            fields.skip(key)
            inner = ", ".join(f"{each}: {value}" for each, value in said.items())
            fields.complain(key, f"it is a word; write `{key}: uplink` and `uplink: {{{inner}}}`")
            return None
        return super().read(fields, key)


UPLINK = PartsType(Uplink, "[network](network.md#an-interface-of-the-hosts)")
