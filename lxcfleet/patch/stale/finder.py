"""Asks which containers run old code: the daemon's end of ``scan``."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lxcfleet.base.stack import delta, stack_for
from lxcfleet.containers.container import Container
from lxcfleet.containers.masks import MaskKeeper
from lxcfleet.containers.reconciling.bases import for_now
from lxcfleet.errors import from_body
from lxcfleet.host.net import dhcp
from lxcfleet.host.packages import losses
from lxcfleet.host.packages.losses import Loss, Losses
from lxcfleet.host.packages.sightings import Sighting, Sightings
from lxcfleet.launcher.client import Died, Launcher
from lxcfleet.launcher.items.looks import StaleItem, UnshadowItem
from lxcfleet.launcher.operations import SHADOWS, STALE, UNSHADOW
from lxcfleet.patch.shadow.files import ShadowFindings, in_layer
from lxcfleet.patch.stale.judge import StaleScan
from lxcfleet.patch.stale.scan import Target
from lxcfleet.patch.stale.served import DOCUMENTATION, ComparedFiles
from lxcfleet.patch.stale.settled import Settled
from lxcfleet.paths import Paths

_SHARE = 20
"""The number of containers for which a further process pays off."""
_MAX_SHARES = 4
_KILLED = "the process that looked at it was killed or took too long"


class Finder:
    """Finds old code in containers."""

    def __init__(self, paths: Paths, launcher: Launcher, mask: MaskKeeper, data: Callable[[], bool]) -> None:
        """``data``: whether the settings say that files which a container is served in their old version count."""
        self._paths, self._launcher, self._mask, self._data = paths, launcher, mask, data
        self._losses = Losses(paths.package_lists, paths.lost_files, DOCUMENTATION)
        self._sightings = Sightings(paths.package_sightings)
        self._seen: Mapping[str, Sighting] | None = None
        self._settled = Settled(paths)

    @property
    def data(self) -> bool:
        """Whether files that a container is served in their old version count by default."""
        return self._data()

    @property
    def blind(self) -> str:
        """The reason why files that packages have no more can't be found; empty: they can."""
        return self._losses.problem

    async def note_lists(self) -> None:
        """Note the files that packages have now, as a patch may take some of them away, and which packages changed."""
        await asyncio.to_thread(self._losses.update, time.time())
        self._seen = await asyncio.to_thread(self._sightings.update)

    async def lost(self) -> list[Loss]:
        """The files that packages had since lxcfleet began to look, and have no more. ``blind`` says why that may be less."""
        await self.note_lists()
        return await asyncio.to_thread(losses.read, self._paths.lost_files)

    async def kept(self, containers: Iterable[Container], paths: Collection[str]) -> dict[str, tuple[str, ...]]:
        """Those of ``paths`` that each container has in its delta, by name; without containers that have none.

        A container whose delta can't be read is left out: ``shadows`` tells of that.
        """
        tops = {container.name: delta(self._paths, container.name) for container in containers} if paths else {}
        found = await asyncio.to_thread(lambda: {name: in_layer(top, paths) for name, top in tops.items()})
        return {name: there for name, there in found.items() if there}

    async def scan(self, containers: Iterable[Container], wanted: ComparedFiles | None = None) -> dict[str, StaleScan]:
        """The findings in each container by name; none for one that does not run. Raises FleetError.

        ``wanted``: the served files that are compared; None: as the settings say.
        Takes 0.1 s for 100 containers with 500 processes.
        """
        chosen = list(containers)
        clients = dhcp.known(self._paths)
        targets = [target for container in chosen if (target := self._target(container, clients)) is not None]
        found = {container.name: self._unseen(container) for container in chosen}
        based = {container.name: base for container in chosen if (base := for_now(container))}
        if targets:
            await self._mask.have()
            shares = min(os.cpu_count() or 1, _MAX_SHARES, -(-len(targets) // _SHARE))
            files = wanted or (ComparedFiles() if self.data else None)
            what = None if files is None else files.to_json()
            await self.note_lists()
            began = {container.name: container.running.began for container in chosen if container.running is not None}
            targets = await asyncio.to_thread(self._settled.without_slack, targets, began, self._seen)
            items = [target.to_json() for target in targets]
            asked = (self._ask(StaleItem(wanted=what, targets=items[number::shares])) for number in range(shares))
            for answer in await asyncio.gather(*asked):
                found |= {scan.name: scan for scan in answer}
        return {**found, **{name: replace(found[name], base=base) for name, base in based.items()}}

    async def _ask(self, item: StaleItem) -> list[StaleScan]:
        """The findings in some containers. If one of them is the end of the process that looks, that one is not known."""
        targets = item["targets"]
        try:
            answer = await self._launcher.ask_large(STALE, item)
        except Died:
            if len(targets) > 1:
                each = [await self._ask(StaleItem(wanted=item["wanted"], targets=[target])) for target in targets]
                return [scan for scans in each for scan in scans]
            return [StaleScan(targets[0]["name"], 0, 0, problem=_KILLED)]
        return [StaleScan.from_json(each) for each in answer]

    async def shadows(self, containers: Iterable[Container]) -> dict[str, ShadowFindings]:
        """The shadows in each container's layers by name, whether it runs or not. Raises FleetError."""
        items = [(each.name, stack_for(self._paths, each.name, each.spec, live=True).to_json()) for each in containers]
        if not items:
            return {}
        await self._mask.have()
        return {delta.name: delta for delta in await self._ask_shadows(items)}

    async def _ask_shadows(self, items: list[tuple[str, Any]]) -> list[ShadowFindings]:
        try:
            answer = await self._launcher.ask_large(SHADOWS, items)
        except Died:
            if len(items) > 1:
                return [delta for item in items for delta in await self._ask_shadows([item])]
            return [ShadowFindings(items[0][0], problem=_KILLED)]
        return [ShadowFindings.from_json(each) for each in answer]

    async def remove(self, container: Container, paths: Sequence[str], records: Mapping[str, str]) -> None:
        """Remove files from the delta of a container that does not run, and give it these records of packages in place of its
        own. Raises FleetError."""
        top = delta(self._paths, container.name).source
        item = UnshadowItem(name=container.name, delta=top, paths=list(paths), records=dict(records))
        answer = await self._launcher.ask(UNSHADOW, item)
        if answer["error"]:
            raise from_body(answer["error"])

    def _unseen(self, container: Container) -> StaleScan:
        """The result without a look: a container that does not run has no old code."""
        lost = container.running is not None and container.running.payload.directory is None
        return StaleScan(container.name, 0, 0, problem="its cgroup was not found" if lost else "")

    def _target(self, container: Container, clients: Collection[str]) -> Target | None:
        running = container.running
        if running is None or running.payload.directory is None:
            return None
        stack = stack_for(self._paths, container.name, container.spec, live=True)
        client = dhcp.DhcpClient(container.name, self._paths).running() if container.name in clients else None
        place = str(running.payload.directory)
        return Target(container.name, running.pid, place, stack, running.since, running.monitor, client)
