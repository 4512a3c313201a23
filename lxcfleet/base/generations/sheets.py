"""A generation's files: its sheets, merged as overlayfs would merge them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator

from lxcfleet.base.tree import parent, parents
from lxcfleet.host.kernel.entries import is_whiteout

NOWHERE = "/dev/null"
"""Nothing can be below it: path_resolution(7)."""


class Sheets:
    """The directories of a generation's sheets, the topmost first. They do not change once they are made.

    Paths are absolute in the base and have no links in them. A character device 0:0 in a sheet says that nothing is there,
    whatever the sheets below have; so does a file or a link for what would be below it.
    """

    def __init__(self, roots: Iterable[str]) -> None:
        self.roots = tuple(roots)
        self._having: dict[str, tuple[str, ...]] = {"/": self.roots}

    def outside(self, path: str) -> str:
        """The path by which this host knows the generation's ``path``; where nothing is, a path that can't exist.

        Raises OSError if a sheet can't be read.
        """
        if path == "/":
            return self.roots[0]
        for root in self._with(parent(path)):
            try:
                status = os.lstat(root + path)
            except FileNotFoundError:
                continue
            return f"{NOWHERE}{path}" if is_whiteout(status) else root + path
        return f"{NOWHERE}{path}"

    def names(self, directory: str) -> list[str]:
        """The sorted names in ``directory``; none where there is no such directory. Raises OSError."""
        found: dict[str, bool] = {}
        for root in self._with(directory):
            with os.scandir(root + directory) as entries:
                for entry in entries:
                    if entry.name not in found:
                        found[entry.name] = not _hides(entry)
        return sorted(name for name, there in found.items() if there)

    def decides(self, path: str) -> bool:
        """Whether one of these sheets says what is at ``path``, so that it does not matter what sheets below them have."""
        return self.hides(path) or any(os.path.lexists(root + path) for root in self._with(parent(path)))

    def hides(self, path: str) -> bool:
        """Whether one of these sheets has something else than a directory at ``path`` or above it."""
        for each in (*parents(path)[1:], path):
            for root in self._with(parent(each)):
                try:
                    status = os.lstat(root + each)
                except FileNotFoundError:
                    continue
                if not stat.S_ISDIR(status.st_mode):
                    return True
        return False

    def places(self, directory: str) -> tuple[str, ...]:
        """The directories that are merged at ``directory``, the topmost first."""
        return tuple(root + directory for root in self._with(directory))

    def _with(self, directory: str) -> tuple[str, ...]:
        """The sheets whose entries of ``directory`` count, the topmost first.

        None of its parents is a link in any of these, so no path into them leads out of the sheet.
        """
        # Without recursion: a container may ask for a path that is deeper than Python's stack.
        unknown = []
        while (known := self._having.get(directory)) is None:
            unknown.append(directory)
            directory = parent(directory)
        for below in reversed(unknown):
            known = tuple(_look(known, below))
            if len(self._having) < _MOST:
                self._having[below] = known
        return known


_MOST = 200_000
"""So many directories are remembered."""


def _look(roots: Iterable[str], directory: str) -> Iterator[str]:
    """Those of ``roots`` that have the directory, up to the first that has something else there."""
    for root in roots:
        try:
            status = os.lstat(root + directory)
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(status.st_mode):
            return
        yield root


def _hides(entry: os.DirEntry[str]) -> bool:
    if entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False) or entry.is_symlink():
        return False
    return is_whiteout(entry.stat(follow_symlinks=False))
