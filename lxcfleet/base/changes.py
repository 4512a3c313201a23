"""The changes that a container made: the files of its delta held against what the layers below would show.

A child of the launcher finds them. It walks the delta alone, each directory by its descriptor, and asks the stack for what
lies below, only where a lower layer has the directory: a container's own trees cost no more than their listing. It follows no
link of a container, and looks at no more than it has time and room for.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from lxcfleet.base.present import Found, Present, Upper, has
from lxcfleet.host.kernel.descent import Descent
from lxcfleet.host.kernel.entries import is_whiteout
from lxcfleet.spec.reading.terms import RANGE_SIZE

MOST_ITEMS = 20_000_000
"""So many files and directories are looked at."""
MOST_WAITING = 500_000
"""So many directories are visited: a container's root can make directories whose names alone fill the memory."""
MOST_TEXT = 4 << 20
"""Characters of the paths that are listed."""
LONGEST = 4000
"""Characters of a path: below longer ones the kernel finds nothing, and nobody can name it."""
MOST_COMPARED = 256 << 20
MOST_COMPARED_AT_ALL = 2 << 30
"""Bytes of a file, and of all files, that are compared; a larger file of the same size counts as changed."""
_CHUNK = 1 << 20
_NOBODY = 65534
"""The id that the kernel shows in place of one that a user namespace has no number for; user_namespaces(7)."""
_PAUSE = 4096


class ChangeKind(StrEnum):
    """The way in which a path is another one than the layers below have it."""

    ADDED = "added"
    REMOVED = "removed"
    TYPE = "type"
    """Something of another type is there, such as a link instead of a file."""
    CHANGED = "changed"
    """The content is another one."""
    MODE = "mode"
    """The content is the same, and its mode is another one."""
    OWNER = "owner"
    """Content and mode are the same."""
    TOUCHED = "touched"
    """All of this is the same; but the delta has the file, so a patch of the host does not reach it."""


@dataclass(frozen=True)
class Changed:
    """A path that is not as the layers below have it."""

    path: str
    kind: ChangeKind
    type: str
    """The type of what is there; of what was removed, the type that it had."""
    size: int
    mode: int | None = None
    was_mode: int | None = None
    """Set if the modes differ."""
    owner: str | None = None
    was_owner: str | None = None
    """Set if the owners differ: UID:GID as the container sees them."""
    was: str | None = None
    """The type that the layers below have, if it is another one."""
    layer: str | None = None
    """The layer that has the path below; None: none has."""

    def to_json(self) -> dict[str, Any]:
        """For the answer of the process that looked."""
        modes = {"mode": _octal(self.mode), "was_mode": _octal(self.was_mode)}
        owners = {"owner": self.owner, "was_owner": self.was_owner}
        told = {"path": self.path, "change": self.kind.value, "type": self.type, "was": self.was, "size": self.size}
        return {**told, **modes, **owners, "layer": self.layer}


@dataclass
class Changes:
    """All that was found."""

    listed: list[Changed] = field(default_factory=list)
    """Not all of them, if they are many."""
    counts: dict[str, int] = field(default_factory=dict)
    """How many there are of each kind."""
    items: int = 0
    """How many files and directories of the delta were looked at."""
    cut: bool = False
    """Whether not all was looked at, or not all is listed."""


def find(present: Present, first_id: int | None, path: str, most: int, seconds: float) -> Changes:
    """The changes at ``path`` and below it; empty: everywhere. At most ``most`` are listed, in the order of their paths.

    ``first_id``: of the container's range of ids; None: it is privileged. Raises OSError.
    """
    return _Walk(present, first_id, path, most, seconds).run()


class _Walk:
    def __init__(self, present: Present, first_id: int | None, path: str, most: int, seconds: float) -> None:
        upper = present.uppers[0]
        assert isinstance(upper, Upper)
        self._present, self._upper = present, upper
        self._first_id, self._start, self._most = first_id, path, most
        self._deadline = time.monotonic() + seconds
        self._result = Changes()
        self._room = MOST_TEXT
        self._compared = 0
        self._over: set[str] = set()
        """Directories that wait for their visit, and that a lower layer has, too."""
        self._waiting = 0
        self._descent: Descent | None = None

    def run(self) -> Changes:
        """Look at all."""
        if self._begins():
            with self._upper.opened(self._start) as handle:
                if handle is not None:
                    self._descend(f"/proc/self/fd/{handle}/.")
        self._result.listed.sort(key=lambda each: each.path)
        return self._result

    def _descend(self, top: str) -> None:
        self._descent = Descent(top, self._look)
        for _ in self._descent:
            if time.monotonic() > self._deadline or self._result.items >= MOST_ITEMS:
                self._result.cut = True
                break
        self._result.cut = self._result.cut or not self._descent.whole

    def _begins(self) -> bool:
        """Judge the path that was asked for; whether it is a directory of the delta."""
        if not self._start:
            self._over.add("")
            return True
        found, _ = self._upper.find(self._start)
        below = self._present.below(self._start)
        if found is None:
            return False
        if found.status is None:
            if below.status is not None:
                self._note(_removed(self._start, below))
            return False
        above = self._start.rpartition("/")[0]
        with self._upper.opened(above) as parent:
            if parent is None:
                return False
            directory = os.open(f"/proc/self/fd/{parent}/.", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return self._judge(directory, self._start.rpartition("/")[2], self._start, found.status)
        finally:
            os.close(directory)

    def _look(self, directory: int) -> Iterator[str]:
        assert self._descent is not None
        names = self._descent.place()
        path = self._start + "".join(f"/{name}" for name in names)
        if len(path) > LONGEST:
            self._result.cut = True
            return
        over = path in self._over
        self._over.discard(path)
        opaque = over and has(directory, self._upper.opaque)
        seen: set[str] = set()
        with os.scandir(directory) as entries:
            for entry in entries:
                self._result.items += 1
                if self._result.items % _PAUSE == 0:
                    yield ""
                if opaque:
                    seen.add(entry.name)
                try:
                    more = self._entry(directory, entry, path, over=over)
                except OSError:  # files vanish while we look
                    continue
                if not more:
                    continue
                self._waiting += 1
                if self._waiting <= MOST_WAITING:
                    yield entry.name
                else:
                    self._result.cut = True
        if opaque:
            yield from self._hidden(path, seen)

    def _entry(self, directory: int, entry: os.DirEntry[str], above: str, *, over: bool) -> bool:
        """Judge one entry; whether it is a directory to be visited."""
        if not over and self._is_full and (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)):
            self._count(ChangeKind.ADDED)  # of which there may be millions: no more than the listing is needed for that
            return entry.is_dir(follow_symlinks=False)
        status = entry.stat(follow_symlinks=False)
        path = f"{above}/{entry.name}"
        if over:
            return self._judge(directory, entry.name, path, status)
        if not is_whiteout(status):  # one that hides nothing
            self._note(Changed(path, ChangeKind.ADDED, _type(status.st_mode), status.st_size))
        return stat.S_ISDIR(status.st_mode)

    def _hidden(self, directory: str, seen: set[str]) -> Iterator[str]:
        """Note what an opaque directory hides, and has nothing in place of."""
        names: dict[str, None] = {}
        for upper in self._present.uppers[1:]:
            names.update(dict.fromkeys(upper.names(directory)))
        with contextlib.suppress(OSError):  # no directory any more
            names.update(dict.fromkeys(os.listdir(self._present.bottom.layer.outside(directory))))
        for name in names:
            if name not in seen:
                below = self._present.below(f"{directory}/{name}")
                if below.status is not None:
                    self._note(_removed(f"{directory}/{name}", below))
                yield ""

    def _judge(self, directory: int, name: str, path: str, status: os.stat_result) -> bool:
        """Note how one entry differs from what lies below, where a lower layer has the directory that it is in; whether it is
        a directory to be visited."""
        below = self._present.below(path)
        if is_whiteout(status):
            if below.status is not None:
                self._note(_removed(path, below))
            return False
        is_directory, type_ = stat.S_ISDIR(status.st_mode), _type(status.st_mode)
        if below.status is None:
            self._note(Changed(path, ChangeKind.ADDED, type_, status.st_size))
            return is_directory
        was = below.status
        if stat.S_IFMT(status.st_mode) != stat.S_IFMT(was.st_mode):
            layer = below.layer.name
            self._note(Changed(path, ChangeKind.TYPE, type_, status.st_size, was=_type(was.st_mode), layer=layer))
            return is_directory
        if is_directory:
            self._over.add(path)
        changed = not is_directory and self._differs(directory, name, status, below, path)
        mode, was_mode = stat.S_IMODE(status.st_mode), stat.S_IMODE(was.st_mode)
        owner, was_owner = self._owner(status), self._shown(was.st_uid, was.st_gid)
        modes, owners = mode != was_mode and not stat.S_ISLNK(status.st_mode), owner != was_owner
        rest = ChangeKind.OWNER if owners else ChangeKind.TOUCHED
        kind = ChangeKind.CHANGED if changed else ChangeKind.MODE if modes else rest
        if not (is_directory and kind is ChangeKind.TOUCHED):  # a directory that is there for what is in it
            self._note(Changed(
                path, kind, type_, status.st_size, mode if modes else None, was_mode if modes else None,
                owner if owners else None, was_owner if owners else None, layer=below.layer.name,
            ))  # fmt: skip
        return is_directory

    def _owner(self, status: os.stat_result) -> str:
        first = self._first_id or 0
        return self._shown(status.st_uid - first, status.st_gid - first)

    def _shown(self, uid: int, gid: int) -> str:
        """An owner as the container sees it: ids without a place in its range are nobody's."""
        if self._first_id is None:
            return f"{uid}:{gid}"
        return ":".join(str(each if 0 <= each < RANGE_SIZE else _NOBODY) for each in (uid, gid))

    def _differs(self, directory: int, name: str, status: os.stat_result, below: Found, path: str) -> bool:
        """Whether the content differs from that of the file below, which is of the same type. Raises OSError."""
        was = below.status
        assert was is not None
        if stat.S_ISLNK(status.st_mode):
            return os.readlink(name, dir_fd=directory) != self._present.opened(below.layer).link(path)
        if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            return status.st_rdev != was.st_rdev
        if not stat.S_ISREG(status.st_mode):
            return False
        self._compared += status.st_size
        if status.st_size != was.st_size or status.st_size > MOST_COMPARED or self._compared > MOST_COMPARED_AT_ALL:
            return True
        return status.st_size > 0 and not _same(directory, name, below.layer.outside(path))

    @property
    def _is_full(self) -> bool:
        return len(self._result.listed) >= self._most or self._room <= 0

    def _count(self, kind: ChangeKind) -> None:
        self._result.counts[kind] = self._result.counts.get(kind, 0) + 1
        self._result.cut = True

    def _note(self, change: Changed) -> None:
        if self._is_full:
            self._count(change.kind)
            return
        self._result.counts[change.kind] = self._result.counts.get(change.kind, 0) + 1
        self._result.listed.append(change)
        self._room -= len(change.path)


def _removed(path: str, below: Found) -> Changed:
    assert below.status is not None
    return Changed(path, ChangeKind.REMOVED, _type(below.status.st_mode), below.status.st_size, layer=below.layer.name)


def _octal(mode: int | None) -> str | None:
    return None if mode is None else f"{mode:04o}"


def _type(mode: int) -> str:
    return _TYPES.get(stat.S_IFMT(mode), "device")


_TYPES: dict[int, str] = {
    stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket",
}  # fmt: skip


_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def _same(directory: int, name: str, outside: str) -> bool:
    """Whether two files, which have the same size, have the same content. Raises OSError."""
    with open(os.open(name, _READ, dir_fd=directory), "rb") as one, open(os.open(outside, _READ), "rb") as other:
        if not all(stat.S_ISREG(os.fstat(each.fileno()).st_mode) for each in (one, other)):
            return False
        while chunk := one.read(_CHUNK):
            if chunk != other.read(_CHUNK):
                return False
        return not other.read(1)
