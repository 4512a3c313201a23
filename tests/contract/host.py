"""Handles on containers of the real daemon over the fake launcher: tests use them to set the state of the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lxcfleet.api.client import Client
from lxcfleet.api.findings import ExposedRecord, OldFileRecord, ShadowRecord
from lxcfleet.api.records import OperationRecord
from lxcfleet.api.requests import ActionRequest, CreateRequest
from lxcfleet.containers.container import Container
from lxcfleet.errors import Broken
from lxcfleet.host.packages.database import OwningPackage
from lxcfleet.patch.shadow.files import Shadow, ShadowKind
from lxcfleet.patch.stale.judge import OldFile, Process, Why
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading.terms import Init
from lxcfleet.spec.selection import Selection
from lxcfleet.spec.states import Action, State

if TYPE_CHECKING:
    from .real_daemon import Daemon

FOREVER = ("sleep", "infinity")


class Handle:
    """One container."""

    def __init__(self, daemon: Daemon, name: str) -> None:
        self._daemon, self.name = daemon, name

    @property
    def _container(self) -> Container:
        return self._daemon.parts.registry[self.name]

    @property
    def spec(self) -> Spec:
        """The container's spec."""
        spec = self._container.spec
        assert spec is not None
        return spec

    @property
    def state(self) -> State:
        """The container's state."""
        return self._daemon.call(lambda: self._container.state)

    def become(self, state: State) -> None:
        """Stop, start or freeze the container."""
        actions = {State.STOPPED: Action.STOP, State.RUNNING: Action.START, State.FROZEN: Action.FREEZE}
        end = self._daemon.act(actions[state], self.name)
        assert [result["error"] for result in end["results"]] == [None]

    def say(self, text: bytes, *, lxc: bool = False) -> None:
        """Add text to its console's log, or to liblxc's log."""
        own = self._daemon.paths.container(self.name)
        with open(own.lxc_log if lxc else own.console_log, "ab") as file:
            file.write(text)

    def runs_old(self, record: OldFileRecord) -> None:
        """The container runs this old file until it is restarted; the record names the package that owns the file."""
        processes = tuple(Process(each["pid"], each["command"]) for each in record["processes"])
        file = OldFile(record["path"], Why(record["why"]), record["layer"], processes)
        self._daemon.model.old.setdefault(self.name, []).append(file)
        self._own(record["path"], record["package"], record["version"])

    def hides(self, record: ShadowRecord) -> None:
        """The container's delta has this shadow of a file of the host."""
        modified = {"older": 1.0, "same": 2.0, "newer": 3.0}[record["age"]]
        shadow = Shadow(record["path"], ShadowKind(record["kind"]), False, modified, 2.0, record["same"], "delta", True)
        self._daemon.model.shadows.setdefault(self.name, []).append(shadow)
        self._own(record["path"], record["package"], record["version"])

    def _own(self, path: str, package: str | None, version: str | None) -> None:
        if package is not None:
            self._daemon.model.owners[path] = OwningPackage(package, version or "")

    def can_read(self, *records: ExposedRecord) -> None:
        """The container can read these files of the host."""
        self._daemon.model.exposed[self.name] = [dict(record) for record in records]  # type: ignore[arg-type]

    def can_not_be_looked_at(self, why: str, *, delta: bool = False) -> None:
        """The container's processes can't be read, or with ``delta`` its delta."""
        unread = self._daemon.model.unread_deltas if delta else self._daemon.model.unread
        unread[self.name] = why


class Containers:
    """All containers of a daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def __getitem__(self, name: str) -> Handle:
        return Handle(self._daemon, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._daemon.call(lambda: [container.name for container in self._daemon.parts.registry]))

    @property
    def names(self) -> set[str]:
        """The names of all containers."""
        return {*self}

    def add(self, *names: str, state: State = State.RUNNING, problem: str | None = None, **fields: Any) -> Handle:
        """Create app containers, or containers with these ``fields``; gives the last one. ``problem``: they are broken."""
        if problem is not None:
            first, _, rest = problem.partition("\n")
            broken = Broken(first, why=rest)
            for name in names:
                self._daemon.paths.container(name).directory.mkdir()
                self._daemon.call(lambda name=name: self._daemon.parts.registry.add(Container(name, None, broken)))  # type: ignore[misc]
            return self[names[-1]]
        if fields.get("init") is not Init.SYSTEM:
            fields = {"command": FOREVER, **fields}
        for name in names:
            self._daemon.create(CreateRequest(name, start=state is not State.STOPPED, said=fields))
        if state is State.FROZEN:
            self._daemon.act(Action.FREEZE, *names)
        return self[names[-1]]


def end(client: Client, operation: OperationRecord) -> OperationRecord:
    """Follow the operation, and give it once it has ended."""
    *_, last = client.follow(operation["id"])
    assert "results" in last
    return last  # type: ignore[return-value]


def acting(client: Client, action: Action, *names: str) -> OperationRecord:
    """Act on containers, and give the operation once it has ended."""
    return end(client, client.act(ActionRequest(action, Selection(names), timeout=5.0, force=True)))
