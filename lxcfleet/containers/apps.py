"""The apps of containers: who has which release, and the wait for one that is missing."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

from lxcfleet.base.mask import build
from lxcfleet.containers.container import Container
from lxcfleet.containers.desired import Lack
from lxcfleet.data.apps import manifest, merged, store
from lxcfleet.errors import Broken, InvalidInput
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Event, Told
from lxcfleet.spec.container.apps import AppForm, AppUse, Release
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading import ondisk


@dataclass(frozen=True)
class AppSealed(Event):
    """A release of an app is there."""

    release: str

    def told(self) -> Told:
        return Told("app", None, f"sealed {self.release}")


class AppsThere:
    """A prerequisite of starts: the release is on this host. Whether it was altered is seen when it is mounted."""

    waived = False

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    async def look(self, spec: Spec) -> None:
        """See Prerequisite. One look in ``lack`` is enough."""

    def lack(self, spec: Spec) -> Lack | None:
        """See Prerequisite."""
        app = spec.app
        if app is None or os.path.lexists(self._paths.release(app.name, app.version).directory):
            return None
        return Lack(f"app {app.release} is not on this host")


async def check_use(paths: Paths, use: AppUse) -> None:
    """Raise FleetError if the release is not on this host, if containers can't have it in that form, or if it would hide
    files of the host that nobody has allowed it to cover."""
    release = store.check(paths, use.name, use.version)
    if release.form is not use.form:
        layer = release.form is AppForm.LAYER
        raise InvalidInput(
            f"{use.release} is {'a layer' if layer else 'no layer'}, and can't be at {use.target}",
            why="its files are among the host's" if layer else "it is mounted at a place of its own",
            hint=f"write it as {use.release}{':/' if layer else ''}",
        )  # fmt: skip
    if use.form is AppForm.LAYER:
        await asyncio.to_thread(_check_layer, paths, release)


def _check_layer(paths: Paths, release: Release) -> None:
    file = paths.release(release.name, release.version).manifest
    try:
        entries = manifest.parse(file.read_text(encoding="utf-8", errors="surrogateescape"))
    except (OSError, ValueError) as error:
        raise Broken(f"the app {release.release} is broken: the list of its files can't be read", why=str(error)) from error
    merged.check(entries, release.covers, build.replaced(paths))


def has_release(paths: Paths, container: Container, release: str) -> bool:
    """Whether a container has a release of an app: by its spec, or by the spec of its run."""
    specs = [spec for spec in (container.spec, container.wanted) if spec is not None]
    if specs:
        return any(spec.app is not None and spec.app.release == release for spec in specs)
    try:
        # The spec is broken. Whether it names the release is not known for sure, so any mention counts.
        text = ondisk.text(paths.container(container.name).spec, errors="replace", most=ondisk.SMALL)
    except OSError:
        return True
    return release in text
