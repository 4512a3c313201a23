"""The log of events: the last few thousand of them, as `lxcfleet events` shows them."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator

from lxcfleet.api.records import EventRecord
from lxcfleet.runtime.bus import Event
from lxcfleet.runtime.operations import now

log = logging.getLogger(__name__)

KEPT = 5000


class Events:
    """The events since the daemon started; a subscriber of the bus. Each event also goes to the daemon's own log."""

    def __init__(self) -> None:
        self._events: deque[tuple[int, EventRecord]] = deque(maxlen=KEPT)
        self._number = 0
        self._changed = asyncio.Event()

    def hear(self, event: Event) -> None:
        """Keep an event that users are to see."""
        told = event.told()
        if told is None:
            return
        what, container, message = told
        log.info("%s%s%s", f"{container}: " if container else "", what, f": {message}" if message else "")
        self._number += 1
        record: EventRecord = {"time": now(), "what": what, "container": container, "message": message}
        self._events.append((self._number, record))
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def read(self, *, follow: bool) -> AsyncIterator[EventRecord]:
        """Those so far; with ``follow`` also those to come, for ever."""
        seen = 0
        while True:
            changed = self._changed
            for number, record in list(self._events):
                if number > seen:
                    seen = number
                    yield record
            if not follow:
                return
            await changed.wait()
