"""Waiting until containers are in the state that a client asked for."""

from __future__ import annotations

import asyncio
import contextlib
import time

from lxcfleet.api.records import ResultRecord
from lxcfleet.api.requests import WaitRequest
from lxcfleet.containers.container import Container
from lxcfleet.containers.outside import Healths
from lxcfleet.containers.registry import Registry
from lxcfleet.errors import Broken, NotFound, WrongState
from lxcfleet.runtime.operations import result_record
from lxcfleet.spec.results import Result
from lxcfleet.spec.states import Health, State

LOOK_SECONDS = 0.2
"""Seconds between two looks without an event. Not every change is an event: a container can become healthy by its age
alone, and an action on it can end."""


class Waiting:
    """Answers when containers are running, stopped or healthy."""

    def __init__(self, registry: Registry, healths: Healths) -> None:
        self._registry = registry
        self._healths = healths
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """A container changed: have all waiting clients' conditions looked at again."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def wait(self, ask: WaitRequest) -> list[ResultRecord]:
        """One result for each chosen container, once it is in the state asked for.

        The result is a failure when the time is up, or as soon as the container can't reach that state. A container that is
        destroyed meanwhile counts as stopped, and can reach no other state.
        """
        await self._registry.observe()
        chosen = self._registry.choose(ask.selection)
        return [*await asyncio.gather(*(self._record(each, ask) for each in chosen))]

    async def _record(self, container: Container, ask: WaitRequest) -> ResultRecord:
        record = result_record(await self._wait_for(container, ask.until, ask.timeout))
        if ask.until == "stopped" and record["error"] is None:  # of this end: others are waited for still
            record["exit_status"] = self._status(container)
        return record

    def _status(self, container: Container) -> int | None:
        """The exit status of a container that has ended; None: not known. What is kept is of an earlier run if its last
        start failed, or if a destroy ended it."""
        ran = self._registry.knows(container) and container.state is not State.BROKEN and not container.start_error
        return container.exit.exit_status if ran and container.exit is not None else None

    async def _wait_for(self, container: Container, until: str, timeout: float) -> Result:
        deadline = time.monotonic() + timeout
        while True:
            changed = self._changed
            if not self._registry.knows(container):
                return _destroyed(container, until)
            if self._is(container, until):
                return Result(container.name, until, False)
            if container.state is State.BROKEN:
                return Result(container.name, "failed", False, _never(container, until).body())
            left = deadline - time.monotonic()
            if left <= 0:
                return Result(container.name, "failed", False, self._late(container, until, timeout).body())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), min(left, LOOK_SECONDS))

    def _is(self, container: Container, until: str) -> bool:
        match until:
            case "healthy":
                return self._healths.of(container) is Health.HEALTHY
            case "running":
                return container.state in (State.RUNNING, State.FROZEN)
            case _:
                return container.state.ended

    def _late(self, container: Container, until: str, timeout: float) -> WrongState:
        health, reason = self._healths.of(container), self._healths.reason(container)
        how = f"{container.state} and {health}" if until == "healthy" and health else str(container.state)
        reason = reason or ("" if container.lack is None else container.lack.reason)
        if not reason and container.state in (State.EXITED, State.FAILED) and container.exit is not None:
            reason = container.exit.words
        if until == "stopped":
            reason = ""  # that is about why it does not run, or is ill
        return WrongState(
            f"{container.name} is not {until} after {timeout:g} s", why=f"it is {how}{': ' if reason else ''}{reason}",
            hint=f"`lxcfleet logs {container.name}` and `lxcfleet info {container.name}` tell more",
        )  # fmt: skip


def _destroyed(container: Container, until: str) -> Result:
    if until == "stopped":
        return Result(container.name, "destroyed", False)
    error = NotFound(f"{container.name} was destroyed meanwhile", why=f"so it will not be {until}")
    return Result(container.name, "failed", False, error.body())


def _never(container: Container, until: str) -> Broken:
    problem = container.problem or Broken("")
    why = "\n".join(part for part in (problem.message, problem.why) if part)
    return Broken(f"{container.name} is not {until}, and can't become so", why=why, hint=problem.hint)
