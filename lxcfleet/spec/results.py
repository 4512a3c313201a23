"""What became of containers in an operation. Values only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lxcfleet.errors import ErrorBody


@dataclass(frozen=True)
class Result:
    """What became of one container in an operation."""

    name: str
    status: str
    """One word for people: created, started, stopped, unchanged, failed, cancelled, …"""
    changed: bool
    error: ErrorBody | None = None
    differs: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """In what one that was there already is not as asked for: what it has and what was asked, by key of its spec."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Result:
        """From a ResultRecord."""
        return cls(data["name"], data["status"], data["changed"], data["error"])


def exit_status(results: Iterable[Result]) -> int:
    """0 if all were done, 1 if none was, 3 if some were."""
    failed = [r.error is not None for r in results]
    if not any(failed):
        return 0
    return 1 if all(failed) else 3
