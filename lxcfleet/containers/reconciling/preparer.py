"""Has containers prepared for their start, many at a time, by few children of the launcher."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from lxcfleet.errors import FleetError, HostError
from lxcfleet.launcher.client import Conversation, Launcher, Reply
from lxcfleet.launcher.items.containers import Done, PrepareItem
from lxcfleet.launcher.operations import PREPARE

log = logging.getLogger(__name__)

BATCH = 8
"""How many containers are prepared before the first answer is waited for."""
IDLE_SECONDS = 1.0
"""Seconds for which an idle child is kept for new work: a fork costs more than a container's mounts."""

_Child = Conversation[list[PrepareItem], Done]
_Batch = dict[str, tuple[PrepareItem, "asyncio.Future[Reply[Done]]"]]
"""By container name. No name comes twice, as only one action at a time works on a container."""


class Preparer:
    """Gathers simultaneous requests into batches, and keeps the children that prepare them."""

    def __init__(self, launcher: Launcher, slots: int, before: Callable[[Iterable[int]], Awaitable[None]]) -> None:
        """``slots``: how many children work at once; ``before``: called before each batch, with the generations of its
        containers."""
        self._launcher = launcher
        self._slots = slots
        self._before = before
        self._waiting: list[tuple[PrepareItem, asyncio.Future[Reply[Done]]]] = []
        self._batches: set[asyncio.Task[None]] = set()
        self._idle: list[_Child] = []
        self._ending: asyncio.TimerHandle | None = None
        self._expecting: asyncio.Task[None] | None = None

    async def submit(self, item: PrepareItem) -> Reply[Done]:
        """The child's reply for ``item``; see children."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply[Done]] = loop.create_future()
        self._waiting.append((item, future))
        loop.call_soon(self._pump)
        try:
            return await future
        except asyncio.CancelledError:
            # The answer may have come in the same moment. Its descriptor would keep the container's mounts as long as we run.
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result().close()
            raise

    def expect(self, base: int) -> None:
        """Something on this base will be submitted in a moment: have what comes before a batch done, and a child ready for
        it, unless there is one."""
        if not self._batches and (self._expecting is None or self._expecting.done()):
            self._expecting = asyncio.get_running_loop().create_task(self._have_child(base))

    async def _have_child(self, base: int) -> None:
        try:
            await self._before((base,))
            if not self._batches and not self._idle:
                self._keep(await self._launcher.converse(PREPARE))
        except (FleetError, OSError) as error:  # who submits something has to know of it, and is told
            log.debug("no child is ready: %s", error)
        except Exception:
            log.exception("having a child ready failed unexpectedly")

    def _pump(self) -> None:
        while self._waiting and len(self._batches) < self._slots:
            share = -(-len(self._waiting) // self._slots)
            batch = self._waiting[: min(share, BATCH)]
            del self._waiting[: len(batch)]
            by_name = {item["name"]: (item, future) for item, future in batch}
            task = asyncio.get_running_loop().create_task(self._run(by_name))
            self._batches.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._batches.discard(task)
        self._pump()

    async def _run(self, batch: _Batch) -> None:
        """Have all prepared. One that is the end of its child is tried again, alone and last, so that the others go on."""
        failure: Exception = HostError(
            "the container could not be prepared", why="the process that did it was killed or took too long, twice"
        )
        suspects: _Batch = {}
        try:
            while batch:
                await self._before(_bases(batch))
                await self._try(batch)
                if batch:  # the child works on one after the other: what kills it is the first without an answer
                    name = next(iter(batch))
                    suspects[name] = batch.pop(name)
            for name in [*suspects]:
                batch[name] = suspects.pop(name)
                await self._before(_bases(batch))
                await self._try(batch)
                self._fail(batch, failure)
        except (FleetError, OSError) as error:
            failure = error if isinstance(error, FleetError) else HostError("the launcher failed", why=str(error))
        except Exception:
            log.exception("preparing containers failed unexpectedly")
        finally:
            self._fail(batch, failure)
            self._fail(suspects, failure)

    def _fail(self, batch: _Batch, failure: Exception) -> None:
        for _, future in batch.values():
            if not future.done():
                future.set_exception(failure)
        batch.clear()

    async def _try(self, batch: _Batch) -> None:
        """Have the batch prepared. Items that stay in it got no answer."""
        conversation = await self._child()
        try:
            await conversation.say([item for item, _ in batch.values()])
            while batch and (reply := await conversation.hear()) is not None:
                _, future = batch.pop(reply.body["name"])
                if not future.done():
                    future.set_result(reply)
                else:
                    reply.close()
        except ConnectionError:
            pass  # the child was killed
        finally:
            if batch:
                conversation.close()
                self.close()  # the idle children may have been killed, too
            else:
                self._keep(conversation)

    async def _child(self) -> _Child:
        """An idle child of the present launcher, or else a new one."""
        while self._idle:
            conversation = self._idle.pop()
            if conversation.generation == self._launcher.generation:
                return conversation
            conversation.close()
        return await self._launcher.converse(PREPARE)

    def _keep(self, conversation: _Child) -> None:
        self._idle.append(conversation)
        if self._ending is not None:
            self._ending.cancel()
        self._ending = asyncio.get_running_loop().call_later(IDLE_SECONDS, self.close)

    def close(self) -> None:
        """Let the idle children end."""
        if self._expecting is not None:
            self._expecting.cancel()
        while self._idle:
            self._idle.pop().close()


def _bases(batch: _Batch) -> set[int]:
    return {item["generation"] for item, _ in batch.values()}
