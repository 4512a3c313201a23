"""Auditing containers: the files of the host that they can read and should not."""

from __future__ import annotations

import os

from lxcfleet.api.findings import ExposedRecord, ExposureRecord
from lxcfleet.base.stack import stack_for
from lxcfleet.containers.registry import Registry
from lxcfleet.launcher.client import Launcher
from lxcfleet.launcher.items.looks import ExposedFile, ExposedItem, ExposureItem
from lxcfleet.launcher.operations import EXPOSURE
from lxcfleet.paths import Paths
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.selection import Selection


class Audit:
    """Looks at running containers from inside."""

    def __init__(self, paths: Paths, registry: Registry, launcher: Launcher) -> None:
        self._paths, self._registry, self._launcher = paths, registry, launcher

    async def exposure(self, selection: Selection) -> list[ExposureRecord]:
        """The findings for each of the chosen containers, or for all; none for a container that does not run.

        Raises FleetError. Takes as long as a look through the host: 1 s per 200,000 files.
        """
        await self._registry.observe()
        if not (selection.patterns or selection.labels):
            selection = Selection(everything=True)
        chosen = self._registry.choose(selection)
        running: list[ExposureItem] = [
            {"name": c.name, "pid": c.running.pid, "stack": stack_for(self._paths, c.name, c.spec, live=True).to_json()}
            for c in chosen
            if c.running is not None
        ]
        found = {each["name"]: each for each in await self._launcher.ask_large(EXPOSURE, running)} if running else {}
        nothing: ExposedItem = {"name": "", "exposed": [], "problem": None}
        return [
            {
                "name": container.name,
                "state": container.state,
                "exposed": [
                    _record(self._paths, each, container.spec) for each in found.get(container.name, nothing)["exposed"]
                ],
                "problem": found.get(container.name, nothing)["problem"],
            }
            for container in chosen
        ]


def _record(paths: Paths, file: ExposedFile, spec: Spec | None) -> ExposedRecord:
    app = None if spec is None else spec.app
    inside = None if app is None else app.inside(file["path"])
    if app is not None and inside is not None and os.path.lexists(paths.release(app.name, app.version).tree / inside):
        # No rule of the mask hides it: somebody put it into the release.
        return {"path": file["path"], "why": f"{file['why']}; it is in its app {app.release}", "rule": ""}
    return {"path": file["path"], "why": file["why"], "rule": file["rule"]}
