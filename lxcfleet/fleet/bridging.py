"""What the launcher is asked for to have a bridge: one of our own, or containers on one of the operator's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Sequence
from ipaddress import IPv4Address
from typing import Any

from lxcfleet.config import NetworkSettings
from lxcfleet.errors import FleetError
from lxcfleet.fleet.capacity import Finding
from lxcfleet.host import bridge_port, dhcp, resolved, sysctl, tree
from lxcfleet.names import Paths
from lxcfleet.net import guard, rules
from lxcfleet.net import lan as other_bridge
from lxcfleet.net.addresses import OFF, Subnet, hardware_address
from lxcfleet.net.guard import AnyGuest
from lxcfleet.net.rules import Published


def own(
    settings: NetworkSettings,
    subnet: Subnet,
    ports: Sequence[str],
    published: Sequence[Published],
    guests: Collection[AnyGuest],
) -> dict[str, Any]:
    """For a bridge that we make, on which containers have addresses of ours."""
    bridge = settings.bridge
    ruleset = rules.render(
        subnet, bridge, nat=settings.nat, published=published, route6=sysctl.routes_ipv6(), host_access=settings.host_access
    )
    ruleset += guard.render(subnet.ipv4, bridge, guard=settings.guard)
    return {
        "bridge": bridge,
        "hardware": hardware_address(subnet.gateway.ip),
        "addresses": [str(address) for address in (subnet.gateway, subnet.gateway6) if address is not None],
        "ports": ports,
        "rules": ruleset + guard.admit(bridge, guests),
        "forward": settings.nat or bool(published),
        "localhost": bool(published),
        "domain": settings.domain if settings.dns else "",
    }


def lan(
    settings: NetworkSettings,
    ports: Sequence[str],
    published: Sequence[Published],
    guests: Collection[AnyGuest],
    leased: Sequence[str],
) -> dict[str, Any]:
    """For the operator's bridge. ``leased``: elements of the set of what was given, see net.lan."""
    bridge = settings.bridge
    ruleset = other_bridge.render(bridge, published, route6=sysctl.routes_ipv6())
    ruleset += other_bridge.render_bridge(bridge, guard=settings.guard, ipv6=settings.ipv6 != OFF)
    ruleset += guard.admit(bridge, guests) + other_bridge.change_leases(bridge, leased, [])
    return {"bridge": bridge, "ports": ports, "rules": ruleset, "forward": bool(published)}


def _checks(settings: NetworkSettings) -> list[Callable[[], None]]:
    return [dhcp.check_installed, lambda: bridge_port.check_bridge(settings.bridge)] if settings.dhcp else []


def check(settings: NetworkSettings) -> None:
    """Raise Unsupported if the host lacks what the operator has to see to."""
    for each in _checks(settings):
        each()


def findings(settings: NetworkSettings) -> list[Finding]:
    """The same for ``doctor``; nothing about a bridge of our own."""
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


def announce(paths: Paths, settings: NetworkSettings, gateway: IPv4Address | None) -> None:
    """Tell clones where their name server is, by a file that the mask takes up. ``gateway``: the bridge's address."""
    if settings.dns and gateway is not None:
        text = f"search {settings.domain}\nnameserver {gateway}\n"
    elif settings.dhcp:
        text = resolved.servers()  # those of the host are in reach on its own network
    else:
        paths.resolv_conf.unlink(missing_ok=True)
        return
    with contextlib.suppress(OSError):
        if paths.resolv_conf.read_text(encoding="ascii") == text:
            return
    tree.write(paths.resolv_conf, text)
