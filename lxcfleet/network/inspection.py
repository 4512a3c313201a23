"""A look at what stands of the fleet's network: other tools set bridges down, flush addresses and switch things off."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

from lxcfleet.containers.container import Container
from lxcfleet.host.net import interfaces, sysctl

_FORWARDING = "forwarding"


def faults(
    bridge: str, addresses: Iterable[IPv4Address | IPv6Address], running: Iterable[Container], hardware: str = ""
) -> list[str]:
    """What is wrong with a bridge that is there, each as a sentence without a full stop.

    ``addresses``: the host's own there, if lxcfleet made the bridge, and ``hardware``: its MAC address; ``running``: the
    containers that are to be on it.
    """
    own = [each for each in addresses if each.version == 4 or sysctl.takes_ipv6(bridge)]
    found = [f"the bridge {bridge} was down"] if own and not interfaces.is_up(bridge) else []
    found += [f"{bridge} had lost {each}" for each in own if not interfaces.has_address(bridge, each)]
    if own and hardware and interfaces.hardware(bridge) != hardware:
        found.append(f"{bridge} had another MAC address")
    ports: dict[str | None, dict[str, str]] = {None: {}}
    for container in running:
        if container.spec is not None and container.busy is None:
            ports.setdefault(container.spec.further_bridge, {})[container.spec.port] = container.name
    for further, names in ports.items():
        where = further or bridge
        if further is not None and not interfaces.extends(bridge, further):
            found.append(f"the bridge {further} was cut off from {bridge}")
        found += [f"{names[port]} was not on {where}" for port in sorted(interfaces.loose(where, set(names)))]
        found += [f"the port of {names[port]} was down" for port in sorted(interfaces.down(names))]
    return found


class Switches:
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
