"""Containers' addresses that a DHCP server gives: their clients kept running, and what those say made known.

An address that a client reports counts only if the packet filter has seen it given on the bridge, see network.lan. Root of
a container could tell the client anything, and so have names and published ports lead anywhere.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

from lxcfleet.containers.container import Container
from lxcfleet.host.kernel.inotify import DirectoryWatch
from lxcfleet.host.net import dhcp
from lxcfleet.host.net.dhcp import DhcpClient
from lxcfleet.launcher.items.network import DhcpItem, LeasedItem, RulesItem
from lxcfleet.launcher.operations import DHCP, LEASED, RULES
from lxcfleet.network import uplinks
from lxcfleet.network.context import Context
from lxcfleet.network.discovery import Discovery
from lxcfleet.network.events import AddressChanged, NoDhcpAnswer
from lxcfleet.network.rules import lan
from lxcfleet.network.rules.rules import table
from lxcfleet.runtime.soon import Soon
from lxcfleet.spec.reading import ondisk

log = logging.getLogger(__name__)

HeldAddresses = set[tuple[str, IPv4Address]]
"""Ports of the bridge, and addresses that were given there."""


class Leases:
    """The addresses of all containers that have them from a DHCP server."""

    def __init__(self, context: Context, discovery: Discovery) -> None:
        self._context = context
        self._paths = context.paths
        self._registry = context.registry
        self._discovery = discovery
        self._watch: DirectoryWatch | None = None
        self._lock = asyncio.Lock()
        self._soon = Soon(context.tasks, "leases", self.keep, "containers can't be given addresses")
        self._unanswered: set[str] = set()

    # -- clients ---------------------------------------------------------------------------------------------

    def _running(self) -> list[Container]:
        return [c for c in self._registry if c.running is not None and c.spec is not None and c.spec.by_dhcp]

    @property
    def used(self) -> bool:
        """Whether a container runs that has its address from a DHCP server."""
        return bool(self._running())

    @property
    def watched(self) -> bool:
        """Whether this daemon hears what clients say."""
        return self._watch is not None

    async def keep(self) -> None:
        """Have a client for each container that runs, and take over what they say. Raises FleetError, OSError."""
        async with self._lock:
            await self._have_clients()
            await self._read()

    async def _have_clients(self) -> None:
        self._begin_watch()
        missing = [c for c in self._running() if DhcpClient(c.name, self._paths).running() is None]
        if missing:
            items: list[DhcpItem] = [
                {"name": c.name, "pid": c.running.pid, "began": c.running.began,
                 "privileged": c.spec is not None and c.spec.privileged, "daemon": os.getpid()}
                for c in missing if c.running is not None
            ]  # fmt: skip
            await self._context.ask(DHCP, items)

    def _begin_watch(self) -> None:
        for directory in (self._paths.leases, self._paths.clients):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._watch is None:
            self._watch = DirectoryWatch(self._paths.leases, self.kick)

    def ended(self, name: str) -> None:
        """The container has ended."""
        self._unanswered.discard(name)
        if os.path.exists(self._paths.clients):  # else no container has had a client since the host's boot
            DhcpClient(name, self._paths).forget()
        if name in self._registry:
            self._registry[name].leased = ()

    def tidy(self) -> None:
        """After a restart of the daemon: remove what there is of containers that have ended meanwhile."""
        known = {container.name for container in self._running()}
        for directory in (self._paths.leases, self._paths.clients):
            for file in directory.glob("*"):
                if file.name.removesuffix(".new") not in known:
                    DhcpClient(file.name.removesuffix(".new"), self._paths).forget()

    def close(self) -> None:
        """No longer hear of addresses: the daemon ends, or no container is left that has its address from elsewhere."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    # -- what they say ---------------------------------------------------------------------------------------

    def kick(self) -> None:
        """Have ``keep`` done soon."""
        self._soon.kick()

    async def _read(self) -> None:
        said = [(container, self._said(container)) for container in self._running()]
        if self._context.settings.guard and any(
            address is not None and address not in c.leased and _on_bridge(c) for c, address in said
        ):
            seen = await self.seen()
            said = [(container, self._if_true(container, address, seen)) for container, address in said]
            await self._prune(said, seen)
        for container, address in said:
            try:
                self._take_over(container, address)
            except (OSError, ValueError) as error:  # one of several, which must not keep the others from their addresses
                log.error("%s is not found at its address: %s", container.name, error)

    def _if_true(self, container: Container, address: IPv4Address | None, seen: HeldAddresses) -> IPv4Address | None:
        assert container.spec is not None
        known = address is None or address in container.leased or not _on_bridge(container)
        if known or (container.spec.port, address) in seen:
            return address
        log.warning("%s says it has %s, which no DHCP server gave it", container.name, address)
        return None

    def _said(self, container: Container) -> IPv4Address | None:
        client = DhcpClient(container.name, self._paths)
        try:
            lease = lan.parse_lease(ondisk.text(client.lease, "ascii", most=ondisk.SMALL))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("%s: its lease can't be read: %s", container.name, error)
            return None
        if lease.address is None and container.name not in self._unanswered:
            self._unanswered.add(container.name)
            spec = container.spec
            where = self._context.settings.bridge if spec is None or spec.connected else spec.uplink.words
            self._context.bus.publish(NoDhcpAnswer(container.name, where))
        if lease.servers and not _on_bridge(container):
            self._write_names(container.name, "".join(f"nameserver {each}\n" for each in lease.servers))
        # One that an earlier client left says nothing of this run.
        return lease.address.ip if lease.address is not None and client.running() is not None else None

    def _write_names(self, name: str, text: str) -> None:
        try:
            uplinks.write_names(self._context, name, text)
        except (OSError, ValueError) as error:
            log.error("%s does not get the name servers that a DHCP server named: %s", name, error)

    async def seen(self) -> HeldAddresses:
        """The addresses that the packet filter has seen given. Raises FleetError."""
        found = await self._context.ask_large(LEASED, LeasedItem(table=table(self._context.settings.bridge)))
        return {(port, IPv4Address(number)) for port, number in found}

    async def _prune(self, said: Sequence[tuple[Container, IPv4Address | None]], seen: HeldAddresses) -> None:
        """Nobody keeps an address that it has no more, nor one of several that it was offered."""
        owned = {c.spec.port: address for c, address in said if c.spec is not None and address is not None and _on_bridge(c)}
        gone = [(port, address) for port, address in seen if port in owned and owned[port] != address]
        if gone:
            rules = lan.change_leases(self._context.settings.bridge, [], lan.lease_elements(gone))
            await self._context.ask(RULES, RulesItem(rules=rules))

    def _take_over(self, container: Container, address: IPv4Address | None) -> None:
        found: list[IPv4Address | IPv6Address] = [] if address is None else [address]
        routed = self._context.settings.ipv6 != "none" or not _on_bridge(container)
        if found and container.running is not None and container.spec is not None and routed:
            found += lan.routed6(dhcp.addresses6(container.running.pid), container.spec.mac)
        if container.leased == tuple(found) or container.running is None:
            return
        before, container.leased = container.leased, tuple(found)
        if found:
            self._unanswered.discard(container.name)
        self._discovery.moved(container)
        self._context.bus.publish(AddressChanged(container, before, container.leased))

    def admitted(self, seen: HeldAddresses) -> list[str]:
        """Elements for a new set of given addresses: those of the old set, and those that containers had before its loss."""
        ports = {c.spec.port: c for c in self._registry if c.spec is not None and c.spec.connected and c.spec.by_dhcp}
        kept = {(port, address) for port, address in seen if port in ports}
        kept |= {(port, a) for port, c in ports.items() for a in c.leased if isinstance(a, IPv4Address)}
        return lan.lease_elements(sorted(kept))


def _on_bridge(container: Container) -> bool:
    """Whether the packet filter sees what it is given: not on a network of the host's, where no name leads to it."""
    return container.spec is not None and container.spec.connected
