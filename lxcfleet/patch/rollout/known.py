"""The tests that were not good when a rollout was through with a container, noted beside the container.

Between a patch and its restart a container sees new files beside old ones, so a test may fail in it because of the patch.
What failed before the patch is known from the note alone.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

from lxcfleet.host.kernel import tree
from lxcfleet.patch.rollout import trial
from lxcfleet.patch.rollout.trial import Trial
from lxcfleet.paths import Paths
from lxcfleet.spec.reading import ondisk

log = logging.getLogger(__name__)


class Known:
    """The notes of all containers."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._notes: dict[str, frozenset[str]] = {}

    def bad(self, name: str) -> frozenset[str]:
        """The names of the container's tests that were not good when its last rollout was through with it."""
        if name not in self._notes:
            self._notes[name] = self._read(name)
        return self._notes[name]

    def _read(self, name: str) -> frozenset[str]:
        try:
            found = ondisk.record(self._paths.container(name).tests, ondisk.SMALL)
        except FileNotFoundError:
            return frozenset()
        except (OSError, ValueError) as error:
            log.warning("%s can't be read: %s. All its tests count as good before", self._paths.container(name).tests, error)
            return frozenset()
        return frozenset(map(str, found)) if isinstance(found, list) else frozenset()

    def note(self, name: str, trials: Sequence[Trial]) -> None:
        """A rollout is through with a container. If the note can't be written, all of its tests count as good before."""
        bad = frozenset(trial.not_good(trials))
        if bad == self.bad(name):
            return
        self._notes[name] = bad
        try:
            tree.write(self._paths.container(name).tests, json.dumps(sorted(bad)), sync=True)
        except OSError as error:
            log.warning("%s: how its tests went can't be noted: %s", name, error.strerror)

    def forget(self, name: str) -> None:
        """The container is gone, and its directory with it."""
        self._notes.pop(name, None)
