"""Where the base with a number is, and how to look into it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from lxcfleet.base.generations import store
from lxcfleet.base.generations.sheets import Sheets
from lxcfleet.base.tree import Tree
from lxcfleet.errors import Broken
from lxcfleet.paths import Paths

LIVE = Path("/")
"""The host's root as it is."""

Root = Path | Sheets
"""Where a base is: below a directory of this host, or in the sheets of a generation."""


class _Merged(Tree):
    """The base that sheets make."""

    def __init__(self, sheets: Sheets) -> None:
        super().__init__()
        self._sheets = sheets

    def outside(self, path: str) -> str:
        """See Tree."""
        return self._sheets.outside(path)

    def places(self, directory: str) -> Sequence[str]:
        """See Tree."""
        return self._sheets.places(directory)

    def names(self, path: str) -> list[str]:
        """See Tree."""
        self.consult(path)
        return self._sheets.names(path)


def tree_of(root: Root) -> Tree:
    """The base there, to look into."""
    return _Merged(root) if isinstance(root, Sheets) else Tree(root)


def root_of(paths: Paths, number: int) -> Root:
    """The base with this number; 0: the host's root. Raises NotFound, Broken."""
    return sheets_at(sheets_of(paths, number)) if number else LIVE


def sheets_of(paths: Paths, number: int) -> tuple[str, ...]:
    """The directories of a generation's sheets, the topmost first. Raises NotFound, Broken.

    Without one of them it would lack files, or show older ones.
    """
    found = tuple(str(store.sheet(paths, name)) for name in store.load(paths, number).sheets)
    for place in found:
        if not os.path.isdir(place):
            raise Broken(
                f"generation {number} is not all there", why=f"{place} is gone, or its file system is not mounted",
                hint=f"mount it, or give containers another base; lxcfleet generation verify {number} says what is missing",
            )  # fmt: skip
    return found


@lru_cache(maxsize=8)
def sheets_at(roots: tuple[str, ...]) -> Sheets:
    """The sheets in these directories, which do not change: what one look-up learns serves the next."""
    return Sheets(roots)
