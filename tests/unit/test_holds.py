"""Containers that are held on a generation on purpose, until a day."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lxcfleet.api.generations import HoldRequest, ReleaseRequest, RollbackRequest
from lxcfleet.daemon.uses import findings
from lxcfleet.errors import InvalidInput, WrongState
from lxcfleet.patch import behind
from lxcfleet.patch.events import HoldPast
from lxcfleet.patch.holding import Holding
from lxcfleet.patch.holds import Hold, Holds, today
from lxcfleet.patch.rescued import Rescued
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Told
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading.moments import parse_until
from lxcfleet.spec.selection import Selection

DAY = date(2026, 11, 28)
TOMORROW = (today() + timedelta(days=1)).isoformat()
ALL = Selection(everything=True)


class Registry:
    """Containers, each on a generation."""

    def __init__(self, **standing: int) -> None:
        self.standing = standing

    def __iter__(self) -> Iterator[Any]:
        return iter([SimpleNamespace(name=n, wanted=Spec(name=n, generation=on)) for n, on in self.standing.items()])

    def choose(self, selection: Selection) -> list[Any]:
        return [each for each in self if selection.everything or each.name in selection.patterns]

    async def observe(self) -> None:
        """Does nothing."""


class World:
    """The parts that deal with holds."""

    def __init__(self, top: Path) -> None:
        self.paths = Paths(lxc=top / "lxc", run=top / "run", etc=top / "etc")
        self.registry = Registry(web1=41, web2=41, db=0)
        self.holds, self.rescued = Holds(self.paths), Rescued(self.paths)
        self.holding = Holding(cast(Any, self.registry), self.holds, self.rescued)
        self.events: list[Any] = []
        self.bus: Any = SimpleNamespace(publish=self.events.append)

    def hold(self, *names: str, **more: Any) -> Any:
        values: dict[str, Any] = {"selection": Selection(names), "number": None, "until": TOMORROW, **more}
        return asyncio.run(self.holding.hold(HoldRequest(**values)))

    def held(self) -> list[str]:
        return sorted(self.holds.among(self.registry))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_container_is_held_where_it_stands_and_nowhere_else(world: World) -> None:
    record = world.hold("web1", why="waits for the vendor")
    assert (record["changed"], record["chosen"]) == (True, ["web1"])
    [held] = record["held"]
    assert (held["generation"], held["until"], held["why"], held["past"]) == (41, TOMORROW, "waits for the vendor", False)
    assert world.hold("web1", why="waits for the vendor")["changed"] is False
    assert world.hold("web1", why="another")["changed"] is True
    assert world.held() == ["web1"]
    world.registry.standing["web1"] = 0
    assert world.held() == []
    world.registry.standing["web1"] = 42
    assert world.held() == []


def test_a_number_means_all_on_that_generation(world: World) -> None:
    assert world.hold(number=41, selection=Selection())["chosen"] == ["web1", "web2"]
    with pytest.raises(WrongState):
        world.hold(number=7, selection=Selection())


def test_what_stands_on_the_host_s_root_is_not_held_and_then_nobody_is(world: World) -> None:
    with pytest.raises(WrongState) as caught:
        world.hold(selection=ALL)
    assert caught.value.message == "db can't be held"
    assert caught.value.hint.startswith(f"lxcfleet rollback db --until {TOMORROW} ")
    assert world.held() == []


def test_a_dry_run_holds_and_releases_nobody(world: World) -> None:
    record = world.hold("web1", dry_run=True)
    assert (record["changed"], record["chosen"], record["held"]) == (True, ["web1"], [])
    assert not world.paths.held.exists()
    world.hold("web1")
    record = asyncio.run(world.holding.release(ReleaseRequest(ALL, None, dry_run=True)))
    assert record["released"] == ["web1", "web2"]
    assert (world.held(), world.rescued.all()) == (["web1"], {})


def test_a_release_has_them_go_along_with_the_next_good_patch(world: World) -> None:
    world.hold("web1")
    record: Any = asyncio.run(world.holding.release(ReleaseRequest(ALL, None)))
    assert (record["changed"], record["released"]) == (True, ["web1", "web2"])
    assert (world.held(), world.rescued.all()) == ([], {"web1": 41, "web2": 41})
    record = asyncio.run(world.holding.release(ReleaseRequest(ALL, None)))
    assert (record["changed"], record["released"]) == (False, [])


def test_a_day_that_is_past_is_refused(world: World) -> None:
    with pytest.raises(InvalidInput) as caught:
        world.hold("web1", until="2020-01-31")
    assert caught.value.message == "2020-01-31 is past"
    world.hold("web1", until=today().isoformat())
    assert world.held() == ["web1"], "today counts"


def test_the_day_is_told_once_whatever_daemon_there_is(world: World) -> None:
    world.holds.hold({"web1": 41, "web2": 41, "db": 3}, DAY, "")
    world.holds.tell_past(world.registry, world.bus, DAY)
    assert world.events == [], "the last day itself is not past"
    for _ in range(2):
        Holds(world.paths).tell_past(world.registry, world.bus, DAY + timedelta(days=1))
    assert world.events == [HoldPast("web1", 41, "2026-11-28"), HoldPast("web2", 41, "2026-11-28")]
    words = "held on generation 41 until 2026-11-28, that is past: it goes along with the next patch that goes well"
    assert world.events[0].told() == Told("hold", "web1", words)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", "1", '{"web1": 1}', '{"web1": {"generation": 41, "until": "x", "since": ""}}', '{"web1": {"more": 1}}'],
)
def test_a_note_that_was_damaged_holds_nobody(world: World, text: str) -> None:
    world.paths.state.mkdir(parents=True)
    world.paths.held.write_text(text)
    assert world.held() == []
    world.hold("web1")
    assert world.held() == ["web1"]


def test_a_note_can_be_taken_back(world: World) -> None:
    world.holds.forget(["web1"])
    assert not world.paths.held.exists()
    world.holds.hold({"web1": 41, "web2": 41}, today(), "")
    world.holds.forget(["web1"])
    assert world.held() == ["web2"]


def test_verify_says_on_what_until_when_and_how_far_behind() -> None:
    hold = Hold(41, "2027-01-31", "", "why")
    told = behind.words(41, hold.in_words(DAY), ["openssl", "libc6", "zlib1g"])
    assert told == "on generation 41, held until 2027-01-31, 3 packages behind (libc6, openssl, zlib1g)"
    past = replace(hold, until="2026-11-27")
    assert behind.words(41, past.in_words(DAY), ["openssl"]) == (
        "on generation 41, held until 2026-11-27, that is past, 1 package behind (openssl)"
    )
    many = behind.words(3, "", [f"p{number}" for number in range(7)])
    assert many == "on generation 3, 7 packages behind (p0, p1, p2, p3, p4 and 2 more)"
    assert behind.words(3, "held until 2027-01-31", []) == "", "it lacks nothing"
    closed = {"openssl": ["CVE-2026-1", "CVE-2026-2", "CVE-2026-3"], "libssl3": ["CVE-2026-1"]}
    packages = "libssl3:amd64: CVE-2026-1; openssl: CVE-2026-1, CVE-2026-2 and 1 more; libc6:amd64"
    told = behind.words(3, "", ["libc6:amd64", "openssl", "libssl3:amd64"], closed)
    assert told == f"on generation 3, 3 packages behind ({packages})"


def test_doctor_complains_from_seven_days_on_and_of_each_day_that_is_past() -> None:
    moment = datetime(2026, 11, 28, tzinfo=UTC)
    created = {1: moment - timedelta(days=8), 2: moment - timedelta(days=6)}
    holds = {"a": ("held until 2027-01-31 (vendor)", False), "c": ("held until 2026-11-27, that is past", True)}
    old, past = findings.of_bases({1: ["a", "b"], 2: ["c", "d"]}, created, moment, holds)
    assert old.message.endswith("without later patches of the host; a held until 2027-01-31 (vendor)")
    assert past.message == "c is held until 2026-11-27, that is past, on generation 2"
    assert past.level == "warning"
    assert findings.of_bases({2: ["d"]}, created, moment, holds) == []


@pytest.mark.parametrize(
    ("text", "day"),
    [("2027-01-31", date(2027, 1, 31)), ("30d", date(2026, 12, 28)), ("2w", date(2026, 12, 12)), (" 0D ", DAY)],
)
def test_days_to_come(text: str, day: date) -> None:
    assert parse_until(text, DAY) == day


@pytest.mark.parametrize("wrong", ["", "x", "2027-02-30", "20270131", "2027-W01-1", "-1d", "9999w", "1m", "2027-01-31T10:00"])
def test_what_is_no_day_is_refused(wrong: str) -> None:
    with pytest.raises(InvalidInput):
        parse_until(wrong, DAY)


WEB: dict[str, Any] = {"selection": {"patterns": ["web*"], "labels": {}, "everything": False}}


@pytest.mark.parametrize(
    "wrong",
    [
        {}, {**WEB}, {**WEB, "until": 1}, {**WEB, "until": "30d"}, {**WEB, "until": "2027-13-01"},
        {**WEB, "until": "2027-01-31", "number": 3}, {"until": "2027-01-31", "number": 0},
        {**WEB, "until": "2027-01-31", "why": "a\nb"}, {**WEB, "until": "2027-01-31", "why": "x" * 201},
        {**WEB, "until": "2027-01-31", "more": 1},
    ],
)  # fmt: skip
def test_a_request_names_containers_or_a_generation_and_a_day(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        HoldRequest.from_json(wrong)


@pytest.mark.parametrize("wrong", [{}, {"number": 0}, {**WEB, "number": 3}, {**WEB, "more": 1}, {**WEB, "dry_run": 1}])
def test_a_release_names_containers_or_a_generation(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        ReleaseRequest.from_json(wrong)


def test_a_rollback_holds_on_generations_alone() -> None:
    assert RollbackRequest.from_json({**WEB, "until": "2027-01-31", "why": "x"}).until == "2027-01-31"
    wrongs: list[dict[str, Any]] = [{"to": 0, "until": "2027-01-31"}, {"why": "x"}, {"until": "soon"}]
    for wrong in wrongs:
        with pytest.raises(InvalidInput):
            RollbackRequest.from_json({**WEB, **wrong})
