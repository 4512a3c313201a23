"""Changes that are only partly done: what is told of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from lxcfleet.api.requests import CreateRequest
from lxcfleet.containers.container import Container
from lxcfleet.containers.requests.changing import Planned
from lxcfleet.daemon.uses.setting import Setting
from lxcfleet.errors import Busy
from lxcfleet.spec.container.spec import Spec

FORMER, NEW = 64 << 20, 128 << 20


class World:
    """Two containers, whose changes are made in waves."""

    def __init__(self) -> None:
        self.containers = {name: Container(name, Spec(name, memory=FORMER)) for name in ("web1", "web2")}
        self.begun: list[list[str]] = []
        self.busy = False
        registry = SimpleNamespace(knows=lambda container: self.containers.get(container.name) is container)
        fleet: Any = SimpleNamespace(registry=registry, create=self.create)
        rollouts: Any = SimpleNamespace(
            begin_change=self.begin_change, reverts=lambda names: any(not self.containers[name] for name in names),
            gated=lambda planned, _: list(planned), refuse_second=lambda: None,
        )  # fmt: skip
        self.setting = Setting(fleet, rollouts)
        self.planned = [
            Planned(each, Spec(name, memory=FORMER), Spec(name, memory=NEW), (), ()) for name, each in self.containers.items()
        ]

    async def create(self, _: CreateRequest, updating: Any) -> Any:
        """Creates, and meanwhile somebody destroys one and makes it anew, or another rollout begins."""
        assert [*updating(self.planned)] == ["web1", "web2"]
        self.containers["web2"] = Container("web2", Spec("web2"))

    async def begin_change(self, wanted: Mapping[str, Spec], *_: object, **__: object) -> None:
        if self.busy:
            raise Busy("a rollout is under way", hint="wait for it")
        self.begun.append([*wanted])


def test_one_that_was_destroyed_before_its_turn_is_left_out() -> None:
    world = World()
    turns = {each.container.name: each for each in world.planned}
    for left in (["web2"], []):
        del world.containers[next(iter(world.containers))]
        asyncio.run(world.setting._begin([], turns, {}, restart=False))
        assert world.begun.pop() == left


def test_what_was_done_is_told_if_the_rest_can_not_begin() -> None:
    world = World()
    world.busy = True
    with pytest.raises(Busy) as caught:
        asyncio.run(world.setting.create(CreateRequest("web", 2, ensure=True, update=True, start=False)))
    assert "creating has begun" in caught.value.message
    assert "former specs still: web1" in caught.value.message
    assert "under way" in caught.value.message
    assert caught.value.hint.startswith("wait for it; then repeat the command")
