"""Containers that the boot of the host brought packages which had changed.

A boot starts them on fresh mounts, all at once: for a patch that was not in them yet, such as one whose rollout was halted,
that is a restart without canaries and gates. One that fails in that first run was taken down by the patch, and not by itself.
So it is noted like one that a rollout took down (patch.fallen): the next patch starts it, and nothing proves it until then.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from lxcfleet.base.merge import reconcile
from lxcfleet.base.merge.records import STATUS, versions
from lxcfleet.containers.container import Container
from lxcfleet.containers.registry import Registry
from lxcfleet.host.kernel import tree
from lxcfleet.patch.fallen import Fallen
from lxcfleet.patch.rollout import causes
from lxcfleet.paths import Paths
from lxcfleet.runtime.operations import now
from lxcfleet.spec.states import State
from lxcfleet.units import some

log = logging.getLogger(__name__)

_NAMED = 5
"""The most packages that are named."""


class Booted:
    """The containers whose first run after the boot has not proven itself yet, with the packages that changed, in words."""

    def __init__(
        self, paths: Paths, registry: Registry, fallen: Fallen, healthy_seconds: Callable[[Container], float],
        status: Path = Path(STATUS),
    ) -> None:  # fmt: skip
        """``status``: dpkg's present record."""
        self._paths, self._registry, self._fallen, self._healthy_seconds = paths, registry, fallen, healthy_seconds
        self._status = status
        self._since, self._risky = _read(paths.booted)
        self._told: set[str] = set()
        """Those whose fall could not be noted."""
        self._unsaved = False
        """Whether the file says something else than what is known, as it could not be written."""

    def booting(self, names: Iterable[str]) -> None:
        """The host has booted, and these are about to be started."""
        try:
            present = versions(self._status.read_bytes())
        except OSError as error:
            log.warning("which packages changed since containers' last starts is not known: %s", error.strerror)
            return
        words: dict[str, str] = {}
        risky = {}
        for name in filter(self._is_on_host, names):
            base = reconcile.last_base(self._paths, name)
            if base not in words:
                words[base] = self._changes(name, present)
            if words[base]:
                risky[name] = words[base]
        self._since = time.time()
        self._keep(risky)

    def _is_on_host(self, name: str) -> bool:
        """Whether a boot brings it what changed on the host: what is on a generation keeps that."""
        wanted = self._registry[name].wanted
        return wanted is not None and not wanted.generation

    def _changes(self, name: str, present: Mapping[str, str]) -> str:
        """What changed since the last start of the container; empty: nothing, or it is not known."""
        before = reconcile.file_at_last_start(self._paths, name, STATUS)
        changed = causes.changes(versions(before), present) if before is not None else {}
        said = [f"{each} {former or 'new'} -> {later or 'removed'}" for each, (former, later) in changed.items()]
        return some(said, _NAMED)

    def settle(self, well_seconds: float) -> None:
        """Note those that failed since as fallen, and forget those that were healthy for so long, or are gone."""
        if not self._risky and not self._unsaved:
            return
        chosen = {name: self._registry[name] for name in self._risky if name in self._registry}
        failed = {name for name, container in chosen.items() if self._failed(container)}
        noted = {name for name in failed if self._note(chosen[name], self._risky[name])}
        well = {name for name, container in chosen.items() if self._healthy_seconds(container) >= well_seconds}
        self._keep({name: words for name, words in self._risky.items() if name in chosen and name not in noted | well})

    def _note(self, container: Container, words: str) -> bool:
        """Note its fall; returns whether that is on disk. If not, it is tried again, and told once."""
        ended = "" if container.exit is None else f": {container.exit.words}"
        why = f"it failed in its first run after the boot of the host{ended}; packages that changed: {words}"
        try:
            self._fallen.note(container, why, now())
        except OSError as error:
            if container.name not in self._told:
                log.warning("%s: that a patch took it down can't be noted: %s", container.name, error.strerror)
            self._told.add(container.name)
            return False
        log.warning("%s: %s", container.name, why)
        return True

    def _failed(self, container: Container) -> bool:
        ended = container.exit is not None and not container.exit.asked and container.exit.at >= self._since
        return container.busy is None and container.state is State.FAILED and ended

    def _keep(self, risky: dict[str, str]) -> None:
        if risky == self._risky and not self._unsaved:
            return
        self._risky = risky
        try:
            tree.write(self._paths.booted, json.dumps({"since": self._since, "containers": risky}))
        except OSError as error:
            if not self._unsaved:
                log.warning("which containers the boot brought a patch can't be noted: %s", error.strerror)
            self._unsaved = True
        else:
            self._unsaved = False


def _read(file: Path) -> tuple[float, dict[str, str]]:
    try:
        data = json.loads(file.read_bytes())
        return float(data["since"]), {str(name): str(words) for name, words in data["containers"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0.0, {}
