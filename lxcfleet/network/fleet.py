"""The fleet's network, put together from its parts; the rest of the daemon knows this class alone."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence

from lxcfleet.capacity.needs import Finding
from lxcfleet.containers.container import Container
from lxcfleet.containers.registry import Registry
from lxcfleet.errors import FleetError
from lxcfleet.host.net import firewalls, sysctl
from lxcfleet.launcher.client import Launcher
from lxcfleet.launcher.operations import FORWARD
from lxcfleet.network import name_server, needs, records
from lxcfleet.network.addresses import changes
from lxcfleet.network.addressing import Addressing
from lxcfleet.network.admission import Admission
from lxcfleet.network.arrivals import Arrivals
from lxcfleet.network.bridge import Bridge
from lxcfleet.network.context import Context
from lxcfleet.network.discovery import Discovery
from lxcfleet.network.draining import Draining
from lxcfleet.network.leases import Leases
from lxcfleet.network.lookups import Lookups
from lxcfleet.network.membership import Membership
from lxcfleet.network.names import aliases
from lxcfleet.network.publishing import Publishing
from lxcfleet.network.rules import forwarding
from lxcfleet.network.uplinks import Uplinks
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.runtime.tasks import Tasks
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files.settings import NetworkSettings
from lxcfleet.spec.reading.terms import LIMITS, NetworkMode

log = logging.getLogger(__name__)

_LIMITS = frozenset(LIMITS)
"""Keys of specs that the network has nothing to do with, and that are changed in many containers at once."""

_BANDWIDTH = frozenset(("receive_mbit", "send_mbit"))


class FleetNetwork:
    """Implements containers.outside.Network: each method hands on to the part whose subject it is."""

    def __init__(
        self,
        paths: Paths,
        settings: NetworkSettings,
        registry: Registry,
        launcher: Launcher,
        bus: Bus,
        tasks: Tasks,
    ) -> None:
        context = self._context = Context(paths, settings, registry, launcher, bus, tasks)
        membership = Membership(registry)
        self._addressing = Addressing(context)
        self._admission = Admission(context)
        self._publishing = Publishing(context, membership)
        self._discovery = Discovery(context, membership, self._publishing)
        self._leases = Leases(context, self._discovery)
        self.lookups = Lookups(context, self._addressing)
        """Whether containers can look up names."""
        self._bridge = Bridge(
            context, self._addressing, self._admission, self._publishing, self._leases, self.lookups.wake
        )
        self._uplinks = Uplinks(context)
        self._arrivals = Arrivals(context, self._bridge, self._admission, self._discovery, self._leases, self._uplinks)
        self._draining = Draining(context, self._bridge, membership, self._discovery, self._publishing)

    # -- settings --------------------------------------------------------------------------------------------

    @property
    def bridge(self) -> str:
        """The name of the bridge that containers are on."""
        return self._context.settings.bridge

    async def take_over(self, settings: NetworkSettings) -> list[str]:
        """Go on with these settings, also for containers that run.

        Comes back with a line for each key that has to stay as it was, which is logged too. Raises FleetError, OSError.
        """
        context = self._context
        async with context.lock:
            specs, before, was_up = context.specs(), context.settings, context.up
            connected = [c for c in context.registry if c.spec is not None and c.spec.connected]
            run = any(c.running is not None or c.busy is not None for c in connected)
            found, stays = changes.change(before, settings, specs, run=run)
            for line in stays:
                log.error("%s", line)
            if changes.elsewhere(before, found, specs):
                await self._bridge.take_away()
            context.settings = found
            self._discovery.write_all()
            if not changes.same_rules(before, found):
                context.up = False
                self._addressing.look_again()
        if was_up and specs:
            await self._bridge.ensure()
        return stays

    async def settle(self) -> None:
        """After a restart of the daemon: addresses and names for what runs and for nothing else."""
        wanted = self._context.settings
        self._context.settings = records.recorded(self._context.paths, wanted)
        await self.take_over(wanted)
        self._leases.tidy()
        if self._context.settings.dhcp or self._leases.used:
            try:
                await self._leases.keep()
            except (FleetError, OSError) as error:
                log.error("containers' leases can't be read: %s", error)
        self._discovery.settle()
        self._arrivals.settle()

    async def check(self) -> None:
        """Repair what somebody took away from under running containers. Raises FleetError, OSError."""
        self._discovery.look()
        try:
            await self._check_bridge()
        except (FleetError, OSError):  # and no cancellation: a daemon that ends waits for nothing
            await self._check_uplinks()
            raise
        await self._check_uplinks()

    async def _check_bridge(self) -> None:
        if await self._bridge.check():
            await self._arrivals.welcome()
            if self._context.settings.dhcp:
                await self._leases.keep()

    async def _check_uplinks(self) -> None:
        if await self._uplinks.look() and self._leases.used:
            await self._leases.keep()

    def close(self) -> None:
        """The daemon ends. The network stays as it is."""
        self._leases.close()
        self._bridge.close()
        self._addressing.close()

    def programs(self) -> dict[str, int]:
        """The pids of the programs on the host that serve the containers' network, by name."""
        return name_server.programs(self._context.paths)

    async def renew(self, program: str) -> None:
        """Have one of these programs run as it is on disk now, without the loss of a question. Raises FleetError."""
        await self._bridge.renew(program)

    def findings(self, count: int) -> list[Finding]:
        """The host's means and lacks for so many more containers to be connected and to look up names, as ``doctor`` tells
        them."""
        served = name_server.DNSMASQ in self.programs()
        return [*needs.findings(self._context.settings, count=count, served=served), *self.lookups.findings(),
                *self._uplinks.findings()]  # fmt: skip

    async def in_the_way(self, wanted: NetworkSettings) -> list[Finding]:
        """The obstacles on the host that keep the fleet from having the network of these settings. Raises HostError."""
        return await self._addressing.in_the_way(wanted)

    async def firewall_findings(self) -> list[Finding]:
        """Whether the host passes on what containers send and get, or a firewall drops it, as ``doctor`` tells it."""
        settings = self._context.settings
        if settings.default is not NetworkMode.BRIDGE and not self._context.specs():
            return []
        published = {str(each) for spec in self._context.specs() for each in spec.publish if 4 not in each.versions}
        found = forwarding.of_ipv6(sorted(published), forwards=sysctl.routes_ipv6())
        if not self._context.up:
            found += await self.in_the_way(settings)
        if settings.dhcp and not sysctl.filters_bridges():
            return found  # the host passes nothing on, frames pass its bridge
        try:
            closed = await self._context.ask_large(FORWARD, settings.bridge)
        except FleetError as error:
            message = f"whether a firewall drops what the host passes on can't be told: {error.message}: {error.why}"
            return [*found, Finding("forwarding", "warning", message, hint=error.hint or "", feature=True)]
        return found + forwarding.findings(closed, settings.bridge, ufw=firewalls.ufw_enabled())

    # -- containers that are to be made or destroyed ---------------------------------------------------------

    async def check_new(self, count: int) -> None:
        """Refuse so many new containers if they can't be connected. Raises FleetError."""
        await self._addressing.check_new(count)

    async def check_static(self, wanted: Sequence[Spec]) -> None:
        """Refuse addresses that operators chose for these containers, and networks of the host's, if they can't have them.
        Raises FleetError."""
        self._uplinks.check(wanted)
        await self._addressing.check_static(wanted)

    async def check_ports(self, like: Spec, count: int) -> None:
        """Refuse ports of the host that ``count`` new containers like ``like`` can't have. Raises InvalidInput."""
        await self._addressing.check_published(like.publish)
        await self._publishing.check(like, count)

    def check_names(self, like: Spec, names: Collection[str]) -> None:
        """Refuse new containers with these names, each like ``like``, that clash with what others are found by. Raises
        InvalidInput."""
        context = self._context
        aliases.check(
            names, like.aliases, {each.name for each in context.registry}, context.specs(), context.settings.domain
        )
        if like.connected:
            aliases.check_groups([like], context.specs(), context.settings.domain)

    async def check_changed(self, changed: Sequence[tuple[Spec, Spec]]) -> None:
        """Refuse names, addresses and ports of the host that containers can't have by their new specs; pairs of former and
        new ones.

        Raises InvalidInput, HostError.
        """
        await self._addressing.check_static(
            [spec for former, spec in changed if spec.static_addresses != former.static_addresses]
        )
        self._uplinks.check(
            [new for old, new in changed if (new.network, new.uplink) != (old.network, old.uplink)]
        )
        for former, spec in changed:
            if spec.aliases != former.aliases:
                present = {each.name for each in self._context.registry}
                aliases.check((), spec.aliases, present, (), self._context.settings.domain)
        renamed = [new for old, new in changed if new.connected and (old.aliases, old.labels) != (new.aliases, new.labels)]
        if renamed:
            names = {new.name for _, new in changed}
            others = [each for each in self._context.specs() if each.name not in names]
            aliases.check_groups(renamed, others, self._context.settings.domain)
        await self._addressing.check_published(
            [each for former, spec in changed for each in spec.publish if each not in former.publish]
        )
        await self._publishing.check_changed(changed)

    def respecified(self, container: Container, keys: Collection[str]) -> None:
        """A container that runs goes on with another spec: names and ports follow. ``keys``: what is different in it. Raises
        HostError, OSError."""
        if _LIMITS.issuperset(keys):
            return  # to look at all names and ports for each of a hundred containers takes longer than to set their limits
        self._bridge.set_up_port(container)
        if self._context.up and _BANDWIDTH & {*keys}:
            self._admission.kick()
        self._discovery.look_at(container)  # nobody has, while it stood for no others
        self._discovery.moved(container)
        self._publishing.kick()

    def place(self, spec: Spec, others: Sequence[Spec]) -> Spec:
        """The spec of a new container with addresses of its own; see Addressing.place. Raises NoCapacity."""
        return self._addressing.place(spec, others)

    def give_back(self, spec: Spec | None) -> None:
        """The addresses of a container that is gone are free. None: no spec says which addresses it had."""
        self._addressing.give_back(spec)

    def forget(self, name: str) -> None:
        """A container is destroyed."""
        self._arrivals.ended(name)
        self._leases.ended(name)
        self._uplinks.forget(name)
        self._discovery.forget(name)

    async def release(self) -> None:
        """Take away what only connected containers need, where there are none."""
        await self._bridge.release()
        try:
            await self._uplinks.release()
        except (FleetError, OSError) as error:
            log.error("an interface for a VLAN can't be removed: %s", error)

    # -- containers that start, run and end ------------------------------------------------------------------

    def expect(self, specs: Iterable[Spec]) -> None:
        """These will start soon."""
        self._arrivals.expect(specs)

    def check_start(self, spec: Spec) -> None:
        """See that the host has the network that a container starts on, before it is stopped for that. Raises FleetError."""
        self._arrivals.check_start(spec)

    async def connect(self, spec: Spec) -> None:
        """Have all that a container needs which is about to start. Raises FleetError."""
        await self._arrivals.connect(spec)

    def began(self, container: Container) -> None:
        """The daemon sees a container run; one that plain lxc-start began gets what it has of the network soon."""
        self._arrivals.began(container)

    def publish(self, container: Container) -> None:
        """Let a container that runs be found. Raises HostError."""
        self._arrivals.publish(container)

    def set_member(self, container: Container, healthy: bool) -> None:
        """Say whether a container is healthy: only those that are stand for their groups.

        Its own name stays. All containers are members until this is called; the last call holds, over restarts of
        the container and of the daemon, until the container is destroyed. It may be called while it does not run.
        """
        self._discovery.set_member(container, healthy)

    def set_frozen(self, container: Container, frozen: bool) -> None:
        """A frozen container stands for no group either."""
        self._discovery.set_frozen(container, frozen)

    def look_if_frozen(self, container: Container) -> None:
        """Take that from the container itself."""
        self._discovery.look_at(container)

    async def leave(self, container: Container, seconds: float | None = None) -> None:
        """Withdraw a container that is to be stopped, and wait for its drain time; see Draining.leave."""
        await self._draining.leave(container, seconds)

    def ended(self, name: str) -> None:
        """A container has ended: it is found no longer, whatever is done to it at the moment."""
        self._arrivals.ended(name)
        self._leases.ended(name)
        self._discovery.ended(name)
