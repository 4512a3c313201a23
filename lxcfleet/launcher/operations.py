"""What the launcher can be asked for, declared once: each operation with the types of its argument and its answers.

The launcher's client and its children both read this; mypy holds them, and all rooms that ask, to it. On the way everything
is JSON. An operation is its name, so that it is sent as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypedDict, TypeVar

from lxcfleet.errors import ErrorBody

A = TypeVar("A")
R = TypeVar("R")


class Operation(str, Generic[A, R]):
    """An operation. ``A``: the type of its argument; ``R``: of one answer."""


class Ask(Operation[A, R], Generic[A, R]):
    """An operation with one answer."""


class Each(Operation[A, R], Generic[A, R]):
    """An operation on many containers, with an answer for each as soon as it is done."""


class Large(Operation[A, R], Generic[A, R]):
    """An operation with one answer that may be too large for a datagram, and so comes in a memory file."""


class Talk(Operation[A, R], Generic[A, R]):
    """An operation whose argument comes piece by piece, while answers go back."""


# -- arguments and answers ----------------------------------------------------------------------------------


class Done(TypedDict):
    """Whether it was done."""

    name: str
    """The container's; if it is not about one, the operation's own."""
    error: ErrorBody | None
    notes: list[str]
    """What is left to the operator."""


class PrepareItem(TypedDict):
    """A container to prepare."""

    name: str
    stack: Any
    """Its layers; see base.stack.Stack.to_json."""
    first_id: int | None
    """None: it is privileged."""
    disk: int
    """The most bytes that its delta may have; 0: no limit."""
    make: bool
    """Its files are to be made; false: they are checked."""
    mount: bool
    """Its layers are to be mounted: the answer has the mount namespace as descriptor."""
    reconcile: bool
    """What the host changed is to be merged into its delta."""
    files: dict[str, str]
    """Texts by name in its directory."""


class InitPid(TypedDict):
    """Process 1 of a container, as the host numbers it; None: the container does not run."""

    name: str
    pid: int | None


class LimitItem(TypedDict):
    """What a container that runs may use at most."""

    name: str
    pid: int
    limits: list[tuple[str, str, str]]
    """Controller, file and value of its cgroups."""
    disk: int | None
    """The most bytes that its delta may have, 0: no limit; None: as it is."""
    memory: int | None
    """Bytes beyond which its memory must not be already, or nothing is set; None: that does not matter."""


class CheckItem(TypedDict):
    """A command to run in a container."""

    name: str
    command: list[str]
    environment: dict[str, str]
    timeout: float
    """Seconds."""


class Checked(TypedDict):
    """What came of it."""

    name: str
    error: ErrorBody | None
    status: int | None
    """None: it took too long."""
    output: str


class ScanItem(TypedDict):
    """A container that runs, to be looked at; see patch.stale.scan.Target."""

    name: str
    pid: int
    cgroup: str
    stack: Any
    since: float
    """When it was started, in seconds since the epoch."""
    monitor: int | None
    """The process id of its monitor."""


class StaleItem(TypedDict):
    """Containers to look at, and what for."""

    wanted: Any
    """The files to look for in what they serve; see patch.stale.served.Wanted.to_json. None: for none."""
    targets: list[ScanItem]


class UnshadowItem(TypedDict):
    """Files to remove from a delta, which is given by its directory."""

    name: str
    delta: str
    paths: list[str]


class ExposureItem(TypedDict):
    """A container that runs, to be looked at from inside."""

    name: str
    pid: int
    stack: Any


class ExposedFile(TypedDict):
    """A file that a container can read and should not; ``rule``: the one that hides it."""

    path: str
    why: str
    rule: str


class Exposed(TypedDict):
    """What one container can read and should not."""

    name: str
    exposed: list[ExposedFile]
    problem: str | None


RoutesItem = TypedDict("RoutesItem", {"except": str})
"""The interface whose networks do not count."""


class Routes(TypedDict):
    """The networks that the host uses, and whether it has IPv6."""

    networks: list[str]
    ipv6: bool
    error: ErrorBody | None


class BridgeItem(TypedDict):
    """A bridge of the operator's."""

    bridge: str


class BridgeAddress(TypedDict):
    """The host's IPv4 address on it."""

    address: str | None
    error: ErrorBody | None


class JoinItem(TypedDict):
    """Containers on a bridge of the operator's, and the rules for it."""

    bridge: str
    ports: Sequence[str]
    rules: str
    """For nft."""
    forward: bool
    """The host is to forward packets."""


class NetworkItem(JoinItem):
    """The fleet's own bridge."""

    hardware: str
    addresses: list[str]
    """The host's, with the length of the prefix."""
    localhost: bool
    """Published ports are to be there on 127.0.0.1, too."""
    domain: str
    """For which the name server on the bridge is to be asked; empty: for none."""


class DhcpItem(TypedDict):
    """A container that is to have a DHCP client."""

    name: str
    pid: int
    began: float
    daemon: int
    privileged: bool


class LeasedItem(TypedDict):
    """The table that has the set of the addresses that were given."""

    table: str


class PublishItem(TypedDict):
    """Where ports of the host lead."""

    bridge: str
    rules: str
    localhost: bool
    forward: bool


class RulesItem(TypedDict):
    """Rules for nft."""

    rules: str


class DisconnectItem(TypedDict):
    """A bridge to remove, empty for none, and the rules that take its tables away."""

    bridge: str
    rules: str


# -- the operations -----------------------------------------------------------------------------------------

PREPARE: Talk[list[PrepareItem], Done] = Talk("prepare")
REMOVE: Each[list[str], Done] = Each("remove")
"""Takes names of directories."""
INSPECT: Each[list[str], InitPid] = Each("inspect")
FREEZE: Ask[list[str], Done] = Ask("freeze")
UNFREEZE: Ask[list[str], Done] = Ask("unfreeze")
LIMIT: Ask[LimitItem, Done] = Ask("limit")
CHECK: Ask[CheckItem, Checked] = Ask("check")
FEATURES: Ask[None, Mapping[str, Any]] = Ask("features")
"""What the host can do, as host.facts.features.Features has it in JSON."""
ROOT_IDS: Ask[list[int], Done] = Ask("root_ids")
"""Takes the first and the last of the ids that root is to get in /etc/subuid and /etc/subgid."""
ATTACH: Operation[Any, None] = Operation("attach")
"""Takes an AttachRequest of the API; the client gets the answers."""

STALE: Large[StaleItem, list[dict[str, Any]]] = Large("stale")
"""Answers what patch.stale.judge.StaleScan.to_json gives, for each."""
SHADOWS: Large[list[tuple[str, Any]], list[dict[str, Any]]] = Large("shadows")
"""Takes names and stacks; answers what patch.shadow.files.Delta.to_json gives, for each."""
UNSHADOW: Ask[UnshadowItem, Done] = Ask("unshadow")
EXPOSURE: Large[list[ExposureItem], list[Exposed]] = Large("exposure")
MASK: Ask[bool, Done] = Ask("mask")
"""True: look through the whole base, whatever the record says."""
RELEASE: Ask[None, Done] = Ask("release")

ROUTES: Ask[RoutesItem, Routes] = Ask("routes")
BRIDGE: Ask[BridgeItem, BridgeAddress] = Ask("bridge")
NETWORK: Ask[NetworkItem, Done] = Ask("network")
JOIN: Ask[JoinItem, Done] = Ask("join")
DHCP: Ask[list[DhcpItem], Done] = Ask("dhcp")
LEASED: Large[LeasedItem, list[tuple[str, int]]] = Large("leased")
"""Answers ports, and the addresses, as numbers, that were given behind them."""
PUBLISH: Ask[PublishItem, Done] = Ask("publish")
RULES: Ask[RulesItem, Done] = Ask("rules")
DATAGRAMS: Ask[list[str], Done] = Ask("datagrams")
"""Takes addresses."""
DISCONNECT: Ask[DisconnectItem, Done] = Ask("disconnect")

ALL: tuple[Operation[Any, Any], ...] = tuple(each for each in [*globals().values()] if isinstance(each, Operation))
