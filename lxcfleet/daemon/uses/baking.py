"""Builds releases of apps: a throwaway clone on the present base runs a command, and what that leaves at one path is sealed.

The clones are noted on disk before they are made, so whatever is killed, the next daemon destroys them. Nothing else is.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from lxcfleet.api.apps import BakeAppRequest
from lxcfleet.api.requests import CreateRequest
from lxcfleet.containers.container import Container
from lxcfleet.daemon.uses.apps import Apps
from lxcfleet.daemon.uses.service import Fleet
from lxcfleet.errors import Busy, Cancelled, FleetError, HostError, InvalidInput, WrongState, from_body
from lxcfleet.host.kernel import tree
from lxcfleet.host.packages import database
from lxcfleet.patch.verify.evidence import fingerprint
from lxcfleet.paths import Paths
from lxcfleet.runtime.operations import Job, Operation, now
from lxcfleet.spec.container.apps import ROOT, AppForm, Release, usual_target
from lxcfleet.spec.container.restart import Restart
from lxcfleet.spec.reading import ondisk
from lxcfleet.spec.reading.names import first
from lxcfleet.spec.reading.terms import Init
from lxcfleet.spec.results import Result
from lxcfleet.spec.states import Action

log = logging.getLogger(__name__)

LABEL = "lxcfleet.bake"
"""The label of the clones, with the release as its value."""
PREFIX = "bake"
_AT_ONCE = 2
_LOOK_SECONDS = 0.2
_LINES = 5


class Baking:
    """``app bake``."""

    def __init__(self, paths: Paths, fleet: Fleet, apps: Apps) -> None:
        self._paths, self._fleet, self._apps = paths, fleet, apps

    async def begin(self, ask: BakeAppRequest) -> Operation:
        """Begin to build a release. Raises FleetError."""
        self._fleet.draining.refuse("no app is baked: the clone that builds it could not start")
        form = AppForm(ask.form)
        release = Release(ask.name, ask.version, created=now(), source="baked", form=form, covers=tuple(ask.covers))
        self._apps.refuse_present(release)
        place = ask.path or (ROOT if form is AppForm.LAYER else usual_target(ask.name))
        if form is AppForm.MOUNT and os.path.isdir(place) and os.listdir(place):
            raise InvalidInput(
                f"{place} can't be baked", why="the host has files there, of which a clone would leave only its changes",
                hint="name another place: --path",
            )  # fmt: skip
        if ask.dry_run:
            create = self._request(ask, release, self._free_name())
            checked = await self._fleet.create(replace(create, dry_run=True))
            lines = [*checked.plan, f"{release.release}: seal what {place} has then, and destroy {create.name}"]
            return self._fleet.operations.dry("bake app", [Result(release.release, "planned", True)], lines)

        operation: Operation | None = None

        def broken_off() -> bool:
            return operation is not None and operation.cancelled

        async def job() -> Result:
            with self._apps.in_hand(release.release):
                await self._bake(ask, release, place, broken_off)
                notes = self._apps.told(release) + await self._apps.prune(ask.name, ask.version, ask.keep)
            return Result(release.release, "baked", True, notes=notes)

        operation = self._fleet.operations.begin("bake app", [Job(release.release, job)], _AT_ONCE)
        return operation

    def _free_name(self) -> str:
        """A name for a clone that neither a container has nor another build, whose clone may not be made yet."""
        taken = {*self._noted(), *(each.name for each in self._fleet.registry)}
        return next(name for name in first(PREFIX, len(taken) + 1) if name not in taken)

    def _request(self, ask: BakeAppRequest, release: Release, name: str) -> CreateRequest:
        """The request for the clone: it runs the command once, whatever its profile says."""
        own: dict[str, Any] = {
            "init": Init.APP, "restart": Restart(), "autostart": False, "health": None, "depends_on": {}, "app": None,
        }  # fmt: skip
        labels: Mapping[str, str] = ask.said.get("labels", {})
        said = {**ask.said, **own, "labels": {**labels, LABEL: release.release}}
        return CreateRequest(name=name, said={key: value for key, value in said.items() if value is not None})

    async def _bake(self, ask: BakeAppRequest, release: Release, place: str, broken_off: Callable[[], bool]) -> None:
        name = self._free_name()
        create = self._request(ask, release, name)
        self._note(name, there=True)
        try:
            installed = await asyncio.to_thread(database.installed)
            made = await self._fleet.create(create)
            async for _ in made.follow():
                pass
            for result in made.results:
                if result.error is not None and not self._has_ended(name):
                    failed = from_body(result.error)
                    failed.hint = "nothing of it was kept"
                    raise failed
            container = self._fleet.registry[name]
            await self._until_end(container, ask.timeout, broken_off)
            base = fingerprint(installed)
            delta = self._paths.container(name).delta
            await self._apps.seal(replace(release, base=base), delta, inside=place)
        finally:
            await self._destroy(name)

    def _has_ended(self, name: str) -> bool:
        """Whether the command ran, and has ended. As it ended at once, its end is the error of the start."""
        return name in self._fleet.registry and self._fleet.registry[name].exit is not None

    async def _until_end(self, container: Container, seconds: float, broken_off: Callable[[], bool]) -> None:
        """Wait for the command's end. Raises FleetError unless that was good, and Cancelled once it is ``broken_off``."""
        deadline = asyncio.get_running_loop().time() + seconds
        while container.running is not None or container.busy is not None:
            if asyncio.get_running_loop().time() > deadline:
                raise HostError(
                    "the command did not end in time", why=f"it took more than {seconds:g} s", hint="give it more: --timeout"
                )
            if self._fleet.prerequisites.ending:
                raise HostError("the daemon ended while the command ran", hint="begin it anew")
            if broken_off():
                raise Cancelled("the command was ended", why="the operation was cancelled", hint="nothing of it was kept")
            await asyncio.sleep(_LOOK_SECONDS)
        ended = container.exit
        if ended is None or ended.exit_status != 0:
            lines = ended.lines[-_LINES:] if ended is not None else ()
            words = ended.words if ended is not None else "how it ended is not known"
            raise WrongState("the command failed", why="\n".join((words, *lines)), hint="nothing of it was kept")

    # -- what may not stay -----------------------------------------------------------------------------------

    async def _destroy(self, name: str) -> None:
        registry = self._fleet.registry
        if name in registry:
            container = registry[name]
            if container.wanted is not None and LABEL not in container.wanted.labels:
                log.error("%s is left alone: it is no clone that built an app", name)
            else:
                try:
                    await self._destroy_when_free(container)
                except FleetError as error:
                    log.error("%s, which built an app, can't be destroyed: %s", name, error)
                    return  # the note stays, so the next daemon tries again
        self._note(name, there=False)

    async def _destroy_when_free(self, container: Container) -> None:
        """Destroy it once nothing else is done to it: a new daemon goes on with a start that was broken off. Raises
        FleetError; Busy once the daemon ends, which waits for nobody's snapshot."""
        while self._fleet.registry.knows(container):
            try:
                await self._fleet.actions.act(container, Action.DESTROY, 0.0)
            except Busy:
                if self._fleet.prerequisites.ending:
                    raise
                await asyncio.sleep(_LOOK_SECONDS)

    async def clean_up(self) -> None:
        """Destroy the clones that a crash left."""
        for name in self._noted():
            await self._destroy(name)

    def _noted(self) -> list[str]:
        try:
            return [str(name) for name in ondisk.record(self._paths.bakes)]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as error:
            log.error("%s can't be read: %s. Clones that built apps may be left", self._paths.bakes, error)
            return []

    def _note(self, name: str, *, there: bool) -> None:
        names = {*self._noted()} | {name} if there else {*self._noted()} - {name}
        try:
            self._paths.apps.mkdir(mode=0o700, parents=True, exist_ok=True)
            tree.write(self._paths.bakes, json.dumps(sorted(names)), sync=True)
        except OSError as error:
            raise HostError.from_os_error("the clone that is to build the app can't be noted", error) from error
