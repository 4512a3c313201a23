"""The spec of a container: what the operator asked for. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Interface

from lxcfleet.spec.addresses import hardware_address, interface_name, lan_port
from lxcfleet.spec.health import HealthCheck
from lxcfleet.spec.ports import Port, Publication
from lxcfleet.spec.terms import PIDS, Init, Network


@dataclass(frozen=True)
class Spec:
    """What the operator asked for one container; the file ``lxcfleet.yaml`` holds just this."""

    name: str
    init: Init = Init.SYSTEM
    command: tuple[str, ...] = ()
    """The app container's command and arguments; empty for a system container."""
    environment: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    profile: str | None = None
    first_id: int | None = None
    """First uid and gid of its range on the host; None: privileged, root inside is root outside."""
    network: Network = Network.NONE
    address: IPv4Interface | None = None
    """Its address on the fleet's bridge, with the length of the network's prefix."""
    address6: IPv6Interface | None = None
    hardware: str | None = None
    """Its MAC address on a bridge of the operator's, where a DHCP server gives it its address."""
    ports: tuple[Port, ...] = ()
    """What its program listens on, for those who look for it by the service's name."""
    publish: tuple[Publication, ...] = ()
    """Ports of the host that lead to it, and to those that it shares them with."""
    isolated: bool = False
    """Whether it is kept from other isolated containers, and from the host but for the name server."""
    drain: float | None = None
    """Seconds from its withdrawal from names and ports to its stop; None: as the settings say."""
    health: HealthCheck | None = None
    """How to tell that it does its work; None: that it is up is enough."""
    autostart: bool = True
    """Whether it starts when the host boots, if it ran when the host went down."""
    boot_order: int = 0
    """Those with lower numbers start before it then, and end after it at shutdown."""
    created: str = ""
    """When, as an ISO 8601 time in UTC."""
    memory: int = 0
    """Bytes of memory that it may use; 0: as much as there is."""
    cpus: float = 0.0
    """Processor time that it may use, in processors; 0: as much as there is."""
    disk: int = 0
    """Bytes of disk that its delta may take; 0: as much as there is. A privileged one can't be held to any."""
    pids: int = PIDS
    """Processes and threads that it may have; 0: as many as the host has room for."""
    no_new_privs: bool = False
    """Whether setuid and file capabilities have no effect in it; prctl(2), PR_SET_NO_NEW_PRIVS."""

    @property
    def privileged(self) -> bool:
        """Whether root inside is root on the host."""
        return self.first_id is None

    @property
    def connected(self) -> bool:
        """Whether it is on a bridge."""
        return self.network is Network.BRIDGE

    @property
    def mac(self) -> str:
        """Its MAC address; empty if it is on no bridge."""
        if self.hardware is not None:
            return self.hardware
        return "" if self.address is None else hardware_address(self.address.ip)

    @property
    def port(self) -> str:
        """The name of its port of the bridge: the host's end of its veth. Empty if it is on no bridge."""
        if self.hardware is not None:
            return lan_port(self.hardware)
        return "" if self.address is None else interface_name(self.address.ip)
