"""Requests to the launcher that make or remove a bridge: one of our own, or containers on one of the operator's. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from ipaddress import IPv4Interface, IPv6Interface

from lxcfleet.launcher.items.network import DisconnectItem, JoinItem, NetworkItem
from lxcfleet.network.addresses.ranges import Subnet
from lxcfleet.network.rules import guard, rules
from lxcfleet.network.rules import lan as other_bridge
from lxcfleet.network.rules.guard import AnyGuest
from lxcfleet.network.rules.rules import Behind, Published
from lxcfleet.spec.container.addresses import OFF, hardware_address
from lxcfleet.spec.files.settings import NetworkSettings

LINK_LOCAL_PREFIX = 64


def own_addresses(subnet: Subnet) -> tuple[IPv4Interface | IPv6Interface, ...]:
    """The host's addresses on a bridge that we make.

    The kernel gives it the link-local one by itself, but once only, and another one where the host's settings say so
    (addr_gen_mode). Without it the host can't ask for the owners of IPv6 addresses when it forwards a packet.
    """
    if subnet.gateway6 is None:
        return (subnet.gateway,)
    near = guard.link_local(hardware_address(subnet.gateway.ip))
    return subnet.gateway, subnet.gateway6, IPv6Interface((near, LINK_LOCAL_PREFIX))


def own(
    settings: NetworkSettings,
    subnet: Subnet,
    ports: Mapping[str | None, list[str]],
    published: Sequence[Published],
    guests: Collection[AnyGuest],
    *,
    route6: bool,
    behind: Behind | None,
    mtu: int = 0,
) -> NetworkItem:
    """For a bridge that we make, on which containers have addresses of ours. ``route6``, ``behind``: see rules.render.

    ``ports``: by further bridge, None: those of the fleet's own.
    """
    bridge = settings.bridge
    ruleset = rules.resume_names(bridge) + rules.render(
        subnet, bridge, nat=settings.nat, published=published, route6=route6, host_access=settings.host_access,
        dns=settings.dns, behind=behind,
    )  # fmt: skip
    ruleset += guard.render(subnet, bridge, guard=settings.guard)
    return {
        "bridge": bridge,
        "hardware": hardware_address(subnet.gateway.ip),
        "mtu": mtu,
        "addresses": [str(address) for address in own_addresses(subnet)],
        "ports": ports.get(None, []),
        "further": {further: there for further, there in ports.items() if further is not None},
        "rules": ruleset + guard.admit(bridge, guests),
        "forward": True,
        "localhost": bool(published),
        "domain": settings.domain if settings.dns else "",
    }


def lan(
    settings: NetworkSettings,
    ports: Sequence[str],
    published: Sequence[Published],
    guests: Collection[AnyGuest],
    leased: Sequence[str],
    *,
    route6: bool,
    behind: Behind | None,
) -> JoinItem:
    """For the operator's bridge. ``leased``: elements of the set of addresses that were given, see network.lan.

    ``behind``: see rules.render."""
    bridge = settings.bridge
    ruleset = rules.resume_names(bridge) + other_bridge.render(bridge, published, route6=route6, behind=behind)
    ruleset += other_bridge.render_bridge(bridge, guard=settings.guard, ipv6=settings.ipv6 != OFF)
    ruleset += guard.admit(bridge, guests) + other_bridge.change_leases(bridge, leased, [])
    return {"bridge": bridge, "ports": ports, "rules": ruleset, "forward": bool(published)}


def removal(settings: NetworkSettings) -> DisconnectItem:
    """To take everything away again; of the operator's bridge only the rules."""
    gone = rules.removal(settings.bridge) + guard.removal(settings.bridge)
    return {"bridge": "" if settings.dhcp else settings.bridge, "rules": gone}
