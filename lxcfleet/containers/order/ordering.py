"""Several containers at once, in the order that follows from what depends on what; and starts that wait for that."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

from lxcfleet.containers.container import Container
from lxcfleet.containers.desired import Lack
from lxcfleet.containers.ends.firsts import Firsts
from lxcfleet.containers.order.dependencies import Dependencies
from lxcfleet.containers.order.turns import Gates, in_turns
from lxcfleet.containers.reconciling.prerequisites import Prerequisites
from lxcfleet.containers.registry import Registry
from lxcfleet.errors import Blocked
from lxcfleet.runtime.operations import Job
from lxcfleet.spec.container.depends import Graph
from lxcfleet.spec.results import Result
from lxcfleet.spec.states import Action, State

Turn = Callable[[], Awaitable[Lack | None]]
"""Waits until it is a container's turn to start; gives what it lacks then."""

PATIENCE_SECONDS = 60.0
"""A start that was asked for waits at most so long for what it depends on, if that is on its way."""
BLOCKED = "blocked"
"""The word for the outcome of a start that has to wait."""


class Ordering:
    """The order of actions on several containers."""

    def __init__(
        self, registry: Registry, dependencies: Dependencies, prerequisites: Prerequisites, firsts: Firsts
    ) -> None:
        self._registry = registry
        self._dependencies = dependencies
        self._prerequisites = prerequisites
        self._firsts = firsts

    def graph(self) -> Graph:
        """The graph of dependencies."""
        return self._dependencies.graph()

    def jobs(
        self, action: Action, containers: Sequence[Container], job_of: Callable[[Container], Job]
    ) -> list[Job]:
        """The jobs of an action in the order that follows from what depends on what: what is started begins after that, and
        what ends does so before. Whether it is up by then is for prerequisites to say."""
        graph, by_name = self.graph(), {each.name: each for each in containers}
        if action is Action.START:
            return [job_of(by_name[name]) for turn in graph.turns_to_start(by_name) for name in turn]
        if action not in (Action.STOP, Action.DESTROY):
            return [*map(job_of, containers)]

        async def ready(_: int) -> None:
            pass  # what has ended stays so

        return in_turns([[job_of(by_name[name]) for name in turn] for turn in graph.turns_to_stop(by_name)], ready)

    def restarts(
        self,
        containers: Sequence[Container],
        job_of: Callable[[Container], Job],
        restart: Callable[[Container, Turn], Awaitable[Result]],
        *,
        no_deps: bool,
    ) -> list[Job]:
        """The jobs that restart them. Those that depend on others of them end before these, and start once they are up again.

        ``job_of``: the job for one that has nothing to do with the others; ``restart``: restarts one, and waits for its turn
        between its end and its start; ``no_deps``: see Prerequisite.waived.
        """
        graph, by_name = self.graph(), {each.name: each for each in containers}
        stops, starts = graph.turns_to_stop(by_name), graph.turns_to_start(by_name)
        alone = {*stops[0]} & {*starts[0]} if by_name else set()  # nobody of them waits for these, nor they for anybody
        jobs = [job_of(by_name[name]) for name in by_name if name in alone]
        down = Gates([[name for name in turn if name not in alone] for turn in stops])
        up = Gates([[name for name in turn if name not in alone] for turn in starts])

        def in_turn(container: Container) -> Job:
            name = container.name

            def forget() -> None:
                down.passed(name)
                up.passed(name)

            async def turn() -> Lack | None:
                down.passed(name)
                await up.wait(name)
                return await self._until_there(container, no_deps=no_deps)

            async def job() -> Result:
                try:
                    return await restart(container, turn)
                finally:
                    forget()

            return Job(name, job, forget, partial(down.wait, name), partial(self.settled, container))

        return jobs + [in_turn(by_name[name]) for turn in stops for name in turn if name not in alone]

    async def _until_there(self, container: Container, *, no_deps: bool) -> Lack | None:
        """The thing that a container lacks; after a while, if that is on its way."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (lack := self._prerequisites.lack(container.wanted, no_deps=no_deps)) is not None and lack.passing:
            left = deadline - time.monotonic()
            if left <= 0 or self._prerequisites.ending:
                break
            await self._prerequisites.changed(left if lack.again is None else min(left, lack.again))
        return lack

    async def settled(self, container: Container, done: Result) -> Result:
        """The result of a start: if it was blocked by what is on its way, once it runs, or that takes too long."""
        others = tuple(note for note in done.notes if not note.startswith(f"{BLOCKED}: "))
        if done.notes == others:
            return await self._firsts.look(container, done)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while container.running is None and (left := deadline - time.monotonic()) > 0:
            passing = container.lack is not None and container.lack.passing
            comes = passing or container.state is State.STARTING
            if not comes or self._prerequisites.ending or not self._registry.knows(container):
                break
            await self._prerequisites.changed(left)
        if container.lack is not None:
            return replace(done, notes=(*others, *blocked(container, changed=True).notes))
        word = "started" if done.status == BLOCKED else done.status
        return await self._firsts.look(container, replace(done, status=word, changed=True, notes=others))

    def refuse_blocked(self, container: Container) -> None:
        """Raise Blocked if it lacks something: `lxcfleet run` says when it starts, so it does not by itself later."""
        lack = self._prerequisites.lack(container.wanted)
        if lack is not None:
            raise Blocked(
                f"{container.name} can't start yet", why=lack.reason, hint="run it again once that is there: lxcfleet wait"
            )


def blocked(container: Container, *, changed: bool) -> Result:
    """The result for a container that is to run, and lacks something before."""
    words = "" if container.lack is None else container.lack.words
    return Result(container.name, BLOCKED, changed, notes=(f"{BLOCKED}: {words}",))
