"""Auditing containers: what of the host they can read and should not."""

from __future__ import annotations

import json
from typing import Any

from lxcfleet.api.findings import ExposureRecord
from lxcfleet.base.stack import stack_of
from lxcfleet.containers.registry import Registry
from lxcfleet.errors import HostError, from_body
from lxcfleet.launcher.client import TRIES, Launcher
from lxcfleet.paths import Paths
from lxcfleet.spec.selection import Selection


class Audit:
    """Looks at running containers from inside."""

    def __init__(self, paths: Paths, registry: Registry, launcher: Launcher) -> None:
        self._paths, self._registry, self._launcher = paths, registry, launcher

    async def exposure(self, selection: Selection) -> list[ExposureRecord]:
        """What each of the chosen containers (all, if none is chosen) can read; nothing of one that does not run.

        Raises FleetError. Takes as long as looking through the host does, 1 s per 200,000 files.
        """
        await self._registry.observe()
        if not (selection.patterns or selection.labels):
            selection = Selection(everything=True)
        chosen = self._registry.choose(selection)
        running = [
            {"name": c.name, "pid": c.running.pid, "stack": stack_of(self._paths, c.name).to_json()}
            for c in chosen
            if c.running is not None
        ]
        found = {each["name"]: each for each in await self._ask(running)} if running else {}
        nothing: dict[str, Any] = {"exposed": [], "problem": None}
        return [
            {
                "name": container.name,
                "state": container.state,
                "exposed": found.get(container.name, nothing)["exposed"],
                "problem": found.get(container.name, nothing)["problem"],
            }
            for container in chosen
        ]

    async def _ask(self, running: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for _ in range(TRIES):
            async for reply in self._launcher.stream("exposure", running):
                assert reply.descriptor is not None
                with open(reply.descriptor, "rb") as file:
                    text = file.read()
                if reply.body["error"]:
                    raise from_body(reply.body["error"])
                answer: list[dict[str, Any]] = json.loads(text)
                return answer
        raise HostError("what containers can read is not known", why="the process that looked was ended before it was done")
