"""The apps of containers: who has which release, and the wait for one that is missing."""

from __future__ import annotations

import os
from dataclasses import dataclass

from lxcfleet.containers.container import Container
from lxcfleet.containers.desired import Lack
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Event, Told
from lxcfleet.spec.spec import Spec


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


def has_release(paths: Paths, container: Container, release: str) -> bool:
    """Whether a container has a release of an app: by its spec, or by the spec of its run."""
    specs = [spec for spec in (container.spec, container.wanted) if spec is not None]
    if specs:
        return any(spec.app is not None and spec.app.release == release for spec in specs)
    try:
        # The spec is broken. Whether it names the release is not known for sure, so any mention counts.
        text = paths.container(container.name).spec.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return release in text
