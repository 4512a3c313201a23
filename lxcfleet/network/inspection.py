"""A look at what stands of the fleet's network, compared with what should: other tools set bridges down, flush addresses,
change ports and switch things off."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Interface

from lxcfleet.containers.container import Container
from lxcfleet.host.net import bridge_look, bridge_port, interfaces, sysctl
from lxcfleet.spec.container.addresses import cable

log = logging.getLogger(__name__)

_FORWARDING = "forwarding"


@dataclass(frozen=True)
class WantedBridge:
    """A bridge as it should be."""

    bridge: str
    own: tuple[IPv4Interface | IPv6Interface, ...] = ()
    """The host's addresses there, if lxcfleet made the bridge."""
    hardware: str = ""
    """Its MAC address."""
    mtu: int = 0
    """0: whatever it has."""
    ports: dict[str, bridge_port.Switches] = field(default_factory=dict)
    """How ports are to be that were set up."""


def faults(wanted: WantedBridge, running: Iterable[Container], look: bridge_look.Ports) -> list[str]:
    """The faults of a bridge that is there, each as a sentence without a full stop.

    ``running``: the containers that are to be on it. Raises OSError.
    """
    bridge, own = wanted.bridge, [each for each in wanted.own if each.version == 4 or sysctl.takes_ipv6(wanted.bridge)]
    found = list(_faults_of_bridge(wanted, own)) if own else []
    places: dict[str | None, dict[str, str]] = {None: {}}
    for container in running:
        if container.spec is not None and container.busy is None:
            places.setdefault(container.spec.further_bridge, {})[container.spec.port] = container.name
    seen = look.look()
    for further, names in places.items():
        if further is not None and not interfaces.extends(bridge, further):
            found.append(f"the bridge {further} was cut off from {bridge}")
        elif further is not None and {wanted.mtu} != {interfaces.mtu(each) for each in (further, *cable(further))}:
            found.append(f"the bridge {further} had another MTU than {bridge}")
        found += _faults_of_ports(wanted, further or bridge, names, seen)
    return found


def _faults_of_bridge(wanted: WantedBridge, own: list[IPv4Interface | IPv6Interface]) -> Iterator[str]:
    bridge, is_up = wanted.bridge, interfaces.is_up(wanted.bridge)
    if not is_up:
        yield f"the bridge {bridge} was down"
    for each in own:
        if not interfaces.has_address(bridge, each.ip):
            yield f"{bridge} had lost {each.ip}"
        elif is_up and not interfaces.has_route(bridge, each.network):
            yield f"{bridge} had no route to {each.network}"
    if wanted.hardware and interfaces.hardware(bridge) != wanted.hardware:
        yield f"{bridge} had another MAC address"
    mtu = interfaces.mtu(bridge)
    if wanted.mtu and mtu != wanted.mtu:
        yield f"{bridge} had the MTU {mtu} in the place of {wanted.mtu}"
    yield from (f"{bridge} had {word} on" for word in interfaces.switched_on(bridge))


def _faults_of_ports(
    wanted: WantedBridge, bridge: str, names: dict[str, str], seen: dict[str, bridge_look.BridgePort]
) -> Iterator[str]:
    """``names``: of containers, by their ports."""
    here = interfaces.number(bridge)
    there = {port: seen[port] for port in names if port in seen and seen[port].bridge == here}
    yield from (f"{names[port]} was not on {bridge}" for port in sorted(interfaces.present(names.keys() - there)))
    pinned = bridge_look.pinned(bridge) if any(wanted.ports[port].only for port in there if port in wanted.ports) else {}
    for port, found in sorted(there.items()):
        name, switches = names[port], wanted.ports.get(port)
        if not found.is_up:
            yield f"the port of {name} was down"
        if switches is None:
            continue
        if switches.mtu not in (0, found.mtu):
            yield f"the port of {name} had the MTU {found.mtu} in the place of {switches.mtu}"
        wrong = switches.wrong(found)
        if wrong:
            yield f"the port of {name} was set otherwise: {', '.join(wrong)}"
        if switches.only is not None and found.is_up and pinned.get(switches.only) != found.number:
            yield f"{bridge} did not know {name} at its port"


LASTING_SECONDS = 60.0


class Lasting:
    """Faults that a repair did not mend: something keeps the daemon from it, or makes them again at once. They are told once,
    and tried again now and then only, as each repair loads all rules."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def due(self, faults: Iterable[str]) -> list[str]:
        """Those of the faults that are to be mended now."""
        found = list(faults)
        self._until = {fault: until for fault, until in self._until.items() if fault in found}
        return [fault for fault in found if self._until.get(fault, 0.0) <= time.monotonic()]

    def mended(self, tried: Iterable[str], left: Collection[str]) -> list[str]:
        """Those that are gone; ``left``: what a look finds after the repair. The others are logged."""
        again = [fault for fault in tried if fault in left]
        new = [fault for fault in again if fault not in self._until]
        if new:
            log.error("what somebody has changed in the fleet's network can't be mended, and is tried again each minute: %s",
                      "; ".join(new))  # fmt: skip
        self._until.update(dict.fromkeys(again, time.monotonic() + LASTING_SECONDS))
        return [fault for fault in tried if fault not in again]


class Switchboard:
    """The kernel's switches of interfaces, as this daemon has seen them."""

    def __init__(self) -> None:
        self._on: set[str] = set()

    def switch_on(self, bridge: str, *, forward: bool, localhost: bool) -> list[str]:
        """Have the switches as they should be; those that somebody has switched off, as ``faults`` tells them.

        An interface that is new, or got its first address, is switched on without a word. Raises HostError.

        ``forward``: for packets that come in by the bridge and by the host's other interfaces; ``localhost``: for those that
        go from 127.0.0.1 to published ports.
        """
        wanted = {f"{_FORWARDING} for {name}": sysctl.forwards(name) for name in [bridge, *interfaces.routed()] if forward}
        if localhost:
            wanted[f"route_localnet for {bridge}"] = sysctl.routes_localhost(bridge)
        off = [switch for switch, is_on in wanted.items() if is_on is False]
        for switch in off:
            kind, name = switch.split(" for ")
            if kind == _FORWARDING:
                sysctl.forward([name])
            else:
                sysctl.route_localhost(name)
        told = [f"{switch} was off" for switch in off if switch in self._on]
        self._on = {switch for switch, is_on in wanted.items() if is_on is not None}
        return told
