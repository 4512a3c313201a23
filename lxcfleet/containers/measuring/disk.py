"""The disk space of deltas and volumes by path, and the changes that a container made. Children of the launcher look, and at
most two of them at once: somebody's large tree keeps nobody else waiting for long. Users who may only read have a place of
their own, so that questions without end keep no administrator waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from lxcfleet.api.disk import DiffRecord, DiffRequest, DiskPathRecord, DiskRecord, DiskRequest, PathChangeRecord
from lxcfleet.base.stack import delta, stack_for
from lxcfleet.containers.container import Container
from lxcfleet.containers.masks import MaskKeeper
from lxcfleet.containers.registry import Registry
from lxcfleet.data import volumes
from lxcfleet.errors import Busy, NotFound
from lxcfleet.launcher.client import Died, Launcher
from lxcfleet.launcher.items.looks import DiffItem, UsageItem, Used
from lxcfleet.launcher.operations import DIFF, USED
from lxcfleet.paths import Paths
from lxcfleet.spec.container.volumes import volumes_of

AT_ONCE = 2
READERS_AT_ONCE = 1
READERS_ASKING = 4
"""So many questions of those who may only read may be answered or wait."""
SECONDS = 20.0
"""For one delta or volume when many are asked for; ten million files take about that long."""
ALONE_SECONDS = 60.0
"""For one that is asked for alone."""
_KILLED = "the process that looked was killed before it was done"

T = TypeVar("T")
Target = tuple[str, str]
"""The name of a container or volume, and its directory."""


class DiskUse:
    """Looks at deltas and volumes when somebody asks."""

    def __init__(
        self, paths: Paths, registry: Registry, launcher: Launcher, mask: MaskKeeper, *, at_once: int = AT_ONCE,
        asking: int | None = None,
    ) -> None:  # fmt: skip
        """``asking``: so many questions may be answered or wait; further ones are refused."""
        self._paths, self._registry, self._launcher, self._mask = paths, registry, launcher, mask
        self._at_once, self._most, self._asking = at_once, asking, 0
        self._slots = asyncio.Semaphore(at_once)

    def for_readers(self) -> DiskUse:
        """The same for those who may only read."""
        return DiskUse(
            self._paths, self._registry, self._launcher, self._mask, at_once=READERS_AT_ONCE, asking=READERS_ASKING
        )

    async def used(self, ask: DiskRequest) -> list[DiskRecord]:
        """The disk space of the chosen containers' deltas, or of all; with ``volumes`` also of their volumes, or of all.
        Raises FleetError."""
        with self._counted():
            return await self._used(ask)

    async def diff(self, ask: DiffRequest) -> DiffRecord:
        """The changes that one container made. Raises FleetError."""
        with self._counted():
            return await self._diff(ask)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        if self._most is not None and self._asking >= self._most:
            what = f"{self._most} questions about the disk are being answered for those who may only read"
            raise Busy(what, hint="try again in a minute")
        self._asking += 1
        try:
            yield
        finally:
            self._asking -= 1

    async def _in_a_slot(self, work: Coroutine[Any, Any, T]) -> T:
        """Have one child look, once there is a slot for it, which it has until its end, also if whoever asked has gone."""
        try:
            await self._slots.acquire()
        except asyncio.CancelledError:
            work.close()
            raise
        task = asyncio.ensure_future(work)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._slots.release()
        if not task.cancelled():
            task.exception()  # whoever asked may be gone, and nobody else is told of it

    async def _used(self, ask: DiskRequest) -> list[DiskRecord]:
        chosen = await self._registry.chosen(ask.selection)
        containers = [(each.name, delta(self._paths, each.name).source) for each in chosen]
        volumes = self._volumes(chosen, ask) if ask.volumes else []
        seconds = ALONE_SECONDS if len(containers) + len(volumes) == 1 else SECONDS
        kinds = (("container", containers), ("volume", volumes))
        return [each for kind, targets in kinds for each in await self._all(kind, targets, ask, seconds)]

    async def _diff(self, ask: DiffRequest) -> DiffRecord:
        await self._registry.observe()
        if ask.name not in self._registry:
            raise NotFound(f"no container named {ask.name}", hint="`lxcfleet list` shows the ones that exist")
        container = self._registry[ask.name]
        await self._mask.have()
        if container.spec is not None and container.spec.generation:
            await self._mask.refresh([container.spec.generation])
        item: DiffItem = {
            "name": container.name,
            "stack": stack_for(self._paths, container.name, container.spec).to_json(),
            "first_id": container.spec.first_id if container.spec is not None else None,
            "path": "" if ask.path == "/" else ask.path,
            "most": ask.most,
            "seconds": ALONE_SECONDS,
        }
        found = await self._in_a_slot(self._launcher.ask_large(DIFF, item))
        return {
            "name": container.name,
            "path": ask.path,
            "changed": bool(found["counts"]),
            "counts": found["counts"],
            "changes": [cast(PathChangeRecord, each) for each in found["changes"]],
            "items": found["items"],
            "cut": found["cut"],
        }

    def _volumes(self, chosen: Sequence[Container], ask: DiskRequest) -> list[Target]:
        names = volumes.names(self._paths)
        if ask.selection.narrow:
            wanted = {name for each in chosen if each.spec is not None for name in volumes_of(each.spec.volumes)}
            names = [name for name in names if name in wanted]
        return [(name, str(self._paths.volume(name).data)) for name in names]

    async def _all(self, kind: str, targets: Sequence[Target], ask: DiskRequest, seconds: float) -> list[DiskRecord]:
        shares = [targets[number :: self._at_once] for number in range(self._at_once)]
        answers = await asyncio.gather(*(self._look(kind, share, ask, seconds) for share in shares if share))
        found = {record["name"]: record for answer in answers for record in answer}
        return [found[name] for name, _ in targets]

    async def _look(self, kind: str, targets: Sequence[Target], ask: DiskRequest, seconds: float) -> list[DiskRecord]:
        """The records of some. If one of them is the end of the process that looks, that one is not known."""
        try:
            item: UsageItem = {"targets": [*targets], "depth": ask.depth, "top": ask.top, "seconds": seconds}
            found = await self._in_a_slot(self._launcher.ask_large(USED, item))
        except Died:
            if len(targets) > 1:
                each = [await self._look(kind, [target], ask, seconds) for target in targets]
                return [record for records in each for record in records]
            nothing: Used = {
                "name": targets[0][0], "paths": [], "cut": True,
                "whole": {"path": "/", "disk_bytes": 0, "apparent_bytes": 0, "items": 0},
            }  # fmt: skip
            return [_record(kind, nothing, _KILLED)]
        return [_record(kind, each, None) for each in found]


def _record(kind: str, found: Used, problem: str | None) -> DiskRecord:
    whole = found["whole"]
    return {
        "name": found["name"],
        "kind": kind,
        "disk_bytes": whole["disk_bytes"],
        "apparent_bytes": whole["apparent_bytes"],
        "items": whole["items"],
        "paths": [cast(DiskPathRecord, each) for each in found["paths"]],
        "cut": found["cut"],
        "problem": problem,
    }
