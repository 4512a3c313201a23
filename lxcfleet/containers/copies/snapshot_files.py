"""Snapshots on disk, as the daemon has them made and removed: by children of the launcher."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from typing import Any

from lxcfleet.containers.events import LeftoverRemoved
from lxcfleet.data import snapshots
from lxcfleet.data.snapshots import Snapshot
from lxcfleet.errors import FleetError, HostError, WrongState, from_body
from lxcfleet.launcher.client import Launcher
from lxcfleet.launcher.items.containers import Done
from lxcfleet.launcher.items.snapshots import DoubleItem, RestoreItem, SealItem, SnapshotItem, SnapshotPlace
from lxcfleet.launcher.operations import (
    DOUBLE_DELTA,
    FINISH_RESTORE,
    REMOVE_SNAPSHOT,
    RESTORE_SNAPSHOT,
    SEAL_SNAPSHOT,
    SNAPSHOT_PLACE,
    TAKE_SNAPSHOT,
)
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.units import some

log = logging.getLogger(__name__)

_NAMED = 3


class SnapshotFiles:
    """All snapshots of this fleet."""

    def __init__(self, paths: Paths, launcher: Launcher, bus: Bus) -> None:
        self.paths = paths
        self._launcher = launcher
        self._bus = bus
        self._copies: set[asyncio.Task[Done]] = set()
        self._ending = False

    def refuse(self, container: str, *, moves: bool = False, removed: bool = False) -> None:
        """Raise WrongState if a container that is to be destroyed, or moved, has snapshots; those that are to be ``removed``
        with it must not be read just now, else raise Busy."""
        there = snapshots.names(self.paths, container)
        if removed:
            for name in there:
                with snapshots.unread(self.paths, container, name):
                    pass
            return
        if there and moves:
            raise WrongState(
                f"{container} has snapshots, which do not go along; it was not moved", why=some(there, _NAMED),
                hint=f"leave its files and snapshots here: --keep; or remove these: `lxcfleet snapshot rm {container} --all`",
            )  # fmt: skip
        if there:
            raise WrongState(
                f"{container} has snapshots and was not destroyed", why=some(there, _NAMED),
                hint=f"`lxcfleet destroy {container} --with-snapshots` removes them too; `lxcfleet snapshot rm`, single ones",
            )  # fmt: skip

    async def place(self) -> SnapshotPlace:
        """Whether snapshots share blocks with the containers, and how much room there is. Raises FleetError."""
        found = await self._launcher.ask(SNAPSHOT_PLACE, None)
        if found["error"]:
            raise from_body(found["error"])
        return found

    async def take(self, container: str, name: str) -> None:
        """Copy a container's delta. Raises FleetError; then nothing of it is left, if that is possible."""
        try:
            await self._copied(self._launcher.ask(TAKE_SNAPSHOT, SnapshotItem(container=container, name=name)))
        except FleetError:
            await self.drop(container, name)
            raise

    async def double(self, container: str, first_id: int, to: str, to_first_id: int) -> None:
        """Give ``to``, which has never run, a copy of a container's delta; see data.doubles. Raises FleetError."""
        item = DoubleItem(container=container, first_id=first_id, to=to, to_first_id=to_first_id)
        await self._copied(self._launcher.ask(DOUBLE_DELTA, item))

    async def _copied(self, asked: Coroutine[Any, Any, Done]) -> None:
        """Wait for a copy. Raises FleetError, also if it is broken off."""
        task = asyncio.get_running_loop().create_task(asked)
        self._copies.add(task)
        try:
            _check(await task)
        except asyncio.CancelledError:
            if not self._ending or not task.cancelled():
                task.cancel()
                raise
            raise HostError("the copy was broken off", why="lxcfleetd ends") from None
        finally:
            self._copies.discard(task)

    def break_off(self) -> None:
        """The daemon ends, and breaks copies off: a container that is frozen for one would stay so until the next daemon."""
        self._ending = True
        for task in [*self._copies]:
            task.cancel()

    async def drop(self, container: str, name: str) -> None:
        """Remove a copy that does not become a snapshot. What can't be removed now, the next daemon removes."""
        try:
            await self._remove(container, f"{self.paths.NEW_PREFIX}{name}")
        except FleetError as error:
            log.warning("%s", error)

    async def seal(self, snapshot: Snapshot) -> None:
        """Give a copy its name. Raises FleetError."""
        item = SealItem(container=snapshot.container, record=snapshots.dump(snapshot))
        _check(await self._launcher.ask(SEAL_SNAPSHOT, item))

    async def restore(self, container: str, name: str, kept: Snapshot | None) -> None:
        """Give a container that does not run the delta of its snapshot; see data.restoring. Raises FleetError."""
        text = None if kept is None else snapshots.dump(kept)
        try:
            item = RestoreItem(container=container, name=name, kept=text)
            await self._copied(self._launcher.ask(RESTORE_SNAPSHOT, item))
        except FleetError:
            await self.finish([container])
            await self.clean(self.set_aside(container))
            raise

    async def finish(self, containers: Iterable[str]) -> None:
        """Do the rest of restorations that were broken off."""
        for container in containers:
            if not self.paths.container(container).restoring.exists():
                continue
            try:
                done = await self._launcher.ask(FINISH_RESTORE, container)
                _check(done)
            except FleetError as error:
                log.error("%s", error)
            else:
                for name in done["notes"]:
                    log.info("%s has got the delta of its snapshot %s: that was broken off", container, name)

    async def remove(self, container: str, name: str) -> None:
        """Remove a snapshot. Raises FleetError."""
        gone = snapshots.retire(self.paths, container, name)
        if gone:
            await self._remove(container, gone)

    async def remove_all(self, container: str) -> None:
        """Remove all snapshots of a container that was destroyed. Raises FleetError."""
        for name in snapshots.names(self.paths, container):
            await self.remove(container, name)
        snapshots.remove_empty(self.paths, container)

    async def _remove(self, container: str, directory: str) -> None:
        _check(await self._launcher.ask(REMOVE_SNAPSHOT, SnapshotItem(container=container, name=directory)))

    def set_aside(self, only: str = "") -> list[tuple[str, str]]:
        """Give what is half made a name under which it waits to be removed; gives all that waits for that, as containers and
        directories. ``only``: of this container."""
        snapshots.remove_empty(self.paths, only)  # of one that was killed before it had anything in it
        left = []
        for container, directory in snapshots.leftovers(self.paths):
            if only in ("", container):
                try:
                    left.append((container, snapshots.set_aside(self.paths, container, directory)))
                except FleetError as error:
                    log.error("can't clean up: %s", error)
        return left

    async def clean(self, directories: Iterable[tuple[str, str]]) -> None:
        """Remove what waits for that."""
        for container, directory in directories:
            try:
                await self._remove(container, directory)
            except FleetError as error:
                log.error("can't clean up: %s", error)
            else:
                self._bus.publish(LeftoverRemoved(f"{container}/{directory}"))


def _check(done: Done) -> None:
    if done["error"]:
        raise from_body(done["error"])
