"""Files that interpreters of a container have read: scripts and modules. They leave no trace in memory."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import Protocol

from lxcfleet.base.present import Present
from lxcfleet.base.tree import follow
from lxcfleet.host.kernel import syscalls
from lxcfleet.patch.stale.judge import Why, written_since
from lxcfleet.patch.stale.scripts import file_names
from lxcfleet.patch.stale.served import CachedEntries, Candidates
from lxcfleet.patch.stale.views import MountView


class History(Protocol):
    """The knowledge of the host's packages at the last starts of containers; see ``versions.Versions``."""

    def as_at_start(self, name: str, package: str) -> bool:
        """Whether the host has the same version of the package as at the last start of the container ``name``."""

    def is_new(self, name: str, package: str, path: str, since: float) -> bool:
        """Whether the package with the file ``path`` came to the host after ``since`` and the container's last start."""


class _Unknown:
    """Nothing is known."""

    def as_at_start(self, _name: str, _package: str) -> bool:
        return False

    def is_new(self, _name: str, _package: str, _path: str, _since: float) -> bool:
        return False


unknown = _Unknown()


class Interpreted:
    """Tells for one container which of the files that interpreters have read are old."""

    def __init__(
        self, name: str, present: Present, memory: CachedEntries, candidates: Candidates | None, history: History
    ) -> None:
        self._name, self._present, self._memory = name, present, memory
        self._candidates, self._history = candidates, history
        self.packages: dict[str, str] = {}
        """The package of each old module."""

    def script(self, script: str, above: str, view: MountView, began: float) -> list[tuple[str, Why, str]]:
        """The script of a process, if it is old.

        ``script``: as the command line has it; ``above``: the directory where it begins; ``view``: the mounts that the
        process sees; ``began``: its start, in seconds since the epoch.
        """
        for name in file_names(script, above):
            links, path = self._way(name, view)
            if path is None:
                return []
            for link in links:
                if self._is_old(link, began):
                    return [(link, Why.REPLACED, self._present.find(link).layer.name)]
            now = self._present.find(path)
            if now.status is not None and stat.S_ISDIR(now.status.st_mode):
                continue
            if now.status is not None or self._memory.differs(path) is not None:
                why = Why.REMOVED if now.status is None else Why.REPLACED
                return [(path, why, now.layer.name)] if self._is_old(path, began) else []
        return []

    def _way(self, path: str, view: MountView) -> tuple[list[str], str | None]:
        """The links that lead to a file, and its place in the layers; None: it is in a file system of another kind.

        If a patch makes a link lead elsewhere, as those of /etc/alternatives, the file that a process has read is not found
        any more.
        """
        links: list[str] = []

        def link(here: str, _: bool) -> str:
            place = view.place(here)
            target = "" if place is None else self._present.link(place)
            if place is not None and target:
                links.append(place)
            return target

        return links, view.place(follow(path, link))

    def _is_old(self, path: str, began: float) -> bool:
        """Whether a process that began at that moment certainly has, or may have, read another file at this path."""
        if self._memory.differs(path) is not None:
            return True
        now = self._present.find(path)
        if not now.layer.hosts or now.status is None:  # a patch of the host changes only files of the host
            return False
        born = syscalls.born(now.layer.outside(path))
        links = 1 if stat.S_ISLNK(now.status.st_mode) else now.status.st_nlink
        return written_since(began, born, now.status.st_ctime, links) and not self._memory.has_same(path)

    def modules(self, kind: str, began: float) -> Iterator[tuple[str, Why, str]]:
        """Modules that changed since an interpreter of this kind began, one of each package."""
        if self._candidates is None:
            return
        old: set[str] = set()
        for package, path in self._candidates.modules(kind, began):
            now = self._present.find(path)
            if package in old or not now.layer.hosts or self._memory.has_same(path):
                continue
            if self._may_be_old(package, path, began):
                old.add(package)
                self.packages[path] = package
                yield path, Why.MODULES, now.layer.name

    def _may_be_old(self, package: str, path: str, began: float) -> bool:
        """Whether a process that began at that moment may have read another version of the file. After the way back to the
        version that the container began with, only a file that it looked up meanwhile is old."""
        if self._history.is_new(self._name, package, path, began):
            return False
        return not self._history.as_at_start(self._name, package) or self._memory.differs(path) is not None
