"""What settings, profiles and requests say about rollouts. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.reader import Fields

MAX_SECONDS = 86400.0


@dataclass(frozen=True)
class Share:
    """So many of some containers: a number, or a percentage."""

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
        """How many of ``total`` that is: at least one, unless it is none at all."""
        if self.amount == 0:
            return 0
        return max(1, total * self.amount // 100) if self.percent else self.amount

    def __str__(self) -> str:
        return f"{self.amount}%" if self.percent else str(self.amount)


@dataclass(frozen=True)
class RolloutSettings:
    """How many containers are restarted at a time after a patch, and what has to be well before it goes on."""

    max_unavailable: Share = Share(25, percent=True)
    """How many of the containers to restart may be down at the same moment: a number or a percentage."""
    canaries: Share = Share(1)
    """How many go first, on their own: a number or a percentage; 0: none do."""
    min_healthy_time: float = 5.0
    """Seconds that each container of a wave must have been healthy before the next wave begins."""
    healthy_deadline: float = 120.0
    """Seconds after its start at which a container that is not healthy halts the rollout."""
    groups: tuple[str, ...] = ("*",)
    """Keys of labels: of several containers that share a value, at least one stays up. `"*"`: all keys."""

    def to_json(self) -> dict[str, Any]:
        """As it stands in settings and requests."""
        return {
            "max_unavailable": str(self.max_unavailable),
            "canaries": str(self.canaries),
            "min_healthy_time": self.min_healthy_time,
            "healthy_deadline": self.healthy_deadline,
            "groups": list(self.groups),
        }


@dataclass(frozen=True)
class ProfileRollout:
    """What a profile says about its containers in rollouts."""

    priority: int | None = None
    """Those with the lowest number go first, and the next ones wait for them; by default each one's boot order."""
    max_unavailable: Share | None = None
    """How many of this profile's may be down at the same moment, besides what holds for all."""
    min_healthy_time: float | None = None
    """Instead of what `rollout:` says."""
    healthy_deadline: float | None = None
    """Instead of what `rollout:` says."""

    def to_json(self) -> dict[str, Any]:
        """As it stands in settings, without what is not said."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        said = {key: str(value) if isinstance(value, Share) else value for key, value in values.items()}
        return {key: value for key, value in said.items() if value is not None}


def read(inner: Fields, usual: RolloutSettings) -> RolloutSettings:
    """What the fields say, and ``usual`` where they say nothing. Complaints go to the fields."""
    settings = RolloutSettings(
        max_unavailable=_share(inner, "max_unavailable", usual.max_unavailable),
        canaries=_share(inner, "canaries", usual.canaries),
        min_healthy_time=inner.number("min_healthy_time", usual.min_healthy_time, 0, MAX_SECONDS),
        healthy_deadline=inner.number("healthy_deadline", usual.healthy_deadline, 0, MAX_SECONDS),
        groups=inner.texts("groups") if inner.has("groups") else usual.groups,
    )
    if settings.max_unavailable.amount == 0:
        inner.complain("max_unavailable", "with none nothing could ever be restarted")
    inner.close()
    return settings


def read_profile(inner: Fields) -> ProfileRollout:
    """What a profile's fields say. Complaints go to the fields."""
    said = ProfileRollout(
        priority=inner.integer("priority", 0, -1000, 1000) if inner.has("priority") else None,
        max_unavailable=_share(inner, "max_unavailable", Share(1)) if inner.has("max_unavailable") else None,
        min_healthy_time=_seconds(inner, "min_healthy_time"),
        healthy_deadline=_seconds(inner, "healthy_deadline"),
    )
    if said.max_unavailable is not None and said.max_unavailable.amount == 0:
        inner.complain("max_unavailable", "with none nothing could ever be restarted")
    inner.close()
    return said


def overridden(usual: RolloutSettings, said: Mapping[str, Any]) -> RolloutSettings:
    """``usual`` with what a request says instead; raises InvalidInput."""
    inner = Fields(said, "policy")
    settings = read(inner, usual)
    inner.finish("the request is not valid")
    return settings


def _seconds(inner: Fields, key: str) -> float | None:
    return inner.number(key, 0, 0, MAX_SECONDS) if inner.has(key) else None


def _share(inner: Fields, key: str, usual: Share) -> Share:
    text = inner.scalar(key, str(usual))
    try:
        return Share.parse(text)
    except InvalidInput as error:
        inner.complain(key, error.message)
        return usual
