"""Drains of this host as the API has them: the fleet is stopped, and started again."""

from __future__ import annotations

from collections.abc import Sequence

from lxcfleet.api.drain import DrainRecord, DrainRequest, EndDrainRequest
from lxcfleet.api.requests import ActionRequest
from lxcfleet.capacity.needs import Finding
from lxcfleet.containers.container import Container
from lxcfleet.containers.desired import Intent
from lxcfleet.containers.drain import Drain
from lxcfleet.containers.reconciling.reconciler import Reconciler
from lxcfleet.containers.registry import Registry
from lxcfleet.containers.requests.actions import Actions
from lxcfleet.daemon.uses.events import DrainBegan, DrainEnded
from lxcfleet.errors import WrongState
from lxcfleet.runtime.bus import Bus
from lxcfleet.runtime.operations import Operation, Operations, now
from lxcfleet.spec.results import Result
from lxcfleet.spec.selection import Selection
from lxcfleet.spec.states import Action, State


class Drains:
    """Begins and ends drains."""

    def __init__(
        self, drain: Drain, registry: Registry, reconciler: Reconciler, actions: Actions, operations: Operations, bus: Bus
    ) -> None:
        self._drain = drain
        self._registry = registry
        self._reconciler = reconciler
        self._actions = actions
        self._operations = operations
        self._bus = bus

    def record(self) -> DrainRecord | None:
        """The drain of this host; None: it is not drained."""
        found = self._drain.now
        if found is None:
            return None
        running = [container.name for container in self._registry if container.running is not None]
        return {"since": found.since, "why": found.why, "containers": list(found.names), "running": running}

    def refuse(self, what: str) -> None:
        """Raise WrongState if the host is drained. ``what``: what is asked for, and can't be done."""
        self._drain.refuse(what)

    def has_stopped(self, container: Container) -> bool:
        """Whether it ran before the drain of this host, and starts again at its end."""
        return self._drain.now is not None and container.name in self._drain.now.names

    def findings(self) -> list[Finding]:
        """The finding of `lxcfleet doctor`, if the host is drained."""
        record = self.record()
        if record is None:
            return []
        why = f" ({record['why']})" if record["why"] else ""
        message = f"this host is drained since {record['since']}{why}: no container starts"
        return [Finding("drain", "warning", message, hint="lxcfleet drain --end")]

    async def begin(self, ask: DrainRequest, stop_timeout: float) -> Operation:
        """Begin to stop all containers, in the order that follows from what depends on what. Raises FleetError."""
        await self._registry.observe()
        if not ask.dry_run:
            self._drain.begin(now(), ask.why, [each.name for each in self._registry if _runs(each)])
            self._bus.publish(DrainBegan(ask.why))
        # What has ended by itself goes on to say so: a stop would make of a job that has completed one that was stopped.
        ended = (State.EXITED, State.FAILED)
        names = tuple(each.name for each in self._registry if each.state not in ended or _runs(each))
        if not names:
            return self._operations.dry("drain", [], [])
        stop = ActionRequest(Action.STOP, Selection(names), ask.timeout, ask.drain, dry_run=ask.dry_run)
        return await self._actions.begin(stop, stop_timeout)

    async def end(self, ask: EndDrainRequest, stop_timeout: float) -> Operation:
        """End the drain, and begin to start those that ran. Raises FleetError."""
        await self._registry.observe()
        found = self._drain.now
        if found is None:
            raise WrongState("this host is not drained")
        there = [self._registry[name] for name in found.names if name in self._registry]
        names = tuple(each.name for each in there if each.foreground is None and each.running is None)
        if ask.dry_run:
            lines = [f"{name}: start it" for name in names]
            return self._operations.dry("start", [Result(name, "planned", True) for name in names], lines)
        for name in names:
            # On disk first: if the daemon is killed now, the next one starts them.
            self._reconciler.want(self._registry[name], Intent.RUN, must=False)
        self._drain.end()
        self._bus.publish(DrainEnded())
        return await self._start(names, stop_timeout)

    async def _start(self, names: Sequence[str], stop_timeout: float) -> Operation:
        if not names:
            return self._operations.dry("start", [], [])
        return await self._actions.begin(ActionRequest(Action.START, Selection(tuple(names))), stop_timeout)


def _runs(container: Container) -> bool:
    """Whether it runs, or is to run as far as anybody knows."""
    return container.running is not None or container.lack is not None or container.course.wants_run
