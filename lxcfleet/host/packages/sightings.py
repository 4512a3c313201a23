"""When each package was first seen in its present state, by a clock that nobody can set.

The times of files go by the clock of the wall. If that was set back, a file that came later looks older. What was seen
before a moment on the other clock was there at that moment.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from lxcfleet.host.kernel import tree
from lxcfleet.host.packages import dpkg, lists
from lxcfleet.host.process import proc
from lxcfleet.spec.reading import ondisk

log = logging.getLogger(__name__)

GONE = 0
"""The stamp of a package that was removed."""


class Sighting(NamedTuple):
    """A package's state, and when it was seen first."""

    stamp: int
    """That of its list; see ``lists.stamps``."""
    seen: float
    """Seconds since the machine booted."""


class Sightings:
    """Keeps the record, in /run, as no container outlives a boot."""

    def __init__(self, record: Path, info: Path = lists.INFO) -> None:
        self._record, self._info, self._admin = record, info, info.parent
        self._last: tuple[object, ...] = ()
        self._known: Mapping[str, Sighting] = {}
        self._lock = threading.Lock()

    def update(self) -> Mapping[str, Sighting] | None:
        """Note which packages changed since the last call; returns all sightings, the same object as long as none changes.

        None while dpkg has left packages half-way, as files of these may still be replaced, and if nothing can be kept. Takes
        some µs if nothing changed, else some ms.
        """
        with self._lock:
            at_first = self._stamps()
            if at_first == self._last:
                return self._known
            if dpkg.trouble(self._admin):
                return None
            known, now = read(self._record), lists.stamps(self._info)
            # Only after the look: what was seen is older than this moment.
            moment = proc.uptime()
            if self._stamps() != at_first:
                return None  # dpkg has begun meanwhile
            present = {**dict.fromkeys(known, GONE), **now}
            found = {
                package: each if (each := known.get(package)) and each.stamp == stamp else Sighting(stamp, moment)
                for package, stamp in present.items()
            }
            try:
                tree.write(self._record, json.dumps(found))
            except OSError as error:
                log.warning("when packages changed can't be noted: %s", error)
                return None
            self._last, self._known = at_first, found
            return found

    def _stamps(self) -> tuple[object, ...]:
        return *dpkg.stamp(self._admin), *lists.changes(self._info)


def read(record: Path) -> dict[str, Sighting]:
    """The sightings by package; none if they can't be read."""
    try:
        return {str(package): Sighting(int(stamp), float(seen)) for package, (stamp, seen) in ondisk.record(record).items()}
    except (OSError, ValueError, TypeError, AttributeError, OverflowError):
        return {}
