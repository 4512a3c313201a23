"""Changes the specs of existing containers: every mistake is found before the first spec is written."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from lxcfleet.base.generations import store
from lxcfleet.containers.apps import check_use
from lxcfleet.containers.container import Container
from lxcfleet.containers.events import ActionDone
from lxcfleet.containers.masks import MaskKeeper
from lxcfleet.containers.order.dependencies import Dependencies
from lxcfleet.containers.outside import Network
from lxcfleet.containers.reconciling import changes, steps
from lxcfleet.containers.reconciling.reconciler import Reconciler
from lxcfleet.containers.reconciling.specs import Specs, lowers_memory
from lxcfleet.containers.requests import services, vain
from lxcfleet.containers.requests.commands import check_command, check_user
from lxcfleet.errors import Broken, Busy, FleetError, WrongState
from lxcfleet.host.kernel import quota
from lxcfleet.host.process.cgroup import too_little_memory
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.spec.container.assignments import Assignment, apply
from lxcfleet.spec.container.fields import askable
from lxcfleet.spec.container.merging import differences
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files.settings import Config
from lxcfleet.spec.reading.rows import Effect
from lxcfleet.spec.reading.terms import LIMITS
from lxcfleet.spec.results import Result
from lxcfleet.units import counted, some

SHOWN = 5
"""A complaint lists at most so many names, and says how many more there are."""


@dataclass(frozen=True)
class Planned:
    """The effect of a change on one container."""

    container: Container
    former: Spec
    spec: Spec
    restart: tuple[str, ...] = ()
    """The keys that were asked for and take effect only after a restart, as the container runs."""

    notes: tuple[str, ...] = ()
    """Notes on it that the operator should read."""
    late: Spec | None = None
    """The spec of its run, if that lacks something of the former spec that could be put in force at once, and could not."""

    @property
    def before(self) -> Spec:
        """The former spec, as far as it was put in force."""
        return self.former if self.late is None else changes.put_live(self.former, self.late)

    @property
    def changed(self) -> bool:
        """Whether the container's spec becomes another one, or what is in force."""
        return self.spec != self.before

    def result(self, word: str) -> Result:
        """The result for this container; ``word`` if its spec changes."""
        differs = differences(self.before, self.spec)
        return Result(
            self.container.name, word if self.changed else "unchanged", self.changed, differs=differs, notes=self.notes
        )


class Changing:
    """``set``, and ``create --ensure --update``."""

    def __init__(
        self,
        paths: Paths,
        reconciler: Reconciler,
        specs: Specs,
        mask: MaskKeeper,
        network: Network,
        bus: Bus,
        dependencies: Dependencies,
        unfit: Callable[[Iterable[str], int], Awaitable[dict[str, list[str]]]],
    ) -> None:
        """``unfit``: see containers.requests.fitting."""
        self._paths, self._unfit = paths, unfit
        self._reconciler = reconciler
        self._specs = specs
        self._mask = mask
        self._network = network
        self._bus = bus
        self._dependencies = dependencies

    async def plan(
        self, chosen: Sequence[Container], assignments: Sequence[Assignment], settings: Config
    ) -> list[Planned]:
        """The effect of assignments on the chosen containers. Raises FleetError with every mistake in any of them."""
        found: dict[str, Spec] = {}
        wrong = _Complaints(len(chosen))
        for container in chosen:
            with wrong.of(container):
                found[container.name] = apply(_changeable(container), assignments, settings)
        wrong.finish()
        planned = await self.check(chosen, found, {each.row.key for each in assignments})
        waiting = {p.container.name: p.spec for p in planned if p.spec.depends_on != p.former.depends_on}
        self._dependencies.check(waiting)
        return planned

    async def check(
        self, chosen: Sequence[Container], wanted: Mapping[str, Spec], asked: Iterable[str],
        coming: frozenset[str] = frozenset(), *, anew: bool = True,
    ) -> list[Planned]:  # fmt: skip
        """The plan for those of the chosen containers that are to have other specs, by name. Whether what they depend on
        exists is for the caller to check: it may be made in the same go.

        ``asked``: the keys that the operator named; ``coming``: volumes that will be there by then. Raises FleetError with
        every mistake in any of them. ``anew``: whether the host is looked at again; otherwise what was seen of it a moment
        ago is good enough, as each start looks for itself.
        """
        if anew:
            self._mask.distrust()
        keys = {*asked}
        wrong = _Complaints(len(chosen))
        once = _Once()
        size = vain.host(self._paths)
        planned = []
        for container in chosen:
            with wrong.of(container):
                former = _changeable(container)
                spec = self._placed(former, wanted[container.name])
                if spec.app != former.app and spec.app is not None:
                    await once(spec.app, partial(check_use, self._paths, spec.app))
                program = (spec.command[:1], spec.app)
                if program != (former.command[:1], former.app) and program[0]:
                    await once(program, partial(check_command, self._paths, self._mask, spec))
                if spec.user != former.user and anew:
                    await asyncio.to_thread(check_user, spec, delta=self._paths.container(spec.name).delta)
                if spec.generation not in (former.generation, 0):
                    store.load(self._paths, spec.generation)
                if spec.units != former.units:
                    await once(("units", spec.units), partial(services.check, spec))
                notes: tuple[str, ...] = ()
                if _limits_differ(former, spec):
                    self._specs.check_limits(spec, former)
                    self._check_running(container, spec)
                    notes = vain.notes(spec, size, former)
                if spec.mounted != former.mounted:
                    notes += await once(("mounted", spec.mounted), partial(self._specs.check_mounts, spec, coming))
                if spec.lxc != former.lxc:
                    notes += await once(("lxc", *sorted(spec.lxc.items())), partial(self._specs.check_keys, spec))
                waits = changes.await_restart(container.spec, spec) if container.running is not None else ()
                restart = tuple(key for key in waits if key in keys)
                planned.append(Planned(container, former, spec, restart, notes, _late(container, former)))
        wrong.finish()
        joining = [each for each in planned if each.spec.connected and not each.former.connected]
        if joining:
            await self._network.check_new(len(joining))
        await self._network.check_changed([(each.former, each.spec) for each in planned if each.changed])
        return planned

    async def check_there(self, former: Spec, spec: Spec) -> None:
        """Raise FleetError if what the spec stands on, or mounts, and the former one does not, is not there."""
        if spec.app != former.app and spec.app is not None:
            await check_use(self._paths, spec.app)
        if spec.generation not in (former.generation, 0):
            store.load(self._paths, spec.generation)
        if spec.mounted != former.mounted:
            await self._specs.check_mounts(spec)

    async def refuse_unfit(self, planned: Iterable[Planned], *, or_else: str = "use --ignore-depends") -> None:
        """Refuse another base for containers whose own packages would break on it. ``or_else``: how the operator has it all
        the same. Raises WrongState, HostError."""
        going: dict[int, list[str]] = {}
        for each in planned:
            if each.spec.generation != each.former.generation:
                going.setdefault(each.spec.generation, []).append(each.container.name)
        for to, names in going.items():
            left = await self._unfit(names, to)
            if not left:
                continue
            lines = [f"{name}: {reason}" for name, reasons in left.items() for reason in reasons]
            more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
            goal = f"generation {to}" if to else "the host's root"
            raise WrongState(
                f"nothing was changed: packages of {some([*left], SHOWN)} would break on {goal}",
                why="\n".join([*lines[:SHOWN], *more]),
                hint=f"upgrade or remove these packages in the container, or {or_else}",
            )

    def _placed(self, former: Spec, spec: Spec) -> Spec:
        """The spec without addresses that it is not to have: those of a network that it leaves, and those that others are
        chosen for. Its new ones come with the write; see ``_moves``."""
        if spec.network is not former.network:
            return replace(spec, address=None, address6=None, hardware=None)
        if (spec.address, spec.address6, spec.hardware) != (former.address, former.address6, former.hardware):
            spec = replace(spec, address=former.address, address6=former.address6, hardware=former.hardware)
        if _moves(former, spec) and any(each.version == 4 for each in spec.static_addresses):
            spec = replace(spec, address=None, address6=None)
        return spec

    def _check_running(self, container: Container, spec: Spec) -> None:
        """Refuse a limit that is below the container's present use."""
        in_force, running = container.spec, container.running
        if running is None or in_force is None:
            return
        used = running.payload.memory
        if lowers_memory(in_force, spec) and used is not None and used > spec.memory:
            raise too_little_memory(container.name, spec.memory, used)
        if spec.disk != in_force.disk and not quota.own_project(self._paths.container(container.name).delta):
            raise WrongState(
                f"{container.name} can't get a first disk limit while it runs", why="its files are not counted yet",
                hint=f"stop it first: lxcfleet stop {container.name}",
            )  # fmt: skip

    def foresee(self, planned: Sequence[Planned]) -> tuple[list[Result], list[str]]:
        """The results that the change would have, and its steps in words."""
        lines = []
        for each in planned:
            lines += steps.describe(each.container.name, self._reconciler.plan_change(each.container, each.spec))
        return [each.result("planned") for each in planned], lines

    async def carry_out(self, planned: Sequence[Planned]) -> list[Result]:
        """Give all of them their specs, or none. Raises FleetError."""
        wanted: list[tuple[Container, Spec]] = []
        try:
            for each in planned:
                if each.container.wanted is not each.former:
                    raise Busy(f"{each.container.name} was changed by somebody else meanwhile", hint="try again")
                spec = each.spec
                if _moves(each.former, spec):
                    spec = self._network.place(spec, [other for _, other in wanted])
                if each.changed:
                    wanted.append((each.container, spec))
            await self._reconciler.change(wanted)
        except BaseException:
            if wanted:
                self._network.give_back(None)
            raise
        for each in planned:
            if each.changed:
                keys = changes.different(each.before, each.spec)
                self._bus.publish(ActionDone(each.container.name, "changed", ", ".join(keys)))
        return [each.result("changed") for each in planned]


def _late(container: Container, wanted: Spec) -> Spec | None:
    """See Planned.late: an earlier change that failed may have left its spec on a disk that took nothing more."""
    in_force = container.spec
    if container.running is None or in_force is None or changes.put_live(in_force, wanted) == in_force:
        return None
    return in_force


def _limits_differ(former: Spec, spec: Spec) -> bool:
    return any(getattr(former, key) != getattr(spec, key) for key in LIMITS)


def _moves(former: Spec, spec: Spec) -> bool:
    """Whether it gets addresses by this change. One that is to have no chosen address any more keeps the present one."""
    chosen = bool(spec.static_addresses) and spec.static_addresses != former.static_addresses
    return (spec.connected and (not former.connected or chosen)) or (spec.on_uplink and not former.on_uplink)


def to_restart(planned: Iterable[Planned]) -> list[str]:
    """The names of those containers for which the requested change needs a restart."""
    return [each.container.name for each in planned if each.restart]


BEGUN = "begun"
"""The word for a container that gets its spec in its turn."""


def turn_lines(names: Iterable[str]) -> list[str]:
    """The changes of these containers without a restart, in their turns, as lines of a plan."""
    return [f"{name}: change it in its turn, without a restart" for name in names]


def restart_lines(planned: Iterable[Planned]) -> list[str]:
    """The restarts of these containers as lines of a plan."""
    return [f"{name}: restart it, in its turn" for name in to_restart(planned)]


def _changeable(container: Container) -> Spec:
    """The container's spec on disk. Raises Broken, Busy."""
    if container.wanted is None:
        raise container.problem or Broken(f"{container.name} is broken")
    if container.busy is not None:
        raise Busy(f"{container.name} is busy: {container.busy}", hint="wait until that is done, then try again")
    return container.wanted


class _Once:
    """Checks whose outcome, good or bad, is the same for all containers that are to have the same."""

    def __init__(self) -> None:
        self._outcomes: dict[Hashable, Any] = {}

    async def __call__(self, what: Hashable, check: Callable[[], Awaitable[Any]]) -> Any:
        """The value that ``check`` gave. Raises the FleetError that it raised."""
        if what not in self._outcomes:
            try:
                self._outcomes[what] = await check()
            except FleetError as error:
                self._outcomes[what] = error
        found = self._outcomes[what]
        if isinstance(found, FleetError):
            raise found
        return found


class _Complaints:
    """Mistakes in some of many containers, reported together; the same mistake in many containers is reported once."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._found: list[tuple[str, FleetError]] = []
        self._name = ""

    def of(self, container: Container) -> _Complaints:
        """Attribute everything that is raised within to that container."""
        self._name = container.name
        return self

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, FleetError):
            self._found.append((self._name, error))
            return True
        return False

    def finish(self) -> None:
        """Raise FleetError if there was any mistake."""
        if not self._found:
            return
        _, first = self._found[0]
        if self._total == 1:
            raise first
        by_text: dict[str, list[str]] = {}
        for name, error in self._found:
            by_text.setdefault(": ".join(part for part in (error.message, error.why) if part), []).append(name)
        raise type(first)(
            f"nothing was changed: {len(self._found)} of {counted(self._total, 'container')} can't have that",
            why="\n".join(f"{some(names, SHOWN)}: {text}" for text, names in by_text.items()), hint=first.hint,
        )  # fmt: skip


def needs_restart(container: Container) -> tuple[str, ...]:
    """The keys in which its run differs from its spec, until it is restarted."""
    return changes.await_restart(container.spec, container.wanted) if container.running is not None else ()


def like(former: Spec, wanted: Spec, left: frozenset[str]) -> tuple[Spec, tuple[str, ...]]:
    """A spec that becomes like the one that ``create`` would make now, and the keys that can't. Keys in ``left`` stay."""
    values, never = {}, []
    for key, row in askable().items():
        if key in left or getattr(former, key) == getattr(wanted, key):
            continue
        if row.change is Effect.NEVER:
            never.append(key)
        else:
            values[key] = getattr(wanted, key)
    return replace(former, **values), tuple(never)
