"""The bus: which subscribers hear of an event, and in which order."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import pytest

from lxcfleet.runtime.bus import Bus, Event, Told
from lxcfleet.runtime.events import Events


@dataclass(frozen=True)
class Began(Event):
    name: str

    def told(self) -> Told:
        return Told("began", self.name, "by hand")


@dataclass(frozen=True)
class Moved(Event):
    name: str


def test_subscribers_hear_of_what_they_asked_for_in_the_order_of_their_registration() -> None:
    bus, heard = Bus(), list[str]()
    bus.subscribe("second", Began, lambda event: heard.append(f"b {event.name}"))
    bus.subscribe("all", Event, lambda event: heard.append(type(event).__name__))
    bus.subscribe("moved", Moved, lambda event: heard.append(f"m {event.name}"))
    bus.publish(Began("c1"))
    bus.publish(Moved("c2"))
    assert heard == ["b c1", "Began", "Moved", "m c2"]


def test_a_subscriber_that_raises_is_logged_and_counted_and_the_others_still_hear(caplog: pytest.LogCaptureFixture) -> None:
    bus, heard = Bus(), list[str]()

    def fail(_: Event) -> None:
        raise ValueError("boom")

    bus.subscribe("broken", Began, fail)
    bus.subscribe("fine", Began, lambda event: heard.append(event.name))
    with caplog.at_level(logging.ERROR):
        bus.publish(Began("c1"))
        bus.publish(Began("c2"))
    assert heard == ["c1", "c2"]
    assert bus.failures == {"broken": 2, "fine": 0}
    assert "broken" in caplog.text
    assert "ValueError: boom" in caplog.text
    assert "Traceback" in caplog.text


def test_all_hear_events_in_the_same_order_also_those_that_subscribers_publish() -> None:
    bus, first, last = Bus(), list[Event](), list[Event]()

    def first_hears(event: Event) -> None:
        first.append(event)
        if isinstance(event, Began):
            bus.publish(Moved(event.name))

    bus.subscribe("first", Event, first_hears)
    bus.subscribe("last", Event, last.append)
    bus.publish(Began("c1"))
    assert first == last == [Began("c1"), Moved("c1")]


async def collected(events: Events) -> list[tuple[str, str | None, str]]:
    return [(e["what"], e["container"], e["message"]) async for e in events.read(follow=False)]


def test_the_log_of_events_is_a_subscriber_and_takes_the_events_for_users() -> None:
    bus, events = Bus(), Events()
    bus.subscribe("log of events", Event, events.hear)
    bus.publish(Began("c1"))
    bus.publish(Moved("c1"))
    assert asyncio.run(collected(events)) == [("began", "c1", "by hand")]
