"""Addresses that operators choose for containers: which ones the fleet's network has, and who has them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from lxcfleet.errors import InvalidInput
from lxcfleet.network.addresses.ranges import Subnet
from lxcfleet.spec.container.spec import Spec

AnyAddress = IPv4Address | IPv6Address


def check_range(chosen: Iterable[AnyAddress], subnet: Subnet) -> None:
    """Refuse addresses that no container can have here. Raises InvalidInput."""
    for address in chosen:
        network = subnet.ipv4 if isinstance(address, IPv4Address) else subnet.ipv6
        if network is None:
            raise InvalidInput(
                f"a container can't have {address}", why="the fleet has no IPv6 addresses",
                hint="leave it out, or set network.ipv6 in lxcfleet.yaml",
            )  # fmt: skip
        if address not in network:
            raise InvalidInput(
                f"a container can't have {address}", why=f"the fleet's range is {network}",
                hint=f"choose another one, or set network.ipv{address.version} while no container is connected",
            )  # fmt: skip
        reserved = _reserved(network).get(address)
        if reserved is not None:
            raise InvalidInput(f"a container can't have {address}", why=f"it is {reserved}", hint="choose another one")


def _reserved(network: IPv4Network | IPv6Network) -> dict[AnyAddress, str]:
    found: dict[AnyAddress, str] = {
        network.network_address: "the network's own", network.network_address + 1: "the bridge's: the host is reached at it",
    }  # fmt: skip
    if isinstance(network, IPv4Network):
        found[network.broadcast_address] = "the broadcast address"
    return found


def placed(spec: Spec, subnet: Subnet) -> Spec:
    """The spec with the addresses that were chosen for it, and those that go with them. What is still missing is to be any
    free one."""
    for address in spec.static_addresses:
        if isinstance(address, IPv4Address):
            spec = replace(spec, address=IPv4Interface((address, subnet.ipv4.prefixlen)))
    if spec.address is not None:
        spec = replace(spec, address6=subnet.ipv6_of(spec.address.ip))
    for address in spec.static_addresses:
        if isinstance(address, IPv6Address) and subnet.ipv6 is not None:
            spec = replace(spec, address6=IPv6Interface((address, subnet.ipv6.prefixlen)))
    return spec


def check_free(spec: Spec, subnet: Subnet, others: Iterable[Spec], unreadable: Sequence[AnyAddress] = ()) -> None:
    """Refuse addresses that another container has. ``spec``: as ``placed`` gives it; ``unreadable``: those of containers
    without a spec. Raises InvalidInput."""
    own = [each.ip for each in (placed(spec, subnet).address, placed(spec, subnet).address6) if each is not None]
    for other in others:
        for held in (other.address, other.address6):
            if other.name != spec.name and held is not None and held.ip in own:
                raise _taken(spec, held.ip, f"{other.name} has it")
    for address in unreadable:
        if address in own:
            raise _taken(spec, address, "a broken container has it")


def _taken(spec: Spec, address: AnyAddress, why: str) -> InvalidInput:
    if address in spec.static_addresses:
        return InvalidInput(f"a container can't have {address}", why=why, hint="choose another one")
    return InvalidInput(
        f"a container can't have {spec.static_addresses[0]}", why=f"with it goes {address}, and {why}",
        hint="choose both addresses, or another one",
    )  # fmt: skip


def check_apart(specs: Iterable[Spec]) -> None:
    """Refuse one address for two of these. Raises InvalidInput."""
    owners: dict[AnyAddress, str] = {}
    for spec in specs:
        for address in spec.static_addresses:
            if address in owners:
                raise shared(address, [name for name in (owners[address], spec.name) if name])
            owners[address] = spec.name


def shared(address: AnyAddress, names: Sequence[str]) -> InvalidInput:
    """The error for an address that several are to have."""
    return InvalidInput(
        f"{' and '.join(names) or 'several containers'} can't all have {address}",
        hint="an address is one container's: in a fleet file, members: say what each one has",
    )
