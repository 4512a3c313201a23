"""The bridge that containers are on: made when the first container needs it, gone with the last one, and repaired
when somebody takes a part of it away."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address

from lxcfleet.containers.container import Container
from lxcfleet.errors import FleetError, HostError
from lxcfleet.host.net import bridge_look, bridge_port, interfaces, sysctl
from lxcfleet.host.net.nft_watch import TableWatch
from lxcfleet.host.process import proc
from lxcfleet.launcher.items.network import RulesItem
from lxcfleet.launcher.operations import DISCONNECT, JOIN, NETWORK, RULES
from lxcfleet.network import inspection, name_server, records, requests
from lxcfleet.network.addresses.ranges import Subnet
from lxcfleet.network.addressing import Addressing
from lxcfleet.network.admission import Admission
from lxcfleet.network.context import Context
from lxcfleet.network.events import BridgeGone, NetworkRepaired, NoNames
from lxcfleet.network.leases import Leases
from lxcfleet.network.name_server import NameServer
from lxcfleet.network.publishing import Publishing
from lxcfleet.network.rules import rules
from lxcfleet.network.rules.rules import Behind
from lxcfleet.runtime.soon import Soon
from lxcfleet.spec.container.addresses import hardware_address
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files.settings import NetworkSettings

log = logging.getLogger(__name__)

BOOT_SECONDS, BRIDGE_SECONDS = 180.0, 30.0
"""In the first so many seconds after the host's boot, a bridge of the operator's that is missing is waited for; and for
how many seconds."""

ANSWER_SECONDS = 5.0
"""Seconds for which an old dnsmasq goes on while another one has taken over: after so many seconds a client asks again."""


class Bridge:
    """The bridge with its rules and its name server."""

    def __init__(
        self,
        context: Context,
        addressing: Addressing,
        admission: Admission,
        publishing: Publishing,
        leases: Leases,
        filter_changed: Callable[[], None],
    ) -> None:
        """``filter_changed``: called when the packet filter's rules were changed, whoever did that."""
        self._context = context
        self._addressing = addressing
        self._admission = admission
        self._publishing = publishing
        self._leases = leases
        self._filter_changed = filter_changed
        self._names: NameServer | None = None
        self._nameless = False
        """Whether it was told that the name server can't run."""
        self._watch: TableWatch | None = None
        self._flushed = False
        self._losses = 0
        """How often our rules went away, whoever removed them."""
        self._route6 = False
        self._behind: Behind | None = None
        """The programs that the name server asks, as the rules have them."""
        self._switches = inspection.Switchboard()
        self._look = bridge_look.Ports()
        self._mtu = 0
        """Of the fleet's own bridge and its ports; 0: it is not made."""
        self._prepared: dict[str, tuple[object, bridge_port.Switches]] = {}
        """By container, the run for which its port was set up, and how."""
        self._lasting = inspection.Lasting()
        self._ports: dict[str | None, list[str]] = {None: []}
        """The ports of containers by further bridge, as they were set up; None: those of the fleet's own."""
        self._cut_off = False
        self._standing_in = False
        self._checking = asyncio.Lock()
        """One looks at a time: of two, both would see what is missing, and tell that it was repaired."""
        self._exchanging = False
        """Whether dnsmasq is missing for a moment because it is being exchanged."""
        self._repair_soon = Soon(context.tasks, "network-repair", self.check, "the fleet's network is not as it should be")

    @property
    def _whole(self) -> bool:
        return self._context.up and self._context.bridge_there and not self._flushed

    @property
    def _made(self) -> bool:
        """Whether there may be something to take away."""
        return self._addressing.settled or self._context.bridge_there

    # -- made and taken away ---------------------------------------------------------------------------------

    async def ensure(self, spec: Spec | None = None) -> None:
        """Have the bridge, its rules and its name server; quick if they are there, and nothing where no container has an
        address any more: the last one may go while this is waited for. Raises FleetError, OSError.

        ``spec``: of a container that is known to the registry; have the further bridge, too, that it is to be on.
        """
        needed = None if spec is None else spec.further_bridge
        while not self._whole or needed not in self._ports:
            settings = self._context.settings
            gateway = await self._addressing.gateway()
            subnet = None if settings.dhcp else await self._addressing.subnet()
            async with self._context.lock:
                if spec is None and not self._context.has_connected:
                    return
                stays = self._context.settings is settings and self._addressing.stays(subnet)
                if stays and (not self._whole or needed not in self._ports):
                    await self._set_up(settings, subnet, gateway)
                    return

    async def _set_up(self, settings: NetworkSettings, subnet: Subnet | None, gateway: IPv4Address | None) -> None:
        """``subnet``: None on the operator's bridge."""
        ports: dict[str | None, list[str]] = {None: []}
        for spec in self._context.specs():
            ports.setdefault(spec.further_bridge, []).append(spec.port)
        wanted, guests, route6 = self._publishing.wanted(), self._admission.wanted(), sysctl.routes_ipv6()
        behind = await _behind(settings, gateway)
        self._watch_rules()
        losses = self._losses
        if subnet is None:
            leased = self._leases.admitted(await self._leases.seen())
            joining = requests.lan(settings, ports[None], wanted, guests.values(), leased, route6=route6, behind=behind)
            await self._context.ask(JOIN, joining)
        else:
            mtu = self._mtu or records.recorded_mtu(self._context.paths)
            ask = requests.own(settings, subnet, ports, wanted, guests.values(), route6=route6, behind=behind, mtu=mtu)
            await self._context.ask(NETWORK, ask)
            self._mtu = mtu or interfaces.mtu(settings.bridge)
        records.record(self._context.paths, settings, self._mtu)
        self._route6, self._behind, self._ports = route6, behind, ports
        await self._have_names(settings, gateway)
        self._admission.assume(guests)
        for container in self._context.running():
            self.set_up_port(container, anew=True)
        # What was flushed meanwhile may be what has just been loaded.
        self._context.up, self._flushed = True, self._losses != losses
        if self._flushed:
            self._repair_soon.kick()
        self._publishing.made_anew(wanted)

    async def _have_names(self, settings: NetworkSettings, gateway: IPv4Address | None) -> None:
        """Have the name server run. That it can't is told; containers start and run all the same."""
        self._names = None
        if not settings.dns or gateway is None:
            await asyncio.to_thread(name_server.stop, self._context.paths)
            return
        names = self._names = NameServer(self._context.paths, settings, gateway)
        try:
            if not self._standing_in:
                await asyncio.to_thread(names.tidy)
            await asyncio.to_thread(names.start)
        except (FleetError, OSError) as error:
            if not self._nameless:
                log.error("containers have no names: %s", error)
                self._context.bus.publish(NoNames(str(error)))
            self._nameless = True
        else:
            if self._nameless:
                self._context.bus.publish(NetworkRepaired(("the name server could not run",)))
            self._nameless = False

    def set_up_port(self, container: Container, *, anew: bool = False) -> None:
        """Set the switches of the port that a container which runs has. Raises HostError.

        ``anew``: others may have set it meanwhile."""
        spec = container.spec
        if spec is not None and spec.connected:
            guard = self._context.settings.guard
            leaf = guard if spec.hardware is not None else None
            only = spec.mac if guard or spec.isolated else None
            mtu = 0 if self._context.settings.dhcp else self._mtu
            wanted = bridge_port.Switches(bool(spec.publish), spec.isolated, only, leaf, mtu)
            bridge_port.set_up(spec.port, wanted, anew=anew)
            self._prepared[container.name] = container.running, wanted

    async def release(self) -> None:
        """Take everything away if no container is left that has an address. Quick where nothing was made: it is asked after
        each container that is destroyed."""
        if not self._made and not self._leases.watched:
            return
        if self._needed:
            return
        if not self._leases.used:
            self._leases.close()
        async with self._context.lock:
            if not self._needed:
                await self.take_away()

    @property
    def _needed(self) -> bool:
        """Whether a container has an address, or one that is broken had."""
        return self._context.has_connected or bool(self._addressing.present())

    def close(self) -> None:
        """No longer hear of changes of the rules."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    async def take_away(self) -> None:
        """Take bridge, rules and name server away: nobody is on it. The caller holds the context's lock."""
        if not self._made:
            return
        self._context.up, self._names, self._nameless = False, None, False
        self._ports, self._mtu = {None: []}, 0
        self._prepared.clear()
        self._addressing.forget()
        self.close()
        try:
            await asyncio.to_thread(name_server.stop, self._context.paths)
            await self._context.ask(DISCONNECT, requests.removal(self._context.settings))
            self._context.paths.network_record.unlink(missing_ok=True)
        except (FleetError, OSError) as error:
            log.error("the fleet's network can't be taken away: %s", error)

    async def renew(self, program: str) -> None:
        """Have a program of the name server run as it is on disk now, without the loss of a question. Raises FleetError.

        dnsmasq is exchanged while another one stands in. The old one goes on for a while, to answer what it was asked before.
        """
        names, context = self._names, self._context
        if names is None:
            return
        if program == name_server.RESPONDER:
            async with context.lock:
                await asyncio.to_thread(names.renew_responder)
            return
        stand_in = await asyncio.to_thread(names.stand_in)
        self._standing_in = True
        try:
            await asyncio.sleep(ANSWER_SECONDS)
            async with context.lock:
                if self._names is names:
                    await self._exchange(names)
        finally:
            self._standing_in = False
            await asyncio.to_thread(names.relieve, stand_in)

    async def _exchange(self, names: NameServer) -> None:
        """The caller holds the context's lock."""
        bridge = self._context.settings.bridge
        await self._context.ask(RULES, RulesItem(rules=rules.pause_names(bridge)))
        self._exchanging = True
        try:
            await asyncio.to_thread(names.exchange)
        finally:
            self._exchanging = False
            await self._context.ask(RULES, RulesItem(rules=rules.resume_names(bridge)))

    # -- watched and repaired --------------------------------------------------------------------------------

    async def wait_until_there(self) -> None:
        """When the host boots, the operator's bridge may come a while after the daemon: wait for it."""
        deadline = time.monotonic() + BRIDGE_SECONDS
        while self._missing_host_bridge and proc.uptime() < BOOT_SECONDS and time.monotonic() < deadline:
            await asyncio.sleep(0.2)

    @property
    def _missing_host_bridge(self) -> bool:
        return self._context.settings.dhcp and not self._context.bridge_there

    async def check(self) -> bool:
        """Repair what somebody took away from under running containers. False: there is no network to look after.

        Raises FleetError, OSError.
        """
        async with self._checking:
            return await self._check()

    async def _check(self) -> bool:
        if not self._context.running():
            return False
        if self._missing_host_bridge:
            if not self._cut_off:
                self._context.bus.publish(BridgeGone(self._context.settings.bridge))
            self._context.up, self._cut_off = False, True
            return False
        settings, nameless = self._context.settings, self._nameless
        gateway = await self._addressing.gateway()
        names = self._name_server(settings, gateway)
        # Looked for before the set-up, which starts them without a word.
        gone = [] if names is None else await asyncio.to_thread(names.missing)
        faults = await self._faults()
        if not self._flushed:  # the rules come before the switches, see sysctl.route_localhost
            faults += self._switch_on()
        behind = await _behind(settings, gateway)  # another one, if dnsmasq was installed since
        if not self._context.running():  # the last one has gone meanwhile, and the network with it
            return False
        if not self._context.up or faults or self._route6 != sysctl.routes_ipv6() or self._behind != behind:
            self._context.up = False
            await self.ensure()
            self._cut_off = False
            self._switch_on()
            if faults:
                faults = self._lasting.mended(faults, await self._seen())
        elif names is not None and (gone or not names.current):
            async with self._context.lock:
                if self._context.settings is settings:
                    await self._have_names(settings, gateway)
        if not nameless and not self._nameless:
            faults += [f"{title} was gone" for title in gone]
        if faults:
            self._context.bus.publish(NetworkRepaired(tuple(faults)))
        return True

    async def _faults(self) -> list[str]:
        """Those that take setting up anew, in words."""
        settings = self._context.settings
        found = ["another program changed the packet filter's rules"] if self._flushed else []
        if self._cut_off or not self._context.bridge_there:
            return [f"the bridge {settings.bridge} was gone", *found]
        return found + self._lasting.due(await self._seen())

    async def _seen(self) -> list[str]:
        """The faults that a look at the bridge and its ports finds."""
        settings = self._context.settings
        subnet = None if settings.dhcp else await self._addressing.subnet()
        running = self._context.running()
        return inspection.faults(self._wanted(settings, subnet, running), running, self._look)

    def _wanted(
        self, settings: NetworkSettings, subnet: Subnet | None, running: Sequence[Container]
    ) -> inspection.WantedBridge:
        prepared = {each.name: self._prepared[each.name] for each in running if each.name in self._prepared}
        self._prepared = prepared
        ports = {
            each.spec.port: prepared[each.name][1]
            for each in running
            if each.spec is not None and each.name in prepared and prepared[each.name][0] is each.running
        }
        if subnet is None:
            return inspection.WantedBridge(settings.bridge, ports=ports)
        own = requests.own_addresses(subnet)
        return inspection.WantedBridge(settings.bridge, own, hardware_address(subnet.gateway.ip), self._mtu, ports)

    def _switch_on(self) -> list[str]:
        """The switches that went off. Interfaces may also have come, or got addresses, since the bridge was set up."""
        settings, published = self._context.settings, bool(self._publishing.wanted())
        own = not settings.dhcp
        return self._switches.switch_on(settings.bridge, forward=published or own, localhost=published and own)

    def _name_server(self, settings: NetworkSettings, gateway: IPv4Address | None) -> NameServer | None:
        """The name server, if there should be one and nobody else is starting it."""
        if not settings.dns or gateway is None or self._exchanging:
            return None
        return NameServer(self._context.paths, settings, gateway)

    def _watch_rules(self) -> None:
        if self._watch is None:
            try:
                own = rules.table(self._context.settings.bridge)
                self._watch = TableWatch(
                    own, self._rules_gone, self._rules_unknown, self._filter_changed, lambda: self._context.loads
                )
            except HostError as error:
                log.warning("%s", error)

    def distrust(self) -> None:
        """Rules could not be added to: somebody may have flushed them in this moment, and the watch does not know yet."""
        self._rules_gone()

    def _rules_gone(self) -> None:
        """Somebody flushed them. Until they are back, containers may do everything: repair at once."""
        self._losses += 1
        if self._context.up and not self._flushed:
            self._flushed = True
            self._repair_soon.kick()

    def _rules_unknown(self) -> None:
        """Somebody may have changed them: the kernel could not tell of each change, as when another program loads a large
        set. Load them anew, and tell of no repair that nobody knows of."""
        if self._context.up:
            log.info("the packet filter's rules are loaded anew: the kernel could not tell of each change in them")
            self._context.up = False
            self._repair_soon.kick()


async def _behind(settings: NetworkSettings, gateway: IPv4Address | None) -> Behind | None:
    """The programs that the name server asks, if there is to be one. In a thread, as the host's users may be in a directory
    service."""
    if not settings.dns or gateway is None:
        return None
    return await asyncio.to_thread(name_server.behind, gateway)
