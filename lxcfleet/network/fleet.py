"""The fleet's network as the daemon keeps it: made when the first container needs it, gone with the last one,
and repaired when somebody takes a part of it away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, ip_network
from pathlib import Path
from typing import Any

from lxcfleet.capacity.needs import Finding
from lxcfleet.containers import store
from lxcfleet.containers.container import Container
from lxcfleet.containers.registry import Registry
from lxcfleet.errors import FleetError, HostError, NoCapacity, WrongState, from_body
from lxcfleet.host.net import bridge_port, sockets
from lxcfleet.host.net.nft_watch import TableWatch
from lxcfleet.host.process import proc
from lxcfleet.launcher.client import Launcher
from lxcfleet.network import bridging, guard, lan, name_server, publishing, rules
from lxcfleet.network.addresses import AddressPool, Subnet, addresses_in, choose_subnet
from lxcfleet.network.admission import Admission
from lxcfleet.network.discovery import Discovery
from lxcfleet.network.leases import Leases
from lxcfleet.network.name_server import NameServer
from lxcfleet.network.publishing import Publishing
from lxcfleet.paths import Paths
from lxcfleet.runtime.events import Events
from lxcfleet.spec.addresses import OFF
from lxcfleet.spec.settings import NetworkSettings
from lxcfleet.spec.spec import Spec

log = logging.getLogger(__name__)

BOOT_SECONDS, BRIDGE_SECONDS = 180.0, 30.0
"""So long after the host's boot a bridge of the operator's that is missing is waited for, and so long."""
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
        self._leases = Leases(paths, registry, launcher, events, lambda: self._settings, self._moved)
        self._lan: tuple[str, IPv4Address | None] | None = None
        self._cut_off = False
        self._forwards = False
        self.moved: Callable[[], None] = lambda: None
        """Called when a container got another address from elsewhere, or lost it."""

    # -- addresses -------------------------------------------------------------------------------------------

    async def choose_subnet(self) -> Subnet:
        """The fleet's network, settled on the first call. Raises InvalidInput, NoCapacity, HostError."""
        async with self._lock:
            if self._subnet is None:
                used = await self._ask("routes", {"except": self.settings.bridge})
                present = self._present()
                busy = [ip_network(text) for text in used["networks"]]
                ipv6 = self.settings.ipv6 if used["ipv6"] else OFF
                self._subnet = choose_subnet(self.settings.ipv4, ipv6, present, busy, _seed())
                self._pool = AddressPool(self._subnet.ipv4, present)
                bridging.announce(self._paths, self.settings, self._subnet.gateway.ip)
            return self._subnet

    async def _gateway(self) -> IPv4Address | None:
        """The host's address on the bridge, where the fleet's name server is. Raises what ``choose_subnet`` does."""
        if not self.settings.dhcp:
            return (await self.choose_subnet()).gateway.ip
        if self._lan is None or self._lan[0] != self.settings.bridge:
            text = (await self._ask("bridge", {"bridge": self.settings.bridge}))["address"]
            self._lan = self.settings.bridge, None if text is None else IPv4Address(text)
            bridging.announce(self._paths, self.settings, self._lan[1])
        return self._lan[1]

    async def check_new(self, count: int) -> None:
        """Refuse so many new containers if they can't be connected. Raises FleetError."""
        if self.settings.dhcp:
            bridging.check(self.settings)
            await self._gateway()
            return
        subnet, free = await self.choose_subnet(), self._pool.free if self._pool is not None else 0
        if count > free:
            raise NoCapacity(
                f"no room for {count} more containers in {subnet.ipv4}",
                why=f"{count} addresses needed, {free} left",
                hint="set network.ipv4 in lxcfleet.yaml to a larger range, or use --network none",
            )

    def findings(self) -> list[Finding]:
        """What the host lacks for containers to be connected, as ``doctor`` says it."""
        return bridging.findings(self.settings)

    def _present(self) -> list[IPv4Address]:
        """The addresses that containers have; broken ones have what LXC's configuration says."""
        ours = [c.spec.address.ip for c in self._registry if c.spec is not None and c.spec.address is not None]
        broken = [store.config(self._paths, c.name) for c in self._registry if c.spec is None]
        return ours + [address for text in broken for address in addresses_in(text)]

    def _specs(self) -> list[Spec]:
        """Of all that are connected."""
        return [c.spec for c in self._registry if c.spec is not None and c.spec.connected]

    def place(self, spec: Spec, others: Sequence[Spec]) -> Spec:
        """The spec of a new container with addresses of its own; raises NoCapacity. ``check_new`` comes first.

        ``others``: the new ones that come with it.
        """
        if self.settings.dhcp:
            taken = {each.mac for each in (*self._specs(), *others)}
            return replace(spec, hardware=lan.hardware(f"{_seed()} {self._paths.lxc}", spec.name, taken))
        assert self._subnet is not None
        assert self._pool is not None
        address = self._pool.take()
        own = IPv4Interface((address, self._subnet.ipv4.prefixlen))
        return replace(spec, address=own, address6=self._subnet.ipv6_of(address))

    def give_back(self, address: IPv4Interface) -> None:
        """The address of a container that is gone."""
        if self._pool is not None:
            self._pool.give_back(address.ip)

    def count_anew(self) -> None:
        """A container is gone that may have had an address which no spec names."""
        if self._subnet is not None:
            self._pool = AddressPool(self._subnet.ipv4, self._present())

    @property
    def settings(self) -> NetworkSettings:
        """The operator's, as they are now."""
        return self._settings

    async def take_over(self, settings: NetworkSettings) -> list[str]:
        """Go on with these settings, also for what runs; what has to stay as it was is in the log, and comes back."""
        async with self._lock:
            specs, before, was_up = self._specs(), self._settings, self._up
            connected = [c for c in self._registry if c.spec is not None and c.spec.connected]
            run = any(c.running is not None or c.busy is not None for c in connected)
            found, stays = bridging.change(before, settings, specs, run=run)
            for line in stays:
                log.error("%s", line)
            if bridging.elsewhere(before, found, specs):
                await self._take_away()
            self._settings = found
            self._discovery.take_over(found)
            if not bridging.same_rules(before, found):
                self._up, self._lan = False, None
                if self._subnet is not None:
                    bridging.announce(self._paths, found, self._subnet.gateway.ip)
        if was_up and specs:
            await self.ensure()
        return stays

    # -- the bridge ------------------------------------------------------------------------------------------

    @property
    def bridge(self) -> str:
        """The name of the bridge that containers are on."""
        return self.settings.bridge

    @property
    def _bridge_there(self) -> bool:
        return os.path.exists(f"/sys/class/net/{self.settings.bridge}")

    async def connect(self, spec: Spec) -> None:
        """Have all that a container needs which is about to start; quick if it is there. Raises FleetError."""
        if spec.connected:
            if (spec.hardware is not None) != self.settings.dhcp:
                raise WrongState(
                    f"{spec.name} can't start", why="it was made for another network than lxcfleet.yaml now has",
                    hint="set network.addresses as it was, or destroy it and create it anew",
                )  # fmt: skip
            await self._await_bridge()
            await self.ensure()
            await self._admission.admit(spec)

    async def _await_bridge(self) -> None:
        """The operator's may come a while after us when the host boots."""
        deadline = time.monotonic() + BRIDGE_SECONDS
        while self.settings.dhcp and not self._bridge_there and proc.uptime() < BOOT_SECONDS and time.monotonic() < deadline:
            await asyncio.sleep(0.2)

    def expect(self, specs: Iterable[Spec]) -> None:
        """These will start soon: get ready for all of them at once."""
        first = next((spec for spec in specs if spec.connected), None)
        if first is not None and self._up:
            task = asyncio.get_running_loop().create_task(self._admission.admit(first))
            task.add_done_callback(_noticed)

    async def ensure(self) -> None:
        """Have the bridge, its rules and its name server; quick if they are there."""
        if self._up and self._bridge_there and not self._flushed:
            return
        gateway = await self._gateway()
        async with self._lock:
            if self._up and self._bridge_there and not self._flushed:
                return
            running = [c.spec for c in self._registry if c.spec is not None and c.running is not None]
            ports = [spec.port for spec in running if spec.connected]
            wanted, guests = self._wanted_ports(), self._admission.wanted()
            if self.settings.dhcp:
                leased = self._leases.admitted(await self._leases.seen())
                await self._ask("join", bridging.lan(self.settings, ports, wanted, guests.values(), leased))
            else:
                assert self._subnet is not None
                await self._ask("network", bridging.own(self.settings, self._subnet, ports, wanted, guests.values()))
            bridging.record(self._paths, self.settings)
            self._names = None
            if self.settings.dns and gateway is not None:
                self._names = NameServer(self._paths, self.settings, gateway)
                await asyncio.to_thread(self._names.start)
            else:
                await asyncio.to_thread(name_server.stop, self._paths)
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
        if not any(c.running is not None and c.spec is not None and c.spec.connected for c in self._registry):
            return
        self._discovery.look()
        if self.settings.dhcp and not self._bridge_there:
            if not self._cut_off:
                self._events.add("cut-off", None, f"the bridge {self.settings.bridge} is gone, with the containers' network")
            self._up, self._cut_off = False, True
            return
        await self._repair()
        if self.settings.dhcp:
            await self._leases.keep()

    async def _repair(self) -> None:
        gateway = await self._gateway()
        missing = [] if self._bridge_there else [f"the bridge {self.settings.bridge}"]
        missing += [f"the bridge {self.settings.bridge}"] if self._cut_off else []
        missing += ["the packet filter's rules"] if self._flushed else []
        if self.settings.dns and gateway is not None:
            missing += (self._names or NameServer(self._paths, self.settings, gateway)).missing()
        if self._up and not missing:
            return
        self._up = False
        await self.ensure()
        self._cut_off = False
        if missing:
            verb = "was" if len(missing) == 1 else "were"
            self._events.add("repaired", None, f"{' and '.join(missing)} {verb} gone")

    async def release(self) -> None:
        """No container is left that is connected: take the bridge, its rules and its name server away."""
        if self._specs() or self._present():
            return
        self._leases.close()
        async with self._lock:
            await self._take_away()

    async def _take_away(self) -> None:
        """Nobody is on the bridge. The caller has the lock."""
        if self._subnet is None and self._lan is None and not self._bridge_there:
            return
        self._up, self._subnet, self._pool, self._names, self._lan = False, None, None, None, None
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        try:
            await asyncio.to_thread(name_server.stop, self._paths)
            gone = rules.removal(self.settings.bridge) + guard.removal(self.settings.bridge)
            ours = "" if self.settings.dhcp else self.settings.bridge
            await self._ask("disconnect", {"bridge": ours, "rules": gone})
            self._paths.network_record.unlink(missing_ok=True)
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
        return publishing.published(specs, self._discovery.members())

    async def _admit(self, new: list[guard.AnyGuest], gone: list[guard.AnyGuest]) -> None:
        await self._ask("rules", {"rules": guard.admit(self.settings.bridge, new, gone)})

    async def _publish_ports(self, wanted: Sequence[rules.Published]) -> None:
        if not self._up:
            return  # whoever sets it up does it with what is wanted then
        await self._ask(
            "publish",
            {"bridge": self.settings.bridge, "rules": rules.publish(self.settings.bridge, wanted),
             "localhost": bool(wanted) and not self.settings.dhcp,
             "forward": bool(wanted) and self.settings.dhcp and not self._forwards},
        )  # fmt: skip
        self._forwards = self._forwards or bool(wanted)

    # -- who is found ----------------------------------------------------------------------------------------

    def publish(self, container: Container) -> None:
        """Let a container that runs be found: by its name, and if it is a member also by its groups' names."""
        self._set_up_port(container)
        try:
            self._discovery.publish(container)
        except OSError as error:
            log.error("%s runs, and is found by no name until it starts again: %s", container.name, error)
        if container.waits_for_address:
            self._leases.kick()

    def _moved(self, container: Container) -> None:
        """It has other addresses than before."""
        self._discovery.moved(container)
        self.moved()

    def ended(self, name: str) -> None:
        """A container has ended."""
        self._leases.ended(name)
        self._discovery.ended(name)

    def _set_up_port(self, container: Container) -> None:
        spec = container.spec
        if spec is not None and spec.connected:
            leaf = self.settings.guard if spec.hardware is not None else None
            bridge_port.set_up(spec.port, hairpin=bool(spec.publish), isolated=spec.isolated, leaf=leaf)

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

    def look_if_frozen(self, container: Container) -> None:
        """Take that from the container itself."""
        self._discovery.look_at(container)

    def withdraw(self, name: str) -> None:
        """Let a container no longer be found: it ended, or is about to."""
        self._discovery.withdraw(name)

    async def leave(self, container: Container, seconds: float | None = None) -> None:
        """Withdraw a container that is to be stopped, and give those who found it time to go elsewhere.

        ``seconds``: for how long; None: as its spec and the settings say. Returns early if it ends meanwhile.
        """
        self.withdraw(container.name)
        if container.spec is not None and container.spec.publish:
            try:
                await self._leave_ports(container.spec, container.addresses)
            except (FleetError, OSError) as error:  # that must keep nobody from stopping it
                log.error("%s is stopped, and ports of the host still lead to it: %s", container.name, error)
        running, wait = container.running, self.drain_seconds(container) if seconds is None else seconds
        if running is not None and wait:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(running.gone.wait(), wait)

    async def _leave_ports(self, spec: Spec, addresses: Iterable[IPv4Address | IPv6Address]) -> None:
        await self.ensure()
        await self._publishing.apply()
        if any(publication.protocol == "udp" for publication in spec.publish):
            await self._ask("datagrams", [str(address) for address in addresses])

    def drain_seconds(self, container: Container) -> float:
        """How long it stays up after it was withdrawn."""
        spec = container.spec
        if spec is None or not spec.connected:
            return 0.0
        if spec.drain is not None:
            return spec.drain
        return self.settings.drain if spec.ports or spec.publish else 0.0

    def forget(self, name: str) -> None:
        """A container is destroyed."""
        self._leases.ended(name)
        self._discovery.forget(name)

    async def settle(self) -> None:
        """After a restart of the daemon: addresses and names for what runs and for nothing else."""
        wanted, self._settings = self._settings, bridging.recorded(self._paths, self._settings)
        await self.take_over(wanted)
        self._leases.tidy()
        if self.settings.dhcp:
            try:
                await self._leases.keep()
            except (FleetError, OSError) as error:
                log.error("containers' leases can't be read: %s", error)
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
