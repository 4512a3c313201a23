"""Whether the mask still fits the host, exactly: a single file that changes its mode deep down is noticed as well."""

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
    """Remembers whether anything changed since the whole base was last looked at.

    The kernel tells of changes (see host.kernel.watch). If it can't, the mask is never taken for fresh, and each question
    costs a look at the whole base. The methods may block for some 100 ms; any thread may call them.
    """

    def __init__(self, paths: Paths, root: Path = Path("/")) -> None:
        self._paths = paths
        self._root = root
        self._lock = threading.Lock()
        self._watched: dict[str, str] | None = None
        self._watches: list[Watch] = []
        self._looked = False

    def is_current(self) -> bool:
        """Whether the image fits the present base."""
        self.take_note()
        return self._looked and build.is_current(self._paths, self._root)

    def take_note(self) -> None:
        """Empty the kernel's queue, whose length is limited. Call this now and then."""
        with self._lock:
            parts = mounts.parts() if self._root == Path("/") else {}
            if self._watched != parts:
                self._begin(parts)
            # Every watch is asked, so that no queue overflows.
            changed = [watch.changed(self._matters()) for watch in self._watches]
            if not changed or any(changed):
                self._looked = False

    def close(self) -> None:
        """End the kernel's watches: one user has 128 of them, which all processes share."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        for watch in self._watches:
            watch.close()
        self._watches, self._watched, self._looked = [], None, False

    def _begin(self, parts: dict[str, str]) -> None:
        self._end()
        found = [Watch.on(place) for place in (self._root, *map(Path, parts))]
        self._watches = [watch for watch in found if watch is not None]
        if len(self._watches) < len(found):
            for watch in self._watches:
                watch.close()
            self._watches = []
        self._watched = parts if self._watches else None
        self._looked = False

    def looking(self) -> None:
        """Note that a look at the whole base begins: if it succeeds, only later changes count."""
        with self._lock:
            self._looked = bool(self._watches)

    def failed(self) -> None:
        """Note that this look failed."""
        with self._lock:
            self._looked = False

    def _matters(self) -> Callable[[str, bool, bool], bool]:
        if not self._looked:  # the answer no longer depends on the watches
            return lambda _path, _inside, _directory: False
        try:
            return build.view(self._paths).matters
        except HostError:
            return lambda _path, _inside, _directory: True
