"""Finding what other users of the host can't read: the rule that finds the secrets nobody thought of."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass

from lxcfleet.base.tree import Tree, join, parent, parents, stamp
from lxcfleet.host.kernel.entries import Directory, Entry

_FILE_BITS = stat.S_IROTH
_DIRECTORY_BITS = stat.S_IROTH | stat.S_IXOTH
_SPECIAL = {
    stat.S_IFBLK: "a block device",
    stat.S_IFCHR: "a character device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}


@dataclass(frozen=True)
class Private:
    """Something that the sweep found."""

    path: str
    directory: bool
    why: str


def sweep(
    tree: Tree,
    plan: Mapping[str, Entry],
    *,
    exempt: Iterable[str] = (),
    mounts: Container[str] = (),
    visited: dict[str, list[int] | None] | None = None,
) -> list[Private]:
    """The paths in the base that are still visible under ``plan``, and not readable for others.

    These are: files without o+r, directories without o+rx (and so all below them), devices, pipes, sockets, and
    mount points, as a clone sees what lies under a mount and the host can't look there. Symbolic links have
    no mode of their own. With a POSIX ACL the bits for others still say what others may do; acl(5).

    ``exempt`` paths are passed over, what is below them is not. ``visited`` gets the directories whose
    entries were looked at, with their stamps just before. What vanishes meanwhile is passed over; what can't
    be read at all counts as private.
    """
    search = _Search(tree, plan, frozenset(exempt), mounts, visited)
    search.waiting.append("/")
    search.run()
    return search.found


@dataclass(frozen=True)
class BaseChanges:
    """The changes in a base since a sweep of it. Entries that went are not told, as they can expose nothing."""

    inside: frozenset[str] = frozenset()
    """Directories into which files came."""
    below: frozenset[str] = frozenset()
    """Directories into which a directory came: everything below may be new."""
    itself: frozenset[str] = frozenset()
    """Paths of which the owner or mode changed."""


def sweep_again(
    tree: Tree,
    plan: Mapping[str, Entry],
    former: Iterable[str],
    changes: BaseChanges,
    *,
    exempt: Iterable[str] = (),
    mounts: Collection[str] = (),
    visited: dict[str, list[int] | None] | None = None,
) -> list[Private]:
    """The same as ``sweep``, by a look at what changed. ``former``: the paths that a sweep found before these changes.

    That sweep must have had a plan that settles the same paths, and the same exempt ones; mounts may differ.
    """
    search = _Search(tree, plan, frozenset(exempt), mounts, visited)
    before = {*former, *mounts} - {"/"}
    for path in sorted(changes.itself - before - {"/"}):  # the top is never judged
        search.judge_at(path)
    search.waiting.clear()  # these were public before: what is below them did not change
    for directory in sorted(changes.inside - changes.below):
        if search.enters(directory):
            search.scan(directory)
    search.waiting.clear()
    for path in sorted(before):
        search.judge_at(path)  # what was private and is not any more waits now
    search.waiting += [directory for directory in sorted(changes.below) if search.enters(directory)]
    search.run()
    return [*{each.path: each for each in search.found}.values()]


_LONGEST = 2000
"""Bytes of a path. The kernel takes no paths of more than 4095, neither of the base nor of the mask's copy."""


class _Search:
    def __init__(
        self,
        tree: Tree,
        plan: Mapping[str, Entry],
        exempt: frozenset[str],
        mounts: Container[str],
        visited: dict[str, list[int] | None] | None,
    ) -> None:
        self.found: list[Private] = []
        self.waiting: list[str] = []
        """Directories to look into, with all below them."""
        self._tree, self._exempt, self._mounts, self._visited = tree, exempt, mounts, visited
        self._done: set[str] = set()
        self._ways = {above for path in exempt for above in parents(path)}
        self._settled = settled(plan)

    def run(self) -> None:
        """Look into all directories that wait, and those below."""
        while self.waiting:
            directory = self.waiting.pop()
            if directory not in self._done:
                self._done.add(directory)
                self.scan(directory)

    def scan(self, directory: str) -> None:
        """Judge the entries of one directory. Those that are directories wait then."""
        places = self._tree.places(directory)
        seen: set[str] | None = None if len(places) == 1 else set()
        for place in places:
            try:
                # Through a descriptor, so that the kernel looks each entry up in it and not along the whole path,
                # and a directory that turned into a link meanwhile is not followed.
                handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._unreadable(directory, error, directory=True)
                continue
            try:
                if self._visited is not None and place == places[0]:
                    self._visited[directory] = stamp(handle)
                self.look(handle, directory, seen)
            except FileNotFoundError:  # it went meanwhile
                continue
            except OSError as error:
                self._unreadable(directory, error, directory=True)
            finally:
                os.close(handle)

    def enters(self, directory: str) -> bool:
        """Whether a search that begins at the top comes to the entries of this directory."""
        for path in (*parents(directory), directory):
            mode = self._mode(path)
            if mode is None or not stat.S_ISDIR(mode):
                return False
            if path != "/" and (path in self._settled or not self._open(path, self._why(path, mode))):
                return False
        return True

    def judge_at(self, path: str) -> None:
        """Judge what is at a path, if the search comes there."""
        if path in self._settled or not self.enters(parent(path)):
            return
        mode = self._mode(path)
        if mode is not None and not stat.S_ISLNK(mode):
            self._judge(path, mode)

    def _mode(self, path: str) -> int | None:
        """The mode of what is at a path to which the search comes; None if nothing is there, or it can't be looked at. The
        latter is found, unless the search passes over it."""
        # Not from what the tree remembers: it may have been asked before the change.
        try:
            return os.lstat(self._tree.outside(path) or "/").st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if path not in self._settled:
                self._unreadable(path, error)
            return None

    def _unreadable(self, path: str, error: OSError, *, directory: bool = False) -> None:
        """``directory``: whether it is known to be one, and so may be looked at to make an empty one in its place."""
        self.found.append(Private(path, directory, f"unreadable: {error.strerror}"))

    def look(self, handle: int, directory: str, seen: set[str] | None = None) -> None:
        """Judge the entries of one directory. Runs 150,000 times over: the common case comes first.

        ``seen``: the names of entries that hide those of this directory; it gets the directory's own.
        """
        settled, mounts = self._settled, self._mounts
        with os.scandir(handle) as entries:
            for entry in entries:
                path = join(directory, entry.name)
                if seen is not None:
                    if entry.name in seen:
                        continue
                    seen.add(entry.name)
                if path in settled:
                    continue
                try:
                    if entry.is_symlink():
                        continue
                    mode = entry.stat(follow_symlinks=False).st_mode
                except FileNotFoundError:
                    continue
                except OSError as error:  # a FUSE mount of another user answers not even root
                    self._unreadable(path, error)
                    continue
                if stat.S_ISREG(mode) and mode & stat.S_IROTH and path not in mounts:
                    continue
                self._judge(path, mode)

    def _judge(self, path: str, mode: int) -> None:
        why = self._why(path, mode)
        if why:
            self.found.append(Private(path, stat.S_ISDIR(mode), why))
        if stat.S_ISDIR(mode) and self._open(path, why):
            self.waiting.append(path)

    def _why(self, path: str, mode: int) -> str:
        why = "" if path in self._exempt else _private(mode, path in self._mounts)
        if not why and stat.S_ISDIR(mode) and len(os.fsencode(path)) > _LONGEST:
            return "its path is too long to look into it"
        return why

    def _open(self, path: str, why: str) -> bool:
        """Whether a directory is looked into."""
        return path not in self._mounts and (not why or path in self._ways)


def settled(plan: Mapping[str, Entry]) -> frozenset[str]:
    """The paths that the sweep passes over with all that is below them, as ``plan`` says what clones see there."""
    return frozenset(
        path for path, entry in plan.items() if not (isinstance(entry, Directory) and not entry.opaque)
    )


def _private(mode: int, mounted: bool) -> str:
    """Why something of this mode is not for others; empty if it is."""
    if mounted:
        return "a mount point"
    kind = stat.S_IFMT(mode)
    if kind in _SPECIAL:
        return _SPECIAL[kind]
    needed = _DIRECTORY_BITS if kind == stat.S_IFDIR else _FILE_BITS
    return "" if mode & needed == needed else f"not for other users ({stat.S_IMODE(mode):04o})"
