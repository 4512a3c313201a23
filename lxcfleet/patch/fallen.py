"""Containers that a patch took down, noted beside each of them.

A rollout stops such a container, and it does not come up on the new version. Nobody wanted it to be stopped, so three things
follow: it is started with the next patch, it counts against ``verify``, and it starts when the host boots. The note lies in
the container's directory, as it has to survive the rollout and a reboot of the host.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lxcfleet.containers import owed, store
from lxcfleet.containers.container import Container
from lxcfleet.containers.desired import Intent
from lxcfleet.host.kernel import tree
from lxcfleet.paths import Paths
from lxcfleet.spec.reading import ondisk

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fall:
    """The note for one container."""

    since: str
    """The time of the note, as in the API."""
    why: str
    stopped: str = ""
    """When the operator stopped it since, which means that it stays down; empty: nobody did."""
    void: str = ""
    """The note that it is to run which was there already, as ``Fallen._wish`` has it: that says nothing any more. Empty:
    there was none."""


class Fallen:
    """The notes of all containers."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._noted: set[str] | None = None
        """The containers that may have a note; None: nobody has looked yet."""

    def of(self, container: Container) -> Fall | None:
        """The note about a container; None if it runs, or no patch took it down."""
        return None if container.running is not None else self._read(container.name)

    def down(self, container: Container) -> Fall | None:
        """The same, but None also if the operator stopped it since: it is not to be started again."""
        fall = self.of(container)
        return None if fall is None or fall.stopped else fall

    def mark(self, container: Container, moment: str) -> None:
        """Note beside its fall that the operator stopped a container at ``moment``; empty: that this holds no longer.

        Raises OSError.
        """
        fall = self._read(container.name)
        if fall is not None and bool(fall.stopped) != bool(moment):
            marked = replace(fall, stopped=moment)
            tree.write(self._file(container.name), json.dumps(asdict(marked)) + "\n", sync=True)

    def note(self, container: Container, why: str, moment: str) -> None:
        """Note that a patch took it down. Raises OSError."""
        if self._noted is not None:
            self._noted.add(container.name)
        owed.note(self._paths, container.name, owed=False)  # that it was to run before this says nothing any more
        fall = Fall(moment, why, void=self._wish(container.name))
        tree.write(self._file(container.name), json.dumps(asdict(fall)) + "\n", sync=True)
        _rest(container)

    def rest(self, containers: Iterable[Container]) -> None:
        """The daemon begins: what a patch took down is not due, whatever its course on disk says. The daemon before dropped
        that in memory alone, as the note tells it. What is to run by a later wish is left alone."""
        for container in containers:
            if not container.unseen and self._is_to_rest(container):
                _rest(container)

    def forget(self, name: str) -> None:
        """Remove the note: the container is well again."""
        try:
            self._file(name).unlink(missing_ok=True)
            if self._noted is not None:
                self._noted.discard(name)
        except OSError as error:
            log.warning("%s can't be removed: %s", self._file(name), error.strerror)

    def tidy(self, containers: Iterable[Container], well: Iterable[str]) -> None:
        """Remove the notes of containers that are ``well``; have the others start when the host boots."""
        names, known = set(well), list(containers)
        if self._noted is None:
            self._noted = {each.name for each in known if os.path.lexists(self._file(each.name))}
        for container in known:
            if container.name in names:
                if container.name in self._noted:
                    self.forget(container.name)
            elif container.busy is None and not container.resting and self._is_to_rest(container):
                _rest(container)

    def _is_to_rest(self, container: Container) -> bool:
        """Whether a patch took it down, and it was not noted since that it is to run: by the host's boot, say."""
        fall = self.down(container)
        return fall is not None and not container.owed and self._wish(container.name) in ("", fall.void)

    def _wish(self, name: str) -> str:
        """The mark that tells the note on disk that a container is to run from each later one; empty: there is no such note.

        Which of two files is older is not asked, as the host's clock may be set.
        """
        if store.noted(self._paths, name) is not Intent.RUN:
            return ""
        try:
            found = self._paths.container(name).pending.stat()
        except OSError:
            return ""
        return f"{found.st_ino} {found.st_mtime_ns}"

    def _former_wish(self, name: str) -> str:
        """The note that it is to run which an earlier version found when it noted the fall, without a word of that: the one
        that is older, as far as the host's clock tells."""
        try:
            younger = self._paths.container(name).pending.stat().st_mtime_ns >= self._file(name).stat().st_mtime_ns
        except OSError:
            return ""
        return "" if younger else self._wish(name)

    def _read(self, name: str) -> Fall | None:
        file = self._file(name)
        try:
            data = ondisk.record(file, ondisk.SMALL)
            void = str(data["void"]) if "void" in data else self._former_wish(name)
            return Fall(str(data["since"]), str(data["why"]), str(data.get("stopped", "")), void)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            return Fall("", f"{file} can't be read")

    def _file(self, name: str) -> Path:
        return self._paths.container(name).fallen


def _rest(container: Container) -> None:
    """Have it start with the host's next boot, and not before that by itself."""
    container.resting = True
    container.course = replace(container.course, due=None)
