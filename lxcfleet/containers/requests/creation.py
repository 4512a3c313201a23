"""Creates containers, after checking that the host can have them."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from lxcfleet.api.requests import CreateRequest
from lxcfleet.base.generations import store as generations
from lxcfleet.containers import store
from lxcfleet.containers.apps import check_use
from lxcfleet.containers.common import Common
from lxcfleet.containers.container import Container
from lxcfleet.containers.events import ActionDone
from lxcfleet.containers.order.conditions import StartConditions
from lxcfleet.containers.order.ordering import blocked
from lxcfleet.containers.reconciling import plan, steps
from lxcfleet.containers.reconciling.lifecycle import Making
from lxcfleet.containers.reconciling.reconciler import Reconciler
from lxcfleet.containers.requests import request, services, vain
from lxcfleet.containers.requests.actions import AT_ONCE, Actions
from lxcfleet.containers.requests.changing import BEGUN, Changing, Planned, like, restart_lines, turn_lines
from lxcfleet.containers.requests.commands import check_command, check_user
from lxcfleet.containers.room import Room
from lxcfleet.errors import AlreadyExists, Broken, InvalidInput
from lxcfleet.runtime.operations import Job, Operation
from lxcfleet.spec.container.fields import askable
from lxcfleet.spec.container.merging import differences
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files.settings import Config
from lxcfleet.spec.reading.terms import NetworkMode
from lxcfleet.spec.results import Result
from lxcfleet.spec.states import Action, State

log = logging.getLogger(__name__)


class Creation:
    """Makes new containers."""

    def __init__(
        self,
        common: Common,
        making: Making,
        reconciler: Reconciler,
        room: Room,
        actions: Actions,
        changing: Changing,
        conditions: StartConditions,
    ) -> None:
        self._paths = common.paths
        self._registry = common.registry
        self._operations = common.operations
        self._bus = common.bus
        self._specs, self._mask, self._secrets = making.specs, making.mask, making.secrets
        self._drain, self._dependencies = conditions.drain, conditions.dependencies
        self._reconciler = reconciler
        self._room = room
        self._actions = actions
        self._changing = changing

    async def begin(
        self, ask: CreateRequest, config: Config, updating: Callable[[Sequence[Planned]], Mapping[str, Planned]]
    ) -> Operation:
        """Begin to create containers and, if ``ensure`` asks for it, have existing ones become like them.

        ``updating``: called with the changes of existing containers, after all checks and before anything is done; gives
        those that others make, in turns, and may raise FleetError to have nothing done.
        """
        if ask.start:
            self._drain.refuse("no container is created and started; --no-start creates it")
        self._mask.distrust()
        await self._registry.observe()
        try:
            with self._room.building():
                return await self._begin(ask, config, updating)
        finally:
            await self._room.release_unused()

    async def _begin(
        self, ask: CreateRequest, config: Config, updating: Callable[[Sequence[Planned]], Mapping[str, Planned]]
    ) -> Operation:
        checked, planned = None, {}
        notes: tuple[str, ...] = ()
        while (wanted := self._wanted(ask, config)) != checked:
            # During the checks, another client may take a name.
            notes = await self._check(wanted)
            if ask.start and wanted.new:  # else it can be made in the container first
                check_user(wanted.like)
            planned = await self._updates(wanted) if ask.update else {}
            checked = wanted
        updates = {name: each.spec for name, each in planned.items()}
        self._dependencies.check({**dict.fromkeys(wanted.new, wanted.like), **updates})
        turns = updating([*planned.values()])
        way = plan.create(ask.start)
        if ask.dry_run:
            return self._dry(wanted, way, planned, notes, turns, start=ask.start)
        present = [self._registry[name] for name in wanted.present]  # one may be destroyed during the changes
        made = self._room.take(wanted.new, wanted.like)
        for spec in made:
            self._registry.add(Container(spec.name, spec, busy="create"))
        try:
            await self._changing.carry_out([each for name, each in planned.items() if name not in turns])
        except BaseException:
            for spec in made:
                self._room.forget(self._registry[spec.name])
            raise
        self._room.expect(made)
        jobs = [self._creation(spec, notes, start=ask.start) for spec in made]
        for container in present:
            name = container.name
            changed = planned[name].result(BEGUN if name in turns else "changed") if name in planned else None
            jobs.append(self._presence(container, wanted, changed, start=ask.start))
        return self._operations.begin("create", jobs, AT_ONCE)

    async def _updates(self, wanted: request.WantedContainers) -> dict[str, Planned]:
        """The changes that make existing containers like the requested ones. Raises FleetError if one of them can't be so."""
        present = [self._registry[name] for name in wanted.present]
        specs = {}
        for container in present:
            if container.wanted is None:
                raise container.problem or Broken(f"{container.name} is broken")
            specs[container.name], never = like(container.wanted, wanted.like, wanted.left)
            if never:
                raise InvalidInput(
                    f"{', '.join(never)} of {container.name} can't be changed", why="it exists",
                    hint="destroy it and create it anew, or leave out --update",
                )  # fmt: skip
        return {each.container.name: each for each in await self._changing.check(present, specs, askable())}

    def _dry(
        self,
        wanted: request.WantedContainers,
        way: plan.Steps,
        planned: Mapping[str, Planned],
        notes: tuple[str, ...],
        turns: Mapping[str, Planned],
        *,
        start: bool,
    ) -> Operation:
        results = [Result(name, "planned", True, notes=notes) for name in wanted.new]
        lines = [line for name in wanted.new for line in steps.describe(name, way)]
        for name in wanted.present:
            container = self._registry[name]
            if start and container.state is not State.RUNNING:
                result, some = self._actions.foresee(container, Action.START)
            else:
                result, some = Result(name, "unchanged", False), [f"{name}: exists"]
            if name in planned and planned[name].changed:
                (result,), first = self._changing.foresee([planned[name]])
                lines += first
            else:
                result = dataclasses.replace(result, differs=_differences(container, wanted))
            results.append(result)
            lines += some
        restarts = restart_lines(planned.values()) if start else []
        lines += restarts + turn_lines(name for name, each in turns.items() if not (start and each.restart))
        return self._operations.dry("create", results, lines)

    def _wanted(self, ask: CreateRequest, config: Config) -> request.WantedContainers:
        wanted = request.resolve(ask, config, {container.name for container in self._registry})
        self._refuse_taken(wanted.new)
        return wanted

    def _refuse_taken(self, names: Sequence[str]) -> None:
        for name in names:
            if os.path.lexists(store.directory_of(self._paths, name)):
                raise AlreadyExists(
                    f"{name} can't be created",
                    why=f"{store.directory_of(self._paths, name)} exists and is not lxcfleet's",
                    hint="choose another name; `lxc-ls -f` shows the containers of others",
                )

    async def check_all(self, wanted: Mapping[str, Spec], coming: frozenset[str] = frozenset()) -> None:
        """Refuse new containers with these specs, by name, that this host has no room for or can't run. ``coming``: volumes
        that will be there by then. Raises FleetError."""
        self._mask.distrust()
        self._refuse_taken([*wanted])
        alike = _alike(wanted)
        for kind in {(each.init, each.privileged): each for _, each in alike}.values():
            count = sum((each.init, each.privileged) == (kind.init, kind.privileged) for each in wanted.values())
            await self._room.check_new(count, kind)
        for names, spec in alike:
            await self._check(request.WantedContainers(tuple(names), (), spec), room=False, coming=coming)
            check_user(spec)
        await self._room.check_static(wanted)
        connected = sum(each.network is NetworkMode.BRIDGE for each in wanted.values())
        if connected:
            await self._room.check_addresses(connected)

    async def make_all(self, wanted: Mapping[str, Spec], *, start: bool = True) -> Operation:
        """Begin to create containers with these specs, by name, and to start them if ``start``. Raises FleetError."""
        try:
            with self._room.building():
                made: list[Spec] = []
                notes: dict[str, tuple[str, ...]] = {}
                try:
                    # Those with addresses of the operator's choice come first, so that no other one gets such an address.
                    for names, shared in sorted(_alike(wanted), key=lambda each: not each[1].static_addresses):
                        notes |= dict.fromkeys(names, vain.notes(shared, vain.host(self._paths)))
                        for spec in self._room.take(names, shared):
                            made.append(spec)
                            self._registry.add(Container(spec.name, spec, busy="create"))
                except BaseException:
                    for spec in made:
                        self._room.forget(self._registry[spec.name])
                    raise
                self._room.expect(made)
                new = {spec.name: spec for spec in made}
                turns = self._dependencies.graph().turns_to_start(new)
                jobs = [self._creation(new[name], notes[name], start=start) for turn in turns for name in turn]
                return self._operations.begin("create", jobs, AT_ONCE)
        finally:
            await self._room.release_unused()

    async def _check(
        self, wanted: request.WantedContainers, *, room: bool = True, coming: frozenset[str] = frozenset()
    ) -> tuple[str, ...]:
        """Refuse what this host has no room for or can't run. ``room``: whether the room is checked, too.

        Gives what the operator should know of new containers."""
        if room:
            await self._room.check_new(len(wanted.new), wanted.like)
        self._specs.check_limits(wanted.like)
        if wanted.new and wanted.like.generation:
            generations.load(self._paths, wanted.like.generation)
        if wanted.new and wanted.like.app is not None:
            await check_use(self._paths, wanted.like.app)
        if wanted.like.command and wanted.new:
            await check_command(self._paths, self._mask, wanted.like)
        if wanted.new:
            await services.check(wanted.like)
        if room:
            for name in wanted.new[:1]:
                self._secrets.find(name, wanted.like)
        if room and wanted.like.network is NetworkMode.BRIDGE and wanted.new:
            await self._room.check_addresses(len(wanted.new))
        if wanted.new:
            await self._room.check_found(wanted.like, wanted.new)
        if not wanted.new:
            return ()
        notes = (*await self._specs.check_mounts(wanted.like, coming), *await self._specs.check_keys(wanted.like))
        return (*notes, *vain.notes(wanted.like, vain.host(self._paths)))

    def _creation(self, spec: Spec, notes: tuple[str, ...] = (), *, start: bool) -> Job:
        container = self._registry[spec.name]

        async def job() -> Result:
            await self._reconciler.create(container, start=start)
            self._bus.publish(ActionDone(container.name, "created"))
            held = blocked(container, changed=True).notes if container.lack is not None else ()
            return Result(container.name, "created", True, notes=(*notes, *held))

        def forget() -> None:
            self._room.forget(container)

        return Job(spec.name, job, forget, after=partial(self._actions.ordering.settled, container))

    def _presence(
        self, container: Container, wanted: request.WantedContainers, changed: Result | None, *, start: bool
    ) -> Job:
        """A container that only has to exist, and to run if ``start``. ``changed``: what becomes of a change of it."""
        done = changed or Result(container.name, "unchanged", False, differs=_differences(container, wanted))

        async def job() -> Result:
            if not start or container.state is State.RUNNING:
                return done
            started = await self._actions.act(container, Action.START, 0)
            return done if done.changed else dataclasses.replace(started, differs=done.differs)

        return Job(container.name, job, after=partial(self._actions.ordering.settled, container))


def _differences(container: Container, wanted: request.WantedContainers) -> dict[str, tuple[str, str]]:
    return {} if container.wanted is None else differences(container.wanted, wanted.like, wanted.left)


def _alike(wanted: Mapping[str, Spec]) -> list[tuple[list[str], Spec]]:
    """The names of those with the same spec, and that spec."""
    found: list[tuple[list[str], Spec]] = []
    for name, spec in wanted.items():
        for names, known in found:
            if known == spec:
                names.append(name)
                break
        else:
            found.append(([name], spec))
    return found
