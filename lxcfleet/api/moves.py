"""Records and requests of calls about moves between hosts, and the messages of a move on the attach socket."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, TypedDict

from lxcfleet.errors import ErrorBody
from lxcfleet.spec.moves import check_id
from lxcfleet.spec.reading.names import check_name
from lxcfleet.spec.reading.reader import Fields

_MOST_BYTES = 1 << 60
_MOST_ORIGIN = 200


class MoveRecord(TypedDict):
    """How far a move is, as one side knows it; see docs/move.md."""

    name: str
    id: str
    away: bool
    """Whether the container leaves this host; otherwise it comes."""
    step: str
    """sending, handed, healthy or kept; of one that comes: received, granted, healthy or revoked."""
    host: str
    """The other side."""
    since: str
    ran: bool
    """Whether it ran before, and is to run afterwards."""
    port: int
    config: str
    authority: bool
    """Whether the container belongs to this side: it may run here, and nowhere else."""
    driven: bool
    """Whether a `lxcfleet move` is at work on it at this moment."""


class OfferRecord(TypedDict):
    """The container that the other host is asked about."""

    name: str
    protocol: int
    version: str
    origin: str
    """This host, by the name that it has itself, and an id of its fleet."""
    spec: dict[str, Any]
    bytes: int
    """The files of its delta."""
    ran: bool
    notes: list[str]


@dataclass(frozen=True)
class OfferRequest:
    """Whether a container can be moved, and the facts that the other host has to know."""

    name: str
    keep: bool = False
    """Whether its delta stays here in the end."""

    def to_json(self) -> dict[str, Any]:
        """The body."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object) -> OfferRequest:
        """From a body; raises InvalidInput."""
        fields = Fields(data, "request")
        request = cls(fields.text("name"), fields.flag("keep"))
        fields.finish("the request is not valid")
        check_name(request.name)
        return request


@dataclass(frozen=True)
class CheckArrivalRequest:
    """Whether a container of another host can come here."""

    name: str
    protocol: int
    version: str
    origin: str
    bytes: int
    spec: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The body."""
        return {**asdict(self), "spec": dict(self.spec)}

    @classmethod
    def from_json(cls, data: object) -> CheckArrivalRequest:
        """From a body; raises InvalidInput."""
        fields = Fields(data, "request")
        spec = fields.raw("spec")
        fields.skip("spec")
        if not isinstance(spec, Mapping):
            fields.complain("spec", "is to be a mapping")
            spec = {}
        request = cls(
            fields.text("name"), fields.integer("protocol", 0, 0, 1 << 31), fields.text("version"),
            fields.text("origin")[:_MOST_ORIGIN], fields.integer("bytes", 0, 0, _MOST_BYTES), spec,
        )  # fmt: skip
        fields.finish("the request is not valid")
        check_name(request.name)
        return request


class ArrivalRecord(TypedDict):
    """The answer to that."""

    protocol: int
    version: str
    left: str
    """The id of a move that was broken off: its remains here have to go first; empty: there is none."""
    notes: list[str]


class Do(StrEnum):
    """The requests of the sending side to the one that takes the container."""

    STATUS = "status"
    GRANT = "grant"
    CONFIRM = "confirm"
    REVOKE = "revoke"
    SETTLE = "settle"


@dataclass(frozen=True)
class ArrivalRequest:
    """A question or an order about a container that came here by a move."""

    name: str
    id: str
    do: Do

    def to_json(self) -> dict[str, Any]:
        """The body."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object) -> ArrivalRequest:
        """From a body; raises InvalidInput."""
        fields = Fields(data, "request")
        request = cls(fields.text("name"), fields.text("id"), fields.choice("do", Do, Do.STATUS))
        fields.finish("the request is not valid")
        check_name(request.name)
        check_id(request.id)
        return request


@dataclass(frozen=True)
class ForgetMoveRequest:
    """``lxcfleet move --forget``: an operator says that the container belongs to this host alone."""

    name: str

    def to_json(self) -> dict[str, Any]:
        """The body."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object) -> ForgetMoveRequest:
        """From a body; raises InvalidInput."""
        fields = Fields(data, "request")
        request = cls(fields.text("name"))
        fields.finish("the request is not valid")
        check_name(request.name)
        return request


class MoveContainer(TypedDict):
    """Begin the sending side of a move, or go on with it; on the attach socket. stdout, which travels with this, is where the
    archive goes. The client then says ``MoveSaid``, one after the other, and each is answered."""

    move: str
    """The container's name."""
    id: str
    host: str
    port: int
    config: str
    onward: bool
    """Whether a move that is under way goes on; otherwise one begins: it is stopped, and written to the archive."""


class MoveSaid(TypedDict):
    """The client's next word: ``hand``, ``healthy``, ``end``, ``keep`` or ``back``; see docs/move.md."""

    do: str


class MoveMessage(TypedDict, total=False):
    """An answer: how far the archive is, or the step that is noted on disk by now."""

    bytes: int
    step: str
    """As in MoveRecord; also ``sent``: the archive is written, ``gone``: the container is no more, ``back``: it is here."""
    notes: list[str]
    error: ErrorBody
