"""What the launcher is asked for to have a bridge: one of our own, or containers on one of the operator's."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

from lxcfleet.capacity.needs import Finding
from lxcfleet.errors import FleetError
from lxcfleet.host.kernel import tree
from lxcfleet.host.net import bridge_port, dhcp, resolved, sysctl
from lxcfleet.network import guard, rules
from lxcfleet.network import lan as other_bridge
from lxcfleet.network.addresses import Subnet, choose_subnet
from lxcfleet.network.guard import AnyGuest
from lxcfleet.network.rules import Published
from lxcfleet.paths import Paths
from lxcfleet.spec.addresses import OFF, hardware_address
from lxcfleet.spec.settings import NetworkSettings
from lxcfleet.spec.spec import Spec
from lxcfleet.spec.terms import Addresses

log = logging.getLogger(__name__)

WHERE = ("bridge", "addresses", "ipv4", "ipv6")
"""Settings that say where containers are: those that are there can't follow a change of them. See ``change``."""
_RULES = ("nat", "dns", "domain", "guard", "host_access")
"""Settings that the packet filter's rules and the name server are made from."""


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
    """For the operator's bridge. ``leased``: elements of the set of what was given, see network.lan."""
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


# -- other settings than before -------------------------------------------------------------------------------


def change(
    old: NetworkSettings, new: NetworkSettings, specs: Collection[Spec], *, run: bool
) -> tuple[NetworkSettings, list[str]]:
    """The settings to go on with: ``new``, but for what must stay as in ``old``; and for each such key why, and what to do.

    ``specs``: of all connected containers, whose addresses are for good; ``run``: some run, with ports on the bridge.
    """
    stay: dict[str, str] = {}
    if specs and not _same_network(old, new, specs):
        for key in _different(old, new, ("addresses", "ipv4", "ipv6")):
            stay[key] = "connected containers have addresses by it: set it back, or destroy them and reload"
    if old.bridge != new.bridge and "addresses" in stay:
        stay["bridge"] = "it is of the kind that network.addresses said before"
    elif old.bridge != new.bridge and run:
        stay["bridge"] = "containers run on it: set it back, or stop those that are connected and reload"
    lines = [f"network.{key} stays {getattr(old, key)}, not {getattr(new, key)}: {why}" for key, why in stay.items()]
    return replace(new, **{key: getattr(old, key) for key in stay}), lines


def _different(old: NetworkSettings, new: NetworkSettings, keys: Sequence[str]) -> list[str]:
    return [key for key in keys if getattr(old, key) != getattr(new, key)]


def _same_network(old: NetworkSettings, new: NetworkSettings, specs: Collection[Spec]) -> bool:
    """Whether other words come to the same, as where the range that was found for `auto` is written down."""
    if not _different(old, new, ("addresses", "ipv4", "ipv6")):
        return True
    if old.addresses is not new.addresses:
        return False
    present = [spec.address.ip for spec in specs if spec.address is not None]
    try:
        before, after = (choose_subnet(each.ipv4, each.ipv6, present, [], "") for each in (old, new))
    except FleetError:
        return False
    return bool(present) and before == after


def elsewhere(old: NetworkSettings, new: NetworkSettings, specs: Collection[Spec]) -> bool:
    """Whether what was set up by ``old`` must go first. ``specs``: of all connected containers."""
    return old.bridge != new.bridge or not _same_network(old, new, specs)


def same_rules(old: NetworkSettings, new: NetworkSettings) -> bool:
    """Whether what is set up by ``old`` serves ``new``, too."""
    return not _different(old, new, _RULES)


def record(paths: Paths, settings: NetworkSettings) -> None:
    """Note what is set up, for the next daemon, which may have other settings."""
    tree.write(paths.network_record, json.dumps({key: getattr(settings, key) for key in WHERE}))


def recorded(paths: Paths, settings: NetworkSettings) -> NetworkSettings:
    """``settings``, but with what an earlier daemon has set up; as they are, if it has nothing."""
    try:
        found = json.loads(paths.network_record.read_text(encoding="utf-8"))
        data: dict[str, Any] = {key: str(value) for key, value in found.items()}
        return replace(settings, **{**data, "addresses": Addresses(data["addresses"])})
    except FileNotFoundError:
        return settings
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("what an earlier daemon noted of the network is lost: %s", error)
        return settings
