"""Restarting many containers without an outage of the service: the state of a rollout, and its next step. Pure.

A rollout is a value. ``settle`` updates it from the containers' state, and ``decide`` gives the next step. ``begin_wave``,
``merge``, ``halt`` and ``finish`` record the outcome. The daemon writes the rollout down after each of these, and acts on
a decision only then. So if the daemon is killed, the next one reads the rollout, looks at the containers, and goes on. It
remembers nothing else.

No container is restarted twice for one patch, because every member has the *identity* of the run that has to end (its
process 1, and when that began). A container with another identity was restarted, by whomever, and has a fresh mount.
If it is found stale later, after another patch, it becomes a member anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lxcfleet.patch.rollout import baking, live, trial
from lxcfleet.patch.rollout.baking import CanaryFinding
from lxcfleet.patch.rollout.state import Fleet, Halt, LiveState, Member, MemberPhase, Rollout, RolloutKind, Status
from lxcfleet.patch.rollout.waves import WaveBlocked, next_wave

ATTEMPTS = 3
"""How often a restart is tried that fails before it begins."""
STARTED = "started"
"""The identity of a run that nobody has seen: the container had fallen, and ended again as soon as it was started."""
LOOK_SECONDS = 0.25
"""Seconds between two looks at health, as it can change without an event."""

# -- what to do next ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wait:
    """Look again after so many seconds, or when something changes. None: wait for the operator."""

    seconds: float | None
    why: str = ""


@dataclass(frozen=True)
class FindStale:
    """Find the stale containers, and ``merge`` them."""


@dataclass(frozen=True)
class Try:
    """Run the tests of these as they are, and look again: what fails already is no fault of the restart."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Prove:
    """The canaries stayed well for long enough: look whether they run the new code, and ``note_proofs``."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class RestartWave:
    """Begin the next wave: ``begin_wave``, and restart these."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Stop:
    """A gate failed: ``halt``."""

    container: str
    why: str


@dataclass(frozen=True)
class Finish:
    """The rollout is done."""


Decision = Wait | FindStale | Prove | Try | RestartWave | Stop | Finish


def decide(rollout: Rollout, seen: Fleet, blocked_for: float = 0.0) -> Decision:
    """The next step, after ``settle``. ``blocked_for``: seconds since ``next_wave`` last found one to restart."""
    if rollout.status.ended or rollout.status is Status.HALTED:
        return Wait(None, "halted" if rollout.status is Status.HALTED else "")
    if _looks_at_once(rollout):
        return FindStale()
    if failed := [member for member in rollout.by_phase(MemberPhase.FAILED) if not member.accepted]:
        return Stop(failed[0].name, failed[0].note)
    if baked := baking.done(rollout, seen):
        return Prove(baked)
    if flying := rollout.by_phase(MemberPhase.RESTARTING, MemberPhase.GATED):
        pauses = [_pause(rollout, member, seen.get(member.name)) for member in flying]
        return Wait(_together(pauses), _waits_for(rollout, flying[0], seen))
    waiting = rollout.by_phase(MemberPhase.WAITING)
    if rollout.status is Status.PAUSED and (waiting or not rollout.confirmed):
        return Wait(None, "paused")
    if rollout.scanned < rollout.patch:
        return FindStale()
    if waiting:
        chosen = next_wave(rollout, seen)
        if isinstance(chosen, tuple):
            untried = tuple(name for name in chosen if _is_untried(rollout, rollout.members[name], seen[name]))
            return Try(untried) if untried else RestartWave(chosen)
        if blocked_for > rollout.policy.healthy_deadline:
            return Stop(chosen.container, chosen.why)
        return Wait(LOOK_SECONDS, f"{chosen.container}: {chosen.why}")
    return Finish() if rollout.confirmed else FindStale()


def _looks_at_once(rollout: Rollout) -> bool:
    """Whether a new patch comes first. It may mend a failing check, so the rollout does not wait for that, nor halt."""
    new = rollout.scanned < rollout.patch and rollout.status is not Status.PAUSED
    return new and not rollout.by_phase(MemberPhase.RESTARTING)


def _is_untried(rollout: Rollout, member: Member, now: LiveState) -> bool:
    """Whether its tests have to be run before its restart. If it is not well anyway, the rollout does not wait for them."""
    if member.excused is not None or not member.expected or now.identity is None:
        return False
    return bool(_excusable(rollout, now))


def _excusable(rollout: Rollout, now: LiveState) -> frozenset[str]:
    """The tests that may have been bad before: after a patch of the host, which may be the cause of what fails now, these are
    only those that were not good when the last rollout was through."""
    names = frozenset(each.name for each in now.trials)
    return names & frozenset(now.bad_before) if rollout.kind is RolloutKind.PATCH else names


def _pause(rollout: Rollout, member: Member, now: LiveState | None) -> float:
    if (left := baking.left(rollout, member, now)) is not None:
        return min(max(left, 0.01), baking.LOOK_SECONDS)
    if member.phase is MemberPhase.GATED and now is not None and now.healthy:
        left = rollout.times(member)[0] - live.since(member, now).healthy_for
        return LOOK_SECONDS if left <= 0 else max(left, 0.01)  # it waits for tests, whose end wakes the driver up
    if member.phase is MemberPhase.GATED and member.expected and now is not None and now.matures is not None:
        # Before that only its end could come, and that wakes the driver up.
        return max(min(now.matures, rollout.times(member)[1] - live.since(member, now).running_for), 0.01)
    return LOOK_SECONDS


def _together(pauses: Sequence[float]) -> float:
    """Seconds until the next look. Those that are due within a moment share it: else a wave of a hundred takes a hundred
    looks at the whole fleet, and so many writes. The last one is not looked at any later, and with it the wave ends."""
    moment = max(min(pauses), LOOK_SECONDS)
    return max(pause for pause in pauses if pause <= moment)


def _waits_for(rollout: Rollout, member: Member, seen: Fleet) -> str:
    now = seen.get(member.name)
    how = "restarting" if member.phase is MemberPhase.RESTARTING or now is None else now.reason or "not healthy yet"
    if now is not None and now.down_for is not None:
        how = "to be begun anew by the caller of its `lxcfleet run`"
    if now is not None and now.healthy and member.phase is MemberPhase.GATED:
        how = f"to be healthy for {rollout.times(member)[0]:g} s"
        if tests := trial.awaited(now.trials, member.excused or ()):
            how = trial.words(tests[0])
    if (left := baking.left(rollout, member, now)) is not None:
        how = baking.words(left)
    return f"{member.name}: {how}"


# -- what became of it --------------------------------------------------------------------------------------------


def settle(rollout: Rollout, seen: Fleet) -> Rollout:
    """The rollout after a look at the containers. No restart by the rollout may be under way."""
    return rollout.update(*(_settle(rollout, member, seen.get(member.name)) for member in rollout.members.values()))


def _settle(rollout: Rollout, member: Member, now: LiveState | None) -> Member:
    if member.phase is MemberPhase.DONE:
        return _settle_done(member, now)
    if member.phase in (MemberPhase.FAILED, MemberPhase.SKIPPED):
        return member
    if now is None:
        return _skip(member, "it was destroyed")
    if now.busy is not None:
        return member
    match member.phase:
        case MemberPhase.WAITING:
            return _settle_waiting(rollout, member, now)
        case MemberPhase.RESTARTING:
            return _settle_restarting(rollout, member, now)
        case _:
            return _settle_gated(rollout, member, now)


def _settle_done(member: Member, now: LiveState | None) -> Member:
    """A member that fails after its gate, as long as the rollout goes on, counts as made ill by it as well."""
    if now is None or now.busy is not None or not now.failed or not member.expected or member.wave is None:
        return member
    return replace(member, phase=MemberPhase.FAILED, note="it failed after it had been healthy")


def _skip(member: Member, why: str) -> Member:
    return replace(member, phase=MemberPhase.SKIPPED, note=why)


def _settle_waiting(rollout: Rollout, member: Member, now: LiveState) -> Member:
    if now.identity is None and rollout.kind is RolloutKind.CHANGE and now.failed:
        # It ended before its turn, maybe of the very spec that is taken back: it gets the other one, and is started.
        return replace(member, fallen=True, identity="")
    if now.identity is None:
        return member if member.fallen else _skip(member, "it was stopped")
    if rollout.kind is RolloutKind.CHANGE and now.identity != member.identity:
        # Whoever restarted it, it keeps its turn: nearly always it has its former spec still, and gets the other one with its
        # wave. One whose restart in a wave was tried in vain may run with that one already: it is restarted once more.
        member = replace(member, identity=now.identity, fallen=False)
    if member.fallen:  # somebody started it; its health is not known yet
        return replace(member, phase=MemberPhase.GATED, identity=now.identity, note="")
    if now.identity != member.identity:
        return _skip(member, "it was restarted meanwhile")
    if now.problem and not member.live:
        return _skip(member, f"it was not restarted: {now.problem}")
    if now.frozen:
        return _skip(member, "it is frozen, and was left as it was" if member.live else "it is frozen, and was not restarted")
    if _is_untried(rollout, member, now) and trial.were_run(now.trials):
        may = _excusable(rollout, now)
        return replace(member, excused={name: why for name, why in trial.not_good(now.trials).items() if name in may})
    return member


def _settle_restarting(rollout: Rollout, member: Member, now: LiveState) -> Member:
    if now.identity is None and member.fallen and not member.identity and member.attempts < ATTEMPTS:
        return replace(member, phase=MemberPhase.WAITING)  # it was not started yet
    if now.down_for is not None and not member.note:
        return _settle_left(rollout, member, now.down_for)
    if member.live and not member.fallen:
        return _settle_unchanged(member)
    if now.identity is None:
        return replace(member, phase=MemberPhase.FAILED, note=member.note or "it does not run after its restart")
    if now.identity != member.identity and not now.lacks_spec:
        return _settle_gated(rollout, replace(member, phase=MemberPhase.GATED, note=""), now)
    if member.attempts >= ATTEMPTS:
        return replace(member, phase=MemberPhase.FAILED, note=member.note or "it could not be restarted")
    return replace(member, phase=MemberPhase.WAITING)


def _settle_unchanged(member: Member) -> Member:
    """It was to get another spec without a restart, and nobody noted that it has it: that is tried again, or once more."""
    if member.attempts >= ATTEMPTS:
        return replace(member, phase=MemberPhase.FAILED, note=member.note or "it could not be changed")
    return replace(member, phase=MemberPhase.WAITING)


def _settle_left(rollout: Rollout, member: Member, down_for: float) -> Member:
    """`lxcfleet run` has ended, and its caller may begin it anew: a service comes back, a job need not."""
    if down_for < rollout.times(member)[1]:
        return member
    return _skip(member, "its `lxcfleet run` ended, and was not begun anew")


def _settle_gated(rollout: Rollout, member: Member, now: LiveState) -> Member:
    if now.down_for is not None:
        return _settle_left(rollout, member, now.down_for)
    if why := live.failure(member, now):
        return replace(member, phase=MemberPhase.FAILED, note=why)
    if now.identity is None:
        return replace(member, phase=MemberPhase.FAILED, note="it ended after its restart")
    if member.baked_from is not None and not now.healthy:
        return baking.settle_ill(member, now)
    long_enough, deadline = rollout.times(member)
    whole, now = now, live.since(member, now)
    if not member.expected:
        if now.running_for < long_enough:  # without a check, it has to stay up at least that long
            return member
        return replace(member, phase=MemberPhase.DONE, note="" if now.healthy else "it was not healthy before either")
    if now.healthy and now.healthy_for >= long_enough:
        return baking.settle_well(rollout, _settle_tests(member, now, deadline), whole)
    # One that was not restarted is taken for healthy until enough checks have failed.
    failing = member.changed_at is not None and bool(now.reason)
    if now.running_for >= deadline and (failing or not now.healthy):
        ill = "not well" if now.healthy else "not healthy"
        why = f"it was {ill} {deadline:.0f} s after its {live.word(member)}{': ' if now.reason else ''}{now.reason}"
        return replace(member, phase=MemberPhase.FAILED, note=why)
    return member


def _settle_tests(member: Member, now: LiveState, deadline: float) -> Member:
    """It is healthy for long enough: its tests have the last word. They are run again until they are good, as a service may
    need a while, but one that is not good at the deadline fails."""
    excused = member.excused or {}
    member = replace(member, trials=now.trials)
    if bad := trial.failing(now.trials, excused):
        if now.running_for < deadline:
            return member
        after = deadline if member.baked_from is None else now.running_for
        why = f"its test {bad[0].name} was {bad[0].verdict} {after:.0f} s after its {live.word(member)}: {bad[0].reason}"
        return replace(member, phase=MemberPhase.FAILED, note=why)
    if trial.awaited(now.trials, excused) or not trial.were_run(now.trials):
        return member
    before = [f"{name} ({why})" for name, why in excused.items()]
    return replace(member, phase=MemberPhase.DONE, note=f"failing before: {', '.join(before)}" if before else "")


def begin_wave(rollout: Rollout, names: Sequence[str], bases: Mapping[str, str] = {}) -> Rollout:
    """Written down before the first of them is touched. ``bases``: names of the host's packages at their last starts."""
    wave = rollout.wave + 1
    first = {
        crew: not rollout.tried(crew) and rollout.canaries(crew).amount > 0
        for crew in {rollout.members[name].crew for name in names}
    }
    members = [
        replace(
            rollout.members[name],
            phase=MemberPhase.RESTARTING,
            wave=wave,
            restarted_for=rollout.patch,
            attempts=rollout.members[name].attempts + rollout.members[name].fallen,
            note="",
            trials=(),
            canary=first[rollout.members[name].crew],
            baked_from=None,
            baked=False,
            changed_at=None,
            base=rollout.members[name].base or bases.get(name, ""),
        )
        for name in names
    ]
    confirmed = rollout.patch == 0
    canaried = rollout.patch if None in first else rollout.canaried
    return replace(rollout, wave=wave, canaried=canaried, confirmed=confirmed).update(*members)


def note_failures(rollout: Rollout, failures: Mapping[str, str]) -> Rollout:
    """Note why restarts of a wave failed, by name."""
    members = [replace(rollout.members[name], note=why) for name, why in failures.items()]
    return rollout.update(*(replace(member, attempts=member.attempts + 1) for member in members))


def note_starts(rollout: Rollout, names: Sequence[str]) -> Rollout:
    """Note that fallen members of the wave were started: if they do not run, they have ended once more."""
    started = [rollout.members[name] for name in names if rollout.members[name].fallen]
    return rollout.update(*(replace(member, identity=STARTED) for member in started))


def note_proofs(rollout: Rollout, found: Mapping[str, CanaryFinding]) -> Rollout:
    """Note what a look at canaries found, by name: they are done, or they failed."""
    members = [baking.settle_proof(rollout.members[name], proof) for name, proof in found.items() if name in rollout.members]
    return rollout.update(*(member for member in members if member is not None))


def not_begun(rollout: Rollout, names: Sequence[str]) -> Rollout:
    """Members of the wave that had ended by themselves before it was their turn."""
    return rollout.update(*(replace(rollout.members[name], phase=MemberPhase.WAITING) for name in names))


def patched(rollout: Rollout, selection: Mapping[str, object] | None = None) -> Rollout:
    """Note another patch, so that stale containers are looked for again."""
    selections = rollout.selections
    if selection is not None and selection not in selections:
        selections = (*selections, selection)
    return replace(rollout, patch=rollout.patch + 1, confirmed=False, selections=selections)


def merge(rollout: Rollout, found: Mapping[str, Member], patch: int) -> Rollout:
    """Take over the stale containers that were found, as new members with their identities from before the look.

    They include containers that a patch took down. ``patch``: the number of patches when the look began.
    """
    members = []
    for name, new in found.items():
        old = rollout.members.get(name)
        if old is None:
            members.append(new)
        elif old.phase not in (MemberPhase.WAITING, MemberPhase.RESTARTING):
            members.append(_found_again(old, new, patch))
    for name, old in rollout.members.items():
        waits = old.phase is MemberPhase.WAITING and not old.fallen
        if waits and name not in found and rollout.kind is RolloutKind.PATCH:
            # No run of it has to end. If another patch makes it stale, it is found like any other container.
            members.append(replace(_skip(old, "it is not stale any more"), identity=""))
    after = replace(rollout, scanned=patch).update(*members)
    # A run that began before the patch, and is being checked, may still map an old file a moment later.
    unsure = after.by_phase(MemberPhase.WAITING, MemberPhase.RESTARTING, MemberPhase.GATED)
    return replace(after, confirmed=patch == rollout.patch and not unsure)


def _found_again(old: Member, new: Member, patch: int) -> Member:
    if old.phase is MemberPhase.SKIPPED and old.identity == new.identity and not new.fallen:
        return replace(old, stale=True)  # the reason to skip it, such as being frozen, still holds
    if old.restarted_for is not None and old.restarted_for >= patch:
        unsettled = old.phase in (MemberPhase.GATED, MemberPhase.FAILED)
        return old if unsettled else replace(old, stale=True, note="it is stale still, though it was restarted")
    # It was well before the rollout made it ill, and that counts.
    failed = old.phase in (MemberPhase.GATED, MemberPhase.FAILED)
    expected, base = new.expected or (old.expected and failed), old.base if failed else ""
    excused = (old.excused or {}) if failed else None
    return replace(
        new, wave=old.wave, restarted_for=old.restarted_for, expected=expected, base=base, excused=excused
    )


def halt(rollout: Rollout, why: Halt) -> Rollout:
    """Halt the rollout, as a gate failed."""
    return replace(rollout, status=Status.HALTED, halted=why, not_reverted="")


def pause(rollout: Rollout) -> Rollout:
    """Begin no further wave."""
    return replace(rollout, status=Status.PAUSED) if rollout.status is Status.RUNNING else rollout


def supersede(rollout: Rollout, seen: Fleet) -> Rollout:
    """End a halt for a new patch, after ``patched``: this patch may mend the failures that the former one caused.

    Failed members are restarted once they are found stale; the others get another chance to become healthy.
    """
    if rollout.status is not Status.HALTED:
        return rollout
    members = [_another_chance(rollout, member, seen.get(member.name)) for member in _failed(rollout)]
    return replace(rollout, status=Status.RUNNING, halted=None).update(*members)


def resume(rollout: Rollout, seen: Fleet, *, accept: bool = False) -> Rollout:
    """Go on. After a halt, failed members get another chance: one that does not run is started, one that is stale again or
    was not restarted is restarted, and any other gets a new deadline to become healthy.

    ``accept``: leave failed members as they are; they count as down.
    """
    if accept:
        left = [_accept(member, seen.get(member.name)) for member in _failed(rollout)]
        return replace(rollout, status=Status.RUNNING, halted=None).update(*left)
    if rollout.status is Status.HALTED and rollout.patch:
        return supersede(patched(rollout), seen)  # the host may have changed without notice
    members = [_another_chance(rollout, member, seen.get(member.name)) for member in _failed(rollout)]
    return replace(rollout, status=Status.RUNNING, halted=None).update(*members)


def _failed(rollout: Rollout) -> list[Member]:
    return [member for member in rollout.by_phase(MemberPhase.FAILED) if not member.accepted]


def _accept(member: Member, now: LiveState | None) -> Member:
    return _skip(member, "it was destroyed") if now is None else replace(member, accepted=True)


def _another_chance(rollout: Rollout, member: Member, now: LiveState | None) -> Member:
    if now is None:
        return _skip(member, "it was destroyed")
    if now.identity is None:
        return replace(member, phase=MemberPhase.WAITING, fallen=True, identity="", attempts=0, note="")
    if now.identity == member.identity or now.lacks_spec:
        return replace(member, phase=MemberPhase.WAITING, attempts=0, note="")
    deadline = now.running_for + rollout.policy.healthy_deadline
    return replace(
        member, phase=MemberPhase.GATED, note="", healthy_deadline=deadline, baked_from=None, baked=False, changed_at=None
    )


def leave_stopped(rollout: Rollout, name: str) -> Rollout:
    """The operator stopped a member: it stays as it is, whether it waits, is checked, is done, or failed."""
    member = rollout.members.get(name)
    if member is not None and member.phase is MemberPhase.DONE:
        return rollout.update(replace(member, expected=False))
    if member is None or member.phase not in (MemberPhase.WAITING, MemberPhase.GATED, MemberPhase.FAILED):
        return rollout
    return rollout.update(_skip(member, "it was stopped"))


def given(member: Member, how: str) -> Member:
    """A member that has its spec without a turn. Nothing is expected of it; it was in no wave of its own, which is wave 0."""
    return replace(member, phase=MemberPhase.DONE, wave=0, live=True, expected=False, note=how)


def end(rollout: Rollout, status: Status, moment: str) -> Rollout:
    """End the rollout: it is done, or the operator aborted it."""
    return replace(rollout, status=status, ended=moment)


def preview(rollout: Rollout, seen: Fleet) -> list[tuple[str, ...]]:
    """The waves if all goes well, without blocked members."""
    waves: list[tuple[str, ...]] = []
    rollout = settle(rollout, seen)
    while rollout.by_phase(MemberPhase.WAITING):
        chosen = next_wave(rollout, seen)
        if isinstance(chosen, WaveBlocked):
            return waves
        waves.append(chosen)
        rollout = begin_wave(rollout, chosen)
        rollout = rollout.update(*(replace(rollout.members[name], phase=MemberPhase.DONE) for name in chosen))
    return waves
