"""Which changes of the network's settings the containers that are there can follow. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from lxcfleet.errors import FleetError
from lxcfleet.network.addresses.ranges import choose_subnet
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files.settings import NetworkSettings

WHERE = ("bridge", "addresses", "ipv4", "ipv6")
"""The settings that say where containers are: present containers can't follow a change of them. See ``change``."""
_RULES = ("nat", "dns", "domain", "guard", "host_access")
"""The settings that the packet filter's rules and the name server are made from."""


def change(
    old: NetworkSettings, new: NetworkSettings, specs: Collection[Spec], *, run: bool
) -> tuple[NetworkSettings, list[str]]:
    """The settings to go on with, and a line for each key that stays as in ``old``: why it does, and what to do.

    ``specs``: of all connected containers, whose addresses are for good; ``run``: whether some of them run, with ports
    on the bridge.
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
