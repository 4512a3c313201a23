"""Events that are kept for later daemons, and events as messages of the journal."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import runpy
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lxcfleet.api.records import EventRecord
from lxcfleet.logs import messages
from lxcfleet.logs.event_store import EventStore
from lxcfleet.runtime.bus import Event, Told
from lxcfleet.runtime.events import Events

ROOT = Path(__file__).resolve().parents[2]


def event(number: int, message: str = "") -> EventRecord:
    time = datetime.fromtimestamp(number, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"time": time, "what": "started", "container": f"c{number}", "message": message}


def names(store: EventStore, since: float = 1.0) -> list[str | None]:
    return [each["container"] for each in store.open().since(since)]


def test_events_are_read_back_from_a_time_on(tmp_path: Path) -> None:
    file = tmp_path / "state" / "events"
    for number in range(1, 6):
        EventStore(file).add(event(number))  # each by a daemon of its own
    assert names(EventStore(file)) == ["c1", "c2", "c3", "c4", "c5"]
    assert names(EventStore(file), 4.0) == ["c4", "c5"]
    assert EventStore(file).open().since(5.0) == [event(5)]
    assert names(EventStore(tmp_path / "none")) == []


def test_the_store_is_bounded_and_has_the_latest(tmp_path: Path) -> None:
    store = EventStore(tmp_path / "events", most=2000)
    for number in range(1, 500):
        store.add(event(number, "x" * 50))
    found = names(store)
    assert found == [f"c{number}" for number in range(500 - len(found), 500)]
    assert 10 < len(found) < 40
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 2 * 2200
    store.add(event(500, "ä" * 1_000_000))
    (last,) = store.open().since(500)
    assert len(last["message"]) < 10_000


def test_lines_that_are_torn_or_no_events_are_passed_over(tmp_path: Path) -> None:
    store, file = EventStore(tmp_path / "events"), tmp_path / "events"
    store.add(event(1))
    with file.open("a") as torn:
        torn.write('{"time": "x", "what": "", "container": null, "message": ""}\n[]\n7\n{"time": "2026')
    store.add(event(2))
    assert names(store) == ["c1", "c2"]


def test_the_file_may_be_taken_away_or_written_to_between_two_events(tmp_path: Path) -> None:
    store, file = EventStore(tmp_path / "events"), tmp_path / "events"
    store.add(event(1))
    file.rename(tmp_path / "elsewhere")
    store.add(event(2))
    with file.open("a") as torn:
        torn.write("{")
    store.add(event(3))
    store.add(event(4))
    assert names(store) == ["c2", "c3", "c4"]


def test_no_file_stays_open_which_would_keep_the_disk_from_a_remount(tmp_path: Path) -> None:
    store = EventStore(tmp_path / "events")
    gc.collect()  # what tests before this one left is not closed during it
    before = set(os.listdir("/proc/self/fd"))
    store.add(event(1))
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_disk_that_can_not_be_written_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "state").write_text("no directory")
    store = EventStore(tmp_path / "state" / "events")
    store.add(event(1))
    store.add(event(2))
    assert len(caplog.messages) == 1
    assert "events are not kept for later" in caplog.text


class Happened(Event):
    """Something that users are to see."""

    def told(self) -> Told:
        return Told("started", "web1")


def test_events_of_former_daemons_come_before_those_of_this_one_and_none_twice(tmp_path: Path) -> None:
    store = EventStore(tmp_path / "events")
    store.add(event(7))

    async def read() -> list[EventRecord]:
        events = Events(store)
        events.hear(Happened())
        reader = events.read(follow=True, since=1.0)
        found = [await anext(reader), await anext(reader)]
        events.hear(Happened())
        found.append(await anext(reader))
        return [*found, *[each async for each in events.read(follow=False)]]

    found = [each["container"] for each in asyncio.run(asyncio.wait_for(read(), 60))]
    assert found == ["c7", "web1", "web1", "web1", "web1"]


# messages of the journal


def test_the_catalogue_is_up_to_date() -> None:
    """If not: ``make docs``."""
    run = runpy.run_path(str(ROOT / "docs/catalog.py"))
    assert run["FILE"].read_text(encoding="utf-8") == messages.catalogue()


def test_each_kind_of_event_has_an_id_that_never_changes() -> None:
    assert messages.message_id("unhealthy") == "606f450dc60d5df19ddb48c20b33db70"
    ids = re.findall("^-- ([0-9a-f]{32})$", messages.catalogue(), re.MULTILINE)
    assert len(ids) == len(set(ids)) == len(messages.MESSAGES) + 1


def test_the_words_of_the_catalogue_are_those_that_the_docs_tell() -> None:
    table = (ROOT / "docs/events.md").read_text(encoding="utf-8").partition("| what | |")[2].partition("\n\n")[0]
    told = {word for line in table.splitlines() for word in re.findall("`([a-z-]+)`", line.split("|")[1] if line else "")}
    assert set(messages.MESSAGES) <= told
