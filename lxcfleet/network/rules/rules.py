"""The packet filter's rules for the fleet's bridge, as nft reads them. Pure.

Everything is in a table of our own, so nobody else's rules are touched, and nobody's reload takes ours away.
nft(8): adding, flushing and filling it is one transaction, so there is no moment without rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from lxcfleet.launcher.items.network import ForeignPort
from lxcfleet.network.addresses.ranges import Subnet
from lxcfleet.network.rules.member_maps import LoadedMaps, MemberMap
from lxcfleet.spec.container.ports import ALL4, ALL6, Publication
from lxcfleet.spec.reading.terms import Affinity


@lru_cache(maxsize=1 << 16)
def _text(address: IPv4Address | IPv6Address) -> str:
    """A thousand ports of a group are as many times its members."""
    return str(address)


@dataclass(frozen=True)
class Published:
    """A port of the host, and the members behind it at the moment."""

    publication: Publication
    ipv4: tuple[IPv4Address, ...]
    ipv6: tuple[IPv6Address, ...] = ()
    affinity: Affinity = Affinity.NONE

    @cached_property
    def maps(self) -> Mapping[int, MemberMap]:
        """By version of IP, the one of its members that serves a connection; nothing where it leads to nobody."""
        return {
            version: MemberMap(family, tuple(sorted(map(_text, members))), self.affinity)
            for version, family, members in ((4, "ip", self.ipv4), (6, "ip6", self.ipv6))
            if members and version in self.publication.versions
        }


@dataclass(frozen=True)
class Behind:
    """The programs that the fleet's name server asks. Nobody else has a reason to, and who asks them much takes their time
    from it."""

    address: IPv4Address
    """In the loopback network."""
    ports: tuple[int, ...]
    user: int
    """Of the host: the name server's. It and root may ask."""


_TABLE = "lxcfleet_"
MOST_STREAMS = 6
"""So many TCP connections to the name server may one container have, and one user of the host. dnsmasq has a process for
each, 20 of them for all, and waits for minutes for what a client does not send."""
MOST_QUESTIONS = "1000/second burst 200 packets"
"""So many questions over UDP may one container send to the name server, and one user of the host. A socket has room for about
270 of them. One that no other server answers has a place in the name server for ten seconds: host.net.dnsmasq has more than
one can take."""
MAPPED = 65536
"""Users from here on are mostly those of containers (subuid(5)): one that has the host's network can be 65,536 of them, so
all of them together have what one other user has."""
PUBLISHED = ("published", "published6")
"""The chains that say where the host's ports lead."""
KEPT = "asking_here"
"""The chain that says at which addresses port 53 is the fleet's name server's."""


_SETS = (
    "  set isolated4 { type ipv4_addr; }",
    "  set isolated6 { type ipv6_addr; }",
    "  set asking { type ether_addr; flags dynamic; size 65535; }",
    "  set asking_users { type uid; flags dynamic; size 65535; }",
    "  set asking_often { type ether_addr; flags dynamic, timeout; timeout 1m; size 65535; }",
    "  set users_asking_often { type uid; flags dynamic, timeout; timeout 1m; size 65535; }",
)


def is_fleets(table: str) -> bool:
    """Whether it is the table of some fleet."""
    return table.startswith(_TABLE)


def bridge_in(table: str) -> str:
    """The bridge of the fleet that has this table; a character that a table's name can't have is an underscore."""
    return table.removeprefix(_TABLE)


def table(bridge: str) -> str:
    """The name of the table of this bridge's fleet."""
    return _TABLE + re.sub(r"[^A-Za-z0-9_]", "_", bridge)


def render(
    subnet: Subnet,
    bridge: str,
    *,
    nat: bool,
    published: Sequence[Published] = (),
    route6: bool = False,
    host_access: bool = True,
    dns: bool = True,
    behind: Behind | None = None,
) -> str:
    """The whole table: packets from the fleet leave under the host's address, strangers' come in by published ports.

    ``route6``: whether the host passes IPv6 packets on; if not, ports are published to itself only.
    ``host_access``: whether containers that are not isolated may connect to the host itself.
    ``dns``: whether the fleet's name server is at the bridge's addresses. Then no published port 53 takes its place.
    ``behind``: what that asks, if it is known.
    """
    own = table(bridge)
    lines = [
        f"table inet {own} {{}}",
        f"delete table inet {own}",  # flush would leave the sets' elements
        f"table inet {own} {{",
        *_SETS,
        *published_chains(published),
        *(_kept_for_name_server(subnet) if dns else ()),
        "  chain arriving {",
        "    type nat hook prerouting priority dstnat; policy accept;",
        "    jump published",
        *(["    jump published6"] if route6 else []),
        "  }",
        "  chain beginning_here {",
        "    type nat hook output priority -100; policy accept;",
        "    ip6 daddr ::1 accept",  # the kernel would not let these packets leave the host
        "    jump published",
        "    jump published6",
        "  }",
        "  chain not_our_loopback {",
        "    type filter hook prerouting priority raw; policy accept;",
        f'    iifname "{bridge}" ip daddr 127.0.0.0/8 drop',
        f'    iifname "{bridge}" ip saddr 127.0.0.0/8 drop',  # route_localnet has the kernel look less closely, too
        "  }",
        "  chain forwarding {",
        "    type filter hook forward priority filter; policy accept;",
        f'    oifname "{bridge}" iifname != "{bridge}" ct state new,invalid ct status & dnat == 0 drop',
        # Packets that the bridge itself would not pass on must not take the way by the host.
        f'    iifname "{bridge}" oifname "{bridge}" ct status & dnat == 0 ip saddr @isolated4 ip daddr @isolated4 drop',
        f'    iifname "{bridge}" oifname "{bridge}" ct status & dnat == 0 ip6 saddr @isolated6 ip6 daddr @isolated6 drop',
        "  }",
        *_to_the_host(subnet if dns else None, bridge, host_access=host_access),
        *(_users_of_the_host(subnet, behind) if dns else ()),
        *_translation(subnet, bridge, nat=nat),
        "}",
        "",
    ]
    return "\n".join(lines)


def _name_servers(subnet: Subnet) -> Iterator[tuple[str, str]]:
    """The addresses of the fleet's name server, each after nft's word for its family."""
    for gateway in (subnet.gateway, subnet.gateway6):
        if gateway is not None:
            yield "ip" if gateway.version == 4 else "ip6", str(gateway.ip)


def _to_name_server(subnet: Subnet) -> Iterator[str]:
    """The match for packets to the fleet's name server, for each of its addresses."""
    return (f"{family} daddr {address}" for family, address in _name_servers(subnet))


def _kept_for_name_server(subnet: Subnet) -> Iterator[str]:
    """The chains by which questions to the fleet's name server stay where they are.

    They come before those that publish ports, of any fleet: the kernel translates a connection once, and that to the address
    that it has counts. A mere accept ends one chain, and the next fleet's would lead the question away.
    """
    for name, hook in ((KEPT, "prerouting"), ("asked_here", "output")):
        yield f"  chain {name} {{"
        yield f"    type nat hook {hook} priority -101; policy accept;"
        for family, address in _name_servers(subnet):
            yield f"    {family} daddr {address} meta l4proto {{ tcp, udp }} th dport 53 dnat {family} to {address}"
        yield "  }"


def _to_the_host(served: Subnet | None, bridge: str, *, host_access: bool) -> list[str]:
    """The chain that says what containers may send to the host itself. ``served``: by the fleet's name server; a resolver of
    the host's own may have as many connections as it likes."""
    often = f"udp dport 53 add @asking_often {{ ether saddr limit rate over {MOST_QUESTIONS} }} drop"
    limit = f"tcp dport 53 add @asking {{ ether saddr ct count over {MOST_STREAMS} }} reject with tcp reset"
    # dnsmasq is also at the addresses that the kernel gives the bridge.
    served_at = () if served is None else (*_to_name_server(served), "ip6 daddr fe80::/10")
    return [
        "  chain to_the_host {",
        "    type filter hook input priority filter; policy accept;",
        f'    iifname != "{bridge}" accept',
        *(f"    {there} {often}" for there in served_at),
        "    ct state established,related accept",
        *(f"    {there} {limit}" for there in served_at),
        # With no name server of the fleet's, containers ask those of the host, which may be the host itself.
        *(f"    {there}meta l4proto {{ tcp, udp }} th dport 53 accept" for there in [f"{at} " for at in served_at] or [""]),
        "    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, mld2-listener-report } accept",
        *(["    ip saddr @isolated4 drop", "    ip6 saddr @isolated6 drop"] if host_access else ["    drop"]),
        "  }",
    ]


def _users_of_the_host(subnet: Subnet, behind: Behind | None) -> Iterator[str]:
    """The chain that says how much of the fleet's name server a user of the host may have."""
    yield "  chain from_users {"
    yield "    type filter hook output priority filter; policy accept;"
    yield "    meta skuid 0 accept"
    yield from refuse_others(behind)
    # The host's own address of that kind leads to it, too, if it is the bridge's: no rule can tell by which interface.
    places = (*_to_name_server(subnet), "ip6 daddr fe80::/10 fib daddr type local")
    often = f"add @users_asking_often {{ meta skuid limit rate over {MOST_QUESTIONS} }} drop"
    for there in places:
        yield f"    {there} udp dport 53 meta skuid >= {MAPPED} limit rate over {MOST_QUESTIONS} drop"
        yield f"    {there} udp dport 53 meta skuid < {MAPPED} {often}"
    yield "    tcp dport != 53 accept"
    yield "    ct state != new accept"
    limit = f"add @asking_users {{ meta skuid ct count over {MOST_STREAMS} }} reject with tcp reset"
    for there in places:
        yield f"    {there} meta skuid >= {MAPPED} ct count over {MOST_STREAMS} reject with tcp reset"
        yield f"    {there} meta skuid < {MAPPED} {limit}"
    yield "  }"


def refuse_others(behind: Behind | None) -> Iterator[str]:
    """Of a chain for what leaves the host, where root's packets were let through: nobody else but the name server asks the
    programs that it asks."""
    if behind is not None:
        # Not by the state of a connection: over UDP, one that the name server began would admit whoever has its port next.
        ports = ", ".join(map(str, behind.ports))
        others = f"ip daddr {behind.address} meta l4proto {{ tcp, udp }} th dport {{ {ports} }} meta skuid != {behind.user}"
        yield f"    {others} meta l4proto tcp reject with tcp reset"
        yield f"    {others} drop"


def _translation(subnet: Subnet, bridge: str, *, nat: bool) -> Iterator[str]:
    """The chain that gives packets another sender."""
    yield "  chain translation {"
    yield "    type nat hook postrouting priority srcnat; policy accept;"
    for family, network in (("ip", subnet.ipv4), ("ip6", subnet.ipv6)):
        if network is not None:
            if nat:
                # With br_netfilter, what the bridge passes on to many comes by here as well.
                alone = "ip daddr < 224.0.0.0" if family == "ip" else "ip6 daddr < fe80::"
                yield f"    {family} saddr {network} {family} daddr != {network} {alone} masquerade"
            # From one container to another by way of the host's port: the answer must come back the same way.
            yield f'    oifname "{bridge}" ct status & dnat != 0 {family} saddr {network} masquerade'
    yield f'    oifname "{bridge}" ip saddr 127.0.0.0/8 masquerade'
    yield "  }"


def publish(bridge: str, published: Sequence[Published], standing: LoadedMaps) -> str:
    """Replaces what is published, and nothing else; connections that there are stay where they are. ``standing``: the maps
    that the table has; it may have more."""
    own, wanted = table(bridge), member_maps(published)
    return "\n".join(
        [
            f"flush chain inet {own} published",
            f"flush chain inet {own} published6",
            f"table inet {own} {{",
            *(line for each in standing.added(wanted) for line in each.lines),
            *_chains(published),
            "}",
            *(line for each in standing.removed(wanted) for line in each.removal(f"inet {own}")),
            "",
        ]
    )


def member_maps(published: Iterable[Published]) -> list[MemberMap]:
    """The maps that the chains of these ports make, each once."""
    return list(dict.fromkeys(found for each in published for found in each.maps.values()))


def published_chains(published: Sequence[Published]) -> list[str]:
    """The chains that say where the host's ports lead, after the maps that they look into, in a table that is made."""
    return [line for each in member_maps(published) for line in each.lines] + _chains(published)


def _chains(published: Sequence[Published]) -> list[str]:
    return [
        "  chain published {",
        *_published(published, 4),
        "  }",
        "  chain published6 {",
        *_published(published, 6),
        "  }",
    ]


def _published(published: Sequence[Published], version: int) -> list[str]:
    rules = []
    for each in published:
        publication, chosen = each.publication, each.maps.get(version)
        if version not in publication.versions or (version == 6 and chosen is None and publication.address is None):
            continue  # the chain of IPv4 says that it is taken
        where = _where(publication)
        match = f"    {where}{publication.protocol} dport {publication.host} "
        if chosen is not None:
            rules.append(f"{match}dnat {chosen.family} to {chosen.expression} : {publication.container}")
        else:
            rules.append(match + "continue")  # so that other fleets see that it is taken
    # Only what is meant for this host, not what passes through it to a port of the same number elsewhere. It is there also if
    # nothing is published: a chain of ours without any rule is one that somebody else has flushed (host.net.nft_watch).
    return ["    fib daddr type != local return", *rules]


def _where(publication: Publication) -> str:
    if publication.address is None:
        return ""
    version = publication.versions[0]
    if publication.everywhere:
        return f"meta nfproto ipv{version} "
    return f"{'ip' if version == 4 else 'ip6'} daddr {publication.address} "


def read_published(table: str, chain: str, rules: Iterable[Mapping[str, Any]]) -> list[ForeignPort]:
    """The ports in a chain of another fleet, one of PUBLISHED. ``rules``: those of the chain, as libnftables-json(5) has
    them."""
    found: list[ForeignPort] = []
    for rule in rules:
        address = ALL6 if chain == PUBLISHED[1] else None
        for expression in rule.get("expr", ()):
            match expression:
                case {"match": {"left": {"payload": {"protocol": "ip" | "ip6", "field": "daddr"}}, "right": str(text)}}:
                    address = text
                case {"match": {"left": {"meta": {"key": "nfproto"}}, "right": str(text)}}:
                    address = ALL6 if text == "ipv6" else ALL4
                case {"match": {"left": {"payload": {"protocol": str(protocol), "field": "dport"}}, "right": int(port)}}:
                    found.append({"table": table, "protocol": protocol, "port": port, "address": address})
    return found


def read_kept(rules: Iterable[Mapping[str, Any]]) -> list[str]:
    """The addresses at which another fleet keeps port 53 for its name server. ``rules``: those of KEPT, as above."""
    found = []
    for rule in rules:
        for expression in rule.get("expr", ()):
            match expression:
                case {"match": {"left": {"payload": {"field": "daddr"}}, "right": str(address)}}:
                    found.append(address)
    return found


def pause_names(bridge: str) -> str:
    """Drops the beginnings of TCP connections to the name server while that is exchanged: clients try again a second later,
    where a refusal would be an answer. In a table of its own."""
    own = f"{table(bridge)}_pause"
    return "\n".join(
        [
            resume_names(bridge),
            f"table inet {own} {{",
            "  chain names {",
            "    type filter hook input priority raw; policy accept;",
            f'    iifname "{bridge}" tcp dport 53 tcp flags & (syn | ack) == syn drop',
            "  }",
            "}",
            "",
        ]
    )


def resume_names(bridge: str) -> str:
    """Undoes ``pause_names``, whether it was done or not."""
    own = f"{table(bridge)}_pause"
    return f"table inet {own} {{}}\ndelete table inet {own}\n"


def removal(bridge: str) -> str:
    """Takes the table away, whether it is there or not."""
    return resume_names(bridge) + f"table inet {table(bridge)} {{}}\ndelete table inet {table(bridge)}\n"
