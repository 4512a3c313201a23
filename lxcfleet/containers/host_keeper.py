"""The host under the containers: the features that it has, and ids for its root.

A trial of the features forks and mounts, and giving ids waits for a program. Children of the launcher do both, so that the
daemon neither forks nor keeps its other work waiting.
"""

from __future__ import annotations

import asyncio

from lxcfleet.errors import from_body
from lxcfleet.host.facts.features import Features
from lxcfleet.launcher import operations
from lxcfleet.launcher.client import Launcher


class HostKeeper:
    """Asks the launcher's children, and remembers the host's features."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._trying: asyncio.Task[Features] | None = None

    async def features(self) -> Features:
        """The host's features: tried at the first question, and at the first one after ``forget``. Raises FleetError.

        Questions that arrive at the same moment share one trial.
        """
        if self._trying is None or _failed(self._trying):
            self._trying = asyncio.create_task(self._try())
        return await asyncio.shield(self._trying)

    async def _try(self) -> Features:
        return Features.from_json(await self._launcher.ask(operations.FEATURES, None))

    def forget(self) -> None:
        """Have the features tried again, as they may have changed. A waiting question still gets the result of its trial."""
        self._trying = None

    async def give_root_ids(self, first: int, last: int) -> None:
        """Add ids to root's in /etc/subuid and /etc/subgid. Raises FleetError."""
        answer = await self._launcher.ask(operations.ROOT_IDS, [first, last])
        if answer["error"]:
            raise from_body(answer["error"])


def _failed(trying: asyncio.Task[Features]) -> bool:
    return trying.done() and (trying.cancelled() or trying.exception() is not None)
