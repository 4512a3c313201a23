"""Copies of containers' deltas for their throwaway clones."""

from __future__ import annotations

from lxcfleet.containers.container import Container
from lxcfleet.containers.copies.copy_cost import CopyCost
from lxcfleet.containers.copies.snapshot_files import SnapshotFiles
from lxcfleet.containers.copies.stillness import Stillness
from lxcfleet.containers.registry import Registry
from lxcfleet.errors import Broken, NotFound
from lxcfleet.paths import Paths

_HINT = "--yes does it; without --delta copy the clone's delta is empty"


class DeltaCopies:
    """Makes such copies. One that runs is frozen meanwhile, so that the copy is of one moment."""

    def __init__(
        self, paths: Paths, registry: Registry, cost: CopyCost, stillness: Stillness, files: SnapshotFiles
    ) -> None:
        self._paths, self._registry, self._cost, self._stillness, self._files = paths, registry, cost, stillness, files

    async def check(self, container: Container, *, yes: bool) -> None:
        """Refuse a copy that there is no room for, or, unless ``yes``, that is a large one. Raises FleetError."""
        await self._cost.of([(container.name, str(self._paths.container(container.name).delta))], yes=yes, hint=_HINT)

    async def copy(self, source: str, clone: Container) -> list[str]:
        """Give the clone, which has never run, a copy of the container's delta; what is to be told. Raises FleetError."""
        if source not in self._registry:
            raise NotFound(f"no container named {source}", why="it was destroyed meanwhile")
        container = self._registry[source]
        if container.wanted is None or clone.wanted is None:
            raise container.problem or clone.problem or Broken(f"{source} is broken")
        async with self._stillness.hold(container, "rehearsal") as still:
            await self._files.double(source, container.wanted.first_id or 0, clone.name, clone.wanted.first_id or 0)
        frozen = f"{source} was frozen for {still.frozen_ms} ms, for the copy of its delta"
        return [*still.notes, *([] if still.frozen_ms is None else [frozen])]
