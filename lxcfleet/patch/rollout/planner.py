"""Restarting many containers so that the service stands: what there is, and what to do next. Pure.

A rollout is a value. ``settle`` brings it up to date with how the containers are, ``decide`` says what is next, and
``begin_wave``, ``merge``, ``halt`` and ``finish`` are what became of that. The daemon writes the rollout down after each
of these, and does what was decided only then; so whatever kills it, the next daemon reads the rollout, looks at the
containers, and goes on. Nothing is remembered besides.

No container is restarted twice for one patch, because every member has the *identity* of the run that is to be
ended (its process 1, and when that began). A container that has another one by now was restarted, by whomever: its
mount is a fresh one. What is found stale later, after another patch, becomes a member anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lxcfleet.patch.rollout.state import Fleet, Halt, LiveState, Member, MemberPhase, Rollout, RolloutKind, Status
from lxcfleet.patch.rollout.waves import Blocked, next_wave

ATTEMPTS = 3
"""How often a restart is tried that does not even begin."""
LOOK_SECONDS = 0.25
"""How often it is looked at health that changes without anybody telling."""

# -- what to do next ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wait:
    """Look again after so many seconds, or when something changes. None: until the operator says something."""

    seconds: float | None
    why: str = ""


@dataclass(frozen=True)
class FindStale:
    """Find out what is stale, and ``merge`` it."""


@dataclass(frozen=True)
class Restart:
    """The next wave: ``begin_wave``, and restart these."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Stop:
    """A gate failed: ``halt``."""

    container: str
    why: str


@dataclass(frozen=True)
class Finish:
    """All is done."""


Decision = Wait | FindStale | Restart | Stop | Finish


def decide(rollout: Rollout, seen: Fleet, blocked_for: float = 0.0) -> Decision:
    """What is next, after ``settle``. ``blocked_for``: seconds that ``next_wave`` has found nothing it might restart."""
    if rollout.status.ended or rollout.status is Status.HALTED:
        return Wait(None, "halted" if rollout.status is Status.HALTED else "")
    if failed := [member for member in rollout.by_phase(MemberPhase.FAILED) if not member.accepted]:
        return Stop(failed[0].name, failed[0].note)
    if flying := rollout.by_phase(MemberPhase.RESTARTING, MemberPhase.GATED):
        pauses = [_pause(rollout, member, seen.get(member.name)) for member in flying]
        return Wait(min(pauses), _waits_for(rollout, flying[0], seen))
    waiting = rollout.by_phase(MemberPhase.WAITING)
    if rollout.status is Status.PAUSED and (waiting or not rollout.confirmed):
        return Wait(None, "paused")
    if rollout.scanned < rollout.patch:
        return FindStale()
    if waiting:
        chosen = next_wave(rollout, seen)
        if isinstance(chosen, tuple):
            return Restart(chosen)
        if blocked_for > rollout.policy.healthy_deadline:
            return Stop(chosen.container, chosen.why)
        return Wait(LOOK_SECONDS, f"{chosen.container}: {chosen.why}")
    return Finish() if rollout.confirmed else FindStale()


def _pause(rollout: Rollout, member: Member, now: LiveState | None) -> float:
    if member.phase is MemberPhase.GATED and now is not None and now.healthy:
        return max(rollout.times(member)[0] - now.healthy_for, 0.01)
    return LOOK_SECONDS


def _waits_for(rollout: Rollout, member: Member, seen: Fleet) -> str:
    now = seen.get(member.name)
    how = "restarting" if member.phase is MemberPhase.RESTARTING or now is None else now.reason or "not healthy yet"
    if now is not None and now.healthy and member.phase is MemberPhase.GATED:
        how = f"to be healthy for {rollout.times(member)[0]:g} s"
    return f"{member.name}: {how}"


# -- what became of it --------------------------------------------------------------------------------------------


def settle(rollout: Rollout, seen: Fleet) -> Rollout:
    """The rollout as it is after a look at the containers. No restart of its own may be under way."""
    return rollout.update(*(_settle(rollout, member, seen.get(member.name)) for member in rollout.members.values()))


def _settle(rollout: Rollout, member: Member, now: LiveState | None) -> Member:
    if member.phase in (MemberPhase.DONE, MemberPhase.FAILED, MemberPhase.SKIPPED):
        return member
    if now is None:
        return _skip(member, "it was destroyed")
    if now.busy is not None:
        return member
    match member.phase:
        case MemberPhase.WAITING:
            return _settle_waiting(member, now)
        case MemberPhase.RESTARTING:
            return _settle_restarting(rollout, member, now)
        case _:
            return _settle_gated(rollout, member, now)


def _skip(member: Member, why: str) -> Member:
    return replace(member, phase=MemberPhase.SKIPPED, note=why)


def _settle_waiting(member: Member, now: LiveState) -> Member:
    if now.identity is None:
        return _skip(member, "it was stopped")
    if now.identity != member.identity:
        return _skip(member, "it was restarted meanwhile")
    if now.problem:
        return _skip(member, f"it was not restarted: {now.problem}")
    if now.frozen:
        return _skip(member, "it is frozen, and was not restarted")
    return member


def _settle_restarting(rollout: Rollout, member: Member, now: LiveState) -> Member:
    if now.identity is None:
        return replace(member, phase=MemberPhase.FAILED, note=member.note or "it does not run after its restart")
    if now.identity != member.identity:
        return _settle_gated(rollout, replace(member, phase=MemberPhase.GATED, note=""), now)
    if member.attempts >= ATTEMPTS:
        return replace(member, phase=MemberPhase.FAILED, note=member.note or "it could not be restarted")
    return replace(member, phase=MemberPhase.WAITING)


def _settle_gated(rollout: Rollout, member: Member, now: LiveState) -> Member:
    if now.identity is None:
        return replace(member, phase=MemberPhase.FAILED, note="it ended after its restart")
    if not member.expected:
        return replace(member, phase=MemberPhase.DONE, note="" if now.healthy else "it was not healthy before either")
    long_enough, deadline = rollout.times(member)
    if now.healthy and now.healthy_for >= long_enough:
        return replace(member, phase=MemberPhase.DONE, note="")
    if not now.healthy and now.running_for >= deadline:
        why = f"it was not healthy {deadline:.0f} s after its start{': ' if now.reason else ''}{now.reason}"
        return replace(member, phase=MemberPhase.FAILED, note=why)
    return member


def begin_wave(rollout: Rollout, names: Sequence[str]) -> Rollout:
    """To be written down before the first of them is touched."""
    wave = rollout.wave + 1
    members = [
        replace(
            rollout.members[name],
            phase=MemberPhase.RESTARTING,
            wave=wave,
            restarted_for=rollout.patch,
            note="",
        )
        for name in names
    ]
    confirmed = rollout.patch == 0
    return replace(rollout, wave=wave, canaried=rollout.patch, confirmed=confirmed).update(*members)


def note_failures(rollout: Rollout, failures: Mapping[str, str]) -> Rollout:
    """What the restarts of a wave had to say where they failed, by name."""
    members = [replace(rollout.members[name], note=why) for name, why in failures.items()]
    return rollout.update(*(replace(member, attempts=member.attempts + 1) for member in members))


def not_begun(rollout: Rollout, names: Sequence[str]) -> Rollout:
    """Members of the wave that had ended by themselves before it was their turn."""
    return rollout.update(*(replace(rollout.members[name], phase=MemberPhase.WAITING) for name in names))


def patched(rollout: Rollout, selection: Mapping[str, object] | None = None) -> Rollout:
    """Another patch is there: stale containers have to be looked for again."""
    selections = rollout.selections
    if selection is not None and selection not in selections:
        selections = (*selections, selection)
    return replace(rollout, patch=rollout.patch + 1, confirmed=False, selections=selections)


def merge(rollout: Rollout, found: Mapping[str, Member], patch: int) -> Rollout:
    """After a look for what is stale: ``found`` has those, as new members, with their identities from before the look.

    ``patch``: how many patches there were when the look began.
    """
    members = []
    for name, new in found.items():
        old = rollout.members.get(name)
        if old is None:
            members.append(new)
        elif old.phase in (MemberPhase.DONE, MemberPhase.SKIPPED) or old.accepted:
            members.append(_found_again(old, new, patch))
    for name, old in rollout.members.items():
        if old.phase is MemberPhase.WAITING and name not in found and rollout.kind is RolloutKind.PATCH:
            # No run of it has to be ended; should it be stale again after another patch, that is found like any other.
            members.append(replace(_skip(old, "it is not stale any more"), identity=""))
    confirmed = patch == rollout.patch and not any(member.phase is MemberPhase.WAITING for member in members)
    return replace(rollout, scanned=patch, confirmed=confirmed).update(*members)


def _found_again(old: Member, new: Member, patch: int) -> Member:
    if old.phase is MemberPhase.SKIPPED and old.identity == new.identity:
        return replace(old, stale=True)  # that it is frozen, say, is as true as before
    if old.restarted_for is not None and old.restarted_for >= patch:
        return replace(old, stale=True, note="it is stale still, though it was restarted")
    return replace(new, wave=old.wave, restarted_for=old.restarted_for)


def halt(rollout: Rollout, why: Halt) -> Rollout:
    """A gate failed."""
    return replace(rollout, status=Status.HALTED, halted=why)


def pause(rollout: Rollout) -> Rollout:
    """No further wave begins."""
    return replace(rollout, status=Status.PAUSED) if rollout.status is Status.RUNNING else rollout


def resume(rollout: Rollout, seen: Fleet, *, accept: bool = False) -> Rollout:
    """Go on. What failed gets another chance: to be restarted if it was not, else to become healthy in time.

    ``accept``: leave it as it is. It counts as down; and so does, in any case, what does not run.
    """
    members = [_resume(rollout, member, seen.get(member.name), accept) for member in rollout.by_phase(MemberPhase.FAILED)]
    return replace(rollout, status=Status.RUNNING, halted=None).update(*members)


def _resume(rollout: Rollout, member: Member, now: LiveState | None, accept: bool) -> Member:
    if now is None:
        return _skip(member, "it was destroyed")
    if accept or now.identity is None:
        return replace(member, accepted=True)
    if now.identity == member.identity:
        return replace(member, phase=MemberPhase.WAITING, attempts=0, note="")
    deadline = now.running_for + rollout.policy.healthy_deadline
    return replace(member, phase=MemberPhase.GATED, note="", healthy_deadline=deadline)


def end(rollout: Rollout, status: Status, moment: str) -> Rollout:
    """It is done, or the operator has had enough of it."""
    return replace(rollout, status=status, ended=moment)


def preview(rollout: Rollout, seen: Fleet) -> list[tuple[str, ...]]:
    """The waves that there will be if all goes well; what is blocked is in none."""
    waves: list[tuple[str, ...]] = []
    rollout = settle(rollout, seen)
    while rollout.by_phase(MemberPhase.WAITING):
        chosen = next_wave(rollout, seen)
        if isinstance(chosen, Blocked):
            return waves
        waves.append(chosen)
        rollout = begin_wave(rollout, chosen)
        rollout = rollout.update(*(replace(rollout.members[name], phase=MemberPhase.DONE) for name in chosen))
    return waves
