"""The changes that a plan for a fleet file is made of, and the containers as it finds them. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from lxcfleet.spec.container.fields import askable
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.states import State

DOWN = {
    State.STOPPED: "somebody stopped it", State.EXITED: "it ended by itself",
    State.FAILED: "it ended with an error, or could not be started", State.BACKOFF: "it is started again in a while",
}  # fmt: skip
"""States of containers that do not run, and why that is left so. One that is being started is as the file has it."""
STATE = "state"
"""The key for the state that a container that does not run is kept in; all other keys of ``Kept`` are of specs and groups."""


class Kind(StrEnum):
    """The class of a change."""

    CREATE = "create"
    LIVE = "live"
    """Its spec changes, and nothing has to be restarted for it."""
    RESTART = "restart"
    """Its spec changes, and it is restarted in its turn."""
    START = "start"
    STOP = "stop"
    """It is one too many."""
    DESTROY = "destroy"


SPECS = (Kind.LIVE, Kind.RESTART, Kind.START)
"""The kinds of changes that give a container that exists another spec."""
OPEN = {key: row.default for key, row in askable().items() if row.secret}
"""By each key whose value not everybody may see, one that tells nothing."""


@dataclass(frozen=True)
class Current:
    """A container as it is."""

    spec: Spec | None
    """The spec that is wanted of it; None: that can't be read."""
    in_force: Spec | None = None
    """The spec of its run; None: it does not run."""
    state: State = State.STOPPED
    put_back: frozenset[str] = frozenset()
    """The keys whose values an undo of a rollout gave it."""
    why: str = ""
    """Why it does not run, in words, where its state alone would tell something else."""

    def without_secrets(self) -> Current:
        """The same without the values that not everybody may see."""
        specs = [None if each is None else replace(each, **OPEN) for each in (self.spec, self.in_force)]
        return replace(self, spec=specs[0], in_force=specs[1])


@dataclass(frozen=True)
class Change:
    """One change of one container."""

    name: str
    group: str
    kind: Kind
    spec: Spec | None = None
    """The spec that it gets: for a new container without name, ids and address."""
    differs: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """By key, the value that it has and the one that it gets, in words."""
    why: str = ""
    former: Spec | None = None
    """The spec that it has, if it exists and gets another one."""
    starts: bool = False
    """It has ended, and is started with that: what changes may be the cause of its error, or it is a job that has more to do
    now."""
    job: bool = False
    """It is made or started, and others wait until it is completed: so does all that comes after it."""


@dataclass(frozen=True)
class Kept:
    """Something that is not as the file has it, and stays so."""

    name: str
    """Of the container or group."""
    key: str
    file: str
    now: str
    why: str
