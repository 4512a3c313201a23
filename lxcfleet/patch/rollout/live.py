"""Members that get another spec without a restart, and have to prove all the same that they are well with it. Pure.

Their run stays the same one, so its identity tells nothing, and the time counts from the age that it had then. A daemon that
is killed before it has noted that gives the spec once more, which changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from lxcfleet.patch.rollout.state import Fleet, LiveState, Member, MemberPhase, Rollout


def note_changed(rollout: Rollout, names: Iterable[str], seen: Fleet) -> Rollout:
    """Note that these have their specs now."""
    found = [(rollout.members[name], seen[name]) for name in names if name in seen]
    return rollout.update(
        *(
            replace(member, phase=MemberPhase.GATED, changed_at=now.running_for, note="")
            for member, now in found
            if member.phase is MemberPhase.RESTARTING and member.live and now.identity == member.identity
        )
    )


def restarted(rollout: Rollout, name: str) -> Rollout:
    """The operator restarts a member that has its spec: it has to be healthy after that, like any other."""
    member = rollout.members.get(name)
    if member is None or member.changed_at is None or member.phase is not MemberPhase.GATED:
        return rollout
    return rollout.update(replace(member, identity="", changed_at=None))


def failure(member: Member, now: LiveState) -> str:
    """Why a member failed that has its spec, and is not to be restarted; empty: it has not."""
    if member.changed_at is None:
        return ""
    if now.identity is None:
        return "it ended after its change"
    if now.identity != member.identity:
        return "it ended after its change, and was started again"
    if member.expected and now.unhealthy:
        return f"it became unhealthy after its change{': ' if now.reason else ''}{now.reason}"
    return ""


def since(member: Member, now: LiveState) -> LiveState:
    """How it is, with the times since its change, if it had one, instead of those since its start."""
    if member.changed_at is None:
        return now
    passed = max(0.0, now.running_for - member.changed_at)
    return replace(now, running_for=passed, healthy_for=min(now.healthy_for, passed))


def word(member: Member) -> str:
    """The word for the last thing that happened to it."""
    return "start" if member.changed_at is None else "change"
