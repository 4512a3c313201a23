"""Records and requests of calls about drains."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, TypedDict

from lxcfleet.spec.reading.names import MAX_DRAIN
from lxcfleet.spec.reading.reader import Fields

LONGEST_WHY = 200
"""Characters of a reason."""


class DrainRecord(TypedDict):
    """A drain of this host."""

    since: str
    why: str
    containers: list[str]
    """Those that ran, and start again when it ends."""
    running: list[str]
    """Those that run all the same."""


@dataclass(frozen=True)
class DrainRequest:
    """``lxcfleet drain``."""

    why: str = ""
    timeout: float | None = None
    """Seconds until a stop becomes a kill; null: as the settings say."""
    drain: float | None = None
    """Seconds between the withdrawal of names and ports and the stop; null: as each spec says."""
    dry_run: bool = False

    def to_json(self) -> dict[str, Any]:
        """The body."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object) -> DrainRequest:
        """From a body; raises InvalidInput."""
        fields = Fields(data, "request")
        request = cls(
            fields.text("why"),
            fields.number("timeout", 0, 0, 86400) if fields.has("timeout") else None,
            fields.number("drain", 0, 0, MAX_DRAIN) if fields.has("drain") else None,
            fields.flag("dry_run"),
        )
        if len(request.why) > LONGEST_WHY or not request.why.isprintable():
            fields.complain("why", f"must be one line of at most {LONGEST_WHY} characters")
        fields.finish("the request is not valid")
        return request


@dataclass(frozen=True)
class EndDrainRequest:
    """``lxcfleet drain --end``."""

    dry_run: bool = False

    def to_json(self) -> dict[str, Any]:
        """The body."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object) -> EndDrainRequest:
        """From a body; raises InvalidInput."""
        fields = Fields(data, "request")
        request = cls(fields.flag("dry_run"))
        fields.finish("the request is not valid")
        return request
