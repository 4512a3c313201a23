"""Work that is done soon, in the background, once for all who asked for it until it began."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from lxcfleet.errors import FleetError
from lxcfleet.runtime.tasks import Tasks

log = logging.getLogger(__name__)


class Soon:
    """One piece of work, as a background task. It never runs twice at a time; who asks while it runs has it done once more.

    A FleetError or an OSError is logged: who has to know of one awaits the work itself. Any other failure is the group of
    tasks' to deal with.
    """

    def __init__(
        self, tasks: Tasks, name: str, work: Callable[[], Awaitable[object]], complaint: str, *,
        retry: float | None = None, level: int = logging.ERROR,
    ) -> None:  # fmt: skip
        """``name``: of the task; ``complaint``: what the log says of a failure.

        ``retry``: seconds until it is tried again, None: it is not.
        """
        self._tasks = tasks
        self._name = name
        self._work = work
        self._complaint = complaint
        self._retry = retry
        self._level = level
        self._again = False
        self._task: asyncio.Task[None] | None = None

    def kick(self) -> None:
        """Have it done."""
        self._again = True
        if self._task is None or self._task.done():
            self._task = self._tasks.do(self._name, self._run)

    async def _run(self) -> None:
        while self._again:
            self._again = False
            try:
                await self._work()
            except (FleetError, OSError) as error:
                log.log(self._level, "%s: %s", self._complaint, error)
                if self._retry is not None:
                    self._again = True
                    await asyncio.sleep(self._retry)
            except Exception:
                self._again = True
                raise
