"""Which containers were well before the host's packages changed.

Between a patch and its restart a container sees new programs beside old libraries, and its checks may fail for that reason
alone. Such a container must become well again, unlike one that was ill before, for which no rollout waits.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from lxcfleet.containers.container import Container
from lxcfleet.host.kernel import tree
from lxcfleet.spec.reading import ondisk
from lxcfleet.spec.states import Health

log = logging.getLogger(__name__)


class Before:
    """The runs of containers that were not unhealthy when packages began to change. They are kept in a file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._runs = _read(file)

    def was_well(self, container: Container) -> bool:
        """Whether the container's present run was well."""
        running = container.running
        return running is not None and self._runs.get(container.name) == running.identity

    def note(self, containers: Iterable[Container], of: Callable[[Container], Health | None]) -> None:
        """Packages begin to change: note the containers that are well. Earlier notes about the same run stay."""
        self._keep({
            c.name: c.running.identity
            for c in containers
            if c.running is not None and (of(c) is not Health.UNHEALTHY or self.was_well(c))
        })  # fmt: skip

    def forget(self, names: Iterable[str]) -> None:
        """Forget containers that the change did not touch: if they become ill, there is another reason."""
        gone = set(names)
        self._keep({name: run for name, run in self._runs.items() if name not in gone})

    def _keep(self, runs: dict[str, str]) -> None:
        if runs == self._runs:
            return
        self._runs = runs
        try:
            tree.write(self._file, json.dumps(runs))
        except OSError as error:
            log.warning("which containers were well before the patch can't be noted: %s", error.strerror)


def _read(file: Path) -> dict[str, str]:
    try:
        data = ondisk.record(file)
        return {str(name): str(run) for name, run in data.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        log.warning("%s can't be read: %s. Which containers were well before the patch is not known", file, error)
        return {}
