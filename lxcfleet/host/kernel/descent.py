"""Walks a tree of directories that a container's root may change meanwhile.

Each directory is opened by its name in the one above, never by a path: a path may be longer than the kernel takes (4,096
bytes), and a directory in it may be a link by then. openat(2), O_NOFOLLOW.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

DEEPEST = 100_000
"""Directories below this level are not visited."""
_HELD = 64
"""So many levels keep their descriptors. From deeper down the way up is `..`, which must be the directory that it was."""
_VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENODEV)
"""The directory is gone, or no directory any more; ENODEV: a cgroup that is gone."""
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass
class _Level:
    name: str
    descriptor: int | None
    identity: tuple[int, int]
    waiting: list[str]
    """Directories in it that are still to be visited."""

    def close(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


class Descent:
    """One walk. Directories of another file system, and those that vanish meanwhile, are not visited."""

    def __init__(
        self, top: str, look: Callable[[int], Iterable[str]], leave: Callable[[int, str], None] | None = None
    ) -> None:
        """``look`` gets a directory's descriptor, and gives the names of the directories in it that are to be visited, too.
        An empty name is a pause: the walk yields.

        ``leave`` gets the descriptor of the directory above, and the name, once all below is done; not for ``top``.
        """
        self._top, self._look, self._leave = top, look, leave
        self._levels: list[_Level] = []
        self._present = ""
        self.whole = True
        """Whether every directory was visited, but for those that vanished. What moves away meanwhile may be missed."""

    def __iter__(self) -> Iterator[None]:
        """Visit ``top`` and all below it, each directory before those in it; yields after each."""
        try:
            descriptor = os.open(self._top, _FLAGS)
        except OSError as error:
            self._missed(error)
            return
        levels = self._levels
        levels.append(_Level("", descriptor, _identity(descriptor), []))
        try:
            yield from self._visit(levels[0])
            while levels:
                if levels[-1].waiting:
                    yield from self._down(levels[-1].waiting.pop())
                else:
                    self._up()
        finally:
            while levels:
                levels.pop().close()

    def place(self, most: int | None = None) -> list[str]:
        """The names that lead from ``top`` to the directory that ``look`` is at; with ``most`` only the first ones."""
        last = 1 + len(self._levels) if most is None else 1 + most
        names = [level.name for level in self._levels[1:last]]
        if self._present and (most is None or len(names) < most):
            names.append(self._present)
        return names

    def run(self) -> None:
        """Visit all of them at once."""
        for _ in self:
            pass

    def _down(self, name: str) -> Iterator[None]:
        """Visit the directory ``name`` of the last level; it becomes a level if there are directories in it."""
        above = self._levels[-1]
        assert above.descriptor is not None
        try:
            descriptor = os.open(name, _FLAGS, dir_fd=above.descriptor)
        except OSError as error:
            self._missed(error)
            return
        level = _Level(name, descriptor, _identity(descriptor), [])
        try:
            if level.identity[0] != above.identity[0]:
                return
            self._present = name
            try:
                yield from self._visit(level)
            finally:
                self._present = ""
            if level.waiting and len(self._levels) >= DEEPEST:
                self.whole, level.waiting = False, []
            if not level.waiting:
                self._left(above, name)
                return
            if len(self._levels) > _HELD:
                above.close()
            self._levels.append(level)
        finally:
            if not self._levels or self._levels[-1] is not level:
                level.close()

    def _up(self) -> None:
        """Leave the last level. If the way up is lost, all levels that can't be reached any more are given up."""
        done, levels = self._levels.pop(), self._levels
        if levels and levels[-1].descriptor is None and done.descriptor is not None:
            with contextlib.suppress(OSError):
                levels[-1].descriptor = os.open("..", _FLAGS, dir_fd=done.descriptor)
            if levels[-1].descriptor is not None and _identity(levels[-1].descriptor) != levels[-1].identity:
                levels[-1].close()
        done.close()
        if levels and levels[-1].descriptor is not None:
            self._left(levels[-1], done.name)
        while levels and levels[-1].descriptor is None:
            levels.pop()
            self.whole = False

    def _left(self, above: _Level, name: str) -> None:
        if self._leave is not None and above.descriptor is not None:
            self._leave(above.descriptor, name)

    def _visit(self, level: _Level) -> Iterator[None]:
        assert level.descriptor is not None
        try:
            for name in self._look(level.descriptor):
                if name:
                    level.waiting.append(name)
                else:
                    yield
        except OSError as error:
            self._missed(error)
        yield

    def _missed(self, error: OSError) -> None:
        """A directory was not visited. One that is gone, or is no directory by now, need not be."""
        if error.errno not in _VANISHED:
            self.whole = False


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino
