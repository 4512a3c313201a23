"""The bus: what happened in one room, told to the others as typed values.

A room that knows of something publishes an event. Subscribers are registered by name in one place, the daemon's wiring,
and hear events in the order in which they were registered there.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

log = logging.getLogger(__name__)


class Told(NamedTuple):
    """An event in the words that `lxcfleet events` shows."""

    what: str
    """One word for what happened."""
    container: str | None = None
    """The name of the container that it happened to."""
    message: str = ""


@dataclass(frozen=True)
class Event:
    """Something that happened. Each kind of event is a class in the room that publishes it."""

    def told(self) -> Told | None:
        """The event as users see it; None: it concerns only the daemon's own rooms."""
        return None


E = TypeVar("E", bound=Event)


@dataclass(frozen=True)
class _Subscription(Generic[E]):
    name: str
    kind: type[E]
    hear: Callable[[E], None]


class Bus:
    """Delivers events to subscribers.

    ``publish`` returns when all subscribers have heard the event. An event that a subscriber publishes meanwhile is
    delivered after the present one, so that all subscribers hear all events in the same order.
    """

    def __init__(self) -> None:
        self._subscriptions: list[_Subscription[Event]] = []
        self._of_kind: dict[type[Event], list[_Subscription[Event]]] = {}
        """The subscriptions to each kind of event that was published so far."""
        self._waiting: deque[Event] = deque()
        self._delivering = False
        self.failures: Counter[str] = Counter()
        """How often each subscriber raised an exception, by its name."""

    def subscribe(self, name: str, kind: type[E], hear: Callable[[E], None]) -> None:
        """Have ``hear`` called with each event of the class ``kind`` or of a class derived from it.

        ``name``: of the subscriber, in the log and in metrics.
        """
        self.failures[name] += 0
        self._subscriptions.append(_Subscription(name, kind, hear))  # type: ignore[arg-type]
        self._of_kind.clear()

    def publish(self, event: Event) -> None:
        """Tell all subscribers. What one of them raises is logged and counted, and keeps no other from hearing."""
        self._waiting.append(event)
        if self._delivering:
            return
        self._delivering = True
        try:
            while self._waiting:
                self._deliver(self._waiting.popleft())
        finally:
            self._delivering = False

    def _deliver(self, event: Event) -> None:
        kind = type(event)
        hearers = self._of_kind.get(kind)
        if hearers is None:
            hearers = self._of_kind[kind] = [each for each in self._subscriptions if issubclass(kind, each.kind)]
        for each in hearers:
            try:
                each.hear(event)
            except Exception:
                self.failures[each.name] += 1
                log.exception("%s could not deal with %s", each.name, event)
