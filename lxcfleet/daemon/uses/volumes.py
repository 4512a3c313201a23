"""Volumes as the API has them: made, listed, and removed once no container has them any more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from lxcfleet.api.records import VolumeRecord
from lxcfleet.api.requests import CreateVolumeRequest, RemoveVolumesRequest
from lxcfleet.capacity.needs import Finding
from lxcfleet.containers.container import Container
from lxcfleet.containers.events import LeftoverRemoved
from lxcfleet.containers.measuring.delta_sizes import Looks
from lxcfleet.containers.registry import Registry
from lxcfleet.containers.room import Room
from lxcfleet.daemon.uses.events import VolumeChanged, VolumeCreated, VolumeRemoved
from lxcfleet.data import arrivals, volumes
from lxcfleet.errors import Broken, Busy, FleetError, NotFound, WrongState, from_body
from lxcfleet.fleets.volumes import VolumeChange
from lxcfleet.launcher.client import Launcher
from lxcfleet.launcher.items.data import VolumeItem
from lxcfleet.launcher.operations import CHANGE_VOLUME, MAKE_VOLUME, REMOVE_VOLUME
from lxcfleet.patch.rollout.claims import refuse_claimed
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.runtime.operations import Job, Operation, Operations, now
from lxcfleet.spec.container.volumes import Volume, volumes_of
from lxcfleet.spec.reading import ondisk
from lxcfleet.spec.reading.rows import rows_of
from lxcfleet.spec.results import Result
from lxcfleet.units import some

log = logging.getLogger(__name__)

_AT_ONCE = 2
_NAMED = 5
_HINT = "`lxcfleet volume list` shows the ones that exist"


class Volumes:
    """All volumes of this host."""

    def __init__(
        self, paths: Paths, registry: Registry, room: Room, launcher: Launcher, operations: Operations, bus: Bus,
        looks: Looks,
    ) -> None:  # fmt: skip
        self._paths = paths
        self._looks = looks
        self._registry = registry
        self._room = room
        self._launcher = launcher
        self._operations = operations
        self._bus = bus
        self._busy: set[str] = set()

    # -- reading ---------------------------------------------------------------------------------------------

    def records(self) -> list[VolumeRecord]:
        """All of them, by name. The space in use is told where the file system counts it."""
        return [self._record(name, volume) for name, volume in self._all()]

    async def info(self, name: str) -> VolumeRecord:
        """One of them, with the space in use where that can be added up in time; raises NotFound."""
        volume = self._get(name)
        record = self._record(name, volume)
        if record["used_bytes"] is None:
            record["used_bytes"] = await self._looks.within(self._paths.volume(name).data)
        return record

    def findings(self) -> list[Finding]:
        """The findings of `lxcfleet doctor` about volumes."""
        found = []
        for name, volume in self._all():
            if isinstance(volume, Broken):
                found.append(Finding("volumes", "fail", volume.message, hint=volume.why))
            elif volume.size and volumes.used(self._paths, volume) is None:
                message = f"the size of the volume {name} is not limited: its file system does not count its files"
                found.append(Finding("volumes", "warning", message, hint="mount it with prjquota, as it was before"))
        return found

    def _all(self) -> Iterator[tuple[str, Volume | Broken]]:
        for name in volumes.names(self._paths):
            volume = volumes.load(self._paths, name)
            if volume is not None:
                yield name, volume

    def _get(self, name: str) -> Volume | Broken:
        volume = volumes.load(self._paths, name) if name in volumes.names(self._paths) else None
        if volume is None:
            raise NotFound(f"no volume named {name}", hint=_HINT)
        return volume

    def _record(self, name: str, volume: Volume | Broken) -> VolumeRecord:
        known = volume if isinstance(volume, Volume) else Volume(name)
        return {
            "name": name,
            "size_bytes": known.size or None,
            "used_bytes": volumes.used(self._paths, known),
            "containers": self._users(name),
            "labels": dict(known.labels),
            "first_id": known.first_id or None,
            "created": known.created,
            "path": str(self._paths.volume(name).data),
            "problem": str(volume) if isinstance(volume, Broken) else None,
        }

    def _users(self, name: str) -> list[str]:
        """The containers that have it: by their specs, or by the spec of their run."""
        return [container.name for container in self._registry if self._has(container, name)]

    def _has(self, container: Container, name: str) -> bool:
        specs = [spec for spec in (container.spec, container.wanted) if spec is not None]
        if specs:
            return any(name in volumes_of(spec.volumes) for spec in specs)
        try:
            # The spec is broken. Whether it names the volume is not known for sure, so any mention counts.
            text = ondisk.text(self._paths.container(container.name).spec, errors="replace", most=ondisk.SMALL)
        except OSError:
            return True
        return f"{name}:" in text

    # -- changing --------------------------------------------------------------------------------------------

    async def create(self, ask: CreateVolumeRequest) -> Operation:
        """Begin to create a volume. Raises FleetError."""
        there = volumes.load(self._paths, ask.name)
        if there is not None:
            return self._there(ask, there)
        if ask.dry_run:
            lines = [f"{ask.name}: make {self._paths.volume(ask.name).directory}, with ids of its own"]
            return self._operations.dry("create volume", [Result(ask.name, "planned", True)], lines)

        async def job() -> Result:
            with self.in_hand(ask.name):
                await self._make(ask.name, ask.size, ask.labels)
            return Result(ask.name, "created", True)

        return self._operations.begin("create volume", [Job(ask.name, job)], _AT_ONCE)

    def _there(self, ask: CreateVolumeRequest, there: Volume | Broken) -> Operation:
        if isinstance(there, Broken):
            raise there
        if not ask.ensure:
            raise volumes.exists(ask.name)
        differs = {}
        for key in ("size", "labels"):
            row, has, asked = rows_of(Volume)[key], getattr(there, key), getattr(ask, key)
            if asked not in (has, row.default):
                differs[key] = row.tell(has), row.tell(asked)
        result = Result(ask.name, "unchanged", False, differs=differs)
        if ask.dry_run:
            return self._operations.dry("create volume", [result], [f"{ask.name}: exists"])

        async def job() -> Result:
            return result

        return self._operations.begin("create volume", [Job(ask.name, job)], _AT_ONCE)

    async def _make(self, name: str, size: int, labels: Mapping[str, str]) -> None:
        with self._room.ids() as take:
            item = VolumeItem(name=name, record=volumes.render(Volume(name, size, labels, take(), now())))
            answer = await self._launcher.ask(MAKE_VOLUME, item)
            if answer["error"]:
                raise from_body(answer["error"])
        self._bus.publish(VolumeCreated(name))

    # -- as a fleet file has them ----------------------------------------------------------------------------

    def present(self, names: Iterable[str]) -> dict[str, Volume | FleetError]:
        """Those that exist of these; an error for one that is broken."""
        there = {*volumes.names(self._paths)}
        found = {name: volumes.load(self._paths, name) for name in names if name in there}
        return {name: volume for name, volume in found.items() if volume is not None}

    async def check(self, changes: Sequence[VolumeChange]) -> None:
        """Raise FleetError if the host or a volume is in the way of a change."""
        for change in changes:
            size, now = change.values["size"], volumes.load(self._paths, change.name)
            if isinstance(now, Volume) and size != now.size:
                await asyncio.to_thread(volumes.refuse_too_small, self._paths, now, size)
                self._refuse_uncounted(now, size)
            if size:
                volumes.check_limit(self._paths, change.name)

    def _refuse_uncounted(self, volume: Volume, size: int) -> None:
        """Refuse a first size for a volume in use: files that are made while its files are looked through go uncounted."""
        running = [name for name in self._users(volume.name) if self._registry[name].running is not None]
        if size and running and volumes.used(self._paths, volume) is None:
            raise WrongState(
                f"the volume {volume.name} can't get a first size while containers that have it run",
                why=f"its files are not counted yet, and {running[0]} may make others meanwhile",
                hint=f"stop them first: lxcfleet stop {' '.join(running[:_NAMED])}{' …' if len(running) > _NAMED else ''}",
            )

    async def bring(self, change: VolumeChange) -> Result:
        """Make or change a volume. Raises FleetError."""
        with self.in_hand(change.name):
            there = volumes.load(self._paths, change.name)
            if there is None:
                await self._make(change.name, change.values["size"], change.values["labels"])
                return Result(change.name, "created", True)
            if isinstance(there, Broken):
                raise there
            wanted = replace(there, **change.values)
            self._refuse_uncounted(there, 0 if wanted.size == there.size else wanted.size)
            answer = await self._launcher.ask(CHANGE_VOLUME, VolumeItem(name=there.name, record=volumes.render(wanted)))
            if answer["error"]:
                raise from_body(answer["error"])
            self._bus.publish(VolumeChanged(change.name, ", ".join(change.differs)))
            return Result(change.name, "changed", True, differs=change.differs)

    async def remove(self, ask: RemoveVolumesRequest) -> Operation:
        """Begin to remove volumes, all or none of them. Raises FleetError."""
        await self._registry.observe()
        for name in ask.names:
            self._get(name)
            self._refuse_used(name)
        if ask.dry_run:
            lines = [f"{name}: take its name away, and remove all files on it" for name in ask.names]
            return self._operations.dry("remove volume", [Result(name, "planned", True) for name in ask.names], lines)
        return self._operations.begin("remove volume", [Job(name, self._removal(name)) for name in ask.names], _AT_ONCE)

    def _removal(self, name: str) -> Callable[[], Awaitable[Result]]:
        async def job() -> Result:
            with self.in_hand(name):
                self._get(name)
                self._refuse_used(name)
                volumes.retire(self._paths, name)
                await self.clean([each for each in volumes.leftovers(self._paths) if volumes.was(each, name)])
                self._bus.publish(VolumeRemoved(name))
            return Result(name, "removed", True)

        return job

    def _refuse_used(self, name: str) -> None:
        users = self._users(name)
        if users:
            raise WrongState(
                f"the volume {name} is in use", why=f"specs of these containers name it: {some(users, _NAMED)}",
                hint="destroy them, or take it out of their specs: lxcfleet set NAME volumes=…",
            )  # fmt: skip
        refuse_claimed(self._paths, self._registry, f"the volume {name}", lambda spec: name in volumes_of(spec.volumes))

    @contextmanager
    def in_hand(self, name: str) -> Iterator[None]:
        """Refuse others that would make, change or remove this volume meanwhile. Raises Busy."""
        if name in self._busy:
            raise Busy(f"the volume {name} is busy", hint="wait until that is done, then try again")
        self._busy.add(name)
        try:
            yield
        finally:
            self._busy.discard(name)

    async def clean(self, directories: Sequence[str]) -> None:
        """Remove directories that are left over. Raises the first failure after all were tried."""
        failure: FleetError | None = None
        for directory in directories:
            try:
                answer = await self._launcher.ask(REMOVE_VOLUME, directory)
            except FleetError as error:
                failure = failure or error
                continue
            if answer["error"]:
                failure = failure or from_body(answer["error"])
        if directories:
            self._room.reload()
        if failure is not None:
            raise failure

    def _left(self) -> list[str]:
        """The leftovers that nobody waits for. Volumes that came with a container, and could not get their names yet, have
        all of its data: they stay until they can."""
        left = volumes.leftovers(self._paths)
        try:
            every = [self._paths.container(container.name) for container in self._registry]
            awaited = {each for own in every for each in arrivals.awaited(own)}
        except (FleetError, OSError) as error:
            log.error("half made volumes are left as they are, as a container may wait for them: %s", error)
            return [each for each in left if not each.startswith(Paths.NEW_PREFIX)]
        return [each for each in left if each not in awaited]

    async def clean_up(self) -> None:
        """Remove what a crash left."""
        left = self._left()
        try:
            await self.clean(left)
        except FleetError as error:
            log.error("can't clean up: %s", error)
        for directory in left:
            if not (self._paths.volumes / directory).exists():
                self._bus.publish(LeftoverRemoved(directory))
