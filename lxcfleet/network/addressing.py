"""Addresses of containers: the fleet's range and what is free in it, or MAC addresses for a DHCP server to know."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Network, ip_network

from lxcfleet.containers import store
from lxcfleet.errors import NoCapacity
from lxcfleet.host.net import dnsmasq
from lxcfleet.host.net.claim import Claim
from lxcfleet.launcher.items.network import BridgeItem, RoutesItem
from lxcfleet.launcher.operations import BRIDGE, ROUTES
from lxcfleet.network import lan, needs, records
from lxcfleet.network.addresses import AddressPool, Subnet, addresses_in, choose_subnet
from lxcfleet.network.context import Context, seed
from lxcfleet.spec.addresses import AUTO, OFF
from lxcfleet.spec.spec import Spec


class Addressing:
    """The fleet's range, settled when it is first needed, and the addresses of containers in it."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._subnet: Subnet | None = None
        self._pool: AddressPool | None = None
        self._claim: Claim | None = None
        self._host: tuple[str, IPv4Address | None] | None = None
        """The operator's bridge, and the host's address on it."""

    @property
    def settled(self) -> bool:
        """Whether it is known where containers are."""
        return self._subnet is not None or self._host is not None

    async def subnet(self) -> Subnet:
        """The fleet's range, settled on the first call. Raises InvalidInput, NoCapacity, HostError."""
        context = self._context
        async with context.lock:
            if self._subnet is None:
                used = await context.ask(ROUTES, RoutesItem({"except": context.settings.bridge}))
                present = self.present()
                busy = [ip_network(text) for text in used["networks"]]
                self._subnet = self._choose(present, busy, context.settings.ipv6 if used["ipv6"] else OFF)
                self._pool = AddressPool(self._subnet.ipv4, present)
                records.announce(context.paths, context.settings, self._subnet.gateway.ip)
            return self._subnet

    def _choose(self, present: list[IPv4Address], busy: list[IPv4Network | IPv6Network], ipv6: str) -> Subnet:
        """A range that no other daemon has chosen just now: it makes its bridge a moment later."""
        settings = self._context.settings
        while True:
            found = choose_subnet(settings.ipv4, ipv6, present, busy, seed())
            try:
                self._claim = Claim(dnsmasq.responder_address(found.gateway.ip))
            except OSError as error:
                if settings.ipv4 == AUTO and not present and error.errno == errno.EADDRINUSE:
                    busy = [*busy, found.ipv4]
                    continue
            return found

    async def gateway(self) -> IPv4Address | None:
        """The host's address on the bridge, where the fleet's name server is. None: it has none there.

        Raises as ``subnet``, and Unsupported if the operator's bridge is missing.
        """
        context = self._context
        bridge = context.settings.bridge
        if not context.settings.dhcp:
            return (await self.subnet()).gateway.ip
        if self._host is None or self._host[0] != bridge:
            text = (await context.ask(BRIDGE, BridgeItem(bridge=bridge)))["address"]
            self._host = bridge, None if text is None else IPv4Address(text)
            records.announce(context.paths, context.settings, self._host[1])
        return self._host[1]

    def look_again(self) -> None:
        """Other settings are in force: tell clones anew where their name server is."""
        self._host = None
        if self._subnet is not None:
            records.announce(self._context.paths, self._context.settings, self._subnet.gateway.ip)

    def forget(self) -> None:
        """Nobody is on the bridge any more: the range is settled anew for the next container."""
        self._subnet, self._pool, self._host = None, None, None
        self.close()

    def close(self) -> None:
        """The daemon ends, or nobody is on the bridge."""
        if self._claim is not None:
            self._claim.close()
            self._claim = None

    # -- containers' addresses -------------------------------------------------------------------------------

    def present(self) -> list[IPv4Address]:
        """The addresses that containers have; those of broken ones are read from LXC's configuration."""
        registry = self._context.registry
        specs = [spec for c in registry for spec in (c.spec, c.desired) if spec is not None]
        ours = list(dict.fromkeys(spec.address.ip for spec in specs if spec.address is not None))
        broken = [store.config(self._context.paths, c.name) for c in registry if c.spec is None]
        return ours + [address for text in broken for address in addresses_in(text)]

    async def check_new(self, count: int) -> None:
        """Refuse so many new containers if they can't be connected. Raises FleetError."""
        if self._context.settings.dhcp:
            needs.check_ports(self._context.settings.bridge, count)
            needs.check(self._context.settings)
            await self.gateway()
            return
        subnet = await self.subnet()
        self.give_back(None)  # one that left the bridge by a change of its spec has given its address back by nothing else
        free = self._pool.free if self._pool is not None else 0
        if count > free:
            raise NoCapacity(
                f"no room for {count} more containers in {subnet.ipv4}",
                why=f"{count} addresses needed, {free} left",
                hint="set network.ipv4 in lxcfleet.yaml to a larger range, or use --network none",
            )

    def place(self, spec: Spec, others: Sequence[Spec]) -> Spec:
        """The spec of a new container with addresses of its own; ``check_new`` comes first. Raises NoCapacity.

        ``others``: the specs of new containers that are created together with it.
        """
        if self._context.settings.dhcp:
            taken = {each.mac for each in (*self._context.specs(), *others)}
            own = lan.hardware(f"{seed()} {self._context.paths.lxc}", spec.name, taken)
            return replace(spec, hardware=own)
        assert self._subnet is not None
        assert self._pool is not None
        address = self._pool.take()
        interface = IPv4Interface((address, self._subnet.ipv4.prefixlen))
        return replace(spec, address=interface, address6=self._subnet.ipv6_of(address))

    def give_back(self, address: IPv4Interface | None) -> None:
        """The container of this address is gone: the address is free. None: no spec says which address it had."""
        if address is None and self._subnet is not None:
            self._pool = AddressPool(self._subnet.ipv4, self.present())
        elif address is not None and self._pool is not None:
            self._pool.give_back(address.ip)
