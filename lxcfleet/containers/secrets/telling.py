"""How far containers are told of new values of their secrets, as `rollout status` shows it. Values only."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from lxcfleet.api.records import HaltRecord, RolloutRecord
from lxcfleet.runtime.operations import now
from lxcfleet.spec.policies.rollout import RolloutSettings
from lxcfleet.spec.selection import natural_order

KIND = "secret"
"""The kind of such a rollout; see RolloutRecord."""


@dataclass(frozen=True)
class Telling:
    """One course of waves. Phases are those of patch.rollout.state.MemberPhase."""

    id: str
    created: str
    about: str
    """The secrets, by name."""
    policy: RolloutSettings
    phases: Mapping[str, str]
    waves: Mapping[str, int]
    """The wave in which each was told."""
    wave: int = 0
    waits_for: str = ""
    ended: str | None = None
    container: str | None = None
    """The one at which it halted."""
    why: str = ""
    """Why it halted; empty: it did not."""

    @classmethod
    def of(cls, names: Iterable[str], about: Iterable[str], policy: RolloutSettings) -> Telling:
        """The course that tells these of these secrets."""
        named = ", ".join(natural_order(about))
        return cls(secrets.token_hex(6), now(), f"secrets: {named}", policy, dict.fromkeys(names, "waiting"), {})

    @property
    def over(self) -> bool:
        """Whether it does not go on by itself."""
        return self.ended is not None or bool(self.why)

    def begin(self, names: Sequence[str]) -> Telling:
        """These are told next."""
        wave = self.wave + 1
        phases = {**self.phases, **dict.fromkeys(names, "restarting")}
        return replace(self, wave=wave, phases=phases, waves={**self.waves, **dict.fromkeys(names, wave)}, waits_for="")

    def to(self, names: Iterable[str], phase: str) -> Telling:
        """These have come to that phase."""
        return replace(self, phases={**self.phases, **dict.fromkeys(names, phase)}, waits_for="")

    def halt(self, container: str, why: str) -> Telling:
        """The rest is not told."""
        return replace(self, phases={**self.phases, container: "failed"}, container=container, why=why, waits_for="")

    def record(self) -> RolloutRecord:
        """As the API shows it."""
        status = "halted" if self.why else "done" if self.ended is not None else "running"
        halt: HaltRecord = {
            "container": self.container, "why": self.why, "log": "", "exit_status": None, "ended": "", "packages": None,
            "commands": [],
        }  # fmt: skip
        names = natural_order(self.phases)
        return {
            "id": self.id,
            "kind": KIND,
            "status": status,
            "created": self.created,
            "ended": self.ended,
            "changed": bool(self.waves),
            "total": len(self.phases),
            "done": sum(phase in ("done", "failed") for phase in self.phases.values()),
            "killed": 0,
            "wave": self.wave,
            "patches": 0,
            "undoes": "",
            "left_out": {},
            "not_reverted": "",
            "about": self.about,
            "waits_for": self.waits_for,
            "rejected": "",
            "halted": halt if self.why else None,
            "policy": self.policy.to_json(),
            "containers": [
                {
                    "name": name, "phase": self.phases[name], "wave": self.waves.get(name), "live": True, "stale": False,
                    "note": self.why if name == self.container else "", "tests": [], "failing_before": {},
                }
                for name in names
            ],
            "waves": [],
        }  # fmt: skip
