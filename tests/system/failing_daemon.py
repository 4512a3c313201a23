"""A daemon whose background tasks fail when a test tells them to.

FAIL_TASKS in the daemon's environment names a directory. The first try of each task fails. Later a running task fails as soon
as the directory has a file with the task's name. The task removes that file. So a new task is covered without a change here.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from lxcfleet.daemon import wiring
from lxcfleet.daemon.main import main
from lxcfleet.runtime.tasks import Tasks, Work

MARK = "injected by the test"
_POLL_SECONDS = 0.05


class FailingTasks(Tasks):
    """The daemon's group of tasks. Their work fails."""

    def __init__(self) -> None:
        super().__init__(pause=0.05)
        self._directory = Path(os.environ["FAIL_TASKS"])
        self._failed: set[str] = set()

    def _start(self, name: str, work: Work, subject: str) -> asyncio.Task[None]:
        file = self._directory / name

        async def failing() -> None:
            if name not in self._failed:
                self._failed.add(name)
                raise RuntimeError(MARK)
            inner = asyncio.ensure_future(work())
            try:
                while not inner.done():
                    await asyncio.wait({inner}, timeout=_POLL_SECONDS)
                    if file.exists():
                        file.unlink()
                        raise RuntimeError(MARK)
                await inner
            finally:
                inner.cancel()

        return super()._start(name, failing, subject)


if __name__ == "__main__":
    parts: Any = wiring
    parts.Tasks = FailingTasks
    main()
