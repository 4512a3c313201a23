"""The rules for frames on the fleet's bridge, as nft reads them: no container sends under another's address. Pure.

The sets hold what each port of the bridge may use. They are filled before a container starts, so that there is no
moment in which it may do more; a port of ours that is in none of them may send nothing.

What each container sends to all others costs the square of their number, so the rules leave nothing of that where it can be
helped. The bridge knows whose address is whose: a question about one goes to its owner only, the host's own as well. No
other can have it, so a container's check for that is dropped. There is no router to look for, and no list of groups to
tell, as the bridge passes multicast to all ports.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address

from lxcfleet.network.addresses.ranges import Subnet
from lxcfleet.network.rules import bandwidth
from lxcfleet.network.rules.bandwidth import UNLIMITED, Bandwidth
from lxcfleet.network.rules.lan import LanGuest, interface_id
from lxcfleet.network.rules.rules import table
from lxcfleet.spec.container.addresses import hardware_address, interface_name


@dataclass(frozen=True)
class Guest:
    """A container as the bridge knows it."""

    ipv4: IPv4Address
    ipv6: IPv6Address | None
    isolated: bool
    bandwidth: Bandwidth = UNLIMITED

    @property
    def port(self) -> str:
        """The port of the bridge that it is at."""
        return interface_name(self.ipv4)

    def elements(self) -> dict[tuple[str, str], list[str]]:
        """By family and name of the set."""
        port, hardware = f'"{self.port}"', hardware_address(self.ipv4)
        addresses = [address for address in (link_local(hardware), self.ipv6) if address is not None]
        ipv6, targets = [str(address) for address in addresses], [_number(address) for address in addresses]
        found = {
            ("bridge", "hardware"): [f"{port} . {hardware}"],
            ("bridge", "own4"): [f"{port} . {self.ipv4}"],
            ("bridge", "own6"): [f"{port} . {address}" for address in ipv6],
            ("bridge", "targets"): [f"{port} . {target}" for target in targets],
            ("bridge", "owners4"): [f"{self.ipv4} : {hardware}"],
            ("bridge", "owners6"): [f"{target} : {hardware}" for target in targets],
            **self.bandwidth.elements(self.port),
        }
        if self.isolated:
            found["bridge", "isolated"] = [port]
            found["bridge", "isolated_hardware"] = [hardware]
            found["inet", "isolated4"] = [str(self.ipv4)]
            found["inet", "isolated6"] = ipv6
        return found


AnyGuest = Guest | LanGuest


def _number(address: IPv6Address) -> str:
    """An address as nft has it that was read from the middle of a message."""
    return f"{int(address):#034x}"


def link_local(hardware: str) -> IPv6Address:
    """The address that the kernel gives an interface by itself; RFC 4291, appendix A."""
    return IPv6Address(0xFE80 << 112 | interface_id(hardware))


def admit(bridge: str, new: Iterable[AnyGuest], gone: Iterable[AnyGuest] = ()) -> str:
    """Takes up ``new``, after it forgot ``gone``, in one transaction."""
    own = table(bridge)
    new, gone = list(new), list(gone)
    lines = []
    for verb, guests in (("delete", gone), ("add", new)):
        if verb == "add":
            lines += [line for guest in gone for line in guest.bandwidth.deleted(guest.port, own)]
            lines += [line for guest in new for line in guest.bandwidth.added(guest.port, own)]
        sets: dict[tuple[str, str], list[str]] = {}
        for guest in guests:
            for name, elements in guest.elements().items():
                sets.setdefault(name, []).extend(elements)
        lines += [f"{verb} element {family} {own} {name} {{ {', '.join(elements)} }}"
                  for (family, name), elements in sets.items()]  # fmt: skip
    return "\n".join([*lines, ""])


def ports(network: IPv4Network) -> str:
    """The names of all ports of the fleet's bridge, as a pattern; see addresses.interface_name."""
    return interface_name(network.network_address)[: 2 + network.prefixlen // 4] + "*"


def render(subnet: Subnet, bridge: str, *, guard: bool) -> str:
    """The table of the bridge itself. Without ``guard`` it only keeps isolated containers apart."""
    own = table(bridge)
    lines = [
        f"table bridge {own} {{}}",
        f"delete table bridge {own}",  # flush would leave the sets' elements
        f"table bridge {own} {{",
        "  set hardware { type ifname . ether_addr; }",
        "  set own4 { type ifname . ipv4_addr; }",
        "  set own6 { type ifname . ipv6_addr; }",
        f"  set targets {{ typeof iifname . {_TARGET6}; }}",
        "  map owners4 { type ipv4_addr : ether_addr; }",
        f"  map owners6 {{ typeof {_TARGET6} : ether daddr; }}",
        "  set isolated { type ifname; }",
        "  set isolated_hardware { type ether_addr; }",
        "  chain forwarding {",
        "    type filter hook forward priority filter; policy accept;",
        "    iifname @isolated oifname @isolated drop",
        "    ether saddr @isolated_hardware oifname @isolated drop",  # those on another bridge of the fleet
        "  }",
        *bandwidth.CHAINS,
        *(_guard(ports(subnet.ipv4)) if guard else ()),
        *(_asking(ports(subnet.ipv4)) if guard else ()),
        "}",
        *_gateway(subnet, own),
        "",
    ]
    return "\n".join(lines)


_TARGET6 = "@th,64,128"
"""The address that a neighbour solicitation or advertisement is about: 8 bytes into the message; RFC 4861, 4.3 and 4.4. nft
has no name for that yet."""


def _gateway(subnet: Subnet, own: str) -> list[str]:
    """The bridge is the owner of its addresses."""
    hardware = hardware_address(subnet.gateway.ip)
    found = [link_local(hardware), *([subnet.gateway6.ip] if subnet.gateway6 is not None else [])]
    owners6 = ", ".join(f"{_number(address)} : {hardware}" for address in found)
    return [
        f"add element bridge {own} owners4 {{ {subnet.gateway.ip} : {hardware} }}",
        f"add element bridge {own} owners6 {{ {owners6} }}",
    ]


def _guard(pattern: str) -> list[str]:
    return [
        "  chain guard {",
        "    type filter hook prerouting priority -300; policy accept;",
        f'    iifname != "{pattern}" accept',
        "    iifname . ether saddr != @hardware drop",
        "    ether type { 8021q, 8021ad } drop",  # the kernel has put the tag aside: the rules below see what is behind it
        "    iifname . ip saddr @own4 accept",
        "    arp operation request ether daddr set arp daddr ip map @owners4",
        "    arp saddr ip 0.0.0.0 accept",
        "    iifname . arp saddr ether @hardware iifname . arp saddr ip @own4 accept",
        "    icmpv6 type { nd-router-solicit, nd-router-advert, nd-redirect } drop",
        "    icmpv6 type { mld-listener-report, mld-listener-done, mld2-listener-report } drop",
        f"    icmpv6 type nd-neighbor-advert iifname . {_TARGET6} != @targets drop",
        f"    icmpv6 type nd-neighbor-solicit ether daddr set {_TARGET6} map @owners6",
        "    iifname . ip6 saddr @own6 accept",
        "    drop",
        "  }",
    ]


def _asking(pattern: str) -> list[str]:
    """The host's own questions about addresses: the bridge hands them to each port, and to further bridges."""
    lines = []
    for name, hook in (("asking", "output"), ("asking_further", "forward")):
        lines += [
            f"  chain {name} {{",
            f"    type filter hook {hook} priority -300; policy accept;",
            f'    oifname != "{pattern}" accept',
            "    arp operation request oifname . arp daddr ip != @own4 drop",
            f"    icmpv6 type nd-neighbor-solicit oifname . {_TARGET6} != @targets drop",
            "  }",
        ]
    return lines


def removal(bridge: str) -> str:
    """Takes the table away, whether it is there or not."""
    return f"table bridge {table(bridge)} {{}}\ndelete table bridge {table(bridge)}\n"


def differences(
    wanted: Mapping[str, AnyGuest], present: Mapping[str, AnyGuest]
) -> tuple[list[AnyGuest], list[AnyGuest]]:
    """The containers to admit, and those to forget. The arguments are by port of the bridge."""
    new = [guest for port, guest in wanted.items() if present.get(port) != guest]
    gone = [guest for port, guest in present.items() if wanted.get(port) != guest]
    return new, gone
