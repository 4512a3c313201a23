"""Containers' addresses that a DHCP server gives: their clients kept running, and what those say made known.

What a client says counts if the packet filter has seen it pass the bridge, see network.lan: root of a container could tell
the client anything, and have names and published ports lead where it wants.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from lxcfleet.containers.container import Container
from lxcfleet.containers.registry import Registry
from lxcfleet.errors import FleetError, from_body
from lxcfleet.host.kernel.inotify import DirectoryWatch
from lxcfleet.host.net import dhcp
from lxcfleet.host.net.dhcp import Client
from lxcfleet.launcher.client import Launcher
from lxcfleet.network import lan
from lxcfleet.network.rules import table
from lxcfleet.paths import Paths
from lxcfleet.runtime.events import Events
from lxcfleet.spec.settings import NetworkSettings

log = logging.getLogger(__name__)

HeldAddresses = set[tuple[str, IPv4Address]]
"""Ports of the bridge, and addresses that were given there."""


class Leases:
    """The addresses of all containers that have them from a DHCP server."""

    def __init__(
        self,
        paths: Paths,
        registry: Registry,
        launcher: Launcher,
        events: Events,
        settings: Callable[[], NetworkSettings],
        moved: Callable[[Container], None],
    ) -> None:
        """``moved``: told of each container whose addresses are others than before."""
        self._paths = paths
        self._registry = registry
        self._launcher = launcher
        self._events = events
        self._settings = settings
        self._moved = moved
        self._watch: DirectoryWatch | None = None
        self._lock = asyncio.Lock()
        self._again = False
        self._task: asyncio.Task[None] | None = None
        self._unanswered: set[str] = set()

    # -- clients ---------------------------------------------------------------------------------------------

    def _running(self) -> list[Container]:
        return [c for c in self._registry if c.running is not None and c.spec is not None and c.spec.hardware is not None]

    async def keep(self) -> None:
        """Have a client for each container that runs, and take over what they say. Raises FleetError, OSError."""
        async with self._lock:
            await self._have_clients()
            await self._read()

    async def _have_clients(self) -> None:
        self._begin_watch()
        missing = [c for c in self._running() if Client(c.name, self._paths).running() is None]
        if missing:
            items = [
                {"name": c.name, "pid": c.running.pid, "began": c.running.began,
                 "privileged": c.spec is not None and c.spec.privileged, "daemon": os.getpid()}
                for c in missing if c.running is not None
            ]  # fmt: skip
            await self._ask("dhcp", items)

    def _begin_watch(self) -> None:
        for directory in (self._paths.leases, self._paths.clients):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._watch is None:
            self._watch = DirectoryWatch(self._paths.leases, self.kick)

    def ended(self, name: str) -> None:
        """The container has ended."""
        self._unanswered.discard(name)
        Client(name, self._paths).forget()
        if name in self._registry:
            self._registry[name].leased = ()

    def tidy(self) -> None:
        """After a restart of the daemon: remove what there is of containers that have ended meanwhile."""
        known = {container.name for container in self._running()}
        for directory in (self._paths.leases, self._paths.clients):
            for file in directory.glob("*"):
                if file.name.removesuffix(".new") not in known:
                    Client(file.name.removesuffix(".new"), self._paths).forget()

    def close(self) -> None:
        """No container is left that has its address from elsewhere."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    # -- what they say ---------------------------------------------------------------------------------------

    def kick(self) -> None:
        """Have that done soon."""
        self._again = True
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._soon())

    async def _soon(self) -> None:
        while self._again:
            self._again = False
            try:
                await self.keep()
            except (FleetError, OSError) as error:
                log.error("containers can't be given addresses: %s", error)

    async def _read(self) -> None:
        said = [(container, self._said(container)) for container in self._running()]
        if self._settings().guard and any(address is not None and address not in c.leased for c, address in said):
            seen = await self.seen()
            said = [(container, self._if_true(container, address, seen)) for container, address in said]
            await self._prune(said, seen)
        for container, address in said:
            self._take_over(container, address)

    def _if_true(self, container: Container, address: IPv4Address | None, seen: HeldAddresses) -> IPv4Address | None:
        assert container.spec is not None
        if address is None or address in container.leased or (container.spec.port, address) in seen:
            return address
        log.warning("%s says it has %s, which no DHCP server gave it", container.name, address)
        return None

    def _said(self, container: Container) -> IPv4Address | None:
        client = Client(container.name, self._paths)
        try:
            lease = lan.parse_lease(client.lease.read_text(encoding="ascii"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("%s: its lease can't be read: %s", container.name, error)
            return None
        if lease.address is None and container.name not in self._unanswered:
            self._unanswered.add(container.name)
            self._events.add("no-address", container.name, f"no DHCP server answers on {self._settings().bridge}")
        # One that an earlier client left says nothing of this run.
        return lease.address.ip if lease.address is not None and client.running() is not None else None

    async def seen(self) -> HeldAddresses:
        """What the packet filter has seen given. Raises FleetError."""
        found = await self._launcher.ask_large("leased", {"table": table(self._settings().bridge)})
        return {(port, IPv4Address(number)) for port, number in found}

    async def _prune(self, said: Sequence[tuple[Container, IPv4Address | None]], seen: HeldAddresses) -> None:
        """Nobody keeps an address that it has no more, nor one of several that it was offered."""
        owned = {c.spec.port: address for c, address in said if c.spec is not None and address is not None}
        gone = [(port, address) for port, address in seen if port in owned and owned[port] != address]
        if gone:
            rules = lan.change_leases(self._settings().bridge, [], lan.lease_elements(gone))
            await self._ask("rules", {"rules": rules})

    def _take_over(self, container: Container, address: IPv4Address | None) -> None:
        found: list[IPv4Address | IPv6Address] = [] if address is None else [address]
        if found and container.running is not None and container.spec is not None and self._settings().ipv6 != "none":
            found += lan.routed6(dhcp.addresses6(container.running.pid), container.spec.mac)
        if container.leased == tuple(found) or container.running is None:
            return
        before, container.leased = container.leased, tuple(found)
        if found:
            self._unanswered.discard(container.name)
            self._events.add("address", container.name, " ".join(map(str, found)))
        elif before:
            self._events.add("no-address", container.name, f"{before[0]} is no longer its own")
        self._moved(container)

    def admitted(self, seen: HeldAddresses) -> list[str]:
        """Elements for a new set of what was given: what was in the old one, or known to be true before that was lost."""
        ports = {c.spec.port: c for c in self._registry if c.spec is not None and c.spec.hardware is not None}
        kept = {(port, address) for port, address in seen if port in ports}
        kept |= {(port, a) for port, c in ports.items() for a in c.leased if isinstance(a, IPv4Address)}
        return lan.lease_elements(sorted(kept))

    async def _ask(self, operation: str, argument: object) -> dict[str, Any]:
        answer = await self._launcher.ask(operation, argument)
        if answer.get("error"):
            raise from_body(answer["error"])
        return dict(answer)
