"""Apps as the API has them: releases are sealed, listed, looked at, and removed once no container has them any more."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from lxcfleet.api.apps import AddAppRequest, AppCheckRecord, AppRecord, NamedAppsRequest
from lxcfleet.containers.apps import AppSealed, has_release
from lxcfleet.containers.events import LeftoverRemoved
from lxcfleet.containers.registry import Registry
from lxcfleet.daemon.uses.events import AppRemoved
from lxcfleet.data.apps import store
from lxcfleet.errors import AlreadyExists, Broken, Busy, FleetError, NotFound, WrongState, from_body
from lxcfleet.host.packages import database
from lxcfleet.launcher.client import Launcher
from lxcfleet.launcher.items.data import AppItem
from lxcfleet.launcher.operations import REMOVE_APP, SEAL_APP, VERIFY_APP
from lxcfleet.patch.rollout.claims import refuse_claimed
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.runtime.operations import Job, Operation, Operations, now
from lxcfleet.spec.container.apps import AppForm, Release, outdated, parse_release
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.results import Result
from lxcfleet.units import some

log = logging.getLogger(__name__)

_AT_ONCE = 2
_NAMED = 5
_HINT = "`lxcfleet app list` shows the ones that exist"


class Apps:
    """All releases of apps of this host."""

    def __init__(
        self,
        paths: Paths,
        registry: Registry,
        launcher: Launcher,
        operations: Operations,
        bus: Bus,
        keep: Callable[[str], int],
        needed: Callable[[], Collection[str]],
    ) -> None:
        """``keep``: how many releases of an app are kept, 0: all; ``needed``: gives the releases that are kept in any case,
        such as those to which `app undo` could go back."""
        self._paths, self._registry, self._launcher = paths, registry, launcher
        self._operations, self._bus, self._keep, self._needed = operations, bus, keep, needed
        self._busy: set[str] = set()

    # -- reading ---------------------------------------------------------------------------------------------

    async def records(self) -> list[AppRecord]:
        """All releases: by app, in the order in which they were sealed."""
        def read() -> list[AppRecord]:
            present = database.installed()
            return [self._record(*each, present) for each in self._all()]

        return await asyncio.to_thread(read)

    def _all(self) -> Iterator[tuple[str, str]]:
        for name in store.names(self._paths):
            for version in store.versions(self._paths, name):
                yield name, version

    def _record(self, name: str, version: str, present: Mapping[str, str]) -> AppRecord:
        found = store.load(self._paths, name, version)
        known = found if isinstance(found, Release) else Release(name, version)
        return {
            "name": name,
            "version": version,
            "release": known.release,
            "size_bytes": known.size + self._image_bytes(known),
            "files": known.files,
            "digest": known.digest,
            "created": known.created,
            "source": known.source,
            "containers": self.users(known.release),
            "base": known.base,
            "packages": dict(known.packages),
            "older": older(known, present),
            "form": known.form,
            "covers": list(known.covers),
            "no_erofs": known.no_erofs,
            "path": str(self._paths.release(name, version).tree),
            "problem": str(found) if isinstance(found, Broken) else None,
        }

    def _image_bytes(self, release: Release) -> int:
        """The bytes that the image of a layer takes on the disk."""
        with contextlib.suppress(OSError):
            return os.lstat(self._paths.release(release.name, release.version).image).st_blocks * 512
        return 0

    def users(self, release: str) -> list[str]:
        """The containers that have it: by their specs, or by the spec of their run."""
        return [container.name for container in list(self._registry) if has_release(self._paths, container, release)]

    async def verify(self, ask: NamedAppsRequest) -> list[AppCheckRecord]:
        """Read all files of releases, and tell whether they are what was sealed. Raises NotFound."""
        wanted = [
            (name, version) for name, version in await asyncio.to_thread(lambda: [*self._all()])
            if not ask.names or name in ask.names or f"{name}@{version}" in ask.names
        ]  # fmt: skip
        known = {*(name for name, _ in wanted), *(f"{name}@{version}" for name, version in wanted)}
        for each in ask.names:
            if each not in known:
                raise NotFound(f"there is no app {each}", hint=_HINT)
        found: list[AppCheckRecord] = []
        for name, version in wanted:
            item = AppItem(name=name, version=version, source="", strip=0, record="", inside="")
            answer = await self._launcher.ask(VERIFY_APP, item)
            error = from_body(answer["error"]) if answer["error"] else None
            if error is not None and not isinstance(error, Broken):
                raise error
            found.append({
                "release": f"{name}@{version}", "whole": error is None, "problem": None if error is None else str(error),
            })  # fmt: skip
        return found

    # -- changing --------------------------------------------------------------------------------------------

    async def add(self, ask: AddAppRequest) -> Operation:
        """Begin to seal a release. Raises FleetError."""
        release = Release(
            ask.name, ask.version, source=ask.source, created=now(), form=AppForm(ask.form), covers=tuple(ask.covers)
        )
        self.refuse_present(release)
        if ask.dry_run:
            lines = [f"{release.release}: copy {ask.source} to {self._paths.release(ask.name, ask.version).directory}"]
            return self._operations.dry("add app", [Result(release.release, "planned", True)], lines)

        async def job() -> Result:
            with self.in_hand(release.release):
                await self.seal(release, Path(ask.source), ask.strip)
                notes = self.told(release) + await self.prune(ask.name, ask.version, ask.keep)
            return Result(release.release, "sealed", True, notes=notes)

        return self._operations.begin("add app", [Job(release.release, job)], _AT_ONCE)

    async def seal(self, release: Release, source: Path, strip: int = 0, inside: str = "") -> None:
        """Have a release sealed. Raises FleetError; then nothing of it is there. ``inside``: see data.apps.sealing.seal."""
        item = AppItem(
            name=release.name, version=release.version, source=str(source), strip=strip, record=store.render(release),
            inside=inside,
        )  # fmt: skip
        try:
            answer = await self._launcher.ask(SEAL_APP, item)
            if answer["error"]:
                raise from_body(answer["error"])
        except FleetError:
            half = f"{release.name}/{self._paths.new_release(release.name, release.version).directory.name}"
            with contextlib.suppress(FleetError):  # it may have been killed half-way
                await self._clean([each for each in store.leftovers(self._paths) if each == half])
            raise
        self._bus.publish(AppSealed(release.release))

    def told(self, release: Release) -> tuple[str, ...]:
        """The notes for the operator about a release that was sealed."""
        sealed = store.load(self._paths, release.name, release.version)
        why = sealed.no_erofs if isinstance(sealed, Release) else ""
        return (f"its image is ext4: {why}",) if why else ()

    def refuse_present(self, release: Release) -> None:
        """Raise AlreadyExists if the release is there."""
        if store.load(self._paths, release.name, release.version) is not None:
            raise AlreadyExists(
                f"the app {release.release} exists already", why="a release is never changed", hint="give another --version"
            )

    async def prune(self, name: str, but: str, keep: int | None) -> tuple[str, ...]:
        """Remove the oldest releases of an app that nobody has, but for the newest ``keep``; 0: none; None: as fleet files
        and the settings say. ``but``: that version is kept in any case."""
        keep = self._keep(name) if keep is None else keep
        if not keep:
            return ()
        gone = []
        versions = await asyncio.to_thread(store.versions, self._paths, name)
        used = {version for version in versions if self.users(f"{name}@{version}")}
        needed = {*self._needed(), f"{name}@{but}"}
        for version in outdated(name, versions, keep, used, needed):
            release = f"{name}@{version}"
            if release in self._busy:
                continue
            try:
                self._refuse(name, version)
            except FleetError:  # since it was looked at, or for a rollout
                continue
            try:
                await self._remove(name, version)
                gone.append(version)
            except FleetError as error:
                log.error("%s can't be removed: %s", release, error)
        return (f"old releases were removed: {', '.join(gone)}",) if gone else ()

    def present(self, names: Iterable[str]) -> dict[str, dict[str, Release | None]]:
        """The releases of each of these apps that the host has, by version."""
        def load(name: str, version: str) -> Release | None:
            found = store.load(self._paths, name, version)
            return found if isinstance(found, Release) else None

        return {name: {each: load(name, each) for each in store.versions(self._paths, name)} for name in names}

    async def tidy(self, name: str) -> tuple[str, ...]:
        """Remove the old releases of an app of which no more are kept; tells of them."""
        return await self.prune(name, "", None)

    async def remove(self, ask: NamedAppsRequest) -> Operation:
        """Begin to remove releases, all or none of them. Raises FleetError."""
        await self._registry.observe()
        named = [parse_release(each) for each in ask.names]
        for name, version in named:
            self._refuse(name, version)
        if ask.dry_run:
            lines = [f"{name}@{version}: take its name away, and remove all its files" for name, version in named]
            planned = [Result(each, "planned", True) for each in ask.names]
            return self._operations.dry("remove app", planned, lines)
        jobs = [Job(f"{name}@{version}", self._removal(name, version)) for name, version in named]
        return self._operations.begin("remove app", jobs, _AT_ONCE)

    def _removal(self, name: str, version: str) -> Callable[[], Awaitable[Result]]:
        async def job() -> Result:
            with self.in_hand(f"{name}@{version}"):
                self._refuse(name, version)
                await self._remove(name, version)
            return Result(f"{name}@{version}", "removed", True)

        return job

    def _refuse(self, name: str, version: str) -> None:
        if store.load(self._paths, name, version) is None:
            raise NotFound(f"there is no app {name}@{version}", hint=_HINT)
        users = self.users(f"{name}@{version}")
        if users:
            raise WrongState(
                f"the app {name}@{version} is in use",
                why=f"specs of these containers name it: {some(users, _NAMED)}",
                hint=f"give them another release first: lxcfleet app use SEL {name}@VERSION; or none: lxcfleet set SEL app=",
            )

        def named(spec: Spec) -> bool:
            return spec.app is not None and spec.app.release == f"{name}@{version}"

        refuse_claimed(self._paths, self._registry, f"the app {name}@{version}", named)

    async def _remove(self, name: str, version: str) -> None:
        store.retire(self._paths, name, version)
        gone = f"{name}/{self._paths.GONE_PREFIX}{version}."
        await self._clean([each for each in store.leftovers(self._paths) if each.startswith(gone)])
        self._bus.publish(AppRemoved(f"{name}@{version}"))

    @contextmanager
    def in_hand(self, release: str) -> Iterator[None]:
        """Refuse others that would make or remove this release meanwhile. Raises Busy."""
        if release in self._busy:
            raise Busy(f"the app {release} is busy", hint="wait until that is done, then try again")
        self._busy.add(release)
        try:
            yield
        finally:
            self._busy.discard(release)

    async def _clean(self, leftovers: Sequence[str]) -> None:
        """Remove what is left over. Raises the first failure after all were tried."""
        failure: FleetError | None = None
        for each in leftovers:
            try:
                answer = await self._launcher.ask(REMOVE_APP, each)
            except FleetError as error:
                failure = failure or error
                continue
            if answer["error"]:
                failure = failure or from_body(answer["error"])
        if failure is not None:
            raise failure

    async def clean_up(self) -> None:
        """Remove what a crash left."""
        left = store.leftovers(self._paths)
        try:
            await self._clean(left)
        except FleetError as error:
            log.error("can't clean up: %s", error)
        for each in left:
            if not (self._paths.apps / each).exists():
                self._bus.publish(LeftoverRemoved(each))


def older(release: Release, present: Mapping[str, str]) -> dict[str, list[str | None]]:
    """The packages that a release was built against, of which the host has another version now. ``present``: the host's."""
    return {
        name: [version, present.get(name)] for name, version in release.packages.items() if present.get(name) != version
    }
