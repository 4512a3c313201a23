"""The log of events: the last few thousand of them, as `lxcfleet events` shows them, and those that are kept on disk."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from lxcfleet.api.records import EventRecord
from lxcfleet.runtime.bus import Event
from lxcfleet.runtime.operations import now

log = logging.getLogger(__name__)

KEPT = 5000


class Past(Protocol):
    """The events that were kept up to some moment."""

    def since(self, moment: float) -> list[EventRecord]:
        """Those of then or later, in seconds since the epoch. It may take a while, and is called once, in a thread."""


class Store(Protocol):
    """Where events are kept for later daemons."""

    def add(self, record: EventRecord) -> None:
        """Keep an event."""

    def open(self) -> Past:
        """The events that are kept at this moment."""


class Events:
    """The events since the daemon started; a subscriber of the bus. Each event also goes to the daemon's own log."""

    def __init__(self, store: Store | None = None, told: Callable[[], bool] = lambda: False) -> None:
        """``told``: whether events reach the log of the daemon some other way."""
        self._store, self._told = store, told
        self._events: deque[tuple[int, EventRecord]] = deque(maxlen=KEPT)
        self._number = 0
        self._changed = asyncio.Event()

    def hear(self, event: Event) -> None:
        """Keep an event that users are to see."""
        told = event.told()
        if told is None:
            return
        what, container, message = told
        level = logging.DEBUG if self._told() else logging.INFO
        log.log(level, "%s%s%s", f"{container}: " if container else "", what, f": {message}" if message else "")
        self._number += 1
        record: EventRecord = {"time": now(), "what": what, "container": container, "message": message}
        self._events.append((self._number, record))
        if self._store is not None:
            self._store.add(record)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def read(self, *, follow: bool, since: float = 0.0) -> AsyncIterator[EventRecord]:
        """Those so far; with ``follow`` also those to come, for ever. ``since``: instead of those since the daemon started,
        those since then, in seconds since the epoch."""
        seen = 0
        if since and self._store is not None:
            seen, past = self._number, self._store.open()
            for record in await asyncio.to_thread(past.since, since):
                yield record
        while True:
            changed = self._changed
            for number, record in list(self._events):
                if number > seen:
                    seen = number
                    yield record
            if not follow:
                return
            await changed.wait()
