"""Addresses of containers: the fleet's range and what is free in it, or MAC addresses for a DHCP server to know."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Network, ip_network

from lxcfleet.capacity.needs import Finding
from lxcfleet.containers import store
from lxcfleet.errors import FleetError, InvalidInput, NoCapacity
from lxcfleet.host.net import dnsmasq, interfaces
from lxcfleet.host.net.claim import Claim
from lxcfleet.launcher.items.network import BridgeItem, RoutesItem
from lxcfleet.launcher.operations import BRIDGE, ROUTES
from lxcfleet.network import needs, records
from lxcfleet.network.addresses import static
from lxcfleet.network.addresses.ranges import AddressPool, Subnet, addresses_in, choose_subnet, numbers
from lxcfleet.network.context import Context, seed
from lxcfleet.network.rules import lan
from lxcfleet.spec.container.addresses import AUTO, OFF
from lxcfleet.spec.container.ports import Publication
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files.settings import NetworkSettings
from lxcfleet.units import counted


class Addressing:
    """The fleet's range, settled when it is first needed, and the addresses of containers in it."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._subnet: Subnet | None = None
        self._pool: AddressPool | None = None
        self._claim: Claim | None = None
        self._hardware: dict[str, str] | None = None
        """The names of containers by the MAC addresses that were made for them; None: not looked up yet. To look at all for
        each new one costs the square of their number."""
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
                self._pool = self._new_pool(self._subnet)
                records.announce(context.paths, context.settings, self._subnet.gateway.ip)
            return self._subnet

    def _choose(self, present: list[IPv4Address], busy: list[IPv4Network | IPv6Network], ipv6: str) -> Subnet:
        """A range that no other daemon has chosen just now: it makes its bridge a moment later. Nor is it one of which a name
        server is left, as of a fleet whose daemon was killed."""
        settings = self._context.settings
        free = settings.ipv4 == AUTO and not present
        needed = (dnsmasq.RESPONDER_PORT,) if free else ()
        while True:
            found = choose_subnet(settings.ipv4, ipv6, present, busy, seed())
            try:
                self._claim = Claim(dnsmasq.responder_address(found.gateway.ip), *needed)
            except OSError as error:
                if free and error.errno == errno.EADDRINUSE:
                    busy = [*busy, found.ipv4]
                    continue
            return found

    async def in_the_way(self, wanted: NetworkSettings) -> list[Finding]:
        """The obstacles on the host that keep the fleet from a bridge and ranges by these settings. Raises HostError."""
        if wanted.dhcp:
            return []
        found = []
        if interfaces.is_foreign(wanted.bridge):
            message = f"network.bridge: {wanted.bridge} is there already and not lxcfleet's"
            hint = f"choose another name, or use it: `network: {{bridge: {wanted.bridge}, addresses: dhcp}}`"
            found.append(Finding("network", "fail", message, hint=hint, feature=True))
        used = await self._context.ask(ROUTES, RoutesItem({"except": wanted.bridge}))
        own = [] if self._subnet is None else [str(self._subnet.ipv4), str(self._subnet.ipv6)]
        busy = [ip_network(text) for text in used["networks"] if text not in own]
        try:
            choose_subnet(wanted.ipv4, wanted.ipv6 if used["ipv6"] else OFF, (), busy, seed())
        except FleetError as error:
            found.append(Finding("network", "fail", error.message, hint=error.hint or "", feature=True))
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

    def stays(self, subnet: Subnet | None) -> bool:
        """Whether the range is still this one; None: on the operator's bridge there is none."""
        return subnet is None or subnet is self._subnet

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
        ours = list(dict.fromkeys(spec.address.ip for spec in self._specs() if spec.address is not None))
        return ours + self._unreadable()

    def _specs(self) -> list[Spec]:
        """The specs that containers have, and those that they will have after a restart."""
        registry = self._context.registry
        return [spec for c in registry for spec in (c.spec, c.desired) if spec is not None]

    def _unreadable(self) -> list[IPv4Address]:
        broken = [store.config(self._context.paths, c.name) for c in self._context.registry if c.spec is None]
        return [address for text in broken for address in addresses_in(text)]

    def _new_pool(self, subnet: Subnet) -> AddressPool:
        taken: dict[str, set[int]] = {}
        for spec in self._specs():
            taken.setdefault(spec.name, set()).update(numbers(subnet, spec))
        first = int(subnet.ipv4.network_address)
        broken = [int(address) - first for address in self._unreadable()]
        return AddressPool(subnet.ipv4, [*broken, *(number for own in taken.values() for number in own)])

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
                f"no room for {counted(count, 'more container')} in {subnet.ipv4}",
                why=f"{counted(count, 'address')} needed, {free} left",
                hint="set network.ipv4 in lxcfleet.yaml to a larger range, or use --network none",
            )

    async def check_static(self, wanted: Sequence[Spec]) -> None:
        """Refuse addresses that operators chose for these containers, if they can't have them. Raises FleetError."""
        chosen = [spec for spec in wanted if spec.static_addresses]
        if not chosen:
            return
        if self._context.settings.dhcp:
            raise InvalidInput(
                f"a container can't have {chosen[0].static_addresses[0]}",
                why=f"the DHCP server on {self._context.settings.bridge} gives addresses",
                hint="have that server give it to the container's MAC address: lxcfleet info NAME",
            )
        static.check_apart(chosen)
        subnet = await self.subnet()
        for spec in chosen:
            self._check_static(spec, subnet, ())

    async def check_published(self, publications: Iterable[Publication]) -> None:
        """Refuse ports for IPv6 alone where containers have no such addresses. Raises FleetError."""
        settings = self._context.settings
        for each in publications:
            if 4 in each.versions:
                continue
            if settings.ipv6 == OFF:
                why, hint = "by network.ipv6", "set network.ipv6 in lxcfleet.yaml"
            elif not settings.dhcp and (await self.subnet()).ipv6 is None:
                why = "as the host had IPv6 off when the first of them was connected"
                hint = "switch it on (net.ipv6.conf.all.disable_ipv6=0) while no container is connected"
            else:
                continue
            raise InvalidInput(
                f"{each} can't be published", why=f"containers have no IPv6 addresses, {why}",
                hint=f"publish it at an IPv4 address, or {hint}",
            )  # fmt: skip

    def _check_static(self, spec: Spec, subnet: Subnet, others: Sequence[Spec]) -> None:
        static.check_range(spec.static_addresses, subnet)
        static.check_free(spec, subnet, [*self._specs(), *others], self._unreadable())

    def place(self, spec: Spec, others: Sequence[Spec]) -> Spec:
        """The spec of a new container with addresses of its own; ``check_new`` comes first, and ``check_static``. Raises
        NoCapacity, and InvalidInput for an address that somebody else has got meanwhile.

        ``others``: the specs of new containers that are created together with it.
        """
        if spec.on_uplink or self._context.settings.dhcp:
            return self._with_hardware(spec)
        subnet, pool = self._subnet, self._pool
        assert subnet is not None
        assert pool is not None
        if spec.static_addresses:
            self._check_static(spec, subnet, others)
            spec = static.placed(spec, subnet)
        pool.claim(numbers(subnet, spec))
        if spec.address is None:
            spec = replace(spec, address=IPv4Interface((pool.take(), subnet.ipv4.prefixlen)))
        if spec.address6 is None and spec.address is not None:
            spec = replace(spec, address6=subnet.ipv6_of(spec.address.ip))
        return spec

    def _with_hardware(self, spec: Spec) -> Spec:
        if self._hardware is None:
            self._hardware = {each.hardware: each.name for each in self._specs() if each.hardware is not None}
        own = lan.hardware(f"{seed()} {self._context.paths.lxc}", spec.name, self._hardware)
        self._hardware[own] = spec.name
        return replace(spec, hardware=own)

    def give_back(self, spec: Spec | None) -> None:
        """The container of this spec is gone: its addresses are free. None: no spec says which addresses it had."""
        if spec is None:
            self._hardware = None
        elif self._hardware is not None and spec.hardware is not None:
            self._hardware.pop(spec.hardware, None)
        if self._subnet is None or self._pool is None:
            return
        if spec is None:
            self._pool = self._new_pool(self._subnet)
        else:
            self._pool.give_back(numbers(self._subnet, spec))
