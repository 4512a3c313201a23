"""The events of the fleet's network on the bus (runtime.bus)."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from lxcfleet.containers.container import Container
from lxcfleet.runtime.bus import Event, Told

_SHOWN = 5
"""So many things that were wrong are named in one message."""


@dataclass(frozen=True)
class AddressChanged(Event):
    """A container got other addresses from a DHCP server or a router, or lost them."""

    container: Container
    before: tuple[IPv4Address | IPv6Address, ...]
    after: tuple[IPv4Address | IPv6Address, ...]

    def told(self) -> Told | None:
        if self.after:
            return Told("address", self.container.name, " ".join(map(str, self.after)))
        if self.before:
            return Told("no-address", self.container.name, f"{self.before[0]} is no longer its own")
        return None


@dataclass(frozen=True)
class NoDhcpAnswer(Event):
    """A container asked for an address, and no DHCP server answered."""

    name: str
    where: str
    """The bridge, or the network of the host's."""

    def told(self) -> Told:
        return Told("no-address", self.name, f"no DHCP server answers on {self.where}")


@dataclass(frozen=True)
class BridgeGone(Event):
    """The operator's bridge was taken away from under containers that run."""

    bridge: str

    def told(self) -> Told:
        return Told("cut-off", None, f"the bridge {self.bridge} is gone, with the containers' network")


@dataclass(frozen=True)
class UplinkGone(Event):
    """An interface of the host's is no longer there, or no longer fit, for containers that run on its network."""

    words: str
    names: tuple[str, ...]
    why: str
    cut: bool = True
    """Whether they are without a network now. One that has another name still has them."""

    def told(self) -> Told:
        who = ", ".join(self.names[:_SHOWN]) + (", …" if len(self.names) > _SHOWN else "")
        if not self.cut:
            return Told("cut-off", None, f"{who}: connected until the next start, which fails on {self.words}: {self.why}")
        return Told("cut-off", None, f"{who}: no network on {self.words}: {self.why}")


@dataclass(frozen=True)
class LookupsFail(Event):
    """Containers get no answer from the fleet's name server."""

    names: tuple[str, ...]
    """The containers that were asked from."""
    why: str
    hint: str

    def told(self) -> Told:
        return Told("names-fail", None, f"{', '.join(self.names)} can't look up names: {self.why}; {self.hint}")


@dataclass(frozen=True)
class LookupsAnswered(Event):
    """Containers get answers from the fleet's name server again."""

    def told(self) -> Told:
        return Told("names-work", None, "containers can look up names again")


@dataclass(frozen=True)
class NetworkRepaired(Event):
    """Parts of the fleet's network were missing or switched off, and are as they should be again."""

    faults: tuple[str, ...]
    """Each as a sentence without a full stop."""

    def told(self) -> Told:
        shown = [*self.faults[:_SHOWN], *([f"{len(self.faults) - _SHOWN} more"] if len(self.faults) > _SHOWN else [])]
        return Told("repaired", None, "; ".join(shown))


@dataclass(frozen=True)
class NoNames(Event):
    """The fleet's name server can't run. Containers go on and start without names."""

    why: str

    def told(self) -> Told:
        return Told("no-names", None, self.why.replace("\n", "; "))


@dataclass(frozen=True)
class PortsShared(Event):
    """Ports of the host that another fleet publishes, too, as neither was there when the other one asked for them."""

    ports: tuple[str, ...]
    """Each with the fleet that has it, too."""

    def told(self) -> Told:
        more = f"; {len(self.ports) - _SHOWN} more" if len(self.ports) > _SHOWN else ""
        named = "; ".join(self.ports[:_SHOWN])
        return Told("port-shared", None, f"published by two fleets, of which one gets nothing: {named}{more}")
