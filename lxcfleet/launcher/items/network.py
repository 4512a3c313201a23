"""The launcher's work with the network: arguments and answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from lxcfleet.errors import ErrorBody

RoutesItem = TypedDict("RoutesItem", {"except": str})
"""The interface whose networks are left out."""


class HostRoutes(TypedDict):
    """The networks that the host uses, and whether it has IPv6."""

    networks: list[str]
    ipv6: bool
    error: ErrorBody | None


class BridgeItem(TypedDict):
    """A bridge of the operator's."""

    bridge: str


class BridgeAddress(TypedDict):
    """The host's IPv4 address on the bridge."""

    address: str | None
    error: ErrorBody | None


class JoinItem(TypedDict):
    """Containers on a bridge of the operator's, and the rules for it."""

    bridge: str
    ports: Sequence[str]
    rules: str
    """The rules, for nft."""
    forward: bool
    """Whether the host is to forward packets."""


class NetworkItem(JoinItem):
    """The fleet's own bridge."""

    hardware: str
    mtu: int
    """0: the uplink's for a new one."""
    further: dict[str, list[str]]
    """The ports of further bridges, which hang on it by a cable each."""
    addresses: list[str]
    """The host's addresses, with the length of the prefix."""
    localhost: bool
    """Whether published ports are reachable on 127.0.0.1, too."""
    domain: str
    """The domain for which the name server on the bridge is asked; empty: none."""


class DhcpItem(TypedDict):
    """A container that is to have a DHCP client."""

    name: str
    pid: int
    began: float
    daemon: int
    privileged: bool


class UplinkItem(TypedDict):
    """A network of the host's that containers are to be on."""

    parent: str
    """The host's interface."""
    vlan: int
    """0: none."""
    device: str
    """The interface that the containers' own are on: the host's, or the one for the VLAN."""
    user: str
    """The fleet's name in the alias of an interface for a VLAN."""
    words: str
    """The network, as messages name it."""
    hardware: str
    """The MAC address that a container is about to have there; empty: none is about to start."""


class RejoinItem(TypedDict):
    """A container that runs and has lost its interface on a network of the host's."""

    name: str
    pid: int
    began: float
    device: str
    hardware: str
    isolated: bool
    address: str
    """With the length of the prefix; empty: a DHCP server gives it."""
    broadcast: str
    gateway: str
    """Empty: none."""
    address6: str
    """With the length of the prefix; empty: as the network's router says."""
    gateway6: str
    """Empty: none."""


class LeasedItem(TypedDict):
    """The table that has the set of given addresses."""

    table: str


class ForeignPort(TypedDict):
    """A port of the host that another fleet publishes."""

    table: str
    """The fleet's table."""
    protocol: str
    port: int
    address: str | None
    """The host's address that it is published at; None: all of them."""


class Foreign(TypedDict):
    """The ports of the host that its other fleets have."""

    ports: list[ForeignPort]
    name_servers: list[str]
    """The addresses at which their name servers keep port 53, whoever publishes it."""


class ClosedForward(TypedDict):
    """A firewall's chain that drops what the host passes on."""

    family: str
    table: str
    from_bridge: bool
    """Whether what comes from the fleet's bridge is dropped."""
    to_bridge: bool
    docker: bool
    """Whether it is Docker's."""


class ChangedPort(TypedDict):
    """A port of the host, and where it leads now."""

    protocol: str
    address: str | None
    """The host's address that it is published at; None: all of them."""
    port: int
    to: int
    """The containers' port."""
    members: list[str]
    """The addresses of the containers behind it."""


class PublishItem(TypedDict):
    """The ports of the host and where they lead."""

    bridge: str
    rules: str
    localhost: bool
    forward: bool
    changed: list[ChangedPort]
    """The ports whose flows are to be forgotten unless they lead to a member."""


class RulesItem(TypedDict):
    """Rules for nft."""

    rules: str


class LookupItem(TypedDict):
    """A running container from whose network a name server is asked."""

    pid: int
    began: float
    server: str
    """Its IPv4 address."""
    question: str
    """The name to ask for."""
    seconds: float


class LookedUp(TypedDict):
    """Whether there was an answer; None: the container has ended."""

    answered: bool | None
    error: ErrorBody | None


class DisconnectItem(TypedDict):
    """A bridge to remove, empty for none, and the rules that take its tables away."""

    bridge: str
    rules: str
