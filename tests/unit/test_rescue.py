"""What fails after a patch gets its former base back, and loses it again with the next good patch."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lxcfleet.api.generations import FreezeRequest, RemoveGenerationsRequest, RollbackRequest
from lxcfleet.api.requests import RolloutRequest
from lxcfleet.containers.common import Common
from lxcfleet.containers.reconciling import bases
from lxcfleet.containers.reconciling.bases import Bases
from lxcfleet.errors import InvalidInput, NotFound, WrongState
from lxcfleet.host.packages import database
from lxcfleet.patch.events import NotReleased, NotRescued, PatchAccepted, PatchPassedOver, PatchRejected
from lxcfleet.patch.holds import Holds, today
from lxcfleet.patch.rejections import MOST, Rejections
from lxcfleet.patch.rescue import KeptBack, Rescue
from lxcfleet.patch.rescued import Rescued
from lxcfleet.patch.rollout.state import Halt, Member, MemberPhase, Rollout, RolloutKind
from lxcfleet.paths import Paths
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.policies.rollout import RolloutSettings
from lxcfleet.spec.policies.windows import PatchSettings
from lxcfleet.spec.selection import Selection

GOAL = 7


class Registry(dict[str, Any]):
    """Containers by name; a loop goes over the containers."""

    def __init__(self, containers: Iterable[Any]) -> None:
        super().__init__({each.name: each for each in containers})

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values())


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
        self.bases = Bases(self.paths, lambda: True)
        self.unfit: dict[str, int] = {}
        """Whose own packages would break, and on which base."""
        self.active: Rollout | None = None
        self.packages = {"libc6": "1", "app": "1"}
        """The host's."""
        self.marked: list[str] = []
        self.taken_up: list[Collection[str]] = []
        self.asked: list[RolloutRequest] = []

    def rescue(self) -> Rescue:
        """The part, as a daemon makes it when it starts."""
        registry = Registry(SimpleNamespace(name=name, wanted=spec) for name, spec in self.specs.items())
        rejections = Rejections(self.paths, cast(Any, SimpleNamespace(publish=self.events.append)))
        generations = SimpleNamespace(goal=self._goal, prepare=self._prepare, unfit=self._unfit)
        orders = SimpleNamespace(
            rescue=self._rescue, begin_change=self._begin, ledger=SimpleNamespace(active=self.active),
            reject=self.marked.append, take_up=self._take_up, begin=self._begin_rollout,
        )
        nothing: Any = SimpleNamespace(publish=self.events.append)
        tasks: Any = SimpleNamespace(do=lambda _, work: asyncio.run(work()))
        return Rescue(
            Common(self.paths, cast(Any, registry), cast(Any, None), nothing, tasks=tasks), lambda: self.settings,
            cast(Any, generations), cast(Any, orders), KeptBack(rejections, Holds(self.paths), Rescued(self.paths)),
            self.bases, lambda: self.pending,
        )  # fmt: skip

    async def _take_up(self, found: Collection[str]) -> None:
        self.taken_up.append(found)

    async def _begin_rollout(self, ask: RolloutRequest) -> None:
        self.asked.append(ask)

    async def _goal(self, _: object) -> int:
        if self.problem:
            raise self.problem
        return GOAL

    async def _unfit(self, names: Iterable[str], to: int) -> dict[str, list[str]]:
        return {name: ["tool 1 needs libnew"] for name in names if self.unfit.get(name) == to}

    async def _prepare(self, *, keep: int) -> dict[str, Any]:
        self.frozen += 1
        if self.problem:
            raise self.problem
        return {"generation": {"number": keep}}

    async def _rescue(self, wanted: Mapping[str, Spec]) -> None:
        self.rescued.append(wanted)
        self.specs.update(wanted)

    async def _begin(self, wanted: Mapping[str, Spec], _: object, *, auto_revert: bool) -> None:
        self.begun.append((wanted, auto_revert))
        if not self.reverts:
            self.specs.update(wanted)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path)
    monkeypatch.setattr(database, "installed", lambda: dict(world.packages))
    return world


def rollout(kind: RolloutKind = RolloutKind.PATCH, **phases: MemberPhase) -> Rollout:
    members = {name: Member(name, "id", phase=phase) for name, phase in phases.items()}
    failed = [name for name, phase in phases.items() if phase is MemberPhase.FAILED]
    halt = Halt(failed[0], "it ended", packages={"app": ["1", "2"]}) if failed else None
    return Rollout("r1", kind, RolloutSettings(), "2026-01-01T00:00:00Z", members, halted=halt)


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
    assert world.events == [PatchRejected("one: it ended"), NotRescued(("one",), "tool 1 needs libnew")]
    asyncio.run(world.rescue().halted(rollout(one=MemberPhase.FAILED)))
    assert len(world.rescued) == 1


def test_a_container_whose_own_packages_would_break_on_the_hosts_root_stays_where_it_is(world: World) -> None:
    asyncio.run(world.rescue().halted(rollout(one=MemberPhase.FAILED, two=MemberPhase.FAILED)))
    world.unfit = {"one": 0}
    world.packages["app"] = "2"
    world.events.clear()
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
    assert world.events == [PatchRejected("one: it ended"), NotRescued(("one",), "there is nothing to go back to")]


# a patch that is rejected


BAD = {"libc6": "1", "app": "2"}
PATCH = RolloutRequest("patch", Selection(everything=True))


@pytest.fixture
def rejected(world: World) -> World:
    """A world in which a patch was rejected."""
    world.packages = dict(BAD)
    asyncio.run(world.rescue().halted(rollout(one=MemberPhase.FAILED, two=MemberPhase.WAITING)))
    world.events.clear()
    return world


def test_a_rejected_patch_is_not_chosen_again_by_itself(rejected: World) -> None:
    for _ in range(2):  # each time by another daemon
        asyncio.run(rejected.rescue().take_up(["one", "two"]))
    assert rejected.taken_up == []
    assert rejected.events == [PatchPassedOver("one: it ended")] * 2
    record = asyncio.run(rejected.rescue().rejected())
    assert record is not None
    assert (record.container, record.why, record.packages) == ("one", "it ended", {"app": ["1", "2"]})
    assert rejected.marked == ["one: it ended"]


@pytest.mark.parametrize("version", ["3", "1"], ids=["mended", "downgraded by apt"])
def test_another_patch_is_taken_up_and_the_former_one_stays_rejected(rejected: World, version: str) -> None:
    rejected.packages["app"] = version
    asyncio.run(rejected.rescue().take_up(["two"]))
    assert rejected.taken_up == [["two"]]
    rejected.rescue().went_well(rollout(two=MemberPhase.DONE))
    rejected.packages = dict(BAD)  # somebody installs the bad one once more
    asyncio.run(rejected.rescue().take_up(["two"]))
    assert rejected.taken_up == [["two"]]


def test_somebody_who_asks_for_a_rejected_patch_has_to_say_so(rejected: World) -> None:
    with pytest.raises(WrongState) as caught:
        asyncio.run(rejected.rescue().begin(PATCH))
    assert caught.value.why == "one: it ended"
    restart = replace(PATCH, kind="restart")
    for ask in (restart, replace(PATCH, force=True)):
        asyncio.run(rejected.rescue().begin(ask))
    assert [(ask.kind, ask.force) for ask in rejected.asked] == [("restart", False), ("patch", True)]
    # Begun is not done: only if it goes well the patch is rejected no longer.
    assert asyncio.run(rejected.rescue().rejected()) is not None
    rejected.rescue().went_well(rollout(two=MemberPhase.DONE))
    assert asyncio.run(rejected.rescue().rejected()) is None
    assert rejected.events == [PatchAccepted("one: it ended")]
    asyncio.run(rejected.rescue().begin(PATCH))


def test_what_was_rescued_stays_while_the_patch_is_rejected(rejected: World) -> None:
    rejected.rescue().went_well(None)  # a look found nothing stale, as what would be stands on a generation
    assert rejected.begun == []
    rejected.packages["app"] = "1"  # the host went back
    rejected.rescue().went_well(None)
    assert [[*each] for each, _ in rejected.begun] == [["one"]]


def test_a_patch_is_rejected_once_and_with_the_last_reason(rejected: World) -> None:
    asyncio.run(rejected.rescue().halted(rollout(one=MemberPhase.FAILED)))
    assert rejected.events == [], "a daemon that was killed after the note does the rest, and tells nothing twice"
    asyncio.run(rejected.rescue().halted(rollout(two=MemberPhase.FAILED)))
    assert rejected.events == [PatchRejected("two: it ended")]
    assert len(json.loads(rejected.paths.rejected.read_bytes())) == 1


def test_without_freeze_nothing_is_rejected(world: World) -> None:
    world.settings = PatchSettings()
    asyncio.run(world.rescue().halted(rollout(one=MemberPhase.FAILED)))
    assert not world.paths.rejected.exists()
    world.settings = PatchSettings(freeze=True)
    asyncio.run(world.rescue().halted(rollout(one=MemberPhase.FAILED)))
    world.settings = PatchSettings()
    asyncio.run(world.rescue().take_up(["one"]))
    asyncio.run(world.rescue().begin(PATCH))
    assert (world.taken_up, world.asked) == ([["one"]], [PATCH])


def test_a_halt_at_no_container_says_nothing_about_the_patch(world: World) -> None:
    halted = replace(rollout(one=MemberPhase.FAILED), halted=Halt(None, "what is stale can't be told"))
    asyncio.run(world.rescue().halted(halted))
    assert asyncio.run(world.rescue().rejected()) is None


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"patch": "x"}]', '[{"patch": 1, "more": 2}]', "["])
def test_notes_that_were_damaged_reject_nothing(world: World, text: str) -> None:
    world.paths.state.mkdir(parents=True)
    world.paths.rejected.write_text(text)
    assert asyncio.run(world.rescue().rejected()) is None
    asyncio.run(world.rescue().halted(rollout(one=MemberPhase.FAILED)))
    assert asyncio.run(world.rescue().rejected()) is not None


def test_the_notes_do_not_grow_for_ever(world: World) -> None:
    for number in range(MOST + 5):
        world.packages["app"] = str(number)
        asyncio.run(world.rescue().halted(rollout(one=MemberPhase.FAILED)))
    assert len(json.loads(world.paths.rejected.read_bytes())) == MOST
    assert asyncio.run(world.rescue().rejected()) is not None
    world.packages["app"] = "0"
    assert asyncio.run(world.rescue().rejected()) is None


def test_a_record_that_was_damaged_counts_as_none(world: World) -> None:
    world.paths.state.mkdir(parents=True)
    for text in ("", "[]", '{"one": "x"}', "{"):
        world.paths.rescued.write_text(text)
        world.rescue().went_well(None)
    assert world.begun == []


def test_the_base_is_frozen_once_for_each_patch(world: World) -> None:
    assert cast(Any, asyncio.run(world.rescue().prepare()))["generation"]["number"] == PatchSettings().keep
    world.pending = True  # dpkg has begun
    assert asyncio.run(world.rescue().prepare()) is None
    world.pending, world.settings = False, PatchSettings()
    assert asyncio.run(world.rescue().prepare()) is None
    assert world.frozen == 1


def test_starts_know_what_was_frozen_before_the_patch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bases, "sheets_of", lambda *_: ("/s1",))
    asyncio.run(world.rescue().prepare())
    assert world.bases.of(Spec(name="one")) == PatchSettings().keep
    world.problem = NotFound("there is no room")
    with pytest.raises(NotFound):
        asyncio.run(world.rescue().prepare())
    assert world.bases.of(Spec(name="one")) == 0, "nothing was frozen before this one"


def test_the_hook_of_apt_knows_whether_to_ask(world: World) -> None:
    world.rescue().take_over()
    assert world.paths.freezes.exists()
    world.settings = PatchSettings()
    world.rescue().take_over()
    assert not world.paths.freezes.exists()


@pytest.mark.reaches("processes", reason="apt's hook is a line of the shell")
@pytest.mark.parametrize(
    ("client", "told"), [("exit 0", ""), ("echo no room >&2; exit 1", "no room"), ("exec sleep 60", "within 60 s")]
)
def test_the_hook_of_apt_never_fails_and_says_what_was_not_frozen(tmp_path: Path, client: str, told: str) -> None:
    text = (Path(__file__).parents[2] / "etc/apt/80lxcfleet").read_text()
    [line] = re.findall(r'^DPkg::Pre-Invoke \{ "(.*)"; \};$', text, re.MULTILINE)
    program = tmp_path / "lxcfleet"
    program.write_text(f"#!/bin/sh\n{client}\n")
    program.chmod(0o755)
    line = line.replace("/run/lxcfleet/freezes", str(tmp_path)).replace("timeout 60", "timeout 2")
    command = ["/bin/sh", "-c", line]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    said = ran.stdout + ran.stderr
    assert ran.returncode == 0
    assert told in said if told else not said


# what is held


YESTERDAY = today() - timedelta(days=1)


@pytest.mark.parametrize(("until", "goes"), [(YESTERDAY, True), (today(), False)])
def test_a_hold_whose_day_is_past_goes_along_with_the_next_patch_that_goes_well(
    world: World, until: date, goes: bool
) -> None:
    world.settings = PatchSettings()  # nobody has to freeze for that
    world.specs["one"] = Spec(name="one", generation=3)
    Holds(world.paths).hold({"one": 3, "two": 3}, until, "waits for the vendor")
    world.rescue().went_well(rollout(two=MemberPhase.FAILED))
    assert world.begun == []
    world.rescue().went_well(rollout(two=MemberPhase.DONE))
    assert [[*each] for each, _ in world.begun] == [["one"]] * goes
    assert all(reverts for _, reverts in world.begun)


def test_what_was_rescued_and_is_held_since_stays_until_its_day(world: World) -> None:
    asyncio.run(world.rescue().halted(rollout(one=MemberPhase.FAILED)))
    Holds(world.paths).hold({"one": GOAL}, today(), "")
    world.packages["app"] = "2"
    world.rescue().went_well(rollout(two=MemberPhase.DONE))
    assert world.begun == []
    Holds(world.paths).forget(["one"])
    world.rescue().went_well(rollout(two=MemberPhase.DONE))
    assert [[*each] for each, _ in world.begun] == [["one"]]


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
