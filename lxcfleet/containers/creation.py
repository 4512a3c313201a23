"""Creating containers, once it is known that they can exist."""

from __future__ import annotations

import dataclasses
import logging
import os
import stat

from lxcfleet.api.requests import CreateRequest
from lxcfleet.base.mask import build
from lxcfleet.containers import plan, request, steps, store
from lxcfleet.containers.actions import AT_ONCE, Actions
from lxcfleet.containers.container import Container
from lxcfleet.containers.events import ActionDone
from lxcfleet.containers.lifecycle import Lifecycle
from lxcfleet.containers.masks import MaskKeeper
from lxcfleet.containers.reconciler import Reconciler
from lxcfleet.containers.registry import Registry
from lxcfleet.containers.room import Room
from lxcfleet.errors import AlreadyExists
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.runtime.operations import Job, Operation, Operations
from lxcfleet.spec.merging import differences
from lxcfleet.spec.results import Result
from lxcfleet.spec.settings import Config
from lxcfleet.spec.spec import Spec
from lxcfleet.spec.states import Action, State
from lxcfleet.spec.terms import Network

log = logging.getLogger(__name__)


class Creation:
    """Makes new containers."""

    def __init__(
        self,
        paths: Paths,
        registry: Registry,
        lifecycle: Lifecycle,
        mask: MaskKeeper,
        reconciler: Reconciler,
        operations: Operations,
        bus: Bus,
        room: Room,
        actions: Actions,
    ) -> None:
        self._paths = paths
        self._registry = registry
        self._lifecycle = lifecycle
        self._mask = mask
        self._reconciler = reconciler
        self._operations = operations
        self._bus = bus
        self._room = room
        self._actions = actions

    async def begin(self, ask: CreateRequest, config: Config) -> Operation:
        """Begin to create containers."""
        self._mask.distrust()
        await self._registry.observe()
        try:
            with self._room.building():
                return await self._begin(ask, config)
        finally:
            await self._room.release_unused()

    async def _begin(self, ask: CreateRequest, config: Config) -> Operation:
        checked = None
        while (wanted := self._wanted(ask, config)) != checked:
            # While we look, another client may take a name.
            await self._check(wanted)
            checked = wanted
        if wanted.new:
            await self._room.check_ports(wanted.like, len(wanted.new))
        planned = plan.create(ask.start)
        if ask.dry_run:
            return self._dry(wanted, planned, start=ask.start)
        specs = self._room.take(wanted.new, wanted.like)
        for spec in specs:
            self._registry.add(Container(spec.name, spec, busy="create"))
        self._room.expect(specs)
        jobs = [self._creation(spec, planned) for spec in specs]
        jobs += [self._presence(self._registry[name], wanted, start=ask.start) for name in wanted.present]
        return self._operations.begin("create", jobs, AT_ONCE)

    def _dry(self, wanted: request.Wanted, planned: plan.Steps, *, start: bool) -> Operation:
        results = [Result(name, "planned", True) for name in wanted.new]
        lines = [line for name in wanted.new for line in steps.describe(name, planned)]
        for name in wanted.present:
            container = self._registry[name]
            if start and container.state is not State.RUNNING:
                result, some = self._actions.foresee(container, Action.START)
            else:
                result, some = Result(name, "unchanged", False), [f"{name}: exists"]
            results.append(dataclasses.replace(result, differs=_differences(container, wanted)))
            lines += some
        return self._operations.dry("create", results, lines)

    def _wanted(self, ask: CreateRequest, config: Config) -> request.Wanted:
        wanted = request.resolve(ask, config, {container.name for container in self._registry})
        for name in wanted.new:
            if os.path.lexists(store.directory_of(self._paths, name)):
                raise AlreadyExists(
                    f"{name} can't be created",
                    why=f"{store.directory_of(self._paths, name)} exists and is not lxcfleet's",
                    hint="choose another name; `lxc-ls -f` shows the containers of others",
                )
        return wanted

    async def _check(self, wanted: request.Wanted) -> None:
        """Refuse what this host has no room for or can't run."""
        self._room.check_new(len(wanted.new), wanted.like)
        self._lifecycle.check_limits(wanted.like)
        if wanted.like.command and wanted.new:
            await self._check_command(wanted.like)
        if wanted.like.network is Network.BRIDGE and wanted.new:
            await self._room.check_addresses(len(wanted.new))

    async def _check_command(self, like: Spec) -> None:
        await self._mask.refresh()

        def runnable(path: str) -> bool:
            try:
                found = os.stat(path)
            except OSError:
                return False
            executable = stat.S_ISREG(found.st_mode) and found.st_mode & 0o111 != 0
            return executable and not build.hidden(self._paths, path)

        request.find_command(like.command[0], like.environment, runnable)

    def _creation(self, spec: Spec, planned: plan.Steps) -> Job:
        container = self._registry[spec.name]

        async def job() -> Result:
            await self._reconciler.create(container, planned)
            self._bus.publish(ActionDone(container.name, "created"))
            return Result(container.name, "created", True)

        def forget() -> None:
            self._room.forget(container)

        return Job(spec.name, job, forget)

    def _presence(self, container: Container, wanted: request.Wanted, *, start: bool) -> Job:
        """A container that only has to be there, and run if ``start``."""
        differs = _differences(container, wanted)

        async def job() -> Result:
            if not start or container.state is State.RUNNING:
                return Result(container.name, "unchanged", False, differs=differs)
            return dataclasses.replace(await self._actions.act(container, Action.START, 0), differs=differs)

        return Job(container.name, job)


def _differences(container: Container, wanted: request.Wanted) -> dict[str, tuple[str, str]]:
    return {} if container.spec is None else differences(container.spec, wanted.like, wanted.left)
