"""The fleet's network as the daemon keeps it: made when the first container needs it, gone with the last one,
and repaired when somebody takes a part of it away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface, ip_network
from pathlib import Path
from typing import Any

from lxcfleet.config import NetworkSettings
from lxcfleet.errors import FleetError, HostError, from_body
from lxcfleet.fleet import name_server, publishing
from lxcfleet.fleet.admission import Admission
from lxcfleet.fleet.discovery import Discovery
from lxcfleet.fleet.events import Events
from lxcfleet.fleet.name_server import NameServer
from lxcfleet.fleet.publishing import Publishing
from lxcfleet.fleet.registry import Container, Registry
from lxcfleet.host import bridge_port, sockets, sysctl, tree
from lxcfleet.host.launch import Launcher
from lxcfleet.host.nft_watch import TableWatch
from lxcfleet.model import Spec
from lxcfleet.names import Paths
from lxcfleet.net import guard, rules
from lxcfleet.net.addresses import OFF, AddressPool, Subnet, choose, hardware_address, interface_name

log = logging.getLogger(__name__)

_MACHINE_ID = Path("/etc/machine-id")


class FleetNetwork:
    """The bridge, its addresses, its name server."""

    def __init__(
        self, paths: Paths, settings: NetworkSettings, registry: Registry, launcher: Launcher, events: Events
    ) -> None:
        self._paths = paths
        self._settings = settings
        self._registry = registry
        self._launcher = launcher
        self._events = events
        self._lock = asyncio.Lock()
        self._subnet: Subnet | None = None
        self._pool: AddressPool | None = None
        self._names: NameServer | None = None
        self._watch: TableWatch | None = None
        self._flushed = False
        self._up = False
        self._admission = Admission(self._specs, self._admit)
        self._publishing = Publishing(self._wanted_ports, self._publish_ports)
        self._discovery = Discovery(paths, settings, registry, self._changed)

    # -- addresses -------------------------------------------------------------------------------------------

    async def choose(self) -> Subnet:
        """The fleet's network, settled on the first call. Raises InvalidInput, NoCapacity, HostError."""
        async with self._lock:
            if self._subnet is None:
                used = await self._ask("routes", {"except": self.settings.bridge})
                present = list(self._present())
                busy = [ip_network(text) for text in used["networks"]]
                ipv6 = self.settings.ipv6 if used["ipv6"] else OFF
                self._subnet = choose(self.settings.ipv4, ipv6, present, busy, _seed())
                self._pool = AddressPool(self._subnet.ipv4, present)
                self._announce()
            return self._subnet

    def _present(self) -> Iterable[IPv4Address]:
        return [c.spec.address.ip for c in self._registry if c.spec is not None and c.spec.address is not None]

    def _specs(self) -> list[Spec]:
        """Of all that are connected."""
        return [c.spec for c in self._registry if c.spec is not None and c.spec.address is not None]

    @property
    def free(self) -> int | None:
        """How many addresses are free; None before the network was chosen."""
        return self._pool.free if self._pool is not None else None

    def take(self) -> tuple[IPv4Interface, IPv6Interface | None]:
        """The addresses of a new container; raises NoCapacity. ``choose`` comes first."""
        assert self._subnet is not None
        assert self._pool is not None
        address = self._pool.take()
        return IPv4Interface((address, self._subnet.ipv4.prefixlen)), self._subnet.ipv6_of(address)

    def give_back(self, address: IPv4Interface) -> None:
        """The address of a container that is gone."""
        if self._pool is not None:
            self._pool.give_back(address.ip)

    def _announce(self) -> None:
        """Tell clones where their name server is; the mask takes the file up."""
        assert self._subnet is not None
        if not self.settings.dns:
            self._paths.resolv_conf.unlink(missing_ok=True)
            return
        text = f"search {self.settings.domain}\nnameserver {self._subnet.gateway.ip}\n"
        with contextlib.suppress(OSError):
            if self._paths.resolv_conf.read_text(encoding="ascii") == text:
                return
        tree.write(self._paths.resolv_conf, text)

    @property
    def settings(self) -> NetworkSettings:
        """The operator's, as they are now."""
        return self._settings

    @settings.setter
    def settings(self, settings: NetworkSettings) -> None:
        self._settings = self._discovery.settings = settings

    # -- the bridge ------------------------------------------------------------------------------------------

    @property
    def _bridge_there(self) -> bool:
        return os.path.exists(f"/sys/class/net/{self.settings.bridge}")

    async def connect(self, spec: Spec) -> None:
        """Have all that a container needs which is about to start; quick if it is there. Raises FleetError."""
        if spec.address is not None:
            await self.ensure()
            await self._admission.admit(spec)

    def expect(self, specs: Iterable[Spec]) -> None:
        """These will start soon: get ready for all of them at once."""
        first = next((spec for spec in specs if spec.address is not None), None)
        if first is not None and self._up:
            task = asyncio.get_running_loop().create_task(self._admission.admit(first))
            task.add_done_callback(_noticed)

    async def ensure(self) -> None:
        """Have the bridge, its rules and its name server; quick if they are there."""
        if self._up and self._bridge_there and not self._flushed:
            return
        subnet = await self.choose()
        async with self._lock:
            if self._up and self._bridge_there and not self._flushed:
                return
            ports = [
                interface_name(c.spec.address.ip)
                for c in self._registry
                if c.spec is not None and c.spec.address is not None and c.running is not None
            ]
            addresses = [str(a) for a in (subnet.gateway, subnet.gateway6) if a is not None]
            wanted = self._wanted_ports()
            ruleset = rules.render(
                subnet, self.settings.bridge, nat=self.settings.nat, published=wanted, route6=sysctl.routes_ipv6(),
                host_access=self.settings.host_access,
            ) + guard.render(subnet.ipv4, self.settings.bridge, guard=self.settings.guard)  # fmt: skip
            guests = self._admission.wanted()
            ruleset += guard.admit(self.settings.bridge, guests.values())
            await self._ask(
                "network",
                {
                    "bridge": self.settings.bridge, "hardware": hardware_address(subnet.gateway.ip),
                    "addresses": addresses, "ports": ports, "rules": ruleset, "forward": self.settings.nat or bool(wanted),
                    "localhost": bool(wanted), "domain": self.settings.domain if self.settings.dns else "",
                },
            )  # fmt: skip
            if self.settings.dns:
                self._names = NameServer(self._paths, self.settings, subnet)
                await asyncio.to_thread(self._names.start)
            self._admission.assume(guests)
            for container in self._registry:
                if container.running is not None:
                    self._set_up_port(container)
            self._up, self._flushed = True, False
            self._watch_rules()
            if wanted:
                self._publishing.distrust()

    def _watch_rules(self) -> None:
        if self._watch is None:
            try:
                self._watch = TableWatch(rules.table(self.settings.bridge), self._rules_gone)
            except HostError as error:
                log.warning("%s", error)

    def _rules_gone(self) -> None:
        """Somebody flushed them. Until they are back everybody may do everything, so that is now."""
        if self._up and not self._flushed:
            self._flushed = True
            task = asyncio.get_running_loop().create_task(self.check())
            task.add_done_callback(_noticed)

    async def check(self) -> None:
        """Repair what somebody took away from under running containers."""
        if not any(c.running is not None and c.spec is not None and c.spec.address for c in self._registry):
            return
        subnet = await self.choose()
        missing = [] if self._bridge_there else [f"the bridge {self.settings.bridge}"]
        missing += ["the packet filter's rules"] if self._flushed else []
        if self.settings.dns:
            missing += (self._names or NameServer(self._paths, self.settings, subnet)).missing()
        if self._up and not missing:
            return
        self._up = False
        await self.ensure()
        if missing:
            verb = "was" if len(missing) == 1 else "were"
            self._events.add("repaired", None, f"{' and '.join(missing)} {verb} gone")

    async def release(self) -> None:
        """No container is left that is connected: take the bridge, its rules and its name server away."""
        if any(c.spec is not None and c.spec.address is not None for c in self._registry):
            return
        async with self._lock:
            if self._subnet is None and not self._bridge_there:
                return
            self._up, self._subnet, self._pool, self._names = False, None, None, None
            if self._watch is not None:
                self._watch.close()
                self._watch = None
            try:
                await asyncio.to_thread(name_server.stop, self._paths)
                gone = rules.removal(self.settings.bridge) + guard.removal(self.settings.bridge)
                await self._ask("disconnect", {"bridge": self.settings.bridge, "rules": gone})
            except FleetError as error:
                log.error("the fleet's network can't be taken away: %s", error)

    async def _ask(self, operation: str, argument: object) -> dict[str, Any]:
        answer = await self._launcher.ask(operation, argument)
        if answer.get("error"):
            raise from_body(answer["error"])
        return dict(answer)


    # -- the host's ports ------------------------------------------------------------------------------------

    def check_ports(self, like: Spec, count: int) -> None:
        """Refuse ports of the host that ``count`` new containers like ``like`` can't have. Raises InvalidInput."""
        others = self._specs()
        publishing.check_shared(like, count, others)
        shared = {publication for spec in others for publication in spec.publish}
        for publication in like.publish:
            if publication not in shared:
                sockets.check_free(publication)

    def _changed(self, name: str) -> None:
        """Who is found has changed by this container."""
        spec = self._registry[name].spec if name in self._registry else None
        if spec is not None and spec.publish:
            self._publishing.kick()

    def _wanted_ports(self) -> list[rules.Published]:
        specs = self._specs()
        members = [c.spec for c in self._discovery.members() if c.spec is not None]
        return publishing.published(specs, members)

    async def _admit(self, new: list[guard.Guest], gone: list[guard.Guest]) -> None:
        await self._ask("rules", {"rules": guard.admit(self.settings.bridge, new, gone)})

    async def _publish_ports(self, wanted: Sequence[rules.Published]) -> None:
        if not self._up:
            return  # whoever sets it up does it with what is wanted then
        await self._ask(
            "publish",
            {"bridge": self.settings.bridge, "rules": rules.publish(self.settings.bridge, wanted),
             "localhost": bool(wanted)},
        )  # fmt: skip

    # -- who is found ----------------------------------------------------------------------------------------

    def publish(self, container: Container) -> None:
        """Let a container that runs be found: by its name, and if it is a member also by its groups' names."""
        self._set_up_port(container)
        self._discovery.publish(container)

    def _set_up_port(self, container: Container) -> None:
        spec = container.spec
        if spec is not None and spec.address is not None:
            bridge_port.set_up(interface_name(spec.address.ip), hairpin=bool(spec.publish), isolated=spec.isolated)

    def set_member(self, container: Container, healthy: bool) -> None:
        """Say whether a container is healthy: only those that are stand for their groups.

        Its own name stays. All containers are members until this is called; the last call holds, over restarts of
        the container and of the daemon, until the container is destroyed. It may be called while it does not run.
        """
        self._discovery.set_member(container, healthy)

    def is_member(self, container: Container) -> bool:
        """Whether it stands for its groups: it was not said to be unhealthy, and it is not frozen."""
        return self._discovery.is_member(container)

    def set_frozen(self, container: Container, frozen: bool) -> None:
        """A frozen container stands for no group either."""
        self._discovery.set_frozen(container, frozen)

    def withdraw(self, name: str) -> None:
        """Let a container no longer be found: it ended, or is about to."""
        self._discovery.withdraw(name)

    async def leave(self, container: Container, seconds: float | None = None) -> None:
        """Withdraw a container that is to be stopped, and give those who found it time to go elsewhere.

        ``seconds``: for how long; None: as its spec and the settings say. Returns early if it ends meanwhile.
        """
        self.withdraw(container.name)
        if container.spec is not None and container.spec.publish:
            await self._leave_ports(container.spec)
        running, wait = container.running, self.drain_seconds(container) if seconds is None else seconds
        if running is not None and wait:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(running.gone.wait(), wait)

    async def _leave_ports(self, spec: Spec) -> None:
        await self.ensure()
        await self._publishing.apply()
        if any(publication.protocol == "udp" for publication in spec.publish):
            await self._ask("datagrams", [str(a.ip) for a in (spec.address, spec.address6) if a is not None])

    def drain_seconds(self, container: Container) -> float:
        """How long it stays up after it was withdrawn."""
        spec = container.spec
        if spec is None or spec.address is None:
            return 0.0
        if spec.drain is not None:
            return spec.drain
        return self.settings.drain if spec.ports or spec.publish else 0.0

    def forget(self, name: str) -> None:
        """A container is destroyed."""
        self._discovery.forget(name)

    def settle_names(self) -> None:
        """After a restart of the daemon: names for what runs and for nothing else."""
        self._discovery.settle()


def _noticed(task: asyncio.Task[None]) -> None:
    """Who needs it meets the failure again, and tells."""
    if not task.cancelled() and task.exception() is not None:
        log.debug("not ready yet: %s", task.exception())


def _seed() -> str:
    try:
        return _MACHINE_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""
