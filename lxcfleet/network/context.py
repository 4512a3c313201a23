"""The things that all parts of the fleet's network share: the containers, the launcher, and the settings in force."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, TypeVar

from lxcfleet.containers.container import Container
from lxcfleet.containers.registry import Registry
from lxcfleet.errors import from_body
from lxcfleet.launcher.client import Launcher
from lxcfleet.launcher.operations import DISCONNECT, JOIN, NETWORK, PUBLISH, RULES, Ask, Large
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.runtime.tasks import Tasks
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files.settings import NetworkSettings

A = TypeVar("A")
R = TypeVar("R")

_LOADING = (DISCONNECT, JOIN, NETWORK, PUBLISH, RULES)
"""Each of these is one transaction of the packet filter's."""
_MACHINE_ID = Path("/etc/machine-id")


class Context:
    """Handed to each part when it is made."""

    def __init__(
        self, paths: Paths, settings: NetworkSettings, registry: Registry, launcher: Launcher, bus: Bus, tasks: Tasks
    ) -> None:
        self.paths = paths
        self.settings = settings
        """The operator's settings as far as they are taken over; only FleetNetwork replaces them."""
        self.registry = registry
        self.bus = bus
        self.tasks = tasks
        self.lock = asyncio.Lock()
        """Held while the bridge is made or taken away, and while the settings or the range change."""
        self.up = False
        """Whether bridge, rules and name server were set up by the settings in force."""
        self._launcher = launcher
        self._loading = self._loaded = 0

    async def ask(self, operation: Ask[A, R], argument: A) -> R:
        """The answer of a child of the launcher. Raises FleetError."""
        loads = operation in _LOADING
        self._loading += loads
        try:
            answer = await self._launcher.ask(operation, argument)
        finally:
            self._loading -= loads
        said: Any = answer
        if said.get("error"):
            raise from_body(said["error"])
        self._loaded += loads
        return answer

    @property
    def loads(self) -> int | None:
        """How often rules of ours were loaded since this daemon began; None: they are being loaded."""
        return None if self._loading else self._loaded

    async def ask_large(self, operation: Large[A, R], argument: A) -> R:
        """The same for an answer that may not fit into a datagram. Raises FleetError."""
        return await self._launcher.ask_large(operation, argument)

    def specs(self) -> list[Spec]:
        """The specs of all connected containers, whether they run or not."""
        return [c.spec for c in self.registry if c.spec is not None and c.spec.connected]

    @property
    def has_connected(self) -> bool:
        """Whether there is any connected container: asked after each one that is destroyed."""
        return any(c.spec is not None and c.spec.connected for c in self.registry)

    def running(self) -> list[Container]:
        """All connected containers that run."""
        return [c for c in self.registry if c.running is not None and c.spec is not None and c.spec.connected]

    @property
    def bridge_there(self) -> bool:
        """Whether the host has an interface of the bridge's name."""
        return os.path.exists(f"/sys/class/net/{self.settings.bridge}")


def seed() -> str:
    """Something that is this host's own: its machine-id. Empty where it has none."""
    try:
        return _MACHINE_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""
