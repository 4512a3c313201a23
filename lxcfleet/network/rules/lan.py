"""On a bridge of the operator's: MAC addresses of containers, leases, and the rules of the packet filter. Pure.

The addresses that a container may send from are not taken from what its DHCP client says: that client sits where root of
the container may feed it answers of its own. The packet filter itself, in the kernel, reads the DHCP servers' answers that
pass the bridge on their way to the container, and lets the container use the address in them from then on (DHCP snooping).
So it holds also while the daemon does not run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address

from lxcfleet.network.rules.bandwidth import CHAINS, UNLIMITED, Bandwidth
from lxcfleet.network.rules.rules import Behind, Published, published_chains, refuse_others, table
from lxcfleet.spec.container.addresses import LAN_HARDWARE, lan_port


def hardware(seed: str, name: str, owners: Mapping[str, str]) -> str:
    """A MAC address for the container ``name``: always the same for the same name, so that a DHCP server knows it again,
    and another on each host. ``seed``: what is this fleet's own; ``owners``: its containers' names by such addresses."""
    number = 0
    while True:
        digest = hashlib.sha256(f"lxcfleet {seed} {name} {number}".encode()).digest()
        found = ":".join([LAN_HARDWARE, *(f"{byte:02x}" for byte in digest[:5])])
        if owners.get(found, name) == name:
            return found
        number += 1


def interface_id(mac: str) -> int:
    """The lower half of the IPv6 addresses that the kernel makes of it; RFC 4291, appendix A."""
    octets = bytes(int(part, 16) for part in mac.split(":"))
    return int.from_bytes(bytes((octets[0] ^ 2,)) + octets[1:3] + b"\xff\xfe" + octets[3:], "big")


@dataclass(frozen=True)
class Lease:
    """The answer that a DHCP client got."""

    address: IPv4Interface | None
    """None: nobody has answered yet."""
    servers: tuple[IPv4Address, ...] = ()
    """The name servers that the answer has."""


def parse_lease(text: str) -> Lease:
    """From what host/udhcpc-script writes. Raises ValueError."""
    word, _, rest = text.strip().partition(" ")
    if word == "none":
        return Lease(None)
    if word != "address":
        raise ValueError(f"{word!r} is not known")
    address, *servers = rest.split()
    return Lease(IPv4Interface(address), tuple(map(IPv4Address, servers)))


_TENTATIVE, _FAILED = 0x40, 0x08
"""linux/if_addr.h: another may have it, another has it."""


def routed6(table_text: str, mac: str) -> list[IPv6Address]:
    """The global addresses that the kernel made of this MAC address and a router's prefix, as /proc/PID/net/if_inet6
    has them: address, index, length of the prefix, scope, flags, name, all in hexadecimal."""
    own = interface_id(mac)
    found = []
    for line in table_text.splitlines():
        words = line.split()
        if len(words) != 6 or int(words[3], 16) != 0 or int(words[4], 16) & (_TENTATIVE | _FAILED):
            continue
        address = IPv6Address(int(words[0], 16))
        if int(address) & (1 << 64) - 1 == own:
            found.append(address)
    return found


@dataclass(frozen=True)
class LanGuest:
    """A container as the bridge's packet filter knows it."""

    hardware: str
    isolated: bool
    bandwidth: Bandwidth = UNLIMITED

    @property
    def port(self) -> str:
        """The port of the bridge that it is at."""
        return lan_port(self.hardware)

    def elements(self) -> dict[tuple[str, str], list[str]]:
        """By family and name of the set."""
        own = f'"{self.port}"'
        number = int(self.hardware.replace(":", ""), 16)
        found = {
            ("bridge", "ports"): [own],
            ("bridge", "hardware"): [f"{own} . {self.hardware}"],
            ("bridge", "clients"): [f"{own} . {number:#014x}"],
            ("bridge", "own6"): [f"{own} . {interface_id(self.hardware):#018x}"],
            **self.bandwidth.elements(self.port),
        }
        if self.isolated:
            found["bridge", "isolated"] = [own]
        return found


def lease_elements(leases: Iterable[tuple[str, IPv4Address]]) -> list[str]:
    """Ports and their addresses as elements of the set ``leased``."""
    return [f'"{name}" . {int(address):#010x}' for name, address in leases]


def change_leases(bridge: str, new: Sequence[str], gone: Sequence[str]) -> str:
    """Takes elements of the set ``leased`` out and in."""
    own = table(bridge)
    return "".join(
        f"{verb} element bridge {own} leased {{ {', '.join(elements)} }}\n"
        for verb, elements in (("delete", gone), ("add", new))
        if elements
    )


# Fields of packets that nft has no names for, from the beginning of a header, in bits.
_CLIENT = "@th,288,48"
"""The MAC address that a DHCP message is about: 8 bytes of UDP and 28 of the message before it; RFC 2131, section 2."""
_YOURS = "@th,192,32"
"""The address that it gives."""
_SOURCE = "@nh,96,32"
"""The sender's address of an IPv4 packet. ``ip saddr`` is of a type that does not go with that of ``_YOURS``."""
_ARP_SOURCE = "@nh,112,32"
_SOURCE6 = "@nh,128,64"
"""The lower half of who sent an IPv6 packet."""
_TARGET6 = "@th,128,64"
"""The lower half of whose address a neighbour advertisement tells; RFC 4861, 4.4."""


def render_bridge(bridge: str, *, guard: bool, ipv6: bool) -> str:
    """The table of the bridge itself: the frames that containers may send. Other machines on it are left alone."""
    own = table(bridge)
    return "\n".join(
        [
            f"table bridge {own} {{}}",
            f"delete table bridge {own}",
            f"table bridge {own} {{",
            "  set ports { type ifname; }",
            "  set isolated { type ifname; }",
            "  set hardware { type ifname . ether_addr; }",
            f"  set clients {{ typeof iifname . {_CLIENT}; }}",
            f"  set leased {{ typeof iifname . {_SOURCE}; size 65535; flags dynamic; }}",
            f"  set own6 {{ typeof iifname . {_SOURCE6}; }}",
            "  chain forwarding {",
            "    type filter hook forward priority filter; policy accept;",
            "    iifname @isolated oifname @isolated drop",
            "  }",
            "  chain to_the_host {",
            "    type filter hook input priority filter; policy accept;",
            "    iifname != @isolated accept",
            "    meta l4proto { tcp, udp } th dport 53 accept",
            "    udp dport 67 accept",  # the host may be the DHCP server
            "    tcp flags & (syn | ack) == syn drop",
            "    udp dport 0-32767 drop",
            "  }",
            *CHAINS,
            *(_guard(ipv6=ipv6) if guard else ()),
            "}",
            "",
        ]
    )


def _guard(*, ipv6: bool) -> list[str]:
    return [
        "  chain guard {",
        "    type filter hook prerouting priority -300; policy accept;",
        "    iifname != @ports accept",
        "    iifname . ether saddr != @hardware drop",
        "    ether type != { ip, arp, ip6 } drop",
        # It asks for an address of its own, never for others; and gives none.
        f"    ip saddr 0.0.0.0 udp sport 68 udp dport 67 iifname . {_CLIENT} @clients accept",
        f"    ether type ip udp dport 67 iifname . {_CLIENT} != @clients drop",
        "    udp sport { 67, 547 } drop",
        f"    ether type ip iifname . {_SOURCE} @leased accept",
        "    arp saddr ip 0.0.0.0 accept",
        f"    iifname . arp saddr ether @hardware iifname . {_ARP_SOURCE} @leased accept",
        "    icmpv6 type { nd-router-advert, nd-redirect } drop",
        f"    icmpv6 type nd-neighbor-advert iifname . {_TARGET6} != @own6 drop",
        *([] if ipv6 else ["    ip6 saddr != fe80::/10 ip6 saddr != :: drop"]),
        f"    ether type ip6 iifname . {_SOURCE6} @own6 accept",
        "    ip6 saddr :: icmpv6 type { nd-neighbor-solicit, nd-router-solicit, mld2-listener-report } accept",
        "    drop",
        "  }",
        "  chain leases {",
        "    type filter hook postrouting priority filter; policy accept;",
        f"    udp sport 67 udp dport 68 oifname . {_CLIENT} @clients add @leased {{ oifname . {_YOURS} }}",
        "  }",
    ]


def render(bridge: str, published: Sequence[Published], *, route6: bool, behind: Behind | None = None) -> str:
    """The table of the host's ports that lead to containers. Answers come back by way of the host, as it is not the
    containers' router: they see the host's address. ``behind``: what the name server asks, if there is one."""
    own = table(bridge)
    return "\n".join(
        [
            f"table inet {own} {{}}",
            f"delete table inet {own}",
            f"table inet {own} {{",
            *published_chains(published),
            "  chain arriving {",
            "    type nat hook prerouting priority dstnat; policy accept;",
            "    jump published",
            *(["    jump published6"] if route6 else []),
            "  }",
            "  chain beginning_here {",
            "    type nat hook output priority -100; policy accept;",
            "    ip daddr 127.0.0.0/8 accept",  # these packets could not leave the host
            "    ip6 daddr ::1 accept",
            "    jump published",
            "    jump published6",
            "  }",
            "  chain translation {",
            "    type nat hook postrouting priority srcnat; policy accept;",
            f'    oifname "{bridge}" ct status & dnat != 0 masquerade',
            "  }",
            "  chain from_users {",
            "    type filter hook output priority filter; policy accept;",
            "    meta skuid 0 accept",
            *refuse_others(behind),
            "  }",
            "}",
            "",
        ]
    )
