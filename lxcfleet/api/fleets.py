"""Requests and records of the calls about fleets as files. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NotRequired, TypedDict

from lxcfleet.api.records import OperationRecord
from lxcfleet.api.requests import read_rollout_policy, read_selection, selection_to_json
from lxcfleet.errors import ErrorBody, InvalidInput
from lxcfleet.spec.reading.names import MAX_COUNT, check_name
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.selection import Selection

PRUNE = ("no", "yes", "all")


def _any(name: str, value: str) -> None:
    """Any pair will do."""


@dataclass(frozen=True)
class FleetRequest:
    """``lxcfleet apply`` and ``diff``: a fleet file, and the files that it names."""

    text: str
    where: str = "fleet.yaml"
    """The file's path, for complaints."""
    files: Mapping[str, str] = field(default_factory=dict)
    """The text of each file in ``env_files``, by the name that stands there."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Why others could not be read, by name."""
    prune: str = "no"
    """no, yes or all: whether containers that the fleet owns, and the file does not have, are destroyed; ``all``: also if
    these are more than half, or a whole group."""
    adopt: bool = False
    """Whether containers that belong to no fleet are taken over."""
    plan: str | None = None
    """The id of the plan that is meant: another one is refused."""
    policy: Mapping[str, Any] = field(default_factory=dict)
    """The values of the rollout's policy that differ from the settings."""

    def to_json(self) -> dict[str, Any]:
        """The body."""
        return {key: dict(value) if isinstance(value, Mapping) else value for key, value in vars(self).items()}

    @classmethod
    def from_json(cls, data: object) -> FleetRequest:
        """From a body; raises InvalidInput."""
        fields = Fields(data, "request")
        text = fields.raw("text")
        fields.skip("text")
        if not isinstance(text, str):
            fields.complain("text", "expected the text of the file")
        request = cls(
            text=str(text),
            where=fields.text("where", "fleet.yaml")[:4096],
            files=fields.pairs("files", _any),
            missing=fields.pairs("missing", _any),
            prune=fields.text("prune", "no"),
            adopt=fields.flag("adopt"),
            plan=fields.optional_text("plan"),
            policy=read_rollout_policy(fields),
        )
        if request.prune not in PRUNE:
            fields.complain("prune", f"is none of {', '.join(PRUNE)}")
        fields.finish("the request is not valid")
        return request


@dataclass(frozen=True)
class ScaleRequest:
    """``lxcfleet scale``."""

    group: str
    count: int
    fleet: str | None = None
    """The fleet; null: the one that has a group of that name."""
    dry_run: bool = False

    def to_json(self) -> dict[str, Any]:
        """The body."""
        return {**vars(self)}

    @classmethod
    def from_json(cls, data: object) -> ScaleRequest:
        """From a body; raises InvalidInput."""
        fields = Fields(data, "request")
        request = cls(
            group=fields.text("group"),
            count=fields.integer("count", 0, 0, MAX_COUNT),
            fleet=fields.optional_text("fleet"),
            dry_run=fields.flag("dry_run"),
        )
        _check_names(fields, {"group": request.group, **({"fleet": request.fleet} if request.fleet is not None else {})})
        fields.finish("the request is not valid")
        return request


@dataclass(frozen=True)
class ExportRequest:
    """``lxcfleet export --fleet NAME``."""

    fleet: str
    selection: Selection

    def to_json(self) -> dict[str, Any]:
        """The body."""
        return {"fleet": self.fleet, "selection": selection_to_json(self.selection)}

    @classmethod
    def from_json(cls, data: object) -> ExportRequest:
        """From a body; raises InvalidInput."""
        fields = Fields(data, "request")
        request = cls(fields.text("fleet"), read_selection(fields.nested("selection")))
        _check_names(fields, {"fleet": request.fleet})
        fields.finish("the request is not valid")
        return request


@dataclass(frozen=True)
class RemoveFleetRequest:
    """``lxcfleet fleet rm``. ``orphan``: its containers stay, and belong to no fleet."""

    fleet: str
    orphan: bool = False

    def to_json(self) -> dict[str, Any]:
        """The body."""
        return {**vars(self)}

    @classmethod
    def from_json(cls, data: object) -> RemoveFleetRequest:
        """From a body; raises InvalidInput."""
        fields = Fields(data, "request")
        request = cls(fields.text("fleet"), fields.flag("orphan"))
        _check_names(fields, {"fleet": request.fleet})
        fields.finish("the request is not valid")
        return request


def _check_names(fields: Fields, names: Mapping[str, str]) -> None:
    for key, name in names.items():
        try:
            check_name(name)
        except InvalidInput as error:
            fields.complain(key, f"{error.message}: {error.why}")


class ChangeRecord(TypedDict):
    """One change of one container."""

    name: str
    group: str
    change: str
    """create, live (nothing is restarted for it), restart, start, stop or destroy."""
    differs: dict[str, tuple[str, str]]
    """By key, the value that the container has and the one that it gets, in words."""
    why: str
    delta_bytes: NotRequired[int]
    """Of a container that is destroyed: the size of its own data, which goes. Left out where that is not known within 5 s."""


class VolumeChangeRecord(TypedDict):
    """One volume that is made or changed."""

    name: str
    change: str
    """create or live."""
    differs: dict[str, tuple[str, str]]
    """By key, the value that the volume has and the one that it gets, in words."""


class SecretChangeRecord(TypedDict):
    """One secret of the file whose source is another one than before."""

    name: str
    change: str
    """create, live or remove."""
    differs: dict[str, tuple[str, str]]
    """In words, its present source and the new one: references alone, and no arguments of commands."""


class AppChangeRecord(TypedDict):
    """One app of the file of which other releases are kept than before."""

    name: str
    change: str
    """create, live or remove: the change that the file asks for."""
    differs: dict[str, tuple[str, str]]
    """By key, the former value and the new one, in words."""


class KeptRecord(TypedDict):
    """Something that is not as the file has it, and stays so: the file's own value did not move since it was applied."""

    name: str
    """The container's name, or the group's."""
    key: str
    file: str
    now: str
    why: str
    """The cause of that difference."""


class PlanRecord(TypedDict):
    """The changes that a file would make."""

    id: str
    """Tells this plan from any other one: `apply` with this id does just this, or fails with the code ``conflict``. Empty for
    `scale`, which has no file, and for those who may only read, as values that they may not see are no part of their plan."""
    fleet: str
    changed: bool
    volumes: list[VolumeChangeRecord]
    secrets: list[SecretChangeRecord]
    apps: list[AppChangeRecord]
    changes: list[ChangeRecord]
    kept: list[KeptRecord]
    left: list[str]
    """Containers that the fleet owns, and the file does not have: they are left alone."""
    not_compared: list[str]
    """Keys whose values were not compared, as those who asked may only read."""
    refused: ErrorBody | None
    """Why `apply` would refuse it as things are now, for example as there is no room; null: it would carry it out."""


class ApplyRecord(OperationRecord):
    """The operation of ``apply`` and ``scale``; ``fleet_plan``: the plan that it carries out."""

    fleet_plan: PlanRecord


class FleetGroupRecord(TypedDict):
    """A group of a fleet that was applied."""

    name: str
    count: int | None
    """As the file has it; null: the group is one container of its own name; 0: the file has it no more."""
    now: int | None
    """As it is since the last ``scale``."""
    why: str
    """The one who gave it another count than the file, and when."""
    containers: list[str]
    running: int


class FleetRecord(TypedDict):
    """A fleet that was applied on this host."""

    name: str
    file: str
    applied: str
    """When its file was applied last."""
    groups: list[FleetGroupRecord]


class TextRecord(TypedDict):
    """A file."""

    text: str
