"""A host that is drained: its containers are stopped for work on it, and stay so over boots until that ends.

The record on disk is all there is to it. While it is there, no container starts, whoever wants that: a container that is to
run is blocked, and starts by itself once the drain ends.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from lxcfleet.containers.desired import Lack
from lxcfleet.errors import HostError, WrongState
from lxcfleet.host.kernel import tree
from lxcfleet.paths import Paths
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading import ondisk

log = logging.getLogger(__name__)

_HINT = "`lxcfleet drain --end` ends that"


@dataclass(frozen=True)
class Drained:
    """A drain of this host."""

    since: str
    """When it began, ISO 8601 in UTC."""
    why: str
    names: tuple[str, ...]
    """The containers that ran, and start again when it ends."""


def parse(text: str) -> Drained:
    """The record that ``text`` is. Raises ValueError."""
    data = ondisk.parse(text)
    try:
        since, why, names = data["since"], data["why"], tuple(data["names"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{error} is missing or wrong") from error
    if not all(isinstance(each, str) for each in (since, why, *names)):
        raise ValueError("not all of it is text")
    datetime.fromisoformat(since)
    return Drained(since, why, names)


class Drain:
    """Whether this host is drained; a prerequisite of all starts."""

    waived = False

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self.forced: set[str] = set()
        """Containers that may start all the same."""
        self.now = self._load()
        """The drain of this host; None: it is not drained."""

    def _load(self) -> Drained | None:
        try:
            return parse(ondisk.text(self._paths.drained))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            # Somebody works on this host: better a fleet that stays down than one that comes up below their hands.
            log.error("%s can't be read, so the host counts as drained: %s", self._paths.drained, error)
            return Drained("1970-01-01T00:00:00Z", f"{self._paths.drained} can't be read", ())

    async def look(self, spec: Spec) -> None:
        """See Prerequisite. Whether the host is drained is known at any time."""

    def lack(self, spec: Spec) -> Lack | None:
        """See Prerequisite."""
        return None if self.now is None or spec.name in self.forced else Lack("this host is drained")

    def refuse(self, what: str) -> None:
        """Raise WrongState if the host is drained. ``what``: what is asked for, and can't be done."""
        if self.now is not None:
            why = f"since {self.now.since}{': ' if self.now.why else ''}{self.now.why}"
            raise WrongState(f"this host is drained, so {what}", why=why, hint=_HINT)

    def begin(self, since: str, why: str, names: Iterable[str]) -> None:
        """Note a drain, before anything is stopped; one that is under way goes on, with more names. Raises HostError."""
        before = self.now or Drained(since, why, ())
        now = Drained(before.since, why or before.why, tuple(dict.fromkeys((*before.names, *names))))
        text = json.dumps({"since": now.since, "why": now.why, "names": list(now.names)}) + "\n"
        try:
            self._paths.drained.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            tree.write(self._paths.drained, text, sync=True)
        except OSError as error:
            raise HostError.from_os_error("the drain can't be noted, so nothing is stopped", error) from error
        self.now = now
        self.forced.clear()

    def end(self) -> None:
        """Forget it. Raises HostError."""
        try:
            self._paths.drained.unlink(missing_ok=True)
            if self._paths.drained.parent.is_dir():
                tree.sync_directory(self._paths.drained.parent)
        except OSError as error:
            raise HostError.from_os_error("the end of the drain can't be noted", error) from error
        self.now = None
        self.forced.clear()
