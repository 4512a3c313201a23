"""Volumes that come with containers, in their archives: which are made, under which names, and how they get these."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from lxcfleet.containers.registry import Registry
from lxcfleet.containers.room import Room
from lxcfleet.daemon.uses.events import VolumeCreated
from lxcfleet.daemon.uses.volumes import Volumes
from lxcfleet.data import arrivals, volumes
from lxcfleet.data.archives.entries import refused
from lxcfleet.data.archives.head import ArchiveHead
from lxcfleet.errors import FleetError, HostError, InvalidInput
from lxcfleet.launcher.items.archives import ArrivalItem
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.runtime.operations import now
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.container.volumes import MountKind, Volume, check_mounts, check_volume, volumes_of
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.units import as_size, some

log = logging.getLogger(__name__)

_NAMED = 5


@dataclass(frozen=True)
class WantedVolumes:
    """Which volumes are made of an archive; see api.archives.ImportVolumes."""

    names: Mapping[str, str]
    keep: bool


@dataclass(frozen=True)
class Coming:
    """A volume that is made of an archive's files."""

    archived: Volume
    """As it was on its host."""
    volume: Volume
    """As it will be here; without ids still."""


def parse(fields: Fields) -> WantedVolumes | None:
    """The part of a request that concerns volumes; None: their files stay in the archive. Complaints go to ``fields``."""
    if not fields.has("volumes"):
        return None
    within = fields.nested("volumes")
    names = within.pairs("names", lambda old, new: (check_volume(old), check_volume(new)))
    found = WantedVolumes(names, within.flag("keep"))
    within.close()
    return found


class VolumeArrivals:
    """Makes the volumes that come with containers."""

    def __init__(self, paths: Paths, registry: Registry, room: Room, every: Volumes, bus: Bus) -> None:
        self._paths, self._registry, self._room, self._volumes, self._bus = paths, registry, room, every, bus

    def choose(self, head: ArchiveHead, spec: Spec, wanted: WantedVolumes | None) -> tuple[Spec, list[Coming], list[str]]:
        """The spec with the names that its volumes have here, those that are made, and what the operator should know.

        Raises FleetError.
        """
        if wanted is None:
            names = [each.name for each in head.volumes]
            told = [f"files of volumes are in the archive, and were left there: {some(names, _NAMED)}"] if names else []
            return spec, [], told
        there = {each.name: each for each in head.volumes}
        if unknown := sorted({*wanted.names} - {*there}):
            raise InvalidInput(f"the archive has no files of the volume {unknown[0]}", why=f"it has {_list(there)}")
        _refuse_strange(head, spec)
        spec = replace(spec, volumes=tuple(
            replace(each, what=wanted.names.get(each.what, each.what)) if each.source is MountKind.VOLUME else each
            for each in spec.volumes
        ))  # fmt: skip
        check_mounts(spec.volumes)
        coming, told = [], []
        for name, archived in there.items():
            here = wanted.names.get(name, name)
            if wanted.keep and volumes.load(self._paths, here) is not None:
                told.append(f"the volume {here} is here already, and stays as it is: its files are left in the archive")
                continue
            arrivals.refuse_present(self._paths, here)
            made, note = self._limited(Volume(here, archived.size, archived.labels, created=now()))
            coming.append(Coming(archived, made))
            told += note
        twice = {each.volume.name for each in coming}
        if len(twice) < len(coming):
            raise InvalidInput("two volumes of the archive can't have the same name here")
        return spec, coming, told

    def unpacked_to_check(self, head: ArchiveHead, spec: Spec) -> list[Coming]:
        """The volumes of an archive that is only checked; none of them is limited. Raises InvalidInput."""
        _refuse_strange(head, spec)
        return [Coming(each, replace(each, size=0)) for each in head.volumes]

    def _limited(self, volume: Volume) -> tuple[Volume, list[str]]:
        """The volume without its size if this host can't limit it: its files are worth more than that."""
        if volume.size:
            try:
                volumes.check_limit(self._paths, volume.name)
            except FleetError as error:
                text = f"the volume {volume.name} is not limited to {as_size(volume.size)} any more: {error.why}"
                return replace(volume, size=0), [text]
        return volume, []

    @contextmanager
    def held(self, coming: Sequence[Coming]) -> Iterator[list[ArrivalItem]]:
        """Give them ids, and keep others from their names meanwhile. Raises FleetError."""
        with ExitStack() as held:
            for each in coming:
                held.enter_context(self._volumes.in_hand(each.volume.name))
                arrivals.refuse_present(self._paths, each.volume.name)
            take = held.enter_context(self._room.ids())
            yield [self.item(each, take) for each in coming]

    def item(self, each: Coming, take: Callable[[], int]) -> ArrivalItem:
        """The item for a child about it, with a range of ids that ``take`` gives; see containers.room. Raises NoCapacity."""
        made = replace(each.volume, first_id=take())
        return {
            "archived": each.archived.name, "had": each.archived.first_id or None,
            "directory": arrivals.directory(made.name, secrets.token_hex(4)), "name": made.name,
            "record": volumes.render(made),
        }  # fmt: skip

    async def remove(self, items: Sequence[ArrivalItem]) -> None:
        """Remove what is left of volumes that were not made. Raises FleetError."""
        there = {*volumes.leftovers(self._paths)}
        await self._volumes.clean([each["directory"] for each in items if each["directory"] in there])

    def finish(self, names: Collection[str]) -> list[str]:
        """Give the volumes that came with these containers their names, and have that told. Raises HostError, Broken."""
        made = []
        for container in names:
            try:
                made += arrivals.finish(self._paths, self._paths.container(container))
            except OSError as error:
                raise HostError.from_os_error(
                    f"the volumes that came with {container} are not all there", error,
                    hint="the next start of lxcfleetd tries it again",
                ) from error  # fmt: skip
        for name in made:
            self._bus.publish(VolumeCreated(name))
        return made

    def recover(self) -> None:
        """Finish what an earlier daemon did not."""
        for container in list(self._registry):
            try:
                self.finish([container.name])
            except FleetError as error:
                log.error("%s", error)


def _refuse_strange(head: ArchiveHead, spec: Spec) -> None:
    """Refuse an archive with volumes that its container does not have: of its own there are not many."""
    if strange := sorted({each.name for each in head.volumes} - {*volumes_of(spec.volumes)}):
        raise refused(f"it has files of the volume {strange[0]}, which its container does not have")


def _list(names: Mapping[str, Volume]) -> str:
    return f"those of {some([*names], _NAMED)}" if names else "none of any"
