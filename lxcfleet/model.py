"""The values that all parts speak in: specs, states, selections, results. No I/O here."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Interface, IPv6Interface
from typing import Any

from lxcfleet.checks import HealthCheck
from lxcfleet.errors import ErrorBody, InvalidInput, NotFound
from lxcfleet.net import lan
from lxcfleet.net.addresses import hardware_address, interface_name
from lxcfleet.net.ports import Port, Publication

RANGE_SIZE = 65536
"""How many uids (and gids) each unprivileged container has: all that a 16-bit /etc/passwd can name."""

PIDS = 4096
"""How many processes and threads a container may have unless something else is asked for: far more than most
need, and far less than a host has numbers for."""
MAX_PIDS = 1 << 22
"""The kernel's PID_MAX_LIMIT."""
MAX_CPUS = 8192
"""The kernel's largest NR_CPUS."""
MAX_ORDER = 1000
"""boot_order lies between this and its negative."""


class Init(StrEnum):
    """What runs as process 1."""

    SYSTEM = "system"
    """The host's systemd."""
    APP = "app"
    """The operator's one command, under a reaping init."""


class Network(StrEnum):
    """How a container is connected."""

    BRIDGE = "bridge"
    """To the fleet's bridge, with an address of its own."""
    NONE = "none"
    """Not at all: it has a loopback interface only."""
    HOST = "host"
    """It uses the host's own interfaces: no address of its own, and no wall between."""


class Addresses(StrEnum):
    """Where the bridge's containers have their addresses from."""

    OWN = "own"
    """From lxcfleet: the bridge is its own."""
    DHCP = "dhcp"
    """From the DHCP server of the network that the operator's bridge is part of."""


class State(StrEnum):
    """What a container does at the moment, as observed."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    FROZEN = "frozen"
    STOPPING = "stopping"
    BROKEN = "broken"
    """Its files on disk can't be used; ``info`` says why."""

    @property
    def alive(self) -> bool:
        """Whether it has processes."""
        return self in (State.RUNNING, State.FROZEN, State.STOPPING)


class Health(StrEnum):
    """Whether a container that runs does its work; see fleet.health."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class Action(StrEnum):
    """What can be asked of containers that exist."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"
    FREEZE = "freeze"
    UNFREEZE = "unfreeze"
    DESTROY = "destroy"


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
            return lan.port(self.hardware)
        return "" if self.address is None else interface_name(self.address.ip)


@dataclass(frozen=True)
class Selection:
    """Which containers an action is meant for: names and globs, or labels, or all."""

    patterns: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    everything: bool = False

    @property
    def narrow(self) -> bool:
        """Whether something may be left out."""
        return bool(self.patterns or self.labels)

    def choose(self, containers: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
        """The chosen names out of ``containers`` (name to labels), in natural order.

        Patterns and labels narrow each other down. Raises InvalidInput if nothing was asked for, NotFound if a
        plain name does not exist; a glob or label may match nothing.
        """
        if not (self.patterns or self.labels or self.everything):
            raise InvalidInput("no container chosen", hint="give names, globs, -l KEY=VALUE or --all")
        if self.everything and self.patterns:
            raise InvalidInput("--all and names exclude each other")
        missing = [p for p in self.patterns if not is_glob(p) and p not in containers]
        if missing:
            raise NotFound(
                f"no container named {', '.join(sorted(missing))}", hint="`lxcfleet list` shows the ones that exist"
            )
        chosen = (
            name
            for name, labels in containers.items()
            if (not self.patterns or any(fnmatch.fnmatchcase(name, p) for p in self.patterns))
            and all(labels.get(key) == value for key, value in self.labels)
        )
        return natural_order(chosen)


def is_glob(pattern: str) -> bool:
    """Whether ``pattern`` may match more than its own letters."""
    return any(c in pattern for c in "*?[")


def natural_order(names: Iterable[str]) -> tuple[str, ...]:
    """``names`` sorted so that c2 stands before c10."""

    def key(name: str) -> tuple[str, int, str]:
        stem = name.rstrip("0123456789")
        return stem, int(name[len(stem) :] or 0), name

    return tuple(sorted(names, key=key))


@dataclass(frozen=True)
class Result:
    """What became of one container in an operation."""

    name: str
    status: str
    """One word for people: created, started, stopped, unchanged, failed, cancelled, …"""
    changed: bool
    error: ErrorBody | None = None
    differs: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """In what one that was there already is not as asked for: what it has and what was asked, by key of its spec."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Result:
        """From a ResultRecord."""
        return cls(data["name"], data["status"], data["changed"], data["error"])


def exit_status(results: Iterable[Result]) -> int:
    """0 if all were done, 1 if none was, 3 if some were."""
    failed = [r.error is not None for r in results]
    if not any(failed):
        return 0
    return 1 if all(failed) else 3
