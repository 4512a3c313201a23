"""Whether the mask still fits the host, exactly: a single file that changes its mode deep down is noticed as well."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from lxcfleet.base.mask import build
from lxcfleet.base.mask.build import Since
from lxcfleet.base.mask.sweep import BaseChanges
from lxcfleet.base.tree import stamp
from lxcfleet.errors import HostError
from lxcfleet.host.kernel import mounts
from lxcfleet.host.kernel.watch import Watch
from lxcfleet.paths import Paths

MOST = 5000
"""As many changed paths are kept. To look at more of them is not much quicker than to look at everything."""
_STEP = 0.01
"""In seconds. By less, the wall clock is not set back, but compared inaccurately."""


class Freshness:
    """Remembers all that changed since the base was last looked at.

    The kernel tells of changes (see host.kernel.watch). If it can't, the mask is never taken for fresh, and each question
    costs a look at the whole base. The methods may block for some 100 ms; any thread may call them.
    """

    def __init__(self, paths: Paths, root: Path = Path("/")) -> None:
        self._paths = paths
        self._root = root
        self._lock = threading.Lock()
        self._watched: dict[str, str] | None = None
        self._watches: list[Watch] = []
        self._changed: set[tuple[str, bool, bool]] | None = None
        """The changes since the last look that matter, as ``Watch.changed`` tells them; None: not all are known."""
        self._began = 0.0
        """When the last look began, in seconds since the epoch."""
        self._clock = _clock()
        """The seconds that the wall clock was ahead of the monotonic one when it was last compared."""
        self._ahead = 0.0
        """As far as the wall clock had come before it was set back. What was born until then may be older than it seems."""
        self._looks = False
        """Whether a look is under way: what matters follows from what it finds, so all changes are kept."""
        self._view: build.View | None = None
        self._record: list[int] | None = None
        """The stamp of the record that ``_view`` is of."""

    def is_current(self) -> bool:
        """Whether the image fits the present base."""
        self.take_note()
        return self._changed is not None and not self._changed and build.is_current(self._paths, self._root)

    def take_note(self) -> None:
        """Empty the kernel's queue, whose length is limited. Call this now and then."""
        with self._lock:
            self._compare_clocks()
            parts = mounts.parts() if self._root == Path("/") else {}
            if self._watched != parts:
                self._begin(parts)
            if not self._looks and self._record != stamp(str(self._paths.mask_record)):
                self._changed = None  # somebody else has looked, perhaps by other rules: so other changes may have mattered
            # Every watch is asked, so that no queue overflows.
            unknown = [watch.changed(self._note) for watch in self._watches]
            if not unknown or any(unknown):
                self._changed = None

    def close(self) -> None:
        """End the kernel's watches: one user has 128 of them, which all processes share."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        for watch in self._watches:
            watch.close()
        self._watches, self._watched, self._changed = [], None, None

    def _begin(self, parts: dict[str, str]) -> None:
        self._end()
        found = [Watch.on(place, self._is_doubtful) for place in (self._root, *map(Path, parts))]
        self._watches = [watch for watch in found if watch is not None]
        if len(self._watches) < len(found):
            for watch in self._watches:
                watch.close()
            self._watches = []
        self._watched = parts if self._watches else None

    def _is_doubtful(self, path: str, born: float | None) -> bool:
        """Whether a private file may have been public, and seen by clones, by another name than ``path``.

        Files of ours and of containers have names elsewhere only in generations. Of a file that is younger than the last look
        the kernel told each name as it came.
        """
        if path.startswith((f"{self._paths.lxc}/", f"{self._paths.state}/")):
            return path.startswith(f"{self._paths.generations}/")
        return born is None or not max(self._began, self._ahead) <= born <= time.time()

    def _compare_clocks(self) -> None:
        """Notice if the wall clock was set back, by which births are noted."""
        former, self._clock = self._clock, _clock()
        if self._clock < former - _STEP:
            self._ahead = max(self._ahead, former + time.monotonic() + _STEP)

    def _note(self, path: str, inside: bool, directory: bool) -> bool:
        """Keep a change that matters; returns whether there are too many."""
        if self._changed is None:  # the answer no longer depends on the watches
            return False
        if self._looks or self._view is None or self._view.matters(path, inside, directory):
            self._changed.add((path, inside, directory))
        return len(self._changed) > MOST

    def looking(self) -> Since | None:
        """Note that a look at the base begins; ``looked`` or ``failed`` follows. Returns what it has to look at, if it need
        not be everything."""
        with self._lock:
            since = None if self._changed is None else Since(self._record, _changes(self._changed))
            self._changed = set() if self._watches else None
            self._compare_clocks()
            self._looks, self._began = True, time.time()
        return since

    def looked(self) -> None:
        """Note that this look succeeded: only changes since it began count."""
        with self._lock:
            self._looks = False
            self._record = stamp(str(self._paths.mask_record))
            try:
                self._view = build.view(self._paths)
            except HostError:
                self._changed = None
            if self._changed is not None and self._view is not None:
                self._changed = {each for each in self._changed if self._view.matters(*each)}

    def failed(self) -> None:
        """Note that this look failed."""
        with self._lock:
            self._looks, self._changed = False, None


def _clock() -> float:
    return time.time() - time.monotonic()


def _changes(changed: set[tuple[str, bool, bool]]) -> BaseChanges:
    return BaseChanges(
        inside=frozenset(path for path, inside, _ in changed if inside),
        below=frozenset(path for path, inside, directory in changed if inside and directory),
        itself=frozenset(path for path, inside, _ in changed if not inside),
    )
