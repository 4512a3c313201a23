"""The policy of rollouts, as settings, profiles and requests have it. Values only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.policies.rollout_tests import GroupTestsType, RolloutTest
from lxcfleet.spec.reading.durations import Duration, Seconds
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.reading.rows import CheckedSection, read_said, render_section, row, rows_of
from lxcfleet.spec.reading.types import Choice, Flag, Text, Texts, ValueType, Whole

MAX_SECONDS = 86400.0


@dataclass(frozen=True)
class Share:
    """A part of a set of containers: a number or a percentage."""

    amount: int
    percent: bool = False

    @classmethod
    def parse(cls, text: str) -> Share:
        """``5`` or ``25%``; raises InvalidInput."""
        digits = text.removesuffix("%")
        percent = digits != text
        if not digits.isascii() or not digits.isdigit() or len(digits) > 6 or (percent and int(digits) > 100):
            raise InvalidInput(f"{text!r} is neither a number nor a percentage up to 100%", hint="write it as 5 or as 25%")
        return cls(int(digits), percent)

    def of(self, total: int) -> int:
        """The number of containers out of ``total``: at least one, unless the share is 0."""
        if self.amount == 0:
            return 0
        return max(1, total * self.amount // 100) if self.percent else self.amount

    def __str__(self) -> str:
        return f"{self.amount}%" if self.percent else str(self.amount)


class ShareType(ValueType[Share]):
    """How a share is read and written."""

    def read(self, fields: Fields, key: str) -> Share | None:
        """See ValueType."""
        try:
            return Share.parse(fields.scalar(key, "0"))
        except InvalidInput as error:
            fields.complain(key, error.message)
            return None

    def parse(self, text: str) -> Share:
        """See ValueType."""
        return Share.parse(text)

    @property
    def form(self) -> str:
        """See ValueType."""
        return "a number, or a percentage such as 25%"

    def schema(self) -> dict[str, Any]:
        """See ValueType."""
        text = {"type": "string", "pattern": "^([0-9]{1,6}|0*([0-9]{1,2}|100)%)$"}
        return {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 999_999}, text]}

    def render(self, value: Share) -> str:
        """See ValueType."""
        return str(value)


class GateLive(StrEnum):
    """Which containers get what needs no restart, and may harm them, in waves: see patch.rollout.gating."""

    CHECKED = "checked"
    """Those that have a check of their own."""
    ALL = "all"
    NONE = "none"


_SECONDS = Seconds(0, MAX_SECONDS)
OF_SETTINGS = ("data", "on_halt")
"""Keys that only the settings may have: the rule on stale data files, and the operator's command."""
_NONE_AT_ALL = "with none nothing could ever be restarted"


@dataclass(frozen=True)
class RolloutSettings(CheckedSection):
    """How many containers are restarted at a time after a patch, and what has to be well before it goes on."""

    max_unavailable: Share = row(
        ShareType(), "How many of the containers to restart may be down at the same moment: a number or a percentage.",
        default=Share(25, percent=True), option=("--max-unavailable",), metavar="N|N%",
    )
    canaries: Share = row(
        ShareType(), "How many go first, on their own: a number or a percentage; 0: none do.",
        default=Share(1), option=("--canaries",), metavar="N|N%",
    )
    min_healthy_time: float = row(
        _SECONDS, "Seconds that each container of a wave must have been healthy before the next wave begins.",
        default=5.0, option=("--min-healthy-time",), metavar="TIME",
    )
    healthy_deadline: float = row(
        _SECONDS, "Seconds after its start at which a container that is not healthy halts the rollout.",
        default=120.0, option=("--healthy-deadline",), metavar="TIME",
    )
    groups: tuple[str, ...] = row(
        Texts(), "Keys of labels: of several containers that share a value, at least one stays up. `\"*\"`: all keys.",
        default=("*",),
    )  # fmt: skip
    bake: float = row(
        Duration(MAX_SECONDS), "For how long canaries have to stay well before the next wave begins, and to run no old code"
        " then: seconds, or such as 10m.", default=0.0, option=("--bake",), metavar="TIME",
    )
    data: bool = row(
        Flag(), "Whether a container is stale that serves old files of packages (certificates, time zones, modules, programs"
        " of jobs) to whoever opens them now; documentation, manual pages and translations do not count.", default=True,
    )  # fmt: skip
    on_halt: str = row(
        Text(), "A command line that root runs on the host, by /bin/sh, when a rollout halts; see docs/rollouts.md.",
        default="",
    )  # fmt: skip
    gate_live: GateLive = row(
        Choice(GateLive), "Which running containers get lower limits, other checks and fewer published ports in waves, though"
        " none is restarted for them: checked, those that have a check of their own; all; none.", default=GateLive.CHECKED,
        option=("--gate-live",), metavar="checked|all|none",
    )  # fmt: skip

    def problems(self) -> Iterator[tuple[str, str]]:
        """See Checked."""
        if self.max_unavailable.amount == 0:
            yield "max_unavailable", _NONE_AT_ALL

    def to_json(self) -> dict[str, Any]:
        """The policy as JSON, the form in requests; without the keys that only the settings may have."""
        return {key: value for key, value in render_section(self).items() if key not in OF_SETTINGS}


@dataclass(frozen=True)
class ProfileRollout(CheckedSection):
    """The part of the policy that a profile sets for its containers."""

    priority: int | None = row(
        Whole(-1000, 1000),
        "Those with the lowest number go first, and the next ones wait for them; by default each one's boot order.",
    )
    max_unavailable: Share | None = row(
        ShareType(), "How many of this profile's may be down at the same moment, besides what holds for all."
    )
    canaries: Share | None = row(
        ShareType(), "How many of this profile's go first, on their own, not the number that holds for all: a number or a"
        " percentage; 0: none do.",
    )
    bake: float | None = row(Duration(MAX_SECONDS), "Instead of what `rollout:` says.")
    min_healthy_time: float | None = row(_SECONDS, "Instead of what `rollout:` says.")
    healthy_deadline: float | None = row(_SECONDS, "Instead of what `rollout:` says.")
    auto_revert: bool | None = row(
        Flag(), "Whether a rollout that changes specs, and halts, puts the former specs back by itself; by default no."
    )
    tests: tuple[RolloutTest, ...] | None = row(
        GroupTestsType(), "Commands that say whether a container does its work: a restarted one is done once they are good."
    )

    def problems(self) -> Iterator[tuple[str, str]]:
        """See Checked."""
        if self.max_unavailable is not None and self.max_unavailable.amount == 0:
            yield "max_unavailable", _NONE_AT_ALL


def overridden(usual: RolloutSettings, said: Mapping[str, Any]) -> RolloutSettings:
    """``usual``, with the values of a request in place of its own; raises InvalidInput."""
    inner = Fields(said, "policy")
    settings = replace(usual, **read_policy(inner))
    inner.finish("the request is not valid")
    return settings


def read_policy(inner: Fields) -> dict[str, Any]:
    """The policy in a request, by key of the settings. Complaints go to ``inner``."""
    rows = rows_of(RolloutSettings)
    said = read_said([each for key, each in rows.items() if key not in OF_SETTINGS], inner)
    inner.close()
    for key, problem in RolloutSettings(**said).problems():
        inner.complain(key, problem)
    return said
