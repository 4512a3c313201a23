"""One container as the daemon knows it, and the processes of one that runs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from lxcfleet.containers.desired import Lack
from lxcfleet.containers.exits import Exit, LogPlace
from lxcfleet.containers.foreground import Foreground
from lxcfleet.containers.restarts import FRESH, RestartCourse
from lxcfleet.errors import Broken
from lxcfleet.host.process import cgroup, proc
from lxcfleet.spec.container.restart import RestartPolicy
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.states import State


@dataclass
class Running:
    """The processes of a container that runs."""

    pid: int
    """Its process 1, as the host numbers it."""
    monitor: int
    """liblxc's process that looks after the container. Once that has ended, the container has stopped and is cleaned up."""
    descriptor: int
    """A pidfd of the monitor."""
    payload: cgroup.Payload
    began: float
    """When process 1 began, in seconds since the machine booted."""
    since: float
    """The same in seconds since the epoch."""
    monitors: frozenset[str] = frozenset()
    """The monitor's cgroups."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def cgroups(self) -> frozenset[str]:
        """All cgroups of the run."""
        return self.monitors | frozenset(self.payload.directories.values())

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
    """The spec of its run. If it does not run: the spec of its next run. None: the spec can't be read."""
    problem: Broken | None = None
    """Why it can't be used: its spec can't be read, or its removal came to half-way."""
    running: Running | None = None
    unseen: bool = False
    """Its monitor runs, and its process 1 can't be told: so it must not count as stopped."""
    desired: Spec | None = None
    """The spec that holds from its next start on, if that is another one."""
    resting: bool = False
    """It was stopped only until the host boots again."""
    owed: bool = False
    """It is to run, and that could not be noted on disk, as that is full; see owed."""
    lack: Lack | None = None
    """It is to run, and this keeps it from starting; None: nothing does, or it is not to run."""
    freed: bool = False
    """It was blocked, and is started in this moment."""
    busy: str | None = None
    """The word for the action that is under way on it; None: there is none."""
    still: bool = False
    """It is frozen for a moment, for a copy; see containers.copies.stillness."""
    stills: int = 0
    """How often this daemon froze it for a copy."""
    starts: int = 0
    """How often this daemon saw it begin to run, or run already."""
    ends: int = 0
    """How often this daemon saw it end."""
    memory_kills: int = 0
    """How many processes of it the kernel killed for memory, as far as this daemon heard."""
    last_memory_kill: str = ""
    """The last ones in words; empty: there were none."""
    exit: Exit | None = None
    """How its last run ended; None: it never ran, or that is not known."""
    foreground: Foreground | None = None
    """How `lxcfleet run` runs it, or did last; None: this daemon says when it starts."""
    checked: tuple[tuple[object, ...], str] | None = None
    """The basis of LXC's configuration, and its text, as they were checked before a stop: for the start after that."""
    course: RestartCourse = FRESH
    """How the starts went that nobody asked for at that moment: by its restart policy, and after a start that failed."""
    console: LogPlace | None = None
    """Where its run began in the log of its console; None: not known."""
    leased: tuple[IPv4Address | IPv6Address, ...] = ()
    """The addresses that other servers and routers have given it at the moment; see network.leases."""
    tentative: bool = False
    """Whether its IPv6 address does not answer yet, as it makes sure that nobody else has it; see network.discovery."""
    twins: frozenset[str] = frozenset()
    """Containers with the same ids or address, because somebody copied a directory."""

    @property
    def state(self) -> State:
        """Its state at the moment."""
        if self.running is not None:
            if self.busy in ("stop", "destroy"):
                return State.STOPPING
            return State.FROZEN if self.running.payload.frozen else State.RUNNING
        if self.unseen:
            return State.UNKNOWN
        if self.broken:
            return State.BROKEN
        return State.STARTING if self.freed or self.in_start else self._ended

    @property
    def broken(self) -> bool:
        """Whether it does not run, and can't be started as it is."""
        return self.running is None and (self.spec is None or self.problem is not None)

    @property
    def in_start(self) -> bool:
        """Whether an action is under way that starts it."""
        return self.busy in ("create", "start", "restart")

    @property
    def _ended(self) -> State:
        """Its state while it has no processes."""
        if self.lack is not None:
            return State.BLOCKED
        if self.backs_off:
            return State.BACKOFF
        if self.course.gave_up:
            return State.FAILED
        if self.exit is None or self.exit.asked or self.exit.exit_status is None:
            return State.STOPPED
        return State.FAILED if self.exit.exit_status else State.EXITED

    @property
    def backs_off(self) -> bool:
        """Whether it is started again in a moment: by its restart policy, or as its start failed."""
        if self.running is not None or self.lack is not None or self.course.due is None or self.resting:
            return False
        return bool(self.course.cause) or (self.wanted is not None and self.wanted.restart.policy is not RestartPolicy.NO)

    @property
    def start_error(self) -> str:
        """Why its last start failed, while it is tried again or was given up; empty: it did not fail."""
        return self.course.cause if self.backs_off or (self.running is None and self.course.gave_up) else ""

    @property
    def wanted(self) -> Spec | None:
        """The spec that the operator wants: the one on disk."""
        return self.desired or self.spec

    def want(self, spec: Spec) -> None:
        """Take note of another spec on disk; it is in force from the next run on."""
        if self.running is None or spec == self.spec:
            self.spec, self.desired = spec, None
        else:
            self.desired = spec

    def take_effect(self) -> None:
        """Its run is over: the spec for the next run holds now."""
        self.spec, self.desired = self.wanted, None

    @property
    def addresses(self) -> tuple[IPv4Address | IPv6Address, ...]:
        """The addresses by which it can be reached, IPv4 first; none if it is on no bridge, or waits for its address."""
        return self.leased or (() if self.spec is None else self.spec.fixed)

    @property
    def answering(self) -> tuple[IPv4Address | IPv6Address, ...]:
        """Those of its addresses that answer already."""
        return tuple(a for a in self.addresses if a.version == 4) if self.tentative else self.addresses

    @property
    def waits_for_address(self) -> bool:
        """Whether it gets its address from a server on the network, and has none yet."""
        return self.spec is not None and self.spec.by_dhcp and not self.leased

    @property
    def labels(self) -> dict[str, str]:
        """Its labels; none if its spec can't be read."""
        return dict(self.spec.labels) if self.spec else {}
