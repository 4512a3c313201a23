"""How much disk space a tree takes, by path: as du(1) counts it, of a tree that a container's root may have made."""

from __future__ import annotations

import heapq
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from lxcfleet.host.kernel.descent import Descent

MOST_ITEMS = 20_000_000
"""So many files and directories are looked at."""
MOST_LINKED = 500_000
"""So many files with several names are remembered. Of further ones each name counts a share of the file."""
MOST_PATHS = 20_000
"""So many directories are added up one by one; what is in further ones counts for those above them."""
MOST_WAITING = 500_000
"""So many directories are visited: a container's root can make directories whose names alone fill the memory."""
_BLOCK = 512
"""Bytes; stat(2), st_blocks."""
_PAUSE = 4096
"""Files between two looks at the clock."""


@dataclass
class Sum:
    """The space that files take together."""

    disk: float = 0.0
    """Bytes on disk. A hole in a file takes none."""
    apparent: float = 0.0
    """Bytes that the files say to have."""
    items: int = 0
    """How many files and directories."""

    def add(self, disk: float, apparent: float) -> None:
        """Add a file."""
        self.disk += disk
        self.apparent += apparent
        self.items += 1


@dataclass
class Usage:
    """The space that all below a directory takes, without that directory itself."""

    whole: Sum = field(default_factory=Sum)
    paths: list[tuple[str, Sum]] = field(default_factory=list)
    """The largest directories and files with their paths below the directory, the largest first."""
    cut: bool = False
    """Whether not all was looked at."""


def usage(top: str, depth: int, most: int, seconds: float) -> Usage:
    """The space that all below ``top`` takes, and the ``most`` largest paths down to ``depth`` levels.

    A file with several names counts once, at the first one that is met. No link is followed, and no other file system
    entered. After ``seconds`` what was added up until then is given, with ``cut``.
    """
    return _Count(top, depth, most, seconds).run()


class _Count:
    def __init__(self, top: str, depth: int, most: int, seconds: float) -> None:
        self._depth, self._most = depth, most
        self._deadline = time.monotonic() + seconds
        self._descent = Descent(top, self._look)
        self._result = Usage()
        self._directories: dict[str, Sum] = {}
        self._files: list[tuple[float, str, Sum]] = []
        """The largest files, as a heap."""
        self._linked: set[int] = set()
        self._waiting = 0

    def run(self) -> Usage:
        """Add all up."""
        for _ in self._descent:
            if time.monotonic() > self._deadline or self._result.whole.items >= MOST_ITEMS:
                self._result.cut = True
                break
        self._result.cut = self._result.cut or not self._descent.whole
        found = [*self._directories.items(), *((path, one) for _, path, one in self._files)]
        self._result.paths = sorted(found, key=lambda each: (-each[1].disk, -each[1].apparent, each[0]))[: self._most]
        return self._result

    def _look(self, directory: int) -> Iterator[str]:
        names = self._descent.place(self._depth) if self._depth else []
        sums = [self._result.whole, *self._sums(names)]
        listed = len(names) < self._depth
        prefix = "".join(f"/{name}" for name in names)
        new = 0
        with os.scandir(directory) as entries:
            for entry in entries:
                new += 1
                if new % _PAUSE == 0:
                    yield ""
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError:  # files vanish while we look
                    continue
                is_directory = stat.S_ISDIR(status.st_mode)
                disk, apparent = self._counted(status, is_directory)
                for each in sums:
                    each.add(disk, apparent)
                if is_directory:
                    if listed:
                        self._begin(f"{prefix}/{entry.name}", disk, apparent)
                    self._waiting += 1
                    if self._waiting > MOST_WAITING:
                        self._result.cut = True
                        continue
                    yield entry.name
                elif listed:
                    self._offer(f"{prefix}/{entry.name}", disk, apparent)

    def _counted(self, status: os.stat_result, is_directory: bool) -> tuple[float, float]:
        """The bytes that a file counts for: all of them, or none if another name of it was counted."""
        disk, apparent = float(status.st_blocks * _BLOCK), float(status.st_size)
        # Whiteouts, of which the kernel makes one with many names, take nothing.
        if is_directory or status.st_nlink < 2 or not (disk or apparent):
            return disk, apparent
        if status.st_ino in self._linked:
            return 0.0, 0.0
        if len(self._linked) < MOST_LINKED:
            self._linked.add(status.st_ino)
            return disk, apparent
        return disk / status.st_nlink, apparent / status.st_nlink

    def _sums(self, names: list[str]) -> list[Sum]:
        """The sums of the directories on the way, as far as they are kept."""
        found, path = [], ""
        for name in names:
            path += f"/{name}"
            if path in self._directories:
                found.append(self._directories[path])
        return found

    def _begin(self, path: str, disk: float, apparent: float) -> None:
        """Keep a sum for a directory, if there is room."""
        if len(self._directories) < MOST_PATHS:
            self._directories[path] = Sum()
            self._directories[path].add(disk, apparent)

    def _offer(self, path: str, disk: float, apparent: float) -> None:
        """Keep a file if it is one of the largest."""
        if len(self._files) < self._most:
            heapq.heappush(self._files, (disk, path, Sum(disk, apparent, 1)))
        elif self._files and disk > self._files[0][0]:
            heapq.heapreplace(self._files, (disk, path, Sum(disk, apparent, 1)))
