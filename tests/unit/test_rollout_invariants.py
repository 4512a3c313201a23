"""Rollouts in a model world where anything may happen at any moment: invariants that always hold."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from lxcfleet.patch.rollout import planner, state
from lxcfleet.patch.rollout.baking import CanaryFinding
from lxcfleet.patch.rollout.planner import FindStale, Finish, Prove, RestartWave, Stop, Wait
from lxcfleet.patch.rollout.state import Halt, LiveState, Member, MemberPhase, Rollout, RolloutKind, Status
from lxcfleet.spec.policies.rollout import RolloutSettings, Share


@dataclass
class Box:
    """A container of the model world."""

    labels: dict[str, str]
    delay: int | None
    """Looks from its start until it is healthy; None: never."""
    number: int = 1
    age: int = 1000
    owed: int = 0
    """Looks until a start that is owed to the container is done."""
    runs: bool = True
    ill: bool = False
    """Whether it ends by itself."""
    stale_since: int = 0
    """The patch that the container does not have yet."""
    stuck: bool = False
    """Whether it is stale whatever is done to it, because of a shadow for instance."""
    restarts: dict[int, int] = field(default_factory=dict)
    """How often the rollout restarted it, by patch."""
    awaited: frozenset[str] = frozenset()
    """Those that have to be healthy before it starts."""
    starts: int = 0
    """How often the rollout started it after it had fallen."""

    @property
    def identity(self) -> str:
        return f"{self.number}@0.00"

    @property
    def healthy(self) -> bool:
        return self.runs and not self.owed and not self.ill and self.delay is not None and self.age >= self.delay

    def seen(self, lack: str = "") -> LiveState:
        running = self.runs and not self.owed
        return LiveState(
            self.identity if running else None,
            self.labels,
            healthy=self.healthy,
            unhealthy=running and self.ill,
            healthy_for=float(self.age - (self.delay or 0)) if self.healthy else 0.0,
            running_for=float(self.age) if running else 0.0,
            busy="start" if self.owed else None,
            lack=lack,
            awaited=self.awaited,
        )

    def restart(self, patch: int, owed: int) -> None:
        if self.runs:
            self.restarts[patch] = self.restarts.get(patch, 0) + 1
        else:
            self.starts, self.runs = self.starts + 1, True
        self.number += 1
        self.age, self.owed = 0, owed
        self.stale_since = self.stale_since if self.stuck else 0


class World:
    """Containers, and a driver that is killed at will: it keeps only what it wrote down."""

    def __init__(self, data: st.DataObject, *, calm: bool) -> None:
        self.data = data
        self.calm = calm
        count = data.draw(st.integers(0, 8), "containers")
        labels = st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["x", "y"]), max_size=2)
        delay = st.integers(0, 4) if calm else st.one_of(st.integers(0, 4), st.integers(0, 4), st.none())
        self.boxes = {name: Box(data.draw(labels), data.draw(delay)) for name in (f"c{n}" for n in range(1, count + 1))}
        for box in self.boxes.values():
            box.stale_since = int(data.draw(st.booleans(), "stale"))
            box.delay = box.delay if box.delay is not None or box.stale_since else 0
        for name, box in self.boxes.items():
            later = [other for other in self.boxes if other > name]
            if later:
                box.awaited = frozenset(self.data.draw(st.sets(st.sampled_from(later), max_size=2), "on"))
        for name in sorted(self.boxes, reverse=True):
            box = self.boxes[name]
            box.awaited |= {far for near in box.awaited for far in self.boxes[near].awaited}
            box.stuck = not calm and data.draw(st.integers(0, 4), "stuck") == 0
        self.patches = 1
        self.policy = RolloutSettings(
            data.draw(st.sampled_from([Share(1), Share(2), Share(25, True), Share(60, True), Share(100, True)])),
            data.draw(st.sampled_from([Share(0), Share(1), Share(40, True)])),
            0.0, 8.0, data.draw(st.sampled_from([("*",), ("a",), ()])), bake=data.draw(st.sampled_from([0.0, 3.0])),
        )  # fmt: skip
        self.priorities = {name: data.draw(st.integers(0, 1)) for name in self.boxes}
        begun = Rollout(
            id="r1", kind=RolloutKind.PATCH, created="now", policy=self.policy, members={}, crews={"own": Share(1)}
        )
        self.crew = {name for name in self.boxes if data.draw(st.booleans(), "crew")}
        self.file = state.to_json(planner.merge(planner.patched(begun), self.stale(), 1))
        self.blocked = 0
        self.kills = 0

    def see(self) -> dict[str, LiveState]:
        return {name: box.seen(self.lack(box)) for name, box in self.boxes.items()}

    def lack(self, box: Box) -> str:
        """What keeps a container from starting."""
        return next((f"{name} not healthy" for name in sorted(box.awaited) if not self.is_well(name)), "")

    def is_well(self, name: str) -> bool:
        return name in self.boxes and self.boxes[name].healthy

    def fallen(self) -> dict[str, Member]:
        """The containers that the rollout took down, according to the notes beside them."""
        failed = [m for m in self.read().by_phase(MemberPhase.FAILED) if m.name in self.boxes]
        return {m.name: Member(m.name, "", fallen=True) for m in failed if not self.boxes[m.name].runs}

    def stale(self) -> dict[str, Member]:
        return {
            name: Member(
                name, box.identity, self.priorities[name], min_healthy_time=self.data.draw(st.sampled_from([0.0, 2.0])),
                healthy_deadline=8.0, crew="own" if name in self.crew else None,
                bake=3.0 if name in self.crew else None,
            )
            for name, box in self.boxes.items()
            if box.stale_since and box.runs and not box.owed
        }  # fmt: skip

    def killed(self) -> bool:
        if self.kills == 10 or self.data.draw(st.integers(0, 5), "killed") > 0:
            return False
        self.kills += 1
        return True

    def tick(self) -> None:
        for box in self.boxes.values():
            box.age += 1
            box.owed = max(0, box.owed - 1)
        self.blocked += 1
        if self.calm or not self.boxes:
            return
        event = self.data.draw(st.integers(0, 12), "event")
        name = self.data.draw(st.sampled_from(sorted(self.boxes)), "to")
        box = self.boxes[name]
        if event == 0:
            box.ill = not box.ill
        elif event == 1:
            box.runs = False
        elif event == 2:
            del self.boxes[name]
        elif event == 3 and box.runs:  # by the operator
            box.number, box.age, box.stale_since = box.number + 100, 0, 0
        elif event == 4 and self.patches < 3:
            self.patches += 1
            for each in self.boxes.values():
                each.stale_since = each.stale_since or self.patches * int(self.data.draw(st.booleans(), "stale again"))
            self.write(planner.supersede(planner.patched(self.read()), self.see()))

    def read(self) -> Rollout:
        return state.from_json(self.file)

    def write(self, plan: Rollout) -> None:
        self.file = state.to_json(plan)

    def step(self) -> bool:
        """Take one turn of the driver, which may be killed after each act; returns whether the rollout goes on."""
        seen = self.see()
        plan = planner.settle(self.read(), seen)
        decision = planner.decide(plan, seen, float(self.blocked))
        if not isinstance(decision, Wait) or plan.by_phase(MemberPhase.RESTARTING, MemberPhase.GATED):
            self.blocked = 0
        match decision:
            case Wait(seconds=None) | Finish():
                self.write(plan)
                return False
            case Wait():
                self.write(plan)
            case Prove(chosen):
                self.check_baked(plan, chosen)
                if not self.killed():
                    self.write(planner.note_proofs(plan, {name: CanaryFinding() for name in chosen}))
            case FindStale():
                found = {**self.stale(), **self.fallen()}
                if not self.killed():
                    self.write(planner.merge(plan, found, plan.patch))
            case Stop(container, why):
                self.write(planner.halt(plan, Halt(container, why)))
                return False
            case RestartWave(chosen):
                self.check_wave(plan, chosen)
                done = [m for m in plan.members.values() if m.canary and m.phase is MemberPhase.DONE and m.restarted_for]
                assert all(m.baked_from is not None or not plan.bake(m) or not m.expected for m in done)
                self.write(planner.begin_wave(plan, chosen))
                for name in chosen:
                    if self.killed():
                        break
                    self.boxes[name].restart(plan.patch, owed=self.data.draw(st.integers(0, 2), "owed"))
                else:
                    self.write(planner.note_starts(self.read(), chosen))
        return True

    def check_baked(self, plan: Rollout, chosen: tuple[str, ...]) -> None:
        """Check that the time under watch was not cut short."""
        for name in chosen:
            assert plan.members[name].canary
            assert self.boxes[name].age >= (plan.members[name].baked_from or 0.0) + plan.bake(plan.members[name])

    def check_wave(self, plan: Rollout, chosen: tuple[str, ...]) -> None:
        """Check that no container goes down which has to stay up."""
        assert chosen
        waiting = {member.name for member in plan.by_phase(MemberPhase.WAITING)}
        assert all(waiting.isdisjoint(self.boxes[name].awaited) for name in chosen), "its turn comes after theirs"
        assert not any(self.see()[name].lack for name in chosen)
        counted = [m for m in plan.members.values() if m.phase is not MemberPhase.SKIPPED and m.name in self.boxes]
        allowed = self.policy.max_unavailable.of(len(counted))
        ill = [m.name for m in counted if not self.boxes[m.name].healthy]
        down = set(ill) | set(chosen)
        assert len(down) <= max(allowed, len(ill))
        assert len(chosen) <= allowed
        for name in chosen:
            for key, value in self.boxes[name].labels.items():
                if "*" not in self.policy.groups and key not in self.policy.groups:
                    continue
                group = [n for n, box in self.boxes.items() if box.labels.get(key) == value]
                healthy = [n for n in group if self.boxes[n].healthy]
                if len(healthy) > 1:
                    assert set(healthy) - set(chosen), (key, value)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_in_a_calm_world_each_stale_one_is_restarted_exactly_once_whatever_is_killed(data: st.DataObject) -> None:
    world = World(data, calm=True)
    stale = {name for name, box in world.boxes.items() if box.stale_since}
    for _ in range(400):
        if not world.step():
            break
        world.tick()
    else:
        raise AssertionError("it does not end")
    plan = world.read()
    seen = world.see()
    assert planner.decide(planner.settle(plan, seen), seen) == Finish(), plan
    for name, box in world.boxes.items():
        assert sum(box.restarts.values()) == (name in stale), name
        assert not box.stale_since
    assert {member.phase for member in plan.members.values()} <= {MemberPhase.DONE}


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_in_a_wild_world_it_ends_and_restarts_nothing_twice_for_one_patch(data: st.DataObject) -> None:
    world = World(data, calm=False)
    resumed = 0
    for _ in range(600):
        if not world.step():
            plan = world.read()
            if plan.status is not Status.HALTED or resumed == 3:
                break
            resumed += 1
            world.write(planner.resume(plan, world.see(), accept=data.draw(st.booleans(), "accept")))
        world.tick()
    else:
        raise AssertionError("it does not end")
    for box in world.boxes.values():
        assert max(box.restarts.values(), default=0) <= 1
        assert box.starts <= planner.ATTEMPTS * (world.read().patch + 1)
    plan = world.read()
    if plan.status is not Status.HALTED:
        left = [name for name, box in world.boxes.items() if box.stale_since and box.seen().identity]
        skipped = {m.name for m in plan.members.values() if m.phase in (MemberPhase.SKIPPED, MemberPhase.FAILED) or m.note}
        assert set(left) <= skipped | {n for n in left if world.boxes[n].stale_since > plan.scanned}
