"""Files that packages had and have no more. dpkg forgets a package's former list, so a copy of all lists is kept."""

from __future__ import annotations

import gzip
import json
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TextIO

from lxcfleet.host.kernel import tree
from lxcfleet.host.packages import lists
from lxcfleet.spec.reading import ondisk

log = logging.getLogger(__name__)

_MOST = 50_000
"""The most losses that are kept: the latest ones."""
_SWIFT = 1
"""gzip's level: the copy is a sixth of the lists, and soon written."""


class Loss(NamedTuple):
    """A file that a package lost."""

    package: str
    path: str
    noticed: float
    """Seconds since the epoch."""


class Losses:
    """The files that packages have lost since the copy began. Both files are in /run, as no container outlives a boot."""

    def __init__(self, copy: Path, record: Path, left_out: tuple[str, ...] = (), info: Path | None = None) -> None:
        """``copy``: of the lists; ``record``: of the losses; ``left_out``: the beginnings of paths that do not matter."""
        self._copy, self._record, self._left_out, self._info = copy, record, left_out, info or lists.INFO
        self._seen: list[int] = []
        self._lock = threading.Lock()
        self.problem = ""
        """The reason why losses are not known; empty: they are."""

    def update(self, moment: float) -> None:
        """Compare the lists with those at the last call. ``moment``: the present, in seconds since the epoch.

        Takes some µs if nothing changed, else 0.3 s for 150,000 paths. An error is kept in ``problem``: it is no reason to
        leave other comparisons undone.
        """
        with self._lock:
            seen = lists.changes(self._info)
            if seen != self._seen:
                try:
                    self._compare(moment)
                    self._seen, self.problem = seen, ""
                except (OSError, EOFError, ValueError) as error:
                    self.problem = str(error)
                    log.warning("which files packages lose can't be noted: %s", error)

    def _compare(self, moment: float) -> None:
        now = lists.stamps(self._info)
        new = self._copy.with_name(f"{self._copy.name}.new")
        lost: dict[str, Loss] = {}
        with gzip.open(new, "wt", _SWIFT, "utf-8", "surrogateescape") as file:
            for package, stamp, former in self._read():
                present = now.pop(package, None)
                paths = former if present == stamp else [] if present is None else self._listed(package)
                gone = set(former).difference(paths) if present != stamp else ()
                lost |= {path: Loss(package, path, moment) for path in gone if not os.path.lexists(path)}
                if present is not None:
                    _write(file, package, present, paths)
            for package, present in now.items():
                _write(file, package, present, self._listed(package))
        if lost:
            before = {loss.path: loss for loss in read(self._record)}
            tree.write(self._record, json.dumps([*(before | lost).values()][-_MOST:]))
        # Only now, so that a crash loses nothing: what is compared again finds the same.
        new.rename(self._copy)

    def _read(self) -> Iterator[tuple[str, int, list[str]]]:
        """Package, time and paths of each list in the copy."""
        if self._copy.exists():
            with gzip.open(self._copy, "rt", encoding="utf-8", errors="surrogateescape") as file:
                for line in file:
                    package, stamp, count = line.split()
                    yield package, int(stamp), [path.rstrip("\n") for path in islice(file, int(count))]

    def _listed(self, package: str) -> list[str]:
        generated = [path for owner, path in lists.generated(self._info) if owner == package]
        paths = [*lists.of([package], self._info)[package], *generated]
        return [path for path in paths if not path.startswith(self._left_out)]


def _write(file: TextIO, package: str, stamp: int, paths: Sequence[str]) -> None:
    file.write(f"{package} {stamp} {len(paths)}\n")
    file.writelines(f"{path}\n" for path in paths)


def read(record: Path) -> list[Loss]:
    """The losses that are noted in ``record``; none if they can't be read."""
    try:
        return [Loss(str(package), str(path), float(noticed)) for package, path, noticed in ondisk.record(record)]
    except (OSError, ValueError, TypeError):
        return []
