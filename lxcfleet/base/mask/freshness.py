"""Whether the mask still fits the host, exactly: also when a single file changed its mode, deep down."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from lxcfleet.base.mask import build
from lxcfleet.errors import HostError
from lxcfleet.host.kernel import mounts
from lxcfleet.host.kernel.watch import Watch
from lxcfleet.paths import Paths


class Freshness:
    """Remembers whether anything changed since all of the base was last looked at.

    The kernel tells (see host.kernel.watch). Where it can't, nothing is ever taken for fresh, and each question costs a look
    at all. Its methods may block for some 100 ms, and be called from any thread.
    """

    def __init__(self, paths: Paths, root: Path = Path("/")) -> None:
        self._paths = paths
        self._root = root
        self._lock = threading.Lock()
        self._watched: dict[str, str] | None = None
        self._watches: list[Watch] = []
        self._looked = False

    def is_current(self) -> bool:
        """Whether the image fits the base as it is."""
        self.take_note()
        return self._looked and build.is_current(self._paths, self._root)

    def take_note(self) -> None:
        """Empty the kernel's queue, which holds only so many changes. Ask now and then."""
        with self._lock:
            parts = mounts.parts() if self._root == Path("/") else {}
            if self._watched != parts:
                self._begin(parts)
            # Each is asked, that none of the queues runs over.
            changed = [watch.changed(self._matters()) for watch in self._watches]
            if not changed or any(changed):
                self._looked = False

    def _begin(self, parts: dict[str, str]) -> None:
        for watch in self._watches:
            watch.close()
        found = [Watch.on(place) for place in (self._root, *map(Path, parts))]
        self._watches = [watch for watch in found if watch is not None]
        if len(self._watches) < len(found):
            for watch in self._watches:
                watch.close()
            self._watches = []
        self._watched = parts if self._watches else None
        self._looked = False

    def looking(self) -> None:
        """All of the base is about to be looked at: only what changes from now on counts, if that succeeds."""
        with self._lock:
            self._looked = bool(self._watches)

    def failed(self) -> None:
        """It did not succeed."""
        with self._lock:
            self._looked = False

    def _matters(self) -> Callable[[str, bool], bool]:
        if not self._looked:  # it does not matter any more
            return lambda _path, _inside: False
        try:
            return build.view(self._paths).matters
        except HostError:
            return lambda _path, _inside: True
