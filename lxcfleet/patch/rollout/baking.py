"""Canaries that stay under watch for a while before others follow them: ``rollout: {bake: 10m}``. Pure.

A canary that has become healthy is still being checked while it is baked. It fails if a check says that it is unhealthy, or
if it ends. When the time is over it must run no old code. The time is counted by the age of its run, which the kernel knows,
so a daemon that is killed changes nothing about it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lxcfleet.api.findings import EvidenceRecord
from lxcfleet.patch.rollout.state import Fleet, LiveState, Member, MemberPhase, Rollout
from lxcfleet.units import some

_NAMED = 3
"""So many files are named."""
LOOK_SECONDS = 1.0
"""Seconds between two looks at a canary; a change of its health is heard at once."""


@dataclass(frozen=True)
class CanaryFinding:
    """The finding of a look at a canary, which has to have the new code that the restart was for."""

    old: str = ""
    """Why it does not run the new code, though it was restarted; empty: it runs it, as far as could be seen."""
    note: str = ""
    """Any other reason why it is not proven, about which a restart changes nothing; empty: there is none."""


def bakes(rollout: Rollout, member: Member) -> bool:
    """Whether a member is to stay under watch once it is healthy."""
    return member.canary and rollout.bake(member) > 0


def seconds_between_tests(rollout: Rollout, member: Member) -> float:
    """How often the tests of a canary are run meanwhile."""
    return min(max(rollout.bake(member) / 10, 1.0), 60.0)


def left(rollout: Rollout, member: Member, now: LiveState | None) -> float | None:
    """For how many seconds it still has to stay well; 0: the time is over; None: that has not begun, or is through."""
    if member.phase is not MemberPhase.GATED or member.baked_from is None or now is None:
        return None
    return max(0.0, rollout.bake(member) - (now.running_for - member.baked_from))


def words(seconds: float) -> str:
    """So much time is left, in words."""
    if seconds <= 0:
        return "baked, and looked at for old code"
    return f"baking, {math.ceil(seconds / 60)} min left" if seconds > 60 else f"baking, {math.ceil(seconds)} s left"


def done(rollout: Rollout, seen: Fleet) -> tuple[str, ...]:
    """After ``settle``: the members for which the time is over."""
    return tuple(
        member.name
        for member in rollout.by_phase(MemberPhase.GATED)
        if (now := seen.get(member.name)) is not None
        and now.busy is None
        and now.healthy
        and member.baked
    )


def proof_of(record: EvidenceRecord) -> CanaryFinding:
    """The verdict of ``verify`` on a canary. Shadows in its delta and the like were there before, and stay with a restart."""
    reasons = "; ".join(record["reasons"])
    if not record["old"]:
        return CanaryFinding(note=reasons)
    paths = [file["path"] for file in record["old"]]
    return CanaryFinding(old=f"it has old files: {some(paths, _NAMED)}")


def settle_well(rollout: Rollout, through: Member, now: LiveState) -> Member:
    """The member after it was found to be healthy for long enough. ``through``: what it would be without this time."""
    if not bakes(rollout, through) or through.phase is not MemberPhase.DONE:
        return through
    since = through.baked_from
    # A younger run than before: somebody restarted it, and the time begins anew.
    if since is None or now.running_for < since:
        since = now.running_for
    baked = now.running_for - since >= rollout.bake(through)
    return replace(through, phase=MemberPhase.GATED, baked_from=since, baked=baked)


def settle_ill(member: Member, now: LiveState) -> Member:
    """The member while it is not healthy. A new daemon does not know its health yet: then no check says anything."""
    if not now.unhealthy:
        return member
    after = now.running_for - (member.baked_from or 0.0)
    why = f"it became unhealthy after it had been healthy for {max(after, 0):.0f} s{': ' if now.reason else ''}{now.reason}"
    return replace(member, phase=MemberPhase.FAILED, note=why)


def settle_proof(member: Member, proof: CanaryFinding) -> Member | None:
    """The member after the look at it; None: it is not at that point any more."""
    if member.phase is not MemberPhase.GATED or not member.baked:
        return None
    if proof.old:
        return replace(member, phase=MemberPhase.FAILED, note=f"though it was restarted, {proof.old}")
    notes = [note for note in (member.note, f"not proven: {proof.note}" if proof.note else "") if note]
    return replace(member, phase=MemberPhase.DONE, note="; ".join(notes))
