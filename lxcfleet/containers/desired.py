"""What the operator wants of a container, and what there is of it. Values only; containers.plan goes from one to the other.

The operator's intent is on disk, in the container's file ``pending``, before anything is done for it, and as long as it
is not fulfilled. So whatever ends the daemon, the next one knows what was wanted.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from lxcfleet.spec.spec import Spec


class Intent(Enum):
    """What is to become of a container; the value is the word that the file ``pending`` has for it."""

    RUN = "start"
    """It is to run. Also LXC's post-stop hook writes this word, when a system container reboots from inside."""
    STOPPED = "stop"
    GONE = "destroy"

    @classmethod
    def read(cls, text: str) -> Intent | None:
        """The intent that a file with ``text`` has; None if it is empty.

        A word that no version wrote counts as RUN: that loses nothing.
        """
        word = text.strip()
        if not word:
            return None
        return next((intent for intent in cls if intent.value == word), cls.RUN)


@dataclass(frozen=True)
class Desired:
    """What is wanted of a container that exists."""

    intent: Intent
    frozen: bool | None = False
    """Whether its processes are to be frozen while it runs; None: as they are."""
    anew: bool = False
    """Whether it is to be another run than the one of now: a restart."""
    lasting: bool = True
    """Whether that goes on disk. A stop until the host's next boot does not: the container is to run again then."""


@dataclass(frozen=True)
class Observed:
    """What there is of one container: on disk, and of its processes."""

    exists: bool
    """It has its directory under its own name."""
    running: bool = False
    frozen: bool = False
    noted: Intent | None = None
    """The intent on disk, which is not fulfilled yet."""
    half_made: bool = False
    """A directory that was to become it is there."""
    half_removed: bool = False
    """A directory that was it is there."""
    spec: Spec | None = None
    """The one on disk."""
    in_force: Spec | None = None
    """The one that its run has."""


NOTHING = Observed(exists=False)
