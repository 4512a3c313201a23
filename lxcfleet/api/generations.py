"""Records and requests of calls about generations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

from lxcfleet.api.records import ResultRecord, RolloutRecord
from lxcfleet.api.requests import read_rollout_policy, read_selection, selection_to_json
from lxcfleet.errors import InvalidInput
from lxcfleet.spec.reading.moments import read_day
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.reading.terms import MAX_GENERATION
from lxcfleet.spec.selection import Selection

LONGEST_WHY = 200
"""Characters of a reason."""


class HoldRecord(TypedDict):
    """A container that is held on a generation on purpose."""

    name: str
    generation: int
    until: str
    """The last day, as 2027-01-31, by the host's clock."""
    since: str
    why: str
    past: bool
    """Whether that day is over: then it goes along with the next patch that goes well."""


class HoldsRecord(TypedDict):
    """The outcome of a hold."""

    changed: bool
    dry_run: bool
    chosen: list[str]
    held: list[HoldRecord]
    """Those of the chosen ones that are held now."""


class ReleasedRecord(TypedDict):
    """The outcome of a release."""

    changed: bool
    dry_run: bool
    released: list[str]
    """They go along with the next patch that goes well."""


class GenerationRecord(TypedDict):
    """A frozen base."""

    number: int
    created: str
    why: str
    """The reason for which it was frozen."""
    files: int
    """Files and symbolic links in it."""
    bytes: int
    """Disk space that freezing it took."""
    whole: bool
    """Whether it was frozen as a whole, and not only what differs from the generation before."""
    containers: list[str]
    """The containers that stand on it, or will from their next start on."""
    held: list[HoldRecord]
    """Those of them that are held there."""
    packages: dict[str, list[str | None]]
    """The packages that the host has in another version now: the generation's, and the host's; null: not installed."""
    rejected: str | None
    """Why its packages were rejected, as those of a patch: no container gets it by itself. Null: they were not."""
    problem: str | None
    """Why it can't be used."""


class FreezeRecord(TypedDict):
    """The outcome of a freeze."""

    changed: bool
    """False: the newest generation is the same as the host is now."""
    generation: GenerationRecord


class CheckedRecord(TypedDict):
    """The findings of a look at a generation's files."""

    number: int
    files: int
    """The number of files that were looked at."""
    written: list[str]
    """Files that a program wrote in place since: the generation has the new content."""
    altered: list[str]
    """Linked files whose mode, owner, access list or capabilities were changed on the host since: the generation has the
    new ones."""
    missing: list[str]
    strange: list[str]
    """Files that were not frozen, and are there."""


class GenerationsRemoved(TypedDict):
    """The outcome of a removal."""

    changed: bool
    removed: list[int]


class RollbackRecord(TypedDict):
    """The outcome of a rollback."""

    changed: bool
    dry_run: bool
    to: int
    """The number of the generation; 0: the host's root."""
    until: str | None
    """The last day on which they are held there; null: they are not held."""
    packages: dict[str, list[str | None]]
    """The packages that go along: those of which the base that they leave has another version, which comes first; null: not
    installed. Of several such bases the host's root counts, then the newest one."""
    containers: list[str]
    """The containers that get it. Those that do not run have it from their next start on."""
    left: dict[str, list[str]]
    """Those that are left alone: a package that the container installed itself would lack what it depends on, or would not go
    with a package of that base. In words, at most 10 of each."""
    results: list[ResultRecord]
    """The outcome for those that do not run."""
    restarts: list[str]
    """Those that run: they are restarted onto it."""
    rollout: RolloutRecord | None
    """The rollout that restarts them."""


@dataclass(frozen=True)
class FreezeRequest:
    """``lxcfleet generation freeze``."""

    why: str = "asked for"

    def to_json(self) -> dict[str, Any]:
        """The body."""
        return {"why": self.why}

    @classmethod
    def from_json(cls, data: object) -> FreezeRequest:
        """From a body; raises InvalidInput."""
        fields = Fields(data, "request")
        request = cls(_why(fields) or cls.why)
        fields.finish("the request is not valid")
        return request


@dataclass(frozen=True)
class RemoveGenerationsRequest:
    """``lxcfleet generation rm``: all of them, or none if one is in use or the last good one."""

    numbers: tuple[int, ...]
    last: bool = False
    """Also the last good one."""

    def to_json(self) -> dict[str, Any]:
        """The body."""
        return {"numbers": list(self.numbers), "last": self.last}

    @classmethod
    def from_json(cls, data: object) -> RemoveGenerationsRequest:
        """From a body; raises InvalidInput."""
        fields = Fields(data, "request")
        numbers = fields.raw("numbers")
        fields.skip("numbers")
        if not isinstance(numbers, list) or not numbers or len(numbers) > 1000 or not all(map(_is_number, numbers)):
            fields.complain("numbers", "must be a list of generations' numbers")
            numbers = []
        last = fields.flag("last")
        fields.finish("the request is not valid")
        return cls(tuple(dict.fromkeys(numbers)), last)


@dataclass(frozen=True)
class RollbackRequest:
    """``lxcfleet rollback``. ``to``: the number of a generation; 0: the host's root; None: the newest generation that has
    another version of some package than the host."""

    selection: Selection
    to: int | None = None
    policy: Mapping[str, Any] = field(default_factory=dict)
    """The values of the rollout's policy that differ from the settings."""
    dry_run: bool = False
    ignore_depends: bool = False
    """Whether those get it as well whose own packages would then lack what they depend on."""
    until: str | None = None
    """The last day on which they are held there, as 2027-01-31; None: they are not held."""
    why: str = ""
    """The reason for which they are held."""

    def to_json(self) -> dict[str, Any]:
        """The body."""
        return {
            "selection": selection_to_json(self.selection),
            "to": self.to,
            "policy": dict(self.policy),
            "dry_run": self.dry_run,
            "ignore_depends": self.ignore_depends,
            "until": self.until,
            "why": self.why,
        }

    @classmethod
    def from_json(cls, data: object) -> RollbackRequest:
        """From a body; raises InvalidInput."""
        fields = Fields(data, "request")
        to = fields.integer("to", 0, 0, MAX_GENERATION) if fields.has("to") else None
        until = _day(fields, "until") if fields.has("until") else None
        request = cls(
            read_selection(fields.nested("selection")), to, read_rollout_policy(fields), fields.flag("dry_run"),
            fields.flag("ignore_depends"), until, _why(fields),
        )  # fmt: skip
        if until is not None and to == 0:
            fields.complain("until", "goes with a generation: a container on the host's root is not held")
        if until is None and request.why:
            fields.complain("why", "goes with a day until which they are held")
        if not (request.selection.narrow or request.selection.everything):
            fields.complain("selection", "chooses nothing")
        fields.finish("the request is not valid")
        return request


@dataclass(frozen=True)
class HoldRequest:
    """``lxcfleet generation hold``. ``number``: all containers on this generation; None: those that are chosen."""

    selection: Selection
    number: int | None
    until: str
    """The last day, as 2027-01-31."""
    why: str = ""
    dry_run: bool = False

    def to_json(self) -> dict[str, Any]:
        """The body."""
        return {**vars(self), "selection": selection_to_json(self.selection)}

    @classmethod
    def from_json(cls, data: object) -> HoldRequest:
        """From a body; raises InvalidInput."""
        fields = Fields(data, "request")
        selection, number = _whom(fields)
        request = cls(selection, number, _day(fields, "until"), _why(fields), fields.flag("dry_run"))
        fields.finish("the request is not valid")
        return request


@dataclass(frozen=True)
class ReleaseRequest:
    """``lxcfleet generation release``. ``number``: all containers on this generation; None: those that are chosen."""

    selection: Selection
    number: int | None
    dry_run: bool = False

    def to_json(self) -> dict[str, Any]:
        """The body."""
        return {**vars(self), "selection": selection_to_json(self.selection)}

    @classmethod
    def from_json(cls, data: object) -> ReleaseRequest:
        """From a body; raises InvalidInput."""
        fields = Fields(data, "request")
        request = cls(*_whom(fields), fields.flag("dry_run"))
        fields.finish("the request is not valid")
        return request


def _whom(fields: Fields) -> tuple[Selection, int | None]:
    """The chosen containers, or the generation whose containers are meant."""
    number = fields.integer("number", 0, 1, MAX_GENERATION) if fields.has("number") else None
    selection = read_selection(fields.nested("selection"))
    if (number is None) == (not (selection.narrow or selection.everything)):
        fields.complain("selection", "chooses nothing" if number is None else "does not go with a generation's number")
    return selection, number


def _day(fields: Fields, key: str) -> str:
    try:
        return read_day(fields.text(key)).isoformat()
    except InvalidInput as error:
        fields.complain(key, f"{error.message}: {error.hint}")
        return ""


def _why(fields: Fields) -> str:
    why = fields.text("why")
    if len(why) > LONGEST_WHY or not why.isprintable():
        fields.complain("why", f"must be one line of at most {LONGEST_WHY} characters")
    return why


def _is_number(value: object) -> bool:
    return type(value) is int and 0 < value <= MAX_GENERATION
