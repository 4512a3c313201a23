"""Parts of the fleet's network without a host: the launcher is a stand-in that records its requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from lxcfleet.containers.container import Container
from lxcfleet.containers.registry import Registry
from lxcfleet.errors import HostError
from lxcfleet.launcher.operations import PUBLISHED
from lxcfleet.network.context import Context
from lxcfleet.network.discovery import Discovery
from lxcfleet.network.membership import Membership
from lxcfleet.network.publishing import Publishing
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.runtime.tasks import Tasks
from lxcfleet.spec.files.settings import NetworkSettings


class FakeLauncher:
    """Answers as if everything were done."""

    def __init__(self, answers: Callable[[str, Any], dict[str, Any]] | None = None) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.failure: HostError | None = None
        """Its answers from now on."""
        self._answers = answers or (lambda operation, argument: {})

    async def ask(self, operation: str, argument: Any) -> dict[str, Any]:
        """Record the request."""
        self.asked.append((operation, argument))
        await asyncio.sleep(0)
        if self.failure is not None:
            return {"error": self.failure.body()}
        return {"error": None, **self._answers(operation, argument)}

    async def ask_large(self, operation: str, argument: Any) -> Any:
        """The same."""
        await self.ask(operation, argument)
        return {"ports": [], "name_servers": []} if operation == PUBLISHED else []

    def operations(self) -> list[str]:
        """The requested operations, without the arguments."""
        return [operation for operation, _ in self.asked]


def own_paths(directory: Path) -> Paths:
    """Paths of a fleet below a directory of the test's."""
    own = Paths(lxc=directory / "lxc", run=directory / "run", etc=directory / "etc")
    own.hosts.mkdir(parents=True, exist_ok=True)
    own.lxc.mkdir(exist_ok=True)
    return own


def registry_of(paths: Paths, *containers: Container) -> Registry:
    """A registry that knows these containers."""
    nobody: Any = None
    registry = Registry(paths, nobody, Bus())
    for container in containers:
        registry.add(container)
    return registry


def context_of(
    paths: Paths, *containers: Container, launcher: FakeLauncher | None = None, settings: NetworkSettings | None = None
) -> Context:
    """A context of these containers."""
    registry = registry_of(paths, *containers)
    return Context(paths, settings or NetworkSettings(), registry, cast(Any, launcher or FakeLauncher()), Bus(), Tasks())


class Names:
    """Discovery with everything that it needs."""

    def __init__(self, context: Context) -> None:
        self.membership = Membership(context.registry)
        self.discovery = Discovery(context, self.membership, Publishing(context, self.membership))


def run(container: Container, *, frozen: bool = False) -> None:
    """Have the container run, as far as the network can see."""
    payload = SimpleNamespace(frozen=frozen)
    container.running = cast(Any, SimpleNamespace(payload=payload, pid=0, age=0.0, gone=asyncio.Event()))
