"""Patches as numbers: the values that clients get while the fleet is counted again."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lxcfleet.errors import HostError
from lxcfleet.patch.numbers import AGAIN_SECONDS, PatchNumbers
from lxcfleet.patch.own import OwnProcess
from lxcfleet.patch.stale.judge import OldFile, Why


class World:
    """A stand-in for a fleet, whose shadows are counted when the test says so."""

    def __init__(self, **shadows: int | None) -> None:
        self.shadows = shadows
        """By container; None: its delta can't be read."""
        self.may_end = asyncio.Event()
        self.counting = asyncio.Event()
        self.error: HostError | None = None
        self.cves_counted = 0
        watcher = SimpleNamespace(record=lambda: {"phase": "idle", "reboot": None})
        self.numbers = PatchNumbers(*cast(Any, (self, None, lambda: None, watcher, self._count, self._parts, self._cves)))

    def __iter__(self) -> Any:
        return iter([SimpleNamespace(name=name, running=None) for name in self.shadows])

    def __contains__(self, name: object) -> bool:
        return name in self.shadows

    async def _cves(self) -> dict[str, int]:
        self.cves_counted += 1
        if self.error is not None:
            raise self.error
        return {"proven": self.cves_counted}

    async def _parts(self) -> list[OwnProcess]:
        file = OldFile("/lib/libc.so.6", Why.REPLACED, "base", ())
        return [OwnProcess("lxcfleetd", 7), OwnProcess("dnsmasq", 8, (file,))]

    async def _count(self, selection: Any) -> list[Any]:
        self.counting.set()
        await self.may_end.wait()
        if self.error is not None:
            raise self.error
        found = {name: self.shadows[name] for name in selection.patterns}
        return [
            {"name": name, "shadows": ["x"] * (count or 0), "problem": "no" if count is None else None}
            for name, count in found.items()
        ]

    async def count(self) -> dict[str, int]:
        """The numbers after a count."""
        self.may_end.set()
        await self.numbers._count_shadows()
        self.may_end.clear()
        self.counting.clear()
        return dict(self.numbers.read().shadows)

    def later(self) -> None:
        """Let a full count become due."""
        self.numbers._count_due = 0.0


def test_counts_stay_while_they_are_counted_anew() -> None:
    async def look() -> None:
        world = World(web1=2, web2=0)
        assert await world.count() == {"web1": 2, "web2": 0}
        world.later()
        world.shadows |= {"web2": 5, "web3": 1}
        counting = asyncio.create_task(world.numbers._count_shadows())
        await world.counting.wait()
        assert world.numbers.read().shadows == {"web1": 2, "web2": 0}
        world.may_end.set()
        await counting
        assert world.numbers.read().shadows == {"web1": 2, "web2": 5, "web3": 1}

    asyncio.run(asyncio.wait_for(look(), 60))


def test_a_count_that_fails_leaves_the_one_before() -> None:
    async def look() -> None:
        world = World(web1=2)
        await world.count()
        world.later()
        world.error = HostError("the launcher ended")
        with pytest.raises(HostError):
            await world.count()
        assert world.numbers.read().shadows == {"web1": 2}

    asyncio.run(asyncio.wait_for(look(), 60))


def test_a_container_that_can_not_be_counted_any_more_has_no_number() -> None:
    async def look() -> None:
        world = World(web1=2, web2=1)
        await world.count()
        world.later()
        world.shadows = {"web1": None}
        assert await world.count() == {}

    asyncio.run(asyncio.wait_for(look(), 60))


def test_new_containers_are_counted_before_all_are() -> None:
    async def look() -> None:
        world = World(web1=2)
        await world.count()
        assert world.numbers._count_due > 0
        world.shadows |= {"web1": 9, "web2": 1}
        assert await world.count() == {"web1": 2, "web2": 1}

    asyncio.run(asyncio.wait_for(look(), 60))


def test_one_that_could_not_be_counted_is_counted_soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is being made has no delta yet. It had no number for a quarter of an hour."""

    async def look() -> None:
        world, now = World(web1=2, web2=None), [1000.0]
        monkeypatch.setattr("lxcfleet.patch.numbers.time", SimpleNamespace(monotonic=lambda: now[0]))
        assert await world.count() == {"web1": 2}
        world.shadows = {"web1": 9, "web2": 1}
        assert await world.count() == {"web1": 2}, "not at once"
        now[0] += AGAIN_SECONDS
        assert await world.count() == {"web1": 2, "web2": 1}
        world.shadows |= {"web3": None}
        pauses = []
        for _ in range(3):
            await world.count()
            due, _ = world.numbers._again["web3"]
            pauses.append(due - now[0])
            now[0] = due
        assert pauses == [AGAIN_SECONDS, 2 * AGAIN_SECONDS, 4 * AGAIN_SECONDS]
        world.error = HostError("the launcher ended")
        with pytest.raises(HostError):
            await world.count()
        assert world.numbers._again["web3"][0] > now[0]
        world.error = None
        world.shadows = {"web1": 2}
        world.later()
        await world.count()
        assert world.numbers._again == {}, "what is gone is forgotten"

    asyncio.run(asyncio.wait_for(look(), 60))


def test_own_parts_that_run_old_code_are_told() -> None:
    async def look() -> None:
        world = World()
        assert world.numbers.read().parts == {}
        await world.numbers._look()
        assert world.numbers.read().parts == {"lxcfleetd": False, "dnsmasq": True}

    asyncio.run(asyncio.wait_for(look(), 60))


def test_cves_are_counted_when_due_or_when_packages_change(monkeypatch: pytest.MonkeyPatch) -> None:
    async def look() -> None:
        world, changed = World(), [1.0]
        monkeypatch.setattr("lxcfleet.patch.numbers._packages_changed", lambda: changed[0])
        assert world.numbers.read().cves == {}
        for _ in range(3):
            await world.numbers._look_for_cves()
        assert world.numbers.read().cves == {"proven": 1}
        changed[0] = 2.0
        await world.numbers._look_for_cves()
        assert world.numbers.read().cves == {"proven": 2}
        world.numbers._cves_due = 0.0
        world.error = HostError("no")
        with pytest.raises(HostError):
            await world.numbers._look_for_cves()
        assert world.numbers.read().cves == {}, "what is not known is not told"
        await world.numbers._look_for_cves()
        assert world.cves_counted == 3, "a failure is not repeated at once"

    asyncio.run(asyncio.wait_for(look(), 60))
