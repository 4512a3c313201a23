"""The requests about archives on the attach socket, as values."""

from __future__ import annotations

from dataclasses import dataclass

from lxcfleet.api.archives import LEVEL, MOST_LEVEL, MOST_SECONDS, SECONDS
from lxcfleet.daemon.uses import arrivals
from lxcfleet.runtime.operations import now
from lxcfleet.spec.moves import MOST_HOST, Journal, MoveStep, check_id
from lxcfleet.spec.reading.names import check_name
from lxcfleet.spec.reading.reader import Fields

_MOST_LIMIT = 1 << 60


@dataclass(frozen=True)
class ExportAsk:
    """See ExportContainer."""

    name: str
    level: int
    stopped: bool
    volumes: bool
    seconds: float


@dataclass(frozen=True)
class ImportAsk:
    """See ImportContainer."""

    name: str
    trusted: bool
    limit: int
    start: bool
    check: bool
    dry_run: bool
    moved: Journal | None = None
    """The journal of the move by which it comes."""
    volumes: arrivals.WantedVolumes | None = None


def parse_export(data: object) -> ExportAsk:
    """The request in a message. Raises InvalidInput."""
    fields = Fields(data, "request")
    ask = ExportAsk(
        check_name(fields.text("export")), fields.integer("level", LEVEL, 1, MOST_LEVEL), fields.flag("stopped"),
        fields.flag("volumes"), fields.number("seconds", SECONDS, 1, MOST_SECONDS),
    )  # fmt: skip
    fields.finish("the request to export a container is not valid")
    return ask


def parse_import(data: object) -> ImportAsk:
    """The request in a message. Raises InvalidInput."""
    fields = Fields(data, "request")
    name = fields.text("unpack")
    ask = ImportAsk(
        check_name(name) if name else "", fields.flag("trusted"), fields.integer("limit", 0, 0, _MOST_LIMIT),
        fields.flag("start", True), fields.flag("check"), fields.flag("dry_run"), _moved(fields), arrivals.parse(fields),
    )  # fmt: skip
    fields.finish("the request to import a container is not valid")
    return ask


def _moved(fields: Fields) -> Journal | None:
    if not fields.has("moved"):
        return None
    moved = fields.nested("moved")
    found = Journal(
        moved.text("id"), False, MoveStep.RECEIVED, moved.text("origin")[:MOST_HOST], now(), ran=moved.flag("ran")
    )  # fmt: skip
    moved.close()
    check_id(found.id)
    return found
