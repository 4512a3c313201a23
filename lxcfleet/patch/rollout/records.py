"""Rollouts as the API shows them."""

from __future__ import annotations

from collections.abc import Sequence

from lxcfleet.api.records import HaltRecord, RolloutRecord, TrialRecord
from lxcfleet.patch.rollout.causes import cure
from lxcfleet.patch.rollout.state import Halt, MemberPhase, Rollout, Status
from lxcfleet.patch.rollout.trial import Trial
from lxcfleet.spec.selection import natural_order

_THROUGH = (MemberPhase.DONE, MemberPhase.SKIPPED, MemberPhase.FAILED)


def record_of(
    rollout: Rollout, waves: Sequence[Sequence[str]] = (), waits_for: str = ""
) -> RolloutRecord:
    """The rollout with its future waves and the reason for waiting."""
    members = [rollout.members[name] for name in natural_order(rollout.members)]
    halted = rollout.halted
    return {
        "id": rollout.id,
        "kind": rollout.kind,
        "status": rollout.status,
        "created": rollout.created,
        "ended": rollout.ended,
        "changed": any(member.wave is not None for member in members) or bool(waves),
        "total": len(members),
        "done": sum(member.phase in _THROUGH for member in members),
        "killed": sum(member.killed for member in members),
        "wave": rollout.wave,
        "patches": rollout.patch,
        "undoes": rollout.undoes,
        "left_out": dict(rollout.left_out),
        "not_reverted": rollout.not_reverted,
        "about": rollout.about,
        "waits_for": "" if rollout.status.ended or rollout.status is Status.HALTED else waits_for,
        "rejected": rollout.rejected,
        "halted": None if halted is None else _halt_record(halted),
        "policy": rollout.policy.to_json(),
        "containers": [
            {
                "name": member.name,
                "phase": member.phase,
                "wave": member.wave,
                "live": member.live,
                "stale": member.stale,
                "note": member.note,
                "tests": [record_of_trial(each) for each in member.trials],
                "failing_before": dict(member.excused or {}),
            }
            for member in members
        ],
        "waves": [list(wave) for wave in waves],
    }


def record_of_trial(each: Trial) -> TrialRecord:
    """One test of a container."""
    return {
        "name": each.name,
        "verdict": None if each.verdict is None else str(each.verdict),
        "reason": each.reason,
        "required": each.required,
        "passed": each.passed,
        "passes": each.passes,
    }


def _halt_record(halted: Halt) -> HaltRecord:
    return {
        "container": halted.container,
        "why": halted.why,
        "log": halted.log,
        "exit_status": halted.exit_status,
        "ended": halted.ended,
        "packages": None if halted.packages is None else dict(halted.packages),
        "commands": cure(halted.packages or {}),
    }
