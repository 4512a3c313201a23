"""The range of addresses that the fleet has, and which of them are free. Pure.

Addresses stand in the specs: stable over restarts, and no lease to lose. So the network is the one that the
specs name; only a fleet without containers chooses anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from lxcfleet.errors import InvalidInput, NoCapacity
from lxcfleet.spec.container.addresses import AUTO, OFF, parse4, parse6
from lxcfleet.spec.container.spec import Spec
from lxcfleet.units import counted

_CANDIDATES = tuple(IPv4Network(f"10.{number}.0.0/16") for number in (*range(201, 256), *range(100, 201)))
"""The ranges that "auto" tries in turn: little used ones of 10.0.0.0/8, /16 for a thousand containers and more."""


@dataclass(frozen=True)
class Subnet:
    """The fleet's network. The bridge has its first address."""

    ipv4: IPv4Network
    ipv6: IPv6Network | None

    @property
    def gateway(self) -> IPv4Interface:
        """The bridge's address."""
        return IPv4Interface((self.ipv4.network_address + 1, self.ipv4.prefixlen))

    @property
    def gateway6(self) -> IPv6Interface | None:
        """The bridge's IPv6 address."""
        return None if self.ipv6 is None else IPv6Interface((self.ipv6.network_address + 1, self.ipv6.prefixlen))

    def ipv6_of(self, address: IPv4Address) -> IPv6Interface | None:
        """The IPv6 address that goes with an IPv4 address: the same number in its network."""
        if self.ipv6 is None:
            return None
        number = int(address) - int(self.ipv4.network_address)
        return IPv6Interface((self.ipv6.network_address + number, self.ipv6.prefixlen))


def choose_subnet(
    ipv4: str, ipv6: str, present: Iterable[IPv4Address], taken: Iterable[IPv4Network | IPv6Network], seed: str
) -> Subnet:
    """The network by the settings ``ipv4`` and ``ipv6``: a range, auto, or for IPv6 none.

    ``present``: the containers' addresses; ``taken``: what the host's routes and interfaces use, the fleet's own
    bridge left out; ``seed``: something that is this host's own, for its IPv6 range. Raises InvalidInput for a
    range that overlaps, or that has no room for the containers there are, NoCapacity if none is free.
    """
    busy = list(taken)
    chosen = _auto4(present, busy) if ipv4 == AUTO else _fixed4(ipv4, present, busy)
    return Subnet(chosen, _choose6(ipv6, chosen, busy, seed))


def _auto4(present: Iterable[IPv4Address], busy: list[IPv4Network | IPv6Network]) -> IPv4Network:
    there = next(iter(present), None)
    if there is not None:
        return IPv4Network((there, _CANDIDATES[0].prefixlen), strict=False)
    for candidate in _CANDIDATES:
        if not _overlap(candidate, busy):
            return candidate
    raise NoCapacity(
        "no network is free for containers",
        why="the host has routes into every 10.X.0.0/16 that was tried",
        hint="set network.ipv4 in lxcfleet.yaml to a range that you keep free for it",
    )


def _fixed4(text: str, present: Iterable[IPv4Address], busy: list[IPv4Network | IPv6Network]) -> IPv4Network:
    network = parse4(text)
    clash = _overlap(network, busy)
    if clash:
        raise InvalidInput(
            f"network.ipv4: {text} overlaps with {clash}, which the host uses", hint="`ip route` shows what is in use"
        )
    outside = [str(address) for address in present if address not in network]
    if outside:
        raise InvalidInput(
            f"network.ipv4: addresses of {counted(len(outside), 'container')} are outside {text}", why=", ".join(outside[:5]),
            hint="destroy them first, or keep the range that they are in",
        )  # fmt: skip
    return network


def _choose6(
    text: str, ipv4: IPv4Network, busy: list[IPv4Network | IPv6Network], seed: str
) -> IPv6Network | None:
    if text == OFF:
        return None
    if text != AUTO:
        network = parse6(text)
        clash = _overlap(network, busy)
        if clash:
            raise InvalidInput(f"network.ipv6: {text} overlaps with {clash}, which the host uses")
        return network
    # A unique local network of this host's own, RFC 4193: fd, 40 random bits, and the subnet that IPv4 has.
    digest = hashlib.sha256(f"lxcfleet {seed}".encode()).digest()[:5]
    subnet = int(ipv4.network_address) >> 16 & 0xFFFF
    own = IPv6Network((b"\xfd" + digest + subnet.to_bytes(2, "big") + bytes(8), 64))
    return None if _overlap(own, busy) else own


def _overlap(
    network: IPv4Network | IPv6Network, busy: Iterable[IPv4Network | IPv6Network]
) -> IPv4Network | IPv6Network | None:
    for other in busy:
        # A default route covers all and clashes with nothing.
        if other.version == network.version and other.prefixlen > 0 and network.overlaps(other):
            return other
    return None


def numbers(subnet: Subnet, spec: Spec) -> set[int]:
    """The numbers in the network of the addresses that a container has. A number of an IPv6 address that no IPv4 address can
    have is left out."""
    found = set()
    if spec.address is not None:
        found.add(int(spec.address.ip) - int(subnet.ipv4.network_address))
    if spec.address6 is not None and subnet.ipv6 is not None:
        found.add(int(spec.address6.ip) - int(subnet.ipv6.network_address))
    return {number for number in found if 0 <= number < subnet.ipv4.num_addresses}


class AddressPool:
    """The numbers of a network's addresses that are free; the lowest goes first. An IPv4 address and the IPv6 address that
    goes with it have the same number, so one that either has is nobody else's."""

    def __init__(self, network: IPv4Network, taken: Iterable[int]) -> None:
        self._network = network
        # No container has the network's own address, the bridge's or the broadcast address.
        self._taken = Counter((0, 1, network.num_addresses - 1, *taken))
        self._returned: list[int] = []
        self._next = 2

    @property
    def free(self) -> int:
        """How many are left."""
        return self._network.num_addresses - len(self._taken)

    def take(self) -> IPv4Address:
        """A free address, which is taken now; raises NoCapacity."""
        number = self._lowest()
        self._taken[number] += 1
        return self._network.network_address + number

    def claim(self, numbers: Iterable[int]) -> None:
        """Somebody has chosen addresses with these numbers."""
        self._taken.update(numbers)

    def _lowest(self) -> int:
        while self._returned:
            number = heapq.heappop(self._returned)
            if number not in self._taken:
                return number
        while self._next in self._taken:
            self._next += 1
        if self._next >= self._network.num_addresses:
            raise NoCapacity(
                f"no address is free in {self._network}",
                why=f"it has room for {self._network.num_addresses - 3} containers",
                hint="set network.ipv4 in lxcfleet.yaml to a larger range, or remove containers",
            )
        return self._next

    def give_back(self, numbers: Iterable[int]) -> None:
        """The numbers of a container that is gone."""
        for number in numbers:
            if number in self._taken and 2 <= number < self._network.num_addresses - 1:
                self._taken[number] -= 1
                if not self._taken[number]:
                    del self._taken[number]
                    if number < self._next:
                        heapq.heappush(self._returned, number)


_TENTATIVE, _OPTIMISTIC = 0x40, 0x04
"""linux/if_addr.h: it is not used yet, as another host may have it; it is used all the same."""


def is_tentative(table: str, address: IPv6Address) -> bool:
    """Whether the address does not answer yet. ``table``: /proc/PID/net/if_inet6, lines of address, index, length of the
    prefix, scope, flags and name, all but the last in hexadecimal."""
    own = f"{int(address):032x}"
    lines = (line.split() for line in table.splitlines())
    flags = [int(words[4], 16) for words in lines if len(words) == 6 and words[0] == own]
    return any(each & _TENTATIVE and not each & _OPTIMISTIC for each in flags)


_ADDRESS = re.compile(r"^\s*lxc\.net\.\d+\.ipv4\.address\s*=\s*([\d.]+)", re.MULTILINE | re.ASCII)


def addresses_in(config: str) -> list[IPv4Address]:
    """The addresses that an LXC configuration gives; lxc.container.conf(5)."""
    found = []
    for text in _ADDRESS.findall(config):
        with contextlib.suppress(ValueError):
            found.append(IPv4Address(text))
    return found
