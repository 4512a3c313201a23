"""The use cases behind the API: each operation on the fleet that a client can ask for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

from lxcfleet.api.records import ContainerDetails, ContainerRecord, DoctorRecord, FindingRecord, ResultRecord
from lxcfleet.api.requests import ActionRequest, CreateRequest, WaitRequest
from lxcfleet.base.generations import store
from lxcfleet.base.generations.roots import sheets_of
from lxcfleet.base.merge import reconcile
from lxcfleet.containers import moving
from lxcfleet.containers.common import Common
from lxcfleet.containers.container import Container
from lxcfleet.containers.copies.copy_cost import CopyCost
from lxcfleet.containers.copies.snapshot_files import SnapshotFiles
from lxcfleet.containers.copies.stillness import Stillness
from lxcfleet.containers.drain import Drain
from lxcfleet.containers.ends.endings import Endings
from lxcfleet.containers.ends.firsts import Firsts
from lxcfleet.containers.host_keeper import HostKeeper
from lxcfleet.containers.measuring.delta_sizes import Looks
from lxcfleet.containers.measuring.disk import DiskUse
from lxcfleet.containers.measuring.usage import Usages
from lxcfleet.containers.order.conditions import StartConditions
from lxcfleet.containers.order.ordering import Ordering
from lxcfleet.containers.reconciling.lifecycle import Lifecycle
from lxcfleet.containers.reconciling.reconciler import Reconciler
from lxcfleet.containers.reconciling.steps import Observer
from lxcfleet.containers.requests import services, vain
from lxcfleet.containers.requests.actions import Actions
from lxcfleet.containers.requests.changing import Changing, Planned, needs_restart
from lxcfleet.containers.requests.creation import Creation
from lxcfleet.containers.requests.fitting import unfit
from lxcfleet.containers.room import Room
from lxcfleet.containers.supervision.boot import BootStarts
from lxcfleet.daemon.uses import findings
from lxcfleet.daemon.uses.draining import Drains
from lxcfleet.daemon.uses.schedule import Schedules
from lxcfleet.daemon.uses.snapshots import Snapshots
from lxcfleet.daemon.uses.volumes import Volumes
from lxcfleet.daemon.uses.waiting import Waiting
from lxcfleet.errors import FleetError, InvalidInput, NotFound
from lxcfleet.health.prober import Prober
from lxcfleet.host.process import proc
from lxcfleet.launcher.client import Launcher
from lxcfleet.network.fleet import FleetNetwork
from lxcfleet.patch import holds
from lxcfleet.runtime.events import Events
from lxcfleet.runtime.operations import Operation
from lxcfleet.spec.container.fields import stored
from lxcfleet.spec.container.restart import RestartPolicy
from lxcfleet.spec.files.settings import Config, NetworkSettings
from lxcfleet.spec.reading.terms import Init
from lxcfleet.spec.selection import Selection
from lxcfleet.spec.states import State


@dataclass(frozen=True)
class Watching:
    """The parts that know what happens in containers."""

    events: Events
    prober: Prober
    """Their health."""
    endings: Endings
    """How their runs end."""


class Fleet:
    """All containers of this host, and the operations on them."""

    def __init__(
        self,
        common: Common,
        config: Config,
        lifecycle: Lifecycle,
        conditions: StartConditions,
        network: FleetNetwork,
        host: HostKeeper,
        watching: Watching,
        observers: Sequence[Observer] = (),
    ) -> None:
        """``observers`` are called before each step that changes a container."""
        self.paths, self.registry, self.bus = common.paths, common.registry, common.bus
        self.operations, self._tasks = common.operations, common.tasks
        self.config = config
        making = lifecycle.making
        self._lifecycle, self._specs, self.secrets = lifecycle, making.specs, making.secrets
        self._network = network
        self.events, self.prober, self._endings = watching.events, watching.prober, watching.endings
        self.dependencies, self.prerequisites = conditions.dependencies, conditions.prerequisites
        self.looks = Looks(self.paths)
        self.waiting = Waiting(self.registry, self.prober)
        self.usages = Usages(self.registry, self.prober.of)
        self.room = Room(self.paths, self.registry, making.mask, network, host)
        self.reconciler = Reconciler(
            self.registry, lifecycle, self._specs, self.room, config.stop_timeout, observers, self.prerequisites
        )
        self._of_copies(common.launcher)
        ordering = Ordering(self.registry, self.dependencies, self.prerequisites, Firsts(self._endings))
        self.actions = Actions(
            common, self.reconciler, making.mask, self.room, ordering, self.snapshot_files, conditions.drain
        )  # fmt: skip
        self._of_drains(conditions.drain)
        self.boot = BootStarts(
            self.paths, self.registry, self.prober, self.reconciler, self.operations, self.bus, self.dependencies
        )
        fits = partial(unfit, common.launcher)
        self.changing = Changing(
            self.paths, self.reconciler, self._specs, making.mask, network, self.bus, self.dependencies, fits
        )
        self.disk = DiskUse(self.paths, self.registry, common.launcher, making.mask)
        self.volumes = Volumes(
            self.paths, self.registry, self.room, common.launcher, self.operations, self.bus, self.looks
        )
        self.creation = Creation(common, making, self.reconciler, self.room, self.actions, self.changing, conditions)

    def _of_copies(self, launcher: Launcher) -> None:
        """Make the parts that copy containers' files."""
        self.stillness = Stillness(self.paths, self.registry, self.reconciler, launcher, self._network, self.bus)
        self.snapshot_files = SnapshotFiles(self.paths, launcher, self.bus)
        self.copy_cost = CopyCost(self.snapshot_files, launcher)

    def _of_drains(self, drain: Drain) -> None:
        """Make the parts that act on running containers: they stop all of them for work on the host, or copy their files."""
        self.draining = Drains(drain, self.registry, self.reconciler, self.actions, self.operations, self.bus)
        self.snapshots = Snapshots(
            self.snapshot_files, self.copy_cost, self.registry, self.actions, self.stillness, self.operations, self.bus
        )
        self.schedules = Schedules(self.paths, self.registry, self.snapshots, self.operations, self.bus)

    async def reload(self, config: Config) -> list[str]:
        """Take over changed settings, and changes of /etc/subuid. Gives the settings that can't change yet; they are logged.

        Raises FleetError or OSError if the network could not be changed yet; the daemon tries that again later.
        """
        self.config = config
        self._lifecycle.take_over(config)
        self.reconciler.take_over(config.stop_timeout)
        self._specs.take_over(config.console_log_kib)
        self.secrets.take_over(config.secrets)
        self.prober.take_over(config.alive_time, config.rollout.min_healthy_time)
        self.room.reload()
        return await self._network.take_over(config.network)

    # -- reading ---------------------------------------------------------------------------------------------

    async def containers(self, selection: Selection) -> list[ContainerRecord]:
        """The chosen containers; all containers if nothing is chosen."""
        await self.registry.observe()
        if not (selection.patterns or selection.labels):
            selection = Selection(everything=True)
        return [self._record(container) for container in self.registry.choose(selection)]

    def _record(self, container: Container) -> ContainerRecord:
        spec = container.wanted
        return {
            "name": container.name,
            "state": container.state,
            "health": self.prober.of(container),
            "init": spec.init if spec else "",
            "command": list(spec.command) if spec else [],
            "labels": container.labels,
            "profile": spec.profile if spec else None,
            "privileged": spec.privileged if spec else False,
            "network": spec.network if spec else "",
            "ports": [str(port) for port in spec.ports] if spec else [],
            "volumes": [str(each) for each in spec.volumes] if spec else [],
            "app": str(spec.app) if spec and spec.app else None,
            "secrets": [str(each) for each in spec.secrets] if spec else [],
            "isolated": spec.isolated if spec else False,
            "publish": [str(publication) for publication in spec.publish] if spec else [],
            "created": spec.created if spec else "",
            "pid": container.running.pid if container.running else None,
            "addresses": self._addresses(container),
            "busy": container.busy,
            "restart_needed": list(needs_restart(container)),
            "problem": str(container.problem) if container.problem else None,
            "exit": container.exit.record() if container.exit else None,
            "blocked": None if container.running is not None or container.lack is None else container.lack.reason,
            "gave_up": container.course.gave_up,
            "start_error": container.start_error or None,
            "foreground": container.foreground is not None,
            "starts_in": _left(container),
        }

    def _addresses(self, container: Container) -> list[str]:
        return [str(address) for address in container.addresses] if container.running is not None else []

    async def info(self, name: str) -> ContainerDetails:
        """One container in full; raises NotFound."""
        await self.registry.observe()
        container = self._get(name)
        own = self.paths.container(name)
        spec, running = container.wanted, container.running
        details: dict[str, Any] = {
            **self._record(container),
            "directory": str(own.directory),
            "delta_bytes": await self.looks.size(name),
            "first_id": spec.first_id if spec else None,
            "hardware": (spec.mac or None) if spec else None,
            "memory_bytes": running.payload.memory if running else None,
            "memory_kills": container.memory_kills,
            "last_memory_kill": container.last_memory_kill,
            "cpu_seconds": running.payload.cpu_seconds if running else None,
            "throttled_seconds": running.payload.throttled_seconds if running else None,
            "pressure": running.payload.pressure if running else {},
            "processes": running.payload.processes if running else None,
            "environment": dict(spec.environment) if spec else {},
            "memory_limit_bytes": (spec.memory or None) if spec else None,
            "cpus_limit": (spec.cpus or None) if spec else None,
            "disk_limit_bytes": (spec.disk or None) if spec else None,
            "processes_limit": (spec.pids or None) if spec else None,
            "exit_lines": list(container.exit.lines) if container.exit else [],
            "failures": 0 if running and spec and spec.restart.policy is RestartPolicy.NO else container.course.row,
            "conflicts": reconcile.conflicts(self.paths, name),
            "confinement": self._specs.confinement(spec) if spec else {},
            "autostart": spec.autostart if spec else False,
            "boot_order": spec.boot_order if spec else 0,
            "started": _moment(running.since) if running else None,
            "check": spec.health.to_json() if spec and spec.health else None,
            "health_reason": self.prober.reason(container),
            "spec": {key: row.render(getattr(spec, key)) for key, row in stored().items()} if spec else {},
        }
        return cast(ContainerDetails, details)  # Debian 12's mypy can't see that ContainerDetails extends ContainerRecord

    async def doctor(self, count: int, init: Init) -> DoctorRecord:
        """Compare the needs of ``count`` more containers with the host's limits; add findings about the daemon itself."""
        return await self._with_own(await self.room.doctor(count, init))

    async def fix(self, count: int, init: Init) -> DoctorRecord:
        """Raise the limits that can be raised safely. The change persists over boots."""
        return await self._with_own(await self.room.fix(count, init))

    async def examine(self, units: Sequence[str]) -> list[FindingRecord]:
        """The obstacles that may keep these services of the host's from running in containers."""
        return [cast(FindingRecord, each.to_json()) for each in await services.findings(self.paths, {"": units})]

    async def in_the_way(self, wanted: NetworkSettings) -> list[FindingRecord]:
        """The obstacles on the host that keep the fleet from having such a network. Raises HostError."""
        return [cast(FindingRecord, each.to_json()) for each in await self._network.in_the_way(wanted)]

    async def _with_own(self, record: DoctorRecord) -> DoctorRecord:
        own = findings.of_tasks(self._tasks.readings(), datetime.now(UTC))
        own += await services.findings(self.paths, services.all_asked(self.paths, self.registry, self.config.profiles))
        own += self.volumes.findings()
        own += self.draining.findings()
        own += findings.of_moves(moving.all_of(self.paths, [each.name for each in self.registry]))
        own += findings.of_bases(*self._bases(), datetime.now(UTC), self._holds())
        own += self.secrets.findings()
        self._endings.check()
        own += findings.of_ends(self._endings.problem)
        own += findings.of_starts({c.name: (c.start_error, c.course.gave_up) for c in self.registry if c.start_error})
        wanted = [each.wanted for each in self.registry if each.wanted is not None]
        wanted += vain.asked_for(self.config)
        own += findings.of_limits(vain.of_all(wanted, vain.host(self.paths)))
        record["findings"] += [cast(FindingRecord, finding.to_json()) for finding in own]
        return record

    def _bases(self) -> tuple[dict[int, list[str]], dict[int, datetime]]:
        """The generations that containers stand on, each with their names, and when each that is all there was frozen."""
        held: dict[int, list[str]] = {}
        for container in self.registry:
            if container.wanted is not None and container.wanted.generation:
                held.setdefault(container.wanted.generation, []).append(container.name)
        created = {}
        for number in held:
            with contextlib.suppress(FleetError):
                sheets_of(self.paths, number)
                created[number] = datetime.fromisoformat(store.load(self.paths, number).created)
        return held, created

    def _holds(self) -> dict[str, tuple[str, bool]]:
        """By container: its hold in words, and whether its last day is over."""
        day, found = holds.today(), holds.Holds(self.paths).among(self.registry)
        whys = {name: f" ({hold.why})" if hold.why else "" for name, hold in found.items()}
        return {name: (f"{hold.in_words(day)}{whys[name]}", hold.past(day)) for name, hold in found.items()}

    def _get(self, name: str) -> Container:
        if name not in self.registry:
            raise NotFound(f"no container named {name}", hint="`lxcfleet list` shows the ones that exist")
        return self.registry[name]

    def log_file(self, name: str, kind: str) -> str:
        """The path of a container's log; raises NotFound, InvalidInput."""
        own = self.paths.container(self._get(name).name)
        files = {"console": own.console_log, "lxc": own.lxc_log}
        if kind not in files:
            raise InvalidInput(f"there is no log {kind!r}", hint="choose console or lxc")
        return str(files[kind])

    # -- changing --------------------------------------------------------------------------------------------

    async def create(
        self, ask: CreateRequest, updating: Callable[[Sequence[Planned]], Mapping[str, Planned]] = lambda _: {}
    ) -> Operation:
        """Check that the containers can exist, then begin to create them; see Creation.begin."""
        return await self.creation.begin(ask, self.config, updating)

    async def act(self, ask: ActionRequest) -> Operation:
        """Begin an action on the chosen containers."""
        return await self.actions.begin(ask, self.config.stop_timeout)

    # -- waiting ---------------------------------------------------------------------------------------------

    async def wait(self, ask: WaitRequest) -> list[ResultRecord]:
        """One result for each chosen container, once it is in the state asked for; see Waiting."""
        return await self.waiting.wait(ask)


def _left(container: Container) -> float | None:
    """Seconds until it is started again; None: it is not."""
    due = container.course.due
    return max(0.0, round(due - proc.uptime(), 3)) if container.state is State.BACKOFF and due is not None else None


def _moment(seconds: float | None) -> str | None:
    """A time, given in seconds since 1970, in the form of all printed times."""
    if not seconds:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
