"""Containers in memory, and long work on them, for FakeFleet."""

from __future__ import annotations

import itertools
import shlex
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

from lxcfleet.api.findings import DivergedRecord, EvidenceRecord, ExposedRecord, OldFileRecord, ShadowRecord, StaleRecord
from lxcfleet.api.records import ContainerDetails, ContainerRecord, ContainerUsageRecord, OperationRecord, ResultRecord
from lxcfleet.api.requests import CreateRequest
from lxcfleet.errors import (
    Cancelled,
    FleetError,
)
from lxcfleet.spec.health import HealthCheck
from lxcfleet.spec.states import State
from lxcfleet.spec.terms import Init

NOW = "2026-11-21T06:00:00Z"


@dataclass
class FakeContainer:
    """One container."""

    name: str
    init: Init = Init.SYSTEM
    command: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    profile: str | None = None
    first_id: int | None = 1_000_000
    state: State = State.RUNNING
    addresses: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()
    isolated: bool = False
    problem: str | None = None
    check: HealthCheck | None = None
    health: str = "healthy"
    old_files: list[OldFileRecord] = field(default_factory=list)
    exposed: list[ExposedRecord] = field(default_factory=list)
    unread: str | None = None
    hidden: list[ShadowRecord] = field(default_factory=list)
    diverged: DivergedRecord | None = None
    autostart: bool = True
    boot_order: int = 0

    def record(self) -> ContainerRecord:
        """As ``list`` gives it."""
        return {
            "name": self.name,
            "state": self.state.value,
            "health": self.health if self.state.alive else None,
            "init": self.init.value,
            "command": list(self.command),
            "labels": self.labels,
            "profile": self.profile,
            "privileged": self.first_id is None,
            "network": "bridge",
            "ports": list(self.ports),
            "isolated": self.isolated,
            "publish": list(self.publish),
            "created": NOW,
            "pid": 4711 if self.state.alive else None,
            "addresses": list(self.addresses),
            "busy": None,
            "problem": self.problem,
        }

    def stale(self) -> StaleRecord:
        """As ``stale`` gives it."""
        return {
            "name": self.name,
            "state": self.state.value,
            "stale": bool(self.old_files),
            "processes": 2 if self.state.alive else 0,
            "mappings": 8 if self.state.alive else 0,
            "files": self.old_files,
            "problem": self.unread,
        }

    def evidence(self) -> EvidenceRecord:
        """As ``verify`` gives it."""
        reasons = ["1 of its processes runs old code"] if self.old_files else []
        reasons += [f"its processes could not all be read: {self.unread}"] if self.unread else []
        return {
            "name": self.name, "state": self.state.value, "proven": not reasons, "reasons": reasons,
            "restarted": NOW if self.state.alive else None, "processes": 2 if self.state.alive else 0,
            "mappings": 8 if self.state.alive else 0, "old": self.old_files, "shadows": self.hidden,
        }  # fmt: skip

    def details(self) -> ContainerDetails:
        """As ``info`` gives it."""
        alive = self.state.alive
        more = {
            "directory": f"/var/lib/lxc/{self.name}",
            "delta_bytes": 106_496,
            "first_id": self.first_id,
            "hardware": None,
            "memory_bytes": 1_500_000 if alive else None,
            "cpu_seconds": 0.25 if alive else None,
            "processes": 2 if alive else None,
            "environment": self.environment,
            "memory_limit_bytes": None,
            "cpus_limit": None,
            "disk_limit_bytes": None,
            "processes_limit": 4096,
            "conflicts": [],
            "confinement": {"system calls": "some denied"},
            "autostart": self.autostart,
            "boot_order": self.boot_order,
            "started": NOW if alive else None,
            "check": self.check.to_json() if self.check else None,
            "health_reason": "tcp 80: connection refused" if self.health == "unhealthy" else "",
        }
        return cast(ContainerDetails, {**self.record(), **more})


    def usage(self, now: float, cpus: float) -> ContainerUsageRecord:
        """As ``top`` reads it; it uses so many processors."""
        alive = self.state.alive
        return {
            "name": self.name, "state": self.state, "health": self.health, "run": "7@1.00" if alive else None,
            "cpu_seconds": cpus * now if alive else None, "memory_bytes": 1_500_000 if alive else None,
            "processes": 2 if alive else None, "io_read_bytes": 0 if alive else None,
            "io_written_bytes": int(4096 * now) if alive else None, "net_received_bytes": None, "net_sent_bytes": None,
            "cpus_limit": None, "memory_limit_bytes": 64 << 20, "processes_limit": 4096,
        }  # fmt: skip


class FakeOperation:
    """Long work in a thread of its own, one container after the other."""

    def __init__(self, number: int, action: str, names: tuple[str, ...]) -> None:
        self.id = f"op{number}"
        self.names = names
        self.action = action
        self.status = "running"
        self.results: list[ResultRecord] = []
        self.plan: list[str] = []
        self.cancelled = threading.Event()
        self.changed = threading.Condition()

    def run(self, work: Callable[[str], ResultRecord]) -> None:
        """Do the work for each; what has not begun when it is cancelled is not begun."""
        for name in self.names:
            if self.cancelled.is_set():
                self._add(failed(name, Cancelled(f"{name}: not begun"), "cancelled"))
                continue
            try:
                self._add(work(name))
            except FleetError as error:
                self._add(failed(name, error))
        with self.changed:
            self.status = "cancelled" if self.cancelled.is_set() else "done"
            self.changed.notify_all()

    def _add(self, result: ResultRecord) -> None:
        with self.changed:
            self.results.append(result)
            self.changed.notify_all()

    def record(self) -> OperationRecord:
        """As the API gives it."""
        return {
            "id": self.id,
            "action": self.action,
            "status": self.status,
            "created": NOW,
            "total": len(self.names),
            "done": len(self.results),
            "changed": any(result["changed"] for result in self.results),
            "results": list(self.results),
            "plan": self.plan,
        }

    def follow(self) -> Iterator[ResultRecord | OperationRecord]:
        """Each result as it comes, in the end the operation."""
        for number in itertools.count():
            with self.changed:
                while len(self.results) <= number and self.status == "running":
                    self.changed.wait()
                if len(self.results) <= number:
                    break
                result = self.results[number]
            yield result
        yield self.record()


def failed(name: str, error: FleetError, status: str = "failed") -> ResultRecord:
    return {"name": name, "status": status, "changed": False, "error": error.body()}


def done(
    name: str, status: str, *, changed: bool = True, differs: dict[str, tuple[str, str]] | None = None
) -> ResultRecord:
    result: ResultRecord = {"name": name, "status": status, "changed": changed, "error": None}
    if differs:
        result["differs"] = differs
    return result


def differences(container: FakeContainer, request: CreateRequest) -> dict[str, tuple[str, str]]:
    command = request.said.get("command", ())
    if container.command == command:
        return {}
    return {"command": (shlex.join(container.command), shlex.join(command))}
