"""The generation that is chosen as the way back, and those that are kept for it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lxcfleet.api.generations import RemoveGenerationsRequest
from lxcfleet.base.generations import packages, store
from lxcfleet.containers.common import Common
from lxcfleet.errors import NotFound, WrongState
from lxcfleet.patch.generations import BEFORE, Generations
from lxcfleet.patch.holds import Holds
from lxcfleet.patch.rejections import Rejection, Rejections
from lxcfleet.patch.verify.evidence import fingerprint
from lxcfleet.paths import Paths


class World:
    """Generations by number, each with the version of the one package."""

    def __init__(self, top: Path) -> None:
        self.paths = Paths(lxc=top / "lxc", run=top / "run", etc=top / "etc")
        self.versions: dict[int, str] = {}
        self.users: dict[int, list[str]] = {}
        self.removed: list[int] = []
        nothing: Any = SimpleNamespace(publish=lambda _: None)
        self.rejections = Rejections(self.paths, nothing)
        common = Common(self.paths, nothing, nothing, nothing)
        self.generations = Generations(
            common, nothing, nothing, nothing, self.rejections, Holds(self.paths), nothing
        )

    def reject(self, version: str) -> None:
        """A rollout of this version failed."""
        self.rejections.note(Rejection(fingerprint({"app": version}), "now", "web1", "it ended"))

    def goal(self, version: str) -> int:
        """The way back of a host with this version."""
        return asyncio.run(self.generations.goal({"app": version}))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path)

    async def freeze(*_: object, **__: object) -> Any:
        return None

    async def remove(_: Generations, ask: RemoveGenerationsRequest) -> None:
        world.removed += ask.numbers

    monkeypatch.setattr(store, "numbers", lambda _: sorted(world.versions))
    monkeypatch.setattr(store, "load", lambda *_: SimpleNamespace(why=BEFORE))
    monkeypatch.setattr(packages, "of", lambda _, number: {"app": world.versions[number]})
    monkeypatch.setattr(Generations, "freeze", freeze)
    monkeypatch.setattr(Generations, "remove", remove)
    monkeypatch.setattr(Generations, "_users", lambda _, number: world.users.get(number, []))
    return world


def test_the_last_good_one_is_not_removed(world: World) -> None:
    world.versions = {7: "1", 8: "2", 9: "3"}
    refuse = world.generations._refuse_last
    asyncio.run(refuse([7, 8], [9]))
    asyncio.run(refuse([7], [8, 9]))
    world.reject("3")
    with pytest.raises(WrongState, match="generation 7 is the last good one"):
        asyncio.run(refuse([7, 8], [9]))
    asyncio.run(refuse([9], [7, 8]))
    asyncio.run(refuse([9], []))


def test_the_way_back_leads_past_bases_that_were_rejected(world: World) -> None:
    world.versions = {8: "1", 9: "2"}
    assert world.goal("3") == 9
    world.reject("2")
    assert world.goal("3") == 8, "the patch that came after a bad one froze the bad one"
    world.reject("1")
    with pytest.raises(NotFound) as caught:
        world.goal("3")
    assert "rejected" in caught.value.why


def test_bad_patches_in_a_row_leave_the_good_base_there(world: World) -> None:
    world.versions = {number: str(number) for number in range(1, 9)}
    for number in range(3, 8):
        world.reject(str(number))
    world.users[3] = ["web1"]
    asyncio.run(world.generations.prepare(keep=2))
    assert world.removed == [5, 4, 1], "of good ones 8 and 2 stay, of bad ones 7 and 6, and the one that is in use"


def test_no_reason_is_known_of_what_was_not_rejected(world: World) -> None:
    assert world.rejections.of({"app": "1"}) is None
    world.reject("1")
    rejection = world.rejections.of({"app": "1"})
    assert rejection is not None
    assert rejection.in_words() == "web1: it ended"
    assert world.rejections.of(cast(Any, {})) is None
