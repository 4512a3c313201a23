"""The spec of a container: what the operator asked for. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address

from lxcfleet.spec.container.addresses import further_bridge, hardware_address, interface_name, lan_port
from lxcfleet.spec.container.apps import AppForm
from lxcfleet.spec.container.fields import SpecFields
from lxcfleet.spec.container.health import CheckKind, HealthCheck
from lxcfleet.spec.container.volumes import VolumeMount
from lxcfleet.spec.reading.terms import NetworkMode


@dataclass(frozen=True)
class Spec(SpecFields):
    """Everything that the operator asked for one container; the file ``lxcfleet.yaml`` holds just this."""

    @property
    def privileged(self) -> bool:
        """Whether root in the container is root on the host."""
        return self.first_id is None

    @property
    def connected(self) -> bool:
        """Whether the container is on a bridge."""
        return self.network is NetworkMode.BRIDGE

    @property
    def on_uplink(self) -> bool:
        """Whether the container is on a network of the host's, by an interface of its own there."""
        return self.network is NetworkMode.UPLINK

    @property
    def by_dhcp(self) -> bool:
        """Whether a DHCP server on the network gives the container its address."""
        return self.hardware is not None and not self.uplink.addresses

    @cached_property
    def fixed(self) -> tuple[IPv4Address | IPv6Address, ...]:
        """The addresses that it has by itself, IPv4 first: asked for all containers whenever members of a port change."""
        given = (self.address, self.address6, *self.uplink.addresses)
        return tuple(each.ip for each in given if each is not None)

    @property
    def mac(self) -> str:
        """The container's MAC address; empty if the container is on no network."""
        if self.hardware is not None:
            return self.hardware
        return "" if self.address is None else hardware_address(self.address.ip)

    @property
    def port(self) -> str:
        """The name of the container's port of the bridge: the host's end of its veth. Empty if it is on no bridge."""
        if self.hardware is not None:
            return "" if self.on_uplink else lan_port(self.hardware)
        return "" if self.address is None else interface_name(self.address.ip)

    @property
    def further_bridge(self) -> str | None:
        """The bridge that it is on, if the fleet's own has no room for it: see addresses.further_bridge."""
        return None if self.address is None else further_bridge(self.address)

    @property
    def mounted(self) -> tuple[VolumeMount, ...]:
        """All that it mounts beside its layers."""
        if self.app is None or self.app.form is AppForm.LAYER:
            return self.volumes
        return (*self.volumes, self.app.mount)

    @property
    def check(self) -> HealthCheck | None:
        """The check that is asked again and again; None: its systemd is asked after a start, or nothing."""
        return None if self.health is None or self.health.kind is CheckKind.UNITS else self.health
