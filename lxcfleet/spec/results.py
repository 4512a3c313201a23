"""Outcomes of an operation, one for each container. Values only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lxcfleet.errors import ErrorBody


@dataclass(frozen=True)
class Result:
    """The outcome of an operation for one container."""

    name: str
    status: str
    """One word for people: created, started, stopped, unchanged, failed, cancelled, …"""
    changed: bool
    error: ErrorBody | None = None
    differs: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """The fields in which an existing container differs from the request, or did before it was changed: the former value
    and the value asked for, by key of its spec."""
    removed: tuple[str, ...] = ()
    """The paths that were removed from its delta, or would be."""
    kept: Mapping[str, str] = field(default_factory=dict)
    """The paths that were asked for and stay, with the reason for each."""
    notes: tuple[str, ...] = ()
    """Notes on it that the operator should read, though it succeeded."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Result:
        """From a ResultRecord."""
        return cls(data["name"], data["status"], data["changed"], data["error"])


def exit_status(results: Iterable[Result]) -> int:
    """The exit status of the client: 0 if no result failed, 1 if all failed, 3 if some failed."""
    failed = [r.error is not None for r in results]
    if not any(failed):
        return 0
    return 1 if all(failed) else 3
