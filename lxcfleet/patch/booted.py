"""Containers that the boot of the host brought packages which had changed.

A boot starts them on fresh mounts, all at once: for a patch that was not in them yet, such as one whose rollout was halted,
that is a restart without canaries and gates. One that fails in that first run was taken down by the patch, and not by itself.
So it is noted like one that a rollout took down (patch.fallen): the next patch starts it, and nothing proves it until then.
With its first end after the boot, of whatever kind, that is over: only restarts by its own policy, as it fails again and
again, still belong to that run.

No clock is asked whether an end is one since the boot, as the host may set it while it boots: it is another end than the one
that was known before.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from lxcfleet.base.merge import reconcile
from lxcfleet.base.merge.records import STATUS, versions
from lxcfleet.containers.container import Container
from lxcfleet.containers.desired import Intent
from lxcfleet.containers.registry import Registry
from lxcfleet.host.kernel import tree
from lxcfleet.patch.fallen import Fallen
from lxcfleet.patch.rollout import causes
from lxcfleet.paths import Paths
from lxcfleet.runtime.operations import now
from lxcfleet.spec.reading import ondisk
from lxcfleet.spec.states import State
from lxcfleet.units import some

log = logging.getLogger(__name__)

_NAMED = 5
"""The most packages that are named."""


@dataclass(frozen=True)
class _First:
    """The first run of a container after the boot."""

    changes: str
    """The packages that the boot brought it, in words."""
    ended: float | None = None
    """The moment of the end that was known before this run, by which that is told from others; None: there was none."""
    run: str = ""
    """The run, as ``Running.identity`` has it; empty: it was not seen yet."""
    row: int = 0
    """How often in a row it had failed when it was seen last, and its policy started it again."""


class _Verdict(Enum):
    OPEN, FELL, OVER = range(3)


class Booted:
    """The containers whose first run after the boot has not proven itself yet."""

    def __init__(
        self, paths: Paths, registry: Registry, fallen: Fallen, healthy_seconds: Callable[[Container], float],
        status: Path = Path(STATUS),
    ) -> None:  # fmt: skip
        """``status``: dpkg's present record."""
        self._paths, self._registry, self._fallen, self._healthy_seconds = paths, registry, fallen, healthy_seconds
        self._status = status
        self._firsts = _read(paths.booted)
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
        firsts = {}
        for name in filter(self._is_on_host, names):
            base = reconcile.last_base(self._paths, name)
            if base not in words:
                words[base] = self._changes(name, present)
            if words[base]:
                firsts[name] = _First(words[base], ended=_last_end(self._registry[name]))
        self._keep(firsts)

    def _is_on_host(self, name: str) -> bool:
        """Whether a boot brings it what changed on the host: what is on a generation keeps that. What `lxcfleet run` runs is
        begun by its caller."""
        container = self._registry[name]
        wanted = container.wanted
        return container.foreground is None and wanted is not None and not wanted.generation

    def _changes(self, name: str, present: Mapping[str, str]) -> str:
        """The changes since the last start of the container; empty: there are none, or they are not known."""
        before = reconcile.file_at_last_start(self._paths, name, STATUS)
        changed = causes.changes(versions(before), present) if before is not None else {}
        said = [f"{each} {former or 'new'} -> {later or 'removed'}" for each, (former, later) in changed.items()]
        return some(said, _NAMED)

    def settle(self, well_seconds: float) -> None:
        """Note those that failed in their first runs as fallen. Forget all whose first run is over, or was healthy for so
        long."""
        if not self._firsts and not self._unsaved:
            return
        left = {}
        for name, first in self._firsts.items():
            if name not in self._registry or self._healthy_seconds(self._registry[name]) >= well_seconds:
                continue
            container = self._registry[name]
            verdict = self._judge(container, first)
            if verdict is _Verdict.OPEN:
                left[name] = _seen(container, first)
            elif verdict is _Verdict.FELL and not self._note(container, first.changes):
                left[name] = first
        self._keep(left)

    def _judge(self, container: Container, first: _First) -> _Verdict:
        """Whether its first run goes on, or how it went."""
        if container.foreground is not None:
            return _Verdict.OVER
        if container.busy is not None or container.unseen or container.lack is not None or container.backs_off:
            return _Verdict.OPEN
        ended = _last_end(container) not in (None, first.ended)
        if container.running is not None:
            same = not ended and first.run in ("", container.running.identity)
            return _Verdict.OPEN if same or container.course.row > first.row else _Verdict.OVER
        if ended:
            failed = container.state is State.FAILED and container.exit is not None and not container.exit.asked
            return _Verdict.FELL if failed else _Verdict.OVER
        owed = self._registry.noted(container) is Intent.RUN
        return _Verdict.OPEN if owed and not first.run else _Verdict.OVER

    def _note(self, container: Container, changes: str) -> bool:
        """Note its fall; returns whether that is on disk. If not, it is tried again, and told once."""
        ended = "" if container.exit is None else f": {container.exit.words}"
        why = f"it failed in its first run after the boot of the host{ended}; packages that changed: {changes}"
        try:
            self._fallen.note(container, why, now())
        except OSError as error:
            if container.name not in self._told:
                log.warning("%s: that a patch took it down can't be noted: %s", container.name, error.strerror)
            self._told.add(container.name)
            return False
        log.warning("%s: %s", container.name, why)
        return True

    def _keep(self, firsts: dict[str, _First]) -> None:
        if firsts == self._firsts and not self._unsaved:
            return
        self._firsts = firsts
        try:
            tree.write(self._paths.booted, json.dumps({name: asdict(first) for name, first in firsts.items()}))
        except OSError as error:
            if not self._unsaved:
                log.warning("which containers the boot brought a patch can't be noted: %s", error.strerror)
            self._unsaved = True
        else:
            self._unsaved = False


def _last_end(container: Container) -> float | None:
    return None if container.exit is None else container.exit.at


def _seen(container: Container, first: _First) -> _First:
    """The same, with the run as it is now."""
    if container.running is None or container.busy is not None:
        return first
    return replace(first, ended=_last_end(container), run=container.running.identity, row=container.course.row)


def _read(file: Path) -> dict[str, _First]:
    try:
        return {str(name): _parse(each) for name, each in ondisk.record(file).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("%s can't be read: %s. Which containers the boot brought a patch is not known", file, error)
        return {}


def _parse(data: Mapping[str, Any]) -> _First:
    ended = data["ended"]
    return _First(str(data["changes"]), None if ended is None else float(ended), str(data["run"]), int(data["row"]))
