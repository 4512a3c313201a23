"""The desired and the observed state of a container. Values only; containers.reconciling.plan gives the steps from one to the
other.

The operator's intent is on disk, in the container's file ``pending``, before anything is done for it, until it is
fulfilled. So if the daemon dies at any moment, the next one knows what was wanted.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from lxcfleet.spec.container.spec import Spec


class Intent(Enum):
    """The intended state of a container; the value is the word in the file ``pending``."""

    RUN = "start"
    """It is to run. LXC's post-stop hook writes this word, too, when a system container reboots from inside."""
    STOPPED = "stop"
    GONE = "destroy"

    @classmethod
    def read(cls, text: str) -> Intent | None:
        """The intent that a file with ``text`` has; None if it is empty.

        A word that no version wrote counts as RUN, as that loses nothing.
        """
        word = text.strip()
        if not word:
            return None
        return next((intent for intent in cls if intent.value == word), cls.RUN)


@dataclass(frozen=True)
class Lack:
    """Something that a container needs before it starts, and that is not there."""

    reason: str
    """In a few words, such as ``db1 not healthy``."""
    passing: bool = False
    """Whether it is on its way, so that somebody who asked for the start may wait a moment."""
    again: float | None = None
    """After so many seconds it may be there without an event; None: there is an event."""
    remedy: str = ""
    """The command by which somebody has it there, if it does not come by itself."""

    @property
    def words(self) -> str:
        """The reason, and what follows."""
        return f"{self.reason}; it starts by itself after that" + (f" (`{self.remedy}`)" if self.remedy else "")


@dataclass(frozen=True)
class Desired:
    """The wanted state of a container that exists."""

    intent: Intent
    frozen: bool | None = False
    """Whether its processes are to be frozen while it runs; None: as they are."""
    anew: bool = False
    """Whether it is to get a new run, even if it runs now: a restart."""
    lasting: bool = True
    """Whether the intent goes on disk. For a stop until the host's next boot it does not: the container runs again then."""


@dataclass(frozen=True)
class Observed:
    """The observed state of one container: on disk, and of its processes."""

    exists: bool
    """It has its directory under its own name."""
    running: bool = False
    frozen: bool = False
    noted: Intent | None = None
    """The intent on disk that is not fulfilled yet."""
    half_made: bool = False
    """A directory is there that was to become the container."""
    half_removed: bool = False
    """A directory is there that was the container."""
    spec: Spec | None = None
    """The spec on disk."""
    in_force: Spec | None = None
    """The spec of its run."""
    lack: Lack | None = None
    """The thing that keeps it from starting; None: nothing does."""

    @property
    def start_is_owed(self) -> bool:
        """Whether it does not run, and it is noted that it is to: whatever step was the last one."""
        return self.exists and not self.running and self.noted is Intent.RUN


NOTHING = Observed(exists=False)
