"""Records and requests of calls about snapshots."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, TypedDict

from lxcfleet.api.requests import read_selection, selection_to_json
from lxcfleet.errors import InvalidInput
from lxcfleet.spec.reading.names import check_name
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.selection import Selection

LONGEST_WHY = 200
"""Characters of a reason."""


class SnapshotRecord(TypedDict):
    """A snapshot of a container's delta."""

    container: str
    name: str
    created: str
    why: str
    made_by: str
    """asked, schedule, or restore: the container's files from before another snapshot was restored."""
    bytes: int
    """The disk space that the delta took then."""
    shared: bool
    """Whether it shared the blocks with the delta then, and took next to no space of its own."""
    frozen_ms: int | None
    """For how many milliseconds the container was frozen for it; null: it was not."""
    exists: bool
    """Whether the container that it is of still exists."""
    path: str
    problem: str | None
    """Why it can't be used."""


def _check(fields: Fields, key: str, check: Any, value: str) -> None:
    try:
        check(value)
    except InvalidInput as error:
        fields.complain(key, f"{error.message}{': ' if error.why else ''}{error.why}")


def _check_snapshot(name: str) -> None:
    from lxcfleet.spec.container.snapshots import check_snapshot  # noqa: PLC0415  the command line starts with this module

    check_snapshot(name)


@dataclass(frozen=True)
class CreateSnapshotsRequest:
    """``lxcfleet snapshot create``. ``yes``: however much has to be copied."""

    selection: Selection
    name: str = ""
    why: str = ""
    yes: bool = False
    dry_run: bool = False

    def to_json(self) -> dict[str, Any]:
        """The body."""
        return {**asdict(self), "selection": selection_to_json(self.selection)}

    @classmethod
    def from_json(cls, data: object) -> CreateSnapshotsRequest:
        """From a body; raises InvalidInput."""
        fields = Fields(data, "request")
        request = cls(
            read_selection(fields.nested("selection")), fields.text("name"), fields.text("why"), fields.flag("yes"),
            fields.flag("dry_run"),
        )  # fmt: skip
        if request.name:
            _check(fields, "name", _check_snapshot, request.name)
        if len(request.why) > LONGEST_WHY or not request.why.isprintable():
            fields.complain("why", f"must be one line of at most {LONGEST_WHY} characters")
        fields.finish("the request is not valid")
        return request


@dataclass(frozen=True)
class RestoreSnapshotRequest:
    """``lxcfleet snapshot restore``. ``stop``: stop it for that if it runs, and start it again; ``discard_present``: don't
    keep its present delta; ``yes``: however much has to be copied."""

    container: str
    name: str
    stop: bool = False
    discard_present: bool = False
    yes: bool = False
    dry_run: bool = False

    def to_json(self) -> dict[str, Any]:
        """The body."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object) -> RestoreSnapshotRequest:
        """From a body; raises InvalidInput."""
        fields = Fields(data, "request")
        request = cls(
            fields.text("container"), fields.text("name"), fields.flag("stop"), fields.flag("discard_present"),
            fields.flag("yes"), fields.flag("dry_run"),
        )  # fmt: skip
        _check(fields, "container", check_name, request.container)
        _check(fields, "name", _check_snapshot, request.name)
        fields.finish("the request is not valid")
        return request


@dataclass(frozen=True)
class RemoveSnapshotsRequest:
    """``lxcfleet snapshot rm``: those of one container; all of them, or none if one does not exist."""

    container: str
    names: tuple[str, ...]
    dry_run: bool = False

    def to_json(self) -> dict[str, Any]:
        """The body."""
        return {"container": self.container, "names": list(self.names), "dry_run": self.dry_run}

    @classmethod
    def from_json(cls, data: object) -> RemoveSnapshotsRequest:
        """From a body; raises InvalidInput."""
        fields = Fields(data, "request")
        request = cls(fields.text("container"), tuple(dict.fromkeys(fields.texts("names"))), fields.flag("dry_run"))
        _check(fields, "container", check_name, request.container)
        if not request.names:
            fields.complain("names", "names no snapshot")
        for name in request.names:
            _check(fields, "names", _check_snapshot, name)
        fields.finish("the request is not valid")
        return request
