"""One container as the daemon knows it, and the processes of one that runs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from lxcfleet.errors import Broken
from lxcfleet.host.process import cgroup, proc
from lxcfleet.spec.spec import Spec
from lxcfleet.spec.states import State


@dataclass
class Running:
    """The processes of a container that runs."""

    pid: int
    """Its process 1, as the host numbers it."""
    monitor: int
    """liblxc's process that looks after it; when that has ended, the container has stopped and is cleaned up."""
    descriptor: int
    """A pidfd of the monitor."""
    payload: cgroup.Payload
    began: float
    """When process 1 began, in seconds since the machine booted."""
    since: float
    """The same in seconds since the epoch."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def identity(self) -> str:
        """Tells this run of the container from all others since the machine booted."""
        return f"{self.pid}@{self.began:.2f}"

    @property
    def age(self) -> float:
        """Seconds since process 1 began."""
        return proc.uptime() - self.began


@dataclass
class Container:
    """One container as the daemon knows it."""

    name: str
    spec: Spec | None
    """What its run has. Of one that does not run: what its next run will have. None: that can't be read."""
    problem: Broken | None = None
    running: Running | None = None
    desired: Spec | None = None
    """What it is to have from its next start on, where that is something else."""
    resting: bool = False
    """It was stopped only until the host boots again."""
    busy: str | None = None
    """The action that has it in hand."""
    starts: int = 0
    """How often this daemon saw it begin to run, or run already."""
    ends: int = 0
    """How often this daemon saw it end."""
    leased: tuple[IPv4Address | IPv6Address, ...] = ()
    """The addresses that it has at the moment from others' servers and routers; see network.leases."""
    twins: frozenset[str] = frozenset()
    """Containers that have its ids or its address, as somebody copied a directory."""

    @property
    def state(self) -> State:
        """What it does at the moment."""
        if self.running is not None:
            if self.busy in ("stop", "destroy"):
                return State.STOPPING
            return State.FROZEN if self.running.payload.frozen else State.RUNNING
        if self.spec is None:
            return State.BROKEN
        return State.STARTING if self.busy in ("create", "start", "restart") else State.STOPPED

    @property
    def wanted(self) -> Spec | None:
        """What the operator wants it to be: its spec on disk."""
        return self.desired or self.spec

    def want(self, spec: Spec) -> None:
        """Take note of another spec on disk; it is in force once it runs anew."""
        if self.running is None or spec == self.spec:
            self.spec, self.desired = spec, None
        else:
            self.desired = spec

    def take_effect(self) -> None:
        """Its run is over: what was wanted for the next one holds."""
        self.spec, self.desired = self.wanted, None

    @property
    def addresses(self) -> tuple[IPv4Address | IPv6Address, ...]:
        """Where it can be reached, IPv4 first; none if it is on no bridge, or waits for its address."""
        if self.spec is None:
            return ()
        return self.leased or tuple(a.ip for a in (self.spec.address, self.spec.address6) if a is not None)

    @property
    def waits_for_address(self) -> bool:
        """Whether others give it its address, and have not."""
        return self.spec is not None and self.spec.hardware is not None and not self.leased

    @property
    def labels(self) -> dict[str, str]:
        """Its labels; none if its spec can't be read."""
        return dict(self.spec.labels) if self.spec else {}
