"""Background tasks: started by name in one group, which logs and counts their failures and starts them again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from lxcfleet.runtime import unforeseen

log = logging.getLogger(__name__)

FIRST_PAUSE = 1.0
"""Seconds from a task's first failure to its restart. Each further failure in a row doubles them, up to the longest."""
LONGEST_PAUSE = 60.0
SETTLED_SECONDS = 60.0
"""A task that ran for so long after a restart works again: its next failure is the first of a new row."""
HOPELESS = 8
"""A task that failed so many times in a row, which takes two minutes, is not cured by one more restart of it."""

_DOUBLINGS = 30

Work = Callable[[], Awaitable[None]]


class Ended(Exception):
    """A task that should run as long as the daemon came to its end."""


@dataclass(frozen=True)
class TaskReading:
    """All tasks of one name, for metrics and for `lxcfleet doctor`."""

    name: str
    failures: int
    """Since the daemon started."""
    up: bool
    """False while one of them waits for its restart."""
    last: str = ""
    """The last failure in a few words, with its subject."""
    last_at: datetime | None = None


@dataclass
class _Task:
    """One task of the group."""

    name: str
    subject: str
    began: float
    row: int = 0
    """Failures in a row."""
    waits: bool = False
    """It failed, and waits for its restart."""


@dataclass
class _History:
    failures: int = 0
    last: str = ""
    last_at: datetime | None = None


class Tasks:
    """The group. A task is cancelled by cancelling what ``keep`` or ``do`` returned; ``close`` cancels all."""

    def __init__(self, pause: float = FIRST_PAUSE, settled: float = SETTLED_SECONDS) -> None:
        self._pause = pause
        self._settled = settled
        self._present: dict[asyncio.Task[None], _Task] = {}
        self._histories: dict[str, _History] = {}

    def keep(self, name: str, work: Work, *, subject: str = "") -> asyncio.Task[None]:
        """Run ``work`` as long as the daemon runs. That it returns is a failure, too.

        ``name``: in the log, in metrics and in doctor's findings. ``subject``: the name of the container that the task
        is about, where there is one task for each of them; failures of such a task never end the daemon.
        """

        async def for_ever() -> None:
            await work()
            raise Ended("it ended by itself")

        return self._start(name, for_ever, subject)

    def do(self, name: str, work: Work, *, subject: str = "") -> asyncio.Task[None]:
        """Run ``work`` until it returns once; the arguments are those of ``keep``."""
        return self._start(name, work, subject)

    def readings(self) -> list[TaskReading]:
        """All names that tasks were ever started by, in the order of their first start."""
        waiting = {task.name for task in self._present.values() if task.waits}
        return [
            TaskReading(name, one.failures, name not in waiting, one.last, one.last_at)
            for name, one in self._histories.items()
        ]

    def hopeless(self) -> list[str]:
        """The tasks without a subject that fail again and again, by name: only a restart of the daemon may help."""
        now = time.monotonic()
        return sorted(
            task.name
            for task in self._present.values()
            if not task.subject and task.row >= HOPELESS and (task.waits or now - task.began < self._settled)
        )

    def close(self) -> None:
        """The daemon ends: cancel all that run."""
        for task in list(self._present):
            task.cancel()

    def _start(self, name: str, work: Work, subject: str) -> asyncio.Task[None]:
        self._histories.setdefault(name, _History())
        entry = _Task(name, subject, time.monotonic())
        task = asyncio.get_running_loop().create_task(self._supervise(entry, work), name=_title(entry))
        self._present[task] = entry
        task.add_done_callback(self._present.pop)
        return task

    async def _supervise(self, entry: _Task, work: Work) -> None:
        while True:
            entry.began, entry.waits = time.monotonic(), False
            try:
                await work()
            except asyncio.CancelledError as error:
                if _is_cancelled():
                    raise
                self._note(entry, error)  # something that it waited for was cancelled, not the task itself
            except Exception as error:
                self._note(entry, error)
            else:
                return
            entry.waits = True
            await asyncio.sleep(min(self._pause * 2.0 ** min(entry.row - 1, _DOUBLINGS), LONGEST_PAUSE))

    def _note(self, entry: _Task, error: BaseException) -> None:
        settled = time.monotonic() - entry.began >= self._settled
        entry.row = 1 if settled else entry.row + 1
        refused = unforeseen.refusal(error) if isinstance(error, (MemoryError, RuntimeError)) else None
        if refused is None:
            log.error("the task %s failed and is started again", _title(entry), exc_info=error)
        else:
            log.error("the task %s failed and is started again: %s", _title(entry), refused.strerror)
        if entry.row == HOPELESS and not entry.subject:
            log.error("the task %s keeps failing: systemd is not told any more that the daemon is well", entry.name)
        history = self._histories[entry.name]
        history.failures += 1
        history.last = f"{entry.subject}: " * bool(entry.subject) + f"{type(error).__name__}: {error}"
        history.last_at = datetime.now(UTC)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _title(entry: _Task) -> str:
    return f"{entry.name} of {entry.subject}" if entry.subject else entry.name
