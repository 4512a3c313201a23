"""What fails after a patch gets its former base back, and loses it again with the next good patch."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lxcfleet.api.generations import FreezeRequest, RemoveGenerationsRequest, RollbackRequest
from lxcfleet.errors import InvalidInput, NotFound
from lxcfleet.host.packages import database
from lxcfleet.patch.events import NotReleased, NotRescued
from lxcfleet.patch.rescue import Rescue
from lxcfleet.patch.rollout.state import Member, MemberPhase, Rollout, RolloutKind
from lxcfleet.paths import Paths
from lxcfleet.spec.rollout import RolloutSettings
from lxcfleet.spec.spec import Spec
from lxcfleet.spec.windows import PatchSettings

GOAL = 7


class World:
    """A fleet, and what was asked of rollouts."""

    def __init__(self, top: Path) -> None:
        self.paths = Paths(lxc=top / "lxc", run=top / "run", etc=top / "etc")
        self.paths.run.mkdir()
        self.settings = PatchSettings(freeze=True)
        self.specs = {name: Spec(name=name) for name in ("one", "two", "three")}
        self.pending = False
        self.frozen = 0
        self.rescued: list[Mapping[str, Spec]] = []
        self.begun: list[tuple[Mapping[str, Spec], bool]] = []
        self.events: list[Any] = []
        self.reverts = False
        """Whether what is begun fails, and so gives back what was there before."""
        self.problem: Exception | None = None
        self.unfit: dict[str, int] = {}
        """Whose own packages would break, and on which base."""
        self.active: Rollout | None = None

    def rescue(self) -> Rescue:
        """The part, as a daemon makes it when it starts."""
        registry = {name: SimpleNamespace(wanted=spec) for name, spec in self.specs.items()}
        generations = SimpleNamespace(goal=self._goal, prepare=self._prepare, unfit=self._unfit)
        orders = SimpleNamespace(
            rescue=self._rescue, begin_change=self._begin, ledger=SimpleNamespace(active=self.active)
        )
        nothing: Any = SimpleNamespace(publish=self.events.append)
        tasks: Any = SimpleNamespace(do=lambda _, work: asyncio.run(work()))
        return Rescue(
            self.paths, lambda: self.settings, cast(Any, registry), cast(Any, generations), cast(Any, orders),
            lambda: self.pending, nothing, tasks,
        )  # fmt: skip

    async def _goal(self, _: object) -> int:
        if self.problem:
            raise self.problem
        return GOAL

    async def _unfit(self, names: Iterable[str], to: int) -> dict[str, list[str]]:
        return {name: ["tool 1 needs libnew"] for name in names if self.unfit.get(name) == to}

    async def _prepare(self, *, keep: int) -> int:
        self.frozen += 1
        return keep

    async def _rescue(self, wanted: Mapping[str, Spec]) -> None:
        self.rescued.append(wanted)
        self.specs.update(wanted)

    async def _begin(self, wanted: Mapping[str, Spec], _: object, *, auto_revert: bool) -> None:
        self.begun.append((wanted, auto_revert))
        if not self.reverts:
            self.specs.update(wanted)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(database, "installed", dict)
    return World(tmp_path)


def rollout(kind: RolloutKind = RolloutKind.PATCH, **phases: MemberPhase) -> Rollout:
    members = {name: Member(name, "id", phase=phase) for name, phase in phases.items()}
    return Rollout("r1", kind, RolloutSettings(), "2026-01-01T00:00:00Z", members)


def test_only_what_failed_gets_its_base_back(world: World) -> None:
    halted = rollout(one=MemberPhase.FAILED, two=MemberPhase.WAITING, gone=MemberPhase.FAILED)
    asyncio.run(world.rescue().halted(halted))
    assert [{name: spec.generation for name, spec in each.items()} for each in world.rescued] == [{"one": GOAL}]
    # The next patch goes well, under another daemon: what stands there still goes along, in a rollout that reverts itself.
    world.rescue().went_well(rollout(two=MemberPhase.DONE))
    (specs, reverts), = world.begun
    assert ({name: spec.generation for name, spec in specs.items()}, reverts) == ({"one": 0}, True)
    world.rescue().went_well(rollout(two=MemberPhase.DONE))
    assert len(world.begun) == 1, "only once"


def test_what_fails_on_the_hosts_root_again_goes_along_with_the_good_patch_after_that(world: World) -> None:
    asyncio.run(world.rescue().halted(rollout(one=MemberPhase.FAILED)))
    world.reverts = True
    world.rescue().went_well(rollout(two=MemberPhase.DONE))
    world.reverts = False
    world.rescue().went_well(rollout(two=MemberPhase.DONE))
    assert [[*each] for each, _ in world.begun] == [["one"], ["one"]]
    assert world.specs["one"].generation == 0


def test_what_somebody_moved_meanwhile_stays_where_it_is(world: World) -> None:
    asyncio.run(world.rescue().halted(rollout(one=MemberPhase.FAILED)))
    world.specs["one"] = Spec(name="one", generation=GOAL + 1)
    world.rescue().went_well(None)
    assert world.begun == []


def test_a_patch_that_went_wrong_releases_nobody(world: World) -> None:
    asyncio.run(world.rescue().halted(rollout(one=MemberPhase.FAILED)))
    world.rescue().went_well(rollout(two=MemberPhase.FAILED))
    world.rescue().went_well(rollout(RolloutKind.RESTART, two=MemberPhase.DONE))
    assert world.begun == []


@pytest.mark.parametrize("kind", [RolloutKind.RESTART, RolloutKind.CHANGE])
def test_other_rollouts_and_other_settings_are_left_alone(world: World, kind: RolloutKind) -> None:
    asyncio.run(world.rescue().halted(rollout(kind, one=MemberPhase.FAILED)))
    world.settings = PatchSettings()
    asyncio.run(world.rescue().halted(rollout(one=MemberPhase.FAILED)))
    assert world.rescued == []


def test_a_container_whose_own_packages_would_break_stays_halted_and_that_is_told(world: World) -> None:
    world.unfit = {"one": GOAL}
    asyncio.run(world.rescue().halted(rollout(one=MemberPhase.FAILED, two=MemberPhase.FAILED)))
    assert [[*each] for each in world.rescued] == [["two"]]
    assert world.events == [NotRescued(("one",), "tool 1 needs libnew")]
    asyncio.run(world.rescue().halted(rollout(one=MemberPhase.FAILED)))
    assert len(world.rescued) == 1


def test_a_container_whose_own_packages_would_break_on_the_hosts_root_stays_where_it_is(world: World) -> None:
    asyncio.run(world.rescue().halted(rollout(one=MemberPhase.FAILED, two=MemberPhase.FAILED)))
    world.unfit = {"one": 0}
    world.rescue().went_well(rollout(three=MemberPhase.DONE))
    assert [[*each] for each, _ in world.begun] == [["two"]]
    assert world.events == [NotReleased("one", "tool 1 needs libnew")]
    world.unfit = {}
    world.rescue().went_well(rollout(three=MemberPhase.DONE))
    assert [[*each] for each, _ in world.begun] == [["two"], ["one"]]


def test_without_a_generation_the_halt_stays_and_that_is_told(world: World) -> None:
    world.problem = NotFound("there is nothing to go back to")
    asyncio.run(world.rescue().halted(rollout(one=MemberPhase.FAILED)))
    assert world.rescued == []
    assert world.events == [NotRescued(("one",), "there is nothing to go back to")]


def test_a_record_that_was_damaged_counts_as_none(world: World) -> None:
    world.paths.state.mkdir(parents=True)
    for text in ("", "[]", '{"one": "x"}', "{"):
        world.paths.rescued.write_text(text)
        world.rescue().went_well(None)
    assert world.begun == []


def test_the_base_is_frozen_once_for_each_patch(world: World) -> None:
    assert cast(Any, asyncio.run(world.rescue().prepare())) == PatchSettings().keep
    world.pending = True  # dpkg has begun
    assert asyncio.run(world.rescue().prepare()) is None
    world.pending, world.settings = False, PatchSettings()
    assert asyncio.run(world.rescue().prepare()) is None
    assert world.frozen == 1


def test_the_hook_of_apt_knows_whether_to_ask(world: World) -> None:
    world.rescue().take_over()
    assert world.paths.freezes.exists()
    world.settings = PatchSettings()
    world.rescue().take_over()
    assert not world.paths.freezes.exists()


@pytest.mark.parametrize(
    "numbers", [None, [], "1", [0], [-1], [True], ["1"], [1.0], [10**9], [*range(1, 1002)]], ids=repr
)
def test_a_removal_names_generations(numbers: object) -> None:
    with pytest.raises(InvalidInput):
        RemoveGenerationsRequest.from_json({"numbers": numbers})
    assert RemoveGenerationsRequest.from_json({"numbers": [3, 1, 3]}).numbers == (3, 1)


@pytest.mark.parametrize("why", ["a\nb", "x" * 201, "\x1b[2J"])
def test_a_reason_is_one_short_line(why: str) -> None:
    with pytest.raises(InvalidInput):
        FreezeRequest.from_json({"why": why})


def test_a_rollback_chooses_containers_and_a_base() -> None:
    whole: dict[str, Any] = {"selection": {"patterns": ["web*"], "labels": {}, "everything": False}, "to": None}
    assert RollbackRequest.from_json(whole).to is None
    assert RollbackRequest.from_json({**whole, "to": 0}).to == 0
    wrongs: list[dict[str, Any]] = [{"to": -1}, {"to": "1"}, {"to": 10**9}, {"selection": {}}]
    for wrong in wrongs:
        with pytest.raises(InvalidInput):
            RollbackRequest.from_json(whole | wrong)
