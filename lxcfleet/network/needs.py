"""The things that the host has to provide for containers to be connected: ports of a bridge, port 53 for the name server;
for a bridge of the operator's also that bridge, and a DHCP client."""

from __future__ import annotations

from collections.abc import Callable

from lxcfleet.capacity.needs import Finding, Level
from lxcfleet.errors import FleetError, NoCapacity
from lxcfleet.host.net import bridge_port, dhcp, dnsmasq, interfaces, resolved
from lxcfleet.spec.files.settings import NetworkSettings
from lxcfleet.spec.reading.terms import NetworkMode
from lxcfleet.units import counted


def _checks(settings: NetworkSettings) -> list[Callable[[], None]]:
    return [dhcp.check_installed, lambda: bridge_port.check_bridge(settings.bridge)] if settings.dhcp else []


def check(settings: NetworkSettings) -> None:
    """Raise Unsupported if the host lacks what the operator has to see to."""
    for each in _checks(settings):
        each()


def ports_left(bridge: str) -> int:
    """How many more containers can be on the bridge."""
    return interfaces.MOST_PORTS - len(interfaces.ports(bridge))


def check_ports(bridge: str, count: int) -> None:
    """Raise NoCapacity if the bridge has no room for so many more ports."""
    left = ports_left(bridge)
    if count > left:
        raise NoCapacity(
            f"no room for {counted(count, 'more container')} on {bridge}",
            why=f"a bridge has at most {interfaces.MOST_PORTS} ports, and {left} are left",
            hint="stop some of those that run, or use --network none; a bridge of the fleet's own (network.addresses: own) "
            "has room for more",
        )


def findings(settings: NetworkSettings, *, count: int, served: bool) -> list[Finding]:
    """The same for ``doctor``. ``count``: how many more containers; ``served``: whether the name server runs."""
    found = _operators(settings)
    if settings.dhcp and settings.default is NetworkMode.BRIDGE:
        left = ports_left(settings.bridge)
        message = f"ports of {settings.bridge}: {count} needed, {left} left"
        level: Level = "ok" if count <= left else "fail"
        hint = "" if count <= left else "create fewer, or use --network none for some"
        found.append(Finding("bridge-ports", level, message, left, count, hint))
    if settings.dns and not served:
        try:
            dnsmasq.check_installed()
            dnsmasq.check_port()
        except FleetError as error:
            message = f"{error.message}: {error.why}" if error.why else error.message
            found.append(Finding("names", "warning", message, hint=error.hint or "", feature=True))
    if settings.dns and not resolved.has_servers():
        hint = "`ls -l /etc/resolv.conf` shows where it leads; start what makes that file, or write one"
        message = "containers find no names but the fleet's: resolv.conf leads to a directory that is not there"
        found.append(Finding("names", "warning", message, hint=hint, feature=True))
    return found


def _operators(settings: NetworkSettings) -> list[Finding]:
    """Nothing about a bridge of our own."""
    found = []
    for each in _checks(settings):
        try:
            each()
        except FleetError as error:
            message = f"{error.message}: {error.why}" if error.why else error.message
            found.append(Finding("network", "fail", message, hint=error.hint or "", feature=True))
    if settings.dhcp and not found:
        found.append(Finding("network", "ok", f"containers can use {settings.bridge}", feature=True))
    return found
