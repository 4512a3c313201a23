"""A rollout as a value: its members, how far each is, and how containers look. It goes to a file and comes back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from lxcfleet.errors import InvalidInput
from lxcfleet.spec import rollout as policies
from lxcfleet.spec.rollout import RolloutSettings, Share
from lxcfleet.spec.selection import natural_order

_VERSION = 1


class RolloutKind(StrEnum):
    """Why containers are restarted."""

    PATCH = "patch"
    """They were found stale."""
    RESTART = "restart"
    """The operator chose them."""


class Status(StrEnum):
    """How a rollout is."""

    RUNNING = "running"
    PAUSED = "paused"
    """By the operator; what is being restarted is brought to its end."""
    HALTED = "halted"
    """By a gate that failed."""
    ABORTED = "aborted"
    DONE = "done"

    @property
    def ended(self) -> bool:
        """Whether it never goes on."""
        return self in (Status.ABORTED, Status.DONE)


class MemberPhase(StrEnum):
    """How far a member is."""

    WAITING = "waiting"
    """It is to be restarted."""
    RESTARTING = "restarting"
    """Its wave has begun."""
    GATED = "checked"
    """It was restarted, and has to prove that it is healthy."""
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    """There was nothing to do any more, or nothing that can be done; its note says why."""


@dataclass(frozen=True)
class Member:
    """A container that the rollout is about."""

    name: str
    identity: str
    """Of the run that is to be ended; see registry.Running."""
    priority: int = 0
    pool: str | None = None
    """Its profile, if that limits how many may be down."""
    min_healthy_time: float | None = None
    """Its profile's; None: what the rollout's policy says."""
    healthy_deadline: float | None = None
    """Its profile's, or a new one that it got; None: what the rollout's policy says."""
    expected: bool = True
    """Whether it was well, or starting, when it became a member, or else before the host's packages changed. What was ill
    before is restarted all the same, but nobody waits for it to become well."""
    phase: MemberPhase = MemberPhase.WAITING
    wave: int | None = None
    """In which it was restarted; the first is 1."""
    restarted_for: int | None = None
    """The patch that it was last restarted for."""
    attempts: int = 0
    accepted: bool = False
    """It failed, and the operator said to go on."""
    killed: bool = False
    """Its stop became a kill, as it did not end in time."""
    stale: bool = False
    """It was found stale after all was done to it that may be."""
    note: str = ""
    fallen: bool = False
    """A patch took it down: it does not run, and is to be started. Its ``identity`` is empty until that was done."""

    base: str = ""
    """What the host was like at its last good start; see rollout.causes. Empty: that is not known."""

    @property
    def victim(self) -> bool:
        """Whether the rollout itself may have made it ill: it has restarted it, or it fell."""
        return self.fallen or self.restarted_for is not None


@dataclass(frozen=True)
class Halt:
    """Why a rollout stopped."""

    container: str | None
    why: str
    log: str = ""
    """The end of what the container printed."""
    packages: Mapping[str, list[str]] | None = None
    """Those that changed since the container was last well, with their versions then and now; None: that is not known."""
    exit_status: int | None = None
    """Of its process 1; None: it has not ended, or how is not known."""


@dataclass(frozen=True)
class Rollout:
    """One rollout, running or not."""

    id: str
    kind: RolloutKind
    policy: RolloutSettings
    created: str
    members: Mapping[str, Member] = field(default_factory=dict)
    pools: Mapping[str, Share] = field(default_factory=dict)
    status: Status = Status.RUNNING
    wave: int = 0
    patch: int = 0
    """Counts the patches that it is about; 0: none."""
    scanned: int = 0
    """The last patch after which stale containers were looked for."""
    confirmed: bool = True
    """Whether they were looked for once more since the last wave began."""
    canaried: int = -1
    """The last patch for which canaries went ahead."""
    halted: Halt | None = None
    ended: str | None = None
    selections: tuple[Mapping[str, object], ...] = ()
    """Which containers patches are taken up for: any of these, as wire has selections."""

    def update(self, *members: Member) -> Rollout:
        """With other members by these names."""
        return replace(self, members={**self.members, **{member.name: member for member in members}})

    def times(self, member: Member) -> tuple[float, float]:
        """For how long it must have been healthy, and by when it must be, in seconds."""
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
    """How a container is at the moment."""

    identity: str | None
    """Of its run; None: it does not run."""
    labels: Mapping[str, str] = field(default_factory=dict)
    healthy: bool = False
    unhealthy: bool = False
    """It is said to be; neither: it is starting."""
    healthy_for: float = 0.0
    """Seconds."""
    running_for: float = 0.0
    """Seconds."""
    frozen: bool = False
    busy: str | None = None
    """What is being done to it, or is owed to it."""
    problem: str = ""
    """Why it could not be started again."""
    reason: str = ""
    """Why it is not healthy."""


Fleet = Mapping[str, LiveState]


def to_json(rollout: Rollout) -> str:
    """The text that ``from_json`` reads."""
    data = {
        **vars(rollout),
        "version": _VERSION,
        "halted": None if rollout.halted is None else vars(rollout.halted),
        "policy": rollout.policy.to_json(),
        "pools": {name: str(share) for name, share in rollout.pools.items()},
        "members": [vars(member) for member in rollout.members.values()],  # asdict takes ten times as long
    }
    return json.dumps(data)


def from_json(text: str) -> Rollout:
    """The rollout that was written; raises ValueError if it was not, or not by this version."""
    try:
        data: dict[str, Any] = json.loads(text)
        if data.pop("version") != _VERSION:
            raise ValueError("it was written by another version")
        members: list[Member] = [_member(each) for each in data.pop("members")]
        more: dict[str, Any] = {
            "kind": RolloutKind(data["kind"]),
            "status": Status(data["status"]),
            "policy": policies.overridden(RolloutSettings(), data["policy"]),
            "pools": {name: Share.parse(share) for name, share in data["pools"].items()},
            "members": {member.name: member for member in members},
            "halted": Halt(**data["halted"]) if data["halted"] else None,
            "selections": tuple(data["selections"]),
        }
        return Rollout(**{**data, **more})
    except (KeyError, TypeError, AttributeError, InvalidInput) as error:
        raise ValueError(f"it is no rollout: {error}") from error


def _member(data: dict[str, Any]) -> Member:
    data["phase"] = MemberPhase(data["phase"])
    return Member(**data)
