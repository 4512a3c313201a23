"""Operations: long work on many containers, which can be followed, and cancelled as far as it has not begun."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from lxcfleet.api.records import OperationRecord, ResultRecord
from lxcfleet.errors import Cancelled, FleetError, NotFound
from lxcfleet.runtime import unforeseen
from lxcfleet.spec.results import Result

log = logging.getLogger(__name__)

KEPT = 100
"""How many operations that have ended are remembered."""


def now() -> str:
    """The time as the API writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Operation:
    """One action on many containers."""

    def __init__(self, action: str, total: int, plan: Sequence[str] = ()) -> None:
        self.id = secrets.token_hex(6)
        self.action = action
        self.created = now()
        self.total = total
        self.plan = list(plan)
        self.results: list[Result] = []
        self.cancelled = False
        self.ended = False
        self._changed = asyncio.Event()
        self._cancelling = asyncio.Event()

    def record(self) -> OperationRecord:
        """The operation as the API shows it."""
        status = "running" if not self.ended else "cancelled" if self.cancelled else "done"
        return {
            "id": self.id,
            "action": self.action,
            "status": status,
            "created": self.created,
            "total": self.total,
            "done": len(self.results),
            "changed": any(result.changed for result in self.results),
            "results": [result_record(result) for result in self.results],
            "plan": self.plan,
        }

    def add(self, result: Result) -> None:
        """One container is done."""
        self.results.append(result)
        self._wake()

    def end(self) -> None:
        """All are done."""
        self.ended = True
        self._wake()

    def cancel(self) -> None:
        """Do not begin what has not begun."""
        if not self.ended:
            self.cancelled = True
            self._cancelling.set()

    async def until_cancelled(self, waiting: Coroutine[Any, Any, None]) -> None:
        """Come back when that does, or when the operation is cancelled."""
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(waiting), loop.create_task(self._cancelling.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def follow(self) -> AsyncIterator[list[ResultRecord]]:
        """The results so far, then those that come, a few at a time, until the end."""
        seen = 0
        while True:
            changed = self._changed
            if seen < len(self.results):
                fresh = self.results[seen:]
                seen += len(fresh)
                yield [result_record(result) for result in fresh]
            elif self.ended:
                return
            else:
                await changed.wait()


def result_record(result: Result) -> ResultRecord:
    """A result as the API sends it."""
    record: ResultRecord = {
        "name": result.name, "status": result.status, "changed": result.changed, "error": result.error
    }  # fmt: skip
    if result.differs:
        record["differs"] = dict(result.differs)
    if result.removed:
        record["removed"] = list(result.removed)
    if result.kept:
        record["kept"] = dict(result.kept)
    if result.notes:
        record["notes"] = list(result.notes)
    return record


class Job(NamedTuple):
    """The work to be done on one container."""

    name: str
    run: Callable[[], Awaitable[Result]]
    """Does it; raises FleetError if it fails."""
    forget: Callable[[], None] | None = None
    """Called instead if it never began."""
    turn: Callable[[], Coroutine[Any, Any, None]] | None = None
    """Waited for before it begins."""
    after: Callable[[Result], Awaitable[Result]] | None = None
    """A last look at what was done; it gives the result. Meanwhile the next one can begin."""


class Operations:
    """All operations that run, and the last that ended."""

    def __init__(self) -> None:
        self._all: OrderedDict[str, Operation] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending = False

    def records(self) -> list[OperationRecord]:
        """All of them, oldest first."""
        return [operation.record() for operation in self._all.values()]

    def get(self, identifier: str) -> Operation:
        """The operation of that id; raises NotFound."""
        try:
            return self._all[identifier]
        except KeyError:
            why = "it ended long ago, or the daemon was restarted"
            raise NotFound(f"no operation {identifier!r}", why=why) from None

    def remember(self, operation: Operation) -> Operation:
        """Keep it for those who ask, and forget the oldest that has ended."""
        self._all[operation.id] = operation
        for identifier in [i for i, other in self._all.items() if other.ended][:-KEPT]:
            del self._all[identifier]
        return operation

    def dry(self, action: str, results: Sequence[Result], plan: Sequence[str]) -> Operation:
        """An operation that only tells what would be done, and what would become of each container."""
        operation = Operation(action, len(results), plan)
        operation.results = [*results]
        operation.end()
        return self.remember(operation)

    def begin(self, action: str, jobs: Sequence[Job], at_once: int) -> Operation:
        """Do all jobs, ``at_once`` of them at the same time."""
        operation = self.remember(Operation(action, len(jobs)))
        if self._ending:
            operation.cancel()
        task = asyncio.get_running_loop().create_task(self._run(operation, jobs, at_once))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return operation

    def run(self, action: str, total: int, work: Callable[[Operation], Awaitable[None]]) -> Operation:
        """An operation that ``work`` carries out: it adds the results, and ends soon after the operation is cancelled."""
        operation = self.remember(Operation(action, total))
        if self._ending:
            operation.cancel()

        async def whole() -> None:
            try:
                await work(operation)
            except Exception as error:
                fault = unforeseen.told(log, action, error, f"{action} failed")
                operation.add(Result(action, "failed", False, fault.body()))
            finally:
                operation.end()

        task = asyncio.get_running_loop().create_task(whole())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return operation

    def any(self, action: str) -> bool:
        """Whether one of that action is not done."""
        return any(operation.action == action and not operation.ended for operation in self._all.values())

    @property
    def running(self) -> int:
        """How many are not done."""
        return len(self._tasks)

    async def settle(self) -> None:
        """The daemon ends: wait until all that run have ended; what they have not begun is not begun any more, nor is
        what is asked for meanwhile."""
        self._ending = True
        for operation in self._all.values():
            operation.cancel()
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, operation: Operation, jobs: Sequence[Job], at_once: int) -> None:
        slots = asyncio.Semaphore(at_once)

        async def run(job: Job) -> Result:
            async with slots:
                if job.turn is not None:
                    await operation.until_cancelled(job.turn())
                if operation.cancelled:
                    if job.forget is not None:
                        job.forget()
                    why = "lxcfleetd ends" if self._ending else "the operation was cancelled"
                    raise Cancelled(f"{job.name}: not begun", why=why)
                result = await job.run()
            return result if job.after is None or result.error is not None else await job.after(result)

        async def one(job: Job) -> None:
            name = job.name
            try:
                result = await run(job)
            except FleetError as error:
                status = "cancelled" if isinstance(error, Cancelled) else "failed"
                result = Result(name, status, False, error.body())
            except Exception as error:  # a defect of ours must cost one container's result, not all that come after it
                fault = unforeseen.told(log, f"{operation.action} of {name}", error, f"{name}: {operation.action} failed")
                result = Result(name, "failed", False, fault.body())
            operation.add(result)

        try:
            await asyncio.gather(*map(one, jobs))
        finally:
            operation.end()
