"""A rollout as a value: its members, the phase of each, and the state of containers. It can be written to a file and read."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from lxcfleet.errors import ErrorBody, InvalidInput
from lxcfleet.patch.rollout import trial
from lxcfleet.patch.rollout.trial import Trial
from lxcfleet.spec.policies import rollout as policies
from lxcfleet.spec.policies.rollout import RolloutSettings, Share
from lxcfleet.spec.reading import ondisk
from lxcfleet.spec.selection import natural_order

_VERSION = 1


class RolloutKind(StrEnum):
    """Why containers are restarted."""

    PATCH = "patch"
    """The containers were found stale."""
    RESTART = "restart"
    """The operator chose them."""
    CHANGE = "change"
    """Each gets another spec in its turn, and is restarted then if that takes a restart; see change_sets."""


class Status(StrEnum):
    """The status of a rollout."""

    RUNNING = "running"
    PAUSED = "paused"
    """The operator paused it; restarts that have begun are finished."""
    HALTED = "halted"
    """A gate failed."""
    ABORTED = "aborted"
    DONE = "done"

    @property
    def ended(self) -> bool:
        """Whether it never goes on."""
        return self in (Status.ABORTED, Status.DONE)


class MemberPhase(StrEnum):
    """The phase of a member."""

    WAITING = "waiting"
    """It is to be restarted."""
    RESTARTING = "restarting"
    """Its wave has begun: it is restarted, or gets another spec without a restart."""
    GATED = "checked"
    """That is done, and it has to prove that it is healthy."""
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    """Nothing is left to do, or nothing can be done; its note says why."""


@dataclass(frozen=True)
class Member:
    """A container that is part of the rollout."""

    name: str
    identity: str
    """The identity of the run that has to end; see registry.Running."""
    priority: int = 0
    pool: str | None = None
    """Its profile, if that limits how many may be down."""
    min_healthy_time: float | None = None
    """Its profile's value; None: the policy's."""
    healthy_deadline: float | None = None
    """Its profile's value, or a new one after a halt; None: the policy's."""
    expected: bool = True
    """Whether it was well, or starting, when it became a member, or else before the host's packages changed. A container that
    was ill before is restarted all the same, but the rollout does not wait for it to become well."""
    phase: MemberPhase = MemberPhase.WAITING
    wave: int | None = None
    """The wave in which it was restarted; the first is 1. 0: it got its spec in no wave."""
    restarted_for: int | None = None
    """The patch that it was last restarted for."""
    attempts: int = 0
    accepted: bool = False
    """It failed, and the operator said to go on."""
    killed: bool = False
    """Its stop became a kill, as it did not end in time."""
    stale: bool = False
    """It is stale although everything was done that may be."""
    note: str = ""
    fallen: bool = False
    """A patch took it down: it does not run, and is to be started. Until then its ``identity`` is empty."""

    base: str = ""
    """The name of the host's packages at its last good start; see rollout.causes. Empty: not known."""
    excused: Mapping[str, str] | None = None
    """The tests that were not good before it was restarted, with the reason: they don't hold it up. None: none was run."""
    trials: tuple[Trial, ...] = ()
    """Its tests since its restart."""

    canary: bool = False
    """It was restarted in a wave of canaries, which stay under watch for a while."""
    baked_from: float | None = None
    """The age of its run at which that began, in seconds: the kernel's clock of it goes on while no daemon runs. None: it has
    not begun."""
    baked: bool = False
    """Whether that time is over, and all was well."""
    live: bool = False
    """It gets another spec without a restart."""
    changed_at: float | None = None
    """The age of its run at which it got that, in seconds; None: it has not, or was restarted since."""
    crew: str | None = None
    """Its profile, if that says how many of its containers are canaries."""
    bake: float | None = None
    """Its profile's value; None: the policy's."""

    @property
    def victim(self) -> bool:
        """Whether the rollout itself may have made it ill: the rollout restarted it, or it fell."""
        return self.fallen or self.restarted_for is not None


@dataclass(frozen=True)
class Halt:
    """The reason why a rollout stopped."""

    container: str | None
    why: str
    log: str = ""
    """The end of the container's output."""
    packages: Mapping[str, list[str]] | None = None
    """Packages that changed since the container was last well, with their versions then and now; None: not known."""
    exit_status: int | None = None
    """Of process 1, as a shell shows it; None: it has not ended, or its status is not known."""
    ended: str = ""
    """How process 1 ended, in words; see containers.ends.endings."""


@dataclass(frozen=True)
class Rollout:
    """One rollout, running or not."""

    id: str
    kind: RolloutKind
    policy: RolloutSettings
    created: str
    members: Mapping[str, Member] = field(default_factory=dict)
    pools: Mapping[str, Share] = field(default_factory=dict)
    crews: Mapping[str, Share] = field(default_factory=dict)
    """How many containers of a profile go first, where the profile says it."""
    status: Status = Status.RUNNING
    wave: int = 0
    patch: int = 0
    """The number of patches that it covers; 0: none."""
    scanned: int = 0
    """The last patch after which stale containers were looked for."""
    confirmed: bool = True
    """Whether another look for them was made since the last wave began."""
    canaried: int = -1
    """The last patch for which canaries were restarted first, of those that are in no crew."""
    halted: Halt | None = None
    ended: str | None = None
    selections: tuple[Mapping[str, object], ...] = ()
    """The containers for which patches are taken up: those in any of these selections, in the API's form."""
    undoes: str = ""
    """The id of the rollout whose changes of specs this one takes back; empty: none."""
    left_out: Mapping[str, ErrorBody] = field(default_factory=dict)
    """The containers that keep the spec which it replaces, each with the error."""
    by_itself: bool = False
    """Nobody asked for that: the other one had halted, and its containers are to have back what they had."""
    about: str = ""
    """The apps that it changes, in words; empty: none."""
    rejected: str = ""
    """Why the patch was rejected that it brought, or that it takes back; empty: it was not."""
    auto_revert: bool = False
    """Whether the former specs are put back, in a rollout of its own, if it halts."""
    not_reverted: str = ""
    """Why that was not done though it has halted; empty: it was, or is about to be."""

    def update(self, *members: Member) -> Rollout:
        """The rollout with these members added or replaced."""
        return replace(self, members={**self.members, **{member.name: member for member in members}})

    def tried(self, crew: str | None) -> bool:
        """Whether canaries of a crew, or of those in none, were restarted for the last patch: the others may follow."""
        if crew is None:
            return self.canaried >= self.patch
        every = (member.restarted_for for member in self.members.values() if member.crew == crew)
        return any(patch is not None and patch >= self.patch for patch in every)

    def canaries(self, crew: str | None) -> Share:
        """How many of a crew go first, or of those that are in none."""
        return self.policy.canaries if crew is None else self.crews.get(crew, self.policy.canaries)

    def bake(self, member: Member) -> float:
        """Seconds for which it has to stay well if it is a canary."""
        return self.policy.bake if member.bake is None else member.bake

    def times(self, member: Member) -> tuple[float, float]:
        """Seconds for which it must have been healthy, and seconds within which it must be."""
        longest, deadline = member.min_healthy_time, member.healthy_deadline
        return (
            self.policy.min_healthy_time if longest is None else longest,
            self.policy.healthy_deadline if deadline is None else deadline,
        )

    def by_phase(self, *phases: MemberPhase) -> list[Member]:
        """Members in these phases, in the order in which they are restarted."""
        found = {name: member for name, member in self.members.items() if member.phase in phases}
        return sorted((found[name] for name in natural_order(found)), key=lambda member: member.priority)


@dataclass(frozen=True)
class LiveState:
    """The state of a container at the moment."""

    identity: str | None
    """The identity of its run; None: it does not run."""
    labels: Mapping[str, str] = field(default_factory=dict)
    healthy: bool = False
    unhealthy: bool = False
    """A check says so; neither: it is starting."""
    matures: float | None = None
    """Seconds until it counts as healthy by its age alone, if it is not yet; None: an event tells."""
    healthy_for: float = 0.0
    """Seconds."""
    running_for: float = 0.0
    """Seconds."""
    frozen: bool = False
    down_for: float | None = None
    """Seconds since the end of what `lxcfleet run` runs: its caller begins it anew, or lets it be. None: it runs, or this
    daemon starts it."""
    failed: bool = False
    """It ended by itself and in failure, whether its policy starts it again or not."""
    busy: str | None = None
    """The word for an action that is under way or owed."""
    lack: str = ""
    """The reason why it can't start again at the moment, such as ``db1 not healthy``; empty: there is none."""
    awaited: Collection[str] = frozenset()
    """The containers that it waits for before it starts, be it through others."""
    problem: str = ""
    """The reason why it could not be started again."""
    reason: str = ""
    """The reason why it is not healthy."""
    trials: tuple[Trial, ...] = ()
    """How its tests went in its present run, where the rollout has to know; empty: it has none."""
    lacks_spec: bool = False
    """It runs, and without the spec that the rollout gives it in its turn: somebody else has started it."""
    bad_before: Collection[str] = frozenset()
    """The tests that were not good when its last rollout was through with it."""


Fleet = Mapping[str, LiveState]


def to_json(rollout: Rollout) -> str:
    """The text that ``from_json`` reads."""
    data = {
        **vars(rollout),
        "version": _VERSION,
        "halted": None if rollout.halted is None else vars(rollout.halted),
        "policy": rollout.policy.to_json(),
        "pools": {name: str(share) for name, share in rollout.pools.items()},
        "crews": {name: str(share) for name, share in rollout.crews.items()},
        # asdict takes ten times as long
        "members": [{**vars(each), "trials": trial.to_json(each.trials)} for each in rollout.members.values()],
    }
    return json.dumps(data)


def from_json(text: str) -> Rollout:
    """Read a rollout from its text; raises ValueError if it is none, or not one of this version."""
    try:
        data: dict[str, Any] = ondisk.parse(text)
        if data.pop("version") != _VERSION:
            raise ValueError("it was written by another version")
        members: list[Member] = [_member(each) for each in data.pop("members")]
        more: dict[str, Any] = {
            "kind": RolloutKind(data["kind"]),
            "status": Status(data["status"]),
            "policy": policies.overridden(RolloutSettings(), data["policy"]),
            "pools": {name: Share.parse(share) for name, share in data["pools"].items()},
            "crews": {name: Share.parse(share) for name, share in data.get("crews", {}).items()},
            "members": {member.name: member for member in members},
            "halted": Halt(**data["halted"]) if data["halted"] else None,
            "selections": tuple(data["selections"]),
        }
        return Rollout(**{**data, **more})
    except (KeyError, TypeError, AttributeError, InvalidInput) as error:
        raise ValueError(f"it is no rollout: {error}") from error


def _member(data: dict[str, Any]) -> Member:
    data["phase"] = MemberPhase(data["phase"])
    data["trials"] = tuple(trial.from_json(data.get("trials", ())))
    return Member(**data)
