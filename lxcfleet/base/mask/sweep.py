"""Finding what other users of the host can't read: the rule that finds the secrets nobody thought of."""

from __future__ import annotations

import os
import stat
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from lxcfleet.base.tree import Tree, join, parents, stamp
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
    """What in the base is still visible under ``plan``, and not readable for others.

    That is: files without o+r, directories without o+rx (and so all below them), devices, pipes, sockets, and
    mount points, as a clone sees what lies under a mount and the host can't look there. Symbolic links have
    no mode of their own. With a POSIX ACL the bits for others still say what others may do; acl(5).

    ``exempt`` paths are passed over, what is below them is not. ``visited`` gets the directories whose
    entries were looked at, with their stamps just before. What vanishes meanwhile is passed over; what can't
    be read at all counts as private.
    """
    search = _Search(plan, frozenset(exempt), mounts)
    while search.waiting:
        directory = search.waiting.pop()
        places = tree.places(directory)
        seen: set[str] | None = None if len(places) == 1 else set()
        for place in places:
            try:
                # Through a descriptor, so that the kernel looks each entry up in it and not along the whole path,
                # and a directory that turned into a link meanwhile is not followed.
                handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue
            except OSError as error:
                search.found.append(Private(directory, True, f"unreadable: {error.strerror}"))
                continue
            try:
                if visited is not None and place == places[0]:
                    visited[directory] = stamp(handle)
                search.look(handle, directory, seen)
            finally:
                os.close(handle)
    return search.found


_LONGEST = 2000
"""Bytes of a path. The kernel takes no paths of more than 4095, neither of the base nor of the mask's copy."""


class _Search:
    def __init__(self, plan: Mapping[str, Entry], exempt: frozenset[str], mounts: Container[str]) -> None:
        self.found: list[Private] = []
        self.waiting = ["/"]
        self._exempt, self._mounts = exempt, mounts
        self._ways = {above for path in exempt for above in parents(path)}
        self._settled = {
            path for path, entry in plan.items() if not (isinstance(entry, Directory) and not entry.opaque)
        }

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
                if entry.is_symlink() or path in settled:
                    continue
                try:
                    mode = entry.stat(follow_symlinks=False).st_mode
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(mode) and mode & stat.S_IROTH and path not in mounts:
                    continue
                self._judge(path, mode)

    def _judge(self, path: str, mode: int) -> None:
        mounted = path in self._mounts
        why = "" if path in self._exempt else _private(mode, mounted)
        if not why and stat.S_ISDIR(mode) and len(os.fsencode(path)) > _LONGEST:
            why = "its path is too long to look into it"
        if why:
            self.found.append(Private(path, stat.S_ISDIR(mode), why))
        if stat.S_ISDIR(mode) and not mounted and (not why or path in self._ways):
            self.waiting.append(path)


def _private(mode: int, mounted: bool) -> str:
    """Why something of this mode is not for others; empty if it is."""
    if mounted:
        return "a mount point"
    kind = stat.S_IFMT(mode)
    if kind in _SPECIAL:
        return _SPECIAL[kind]
    needed = _DIRECTORY_BITS if kind == stat.S_IFDIR else _FILE_BITS
    return "" if mode & needed == needed else f"not for other users ({stat.S_IMODE(mode):04o})"
