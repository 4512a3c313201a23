"""Records and requests of calls about rehearsals."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypedDict

from lxcfleet.api.records import TrialRecord
from lxcfleet.spec.policies.rollout_tests import MAX_COMMAND, MOST
from lxcfleet.spec.reading.names import check_name
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.reading.terms import MAX_GENERATION


class CloneDelta(StrEnum):
    """The content of the throwaway clone's delta."""

    EMPTY = "empty"
    COPY = "copy"
    """The content of the container's delta at that moment."""


class RehearsalRecord(TypedDict):
    """The outcome of a rehearsal."""

    changed: bool
    """Whether the clone was kept; otherwise nothing is left."""
    name: str
    """The container whose spec was rehearsed."""
    clone: str
    """The name of the throwaway clone."""
    generation: int
    """The base that the clone stood on; 0: the host's root."""
    passed: bool
    healthy: bool
    why: str
    """Why it did not pass: the test or the health that was not good; empty: it passed."""
    tests: list[TrialRecord]
    differs: list[str]
    """The differences between the clone and the container, in words."""
    notes: list[str]
    """The other facts to be known, as that the container was frozen while its delta was copied."""
    log: str
    """The end of the clone's console, if it did not pass."""
    seconds: float


@dataclass(frozen=True)
class RehearseRequest:
    """``lxcfleet patch rehearse``. ``on``: a generation's number; 0: the host's root. ``tests``: shell commands that are run
    inside besides the tests of the container's group or profile."""

    name: str
    on: int = 0
    tests: tuple[str, ...] = ()
    secrets: bool = True
    """Whether the clone has the container's secrets."""
    keep: bool = False
    """Whether the clone is left, and runs on."""
    delta: CloneDelta = CloneDelta.EMPTY
    yes: bool = False
    """Whether much is copied without a question."""

    def to_json(self) -> dict[str, Any]:
        """The body."""
        return {
            "name": self.name, "on": self.on, "tests": list(self.tests), "secrets": self.secrets, "keep": self.keep,
            "delta": self.delta.value, "yes": self.yes,
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: object) -> RehearseRequest:
        """From a body; raises InvalidInput."""
        fields = Fields(data, "request")
        request = cls(
            check_name(fields.text("name")), fields.integer("on", 0, 0, MAX_GENERATION), fields.texts("tests"),
            fields.flag("secrets", True), fields.flag("keep"), fields.choice("delta", CloneDelta, CloneDelta.EMPTY),
            fields.flag("yes"),
        )  # fmt: skip
        sizes = [len(each.encode(errors="replace")) for each in request.tests]
        if len(sizes) > MOST or not all(0 < size <= MAX_COMMAND for size in sizes):
            fields.complain("tests", f"up to {MOST} commands of up to {MAX_COMMAND} bytes each")
        fields.finish("the request is not valid")
        return request
