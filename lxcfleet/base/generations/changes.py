"""The changes that a new sheet has to have: the host as it is, held against a generation. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lxcfleet.base.generations.manifest import DirectoryStatus, FileIdentity, Folder, MergedSheets
from lxcfleet.base.generations.places import SheetPlace, of
from lxcfleet.base.generations.scan import LiveDirectory
from lxcfleet.base.generations.scope import Manner, manner
from lxcfleet.base.tree import join, parent
from lxcfleet.host.kernel.entries import BLOCK
from lxcfleet.host.packages.database import merged

MOST_SHEETS = 6
"""A generation with more than so many sheets gets one instead of all but the lowest."""
MOST_CHANGED = 0.3
"""The share of the files above which such a sheet would save little: a whole one is made."""
MOST_COPIED = 12 << 20
"""Bytes on disk of files that no package owns and that are copied for one generation, the smallest ones first. The links of a
host with 150,000 files take 75 MiB, and all of it should not take more than 100."""
_WITH_ENTRY = 12
"""Bytes that a directory has for an entry besides its name, rounded up to 4; ext4's linux_dirent layout."""


@dataclass
class ChangedDirectory:
    """A directory that a new sheet has, and what it has in it."""

    status: DirectoryStatus
    mtime: int
    link: list[str] = field(default_factory=list)
    copy: dict[str, FileIdentity] = field(default_factory=dict)
    hollow: set[str] = field(default_factory=set)
    """Those of ``copy`` whose content is left out."""
    gone: list[str] = field(default_factory=list)
    foreign: set[str] = field(default_factory=set)
    """Those of ``link`` that would be copied if there were room."""
    moved: bool = False
    """Owner, mode or attributes of the directory are others than before, or the directory is new."""
    known: frozenset[str] = frozenset()
    """The names that the sheets below have in this directory."""

    @property
    def entries(self) -> int:
        """Its files, links and whiteouts."""
        return len(self.link) + len(self.copy) + len(self.gone)


Changes = dict[str, ChangedDirectory]
"""By path, each directory after the one that it is in, and before the next one in that."""


def compare(live: Mapping[str, LiveDirectory], before: MergedSheets) -> Changes:
    """The directories in which ``live`` is not what ``before`` has."""
    found = {}
    for path, now in live.items():
        change = _compare(now, before.folders.get(path), before.directories(path))
        if change is not None:
            found[path] = change
    return found


def _compare(now: LiveDirectory, before: Folder | None, below: set[str]) -> ChangedDirectory | None:
    if before is None:
        return ChangedDirectory(now.status, now.mtime, list(now.files), dict(now.sources), set(now.hollow), moved=True)
    simple = not now.sources and not before.copied
    if simple and now.files == before.linked and now.status == before.status and below == set(now.folders):
        return None  # as it is with nearly all directories
    link = [name for name, inode in now.files.items() if before.linked.get(name) != inode]
    copy = {
        name: source
        for name, source in now.sources.items()
        if before.linked.get(name) != source.inode
        and (before.copied.get(name) != source or (name in before.hollow) != (name in now.hollow))
    }
    known = frozenset((*before.linked, *before.copied, *below))
    gone = sorted(known.difference(now.files, now.sources, now.folders))
    moved = now.status != before.status
    if not link and not copy and not gone and not moved:
        return None
    return ChangedDirectory(now.status, now.mtime, link, copy, now.hollow & copy.keys(), gone, moved=moved, known=known)


def with_parents(changes: Changes, live: Mapping[str, LiveDirectory]) -> Changes:
    """The changes with the directories above them, in the order of ``live``."""
    whole = dict(changes)
    for path in changes:
        while (path := parent(path)) not in whole:
            whole[path] = ChangedDirectory(live[path].status, live[path].mtime)
    return {path: whole[path] for path in live if path in whole}


def count(changes: Changes) -> int:
    """The files, links and whiteouts in them."""
    return sum(change.entries for change in changes.values())


def total(live: Mapping[str, LiveDirectory]) -> int:
    """The files and links of the host."""
    return sum(len(each.files) + len(each.sources) for each in live.values())


def doubtful(changes: Changes, live: Mapping[str, LiveDirectory]) -> dict[str, list[str]]:
    """The regular files that would be linked, or copied, by who owns them and how large they are: names by directory."""
    found = {}
    for path, change in changes.items():
        match manner(path):
            case Manner.PROGRAMS if not path.endswith("/__pycache__"):
                # Python writes what is in those to another name first: importlib, _write_atomic.
                names = [name for name in change.link if name not in live[path].links]
            case Manner.STATE:
                names = [name for name in change.copy if name not in change.hollow]
            case _:
                continue
        if names:
            found[path] = names
    return found


def unowned(names: Mapping[str, Iterable[str]], owned: Collection[str]) -> list[str]:
    """The paths of those that no package owns. ``owned``: all paths that packages have; see host.packages.database.owned."""
    found = []
    for directory, each in names.items():
        paths = [join(directory, name) for name in each]
        found += paths if manner(directory) is Manner.STATE else [path for path in paths if merged(path) not in owned]
    return found


def settle(changes: Changes, foreign: Mapping[str, FileIdentity | None], before: MergedSheets) -> None:
    """Decide on each of these files, by path, whether it is linked or copied: the smallest ones are copied, up to the limits.

    A file whose source is None is linked: other users can't read it, so that no container sees it, or it has vanished. What
    ``before`` has as copies counts.
    """
    size = sum(
        _blocks(source.size)
        for path, folder in before.folders.items()
        if folder.copied and manner(path) is not Manner.COPIED
        for source in folder.copied.values()
    )
    for path, source in sorted(foreign.items(), key=lambda each: (each[1].size if each[1] else 0, each[0])):
        directory, _, name = path.rpartition("/")
        change = changes[directory or "/"]
        if source is not None and size + _blocks(source.size) <= MOST_COPIED:
            size += _blocks(source.size)
            if name not in change.copy:
                change.link.remove(name)
                change.copy[name] = source
        else:
            if change.copy.pop(name, None):
                change.link.append(name)
            if source is not None:
                change.foreign.add(name)


@dataclass(frozen=True)
class Needs:
    """The amounts that a sheet takes of a file system."""

    directories: int
    copies: int
    links: int
    bytes: int
    inodes: int


def needs(changes: Changes) -> Needs:
    """The needs of a sheet with these changes, at most. A sheet without any changes needs nothing."""
    size = copies = links = names = 0
    for path, change in changes.items():
        entries = [*change.link, *change.copy, *change.gone]
        # Blocks of a directory are three quarters full once they have been split.
        size += _blocks((_WITH_ENTRY * len(entries) + sum(map(len, entries))) * 4 // 3)
        size += sum(_blocks(source.size) for name, source in change.copy.items() if name not in change.hollow)
        copies, links, names = copies + len(change.copy), links + len(change.link), names + len(entries) + len(path)
    listed = 64 * names
    return Needs(len(changes), copies, links, size + listed if changes else 0, len(changes) + copies + 4 if changes else 0)


def together(needs: Iterable[Needs]) -> Needs:
    """The needs of several sheets together."""
    every = [*needs]
    return Needs(*(sum(getattr(each, key) for each in every) for key in Needs.__dataclass_fields__))


def apart(changes: Changes, live: Mapping[str, LiveDirectory], places: Sequence[SheetPlace]) -> dict[SheetPlace, Changes]:
    """The changes by the place that has their file system, each with the directories above them; none without any.

    The one beside the records has a sheet in any case.
    """
    found: dict[SheetPlace, Changes] = {places[0]: {"/": ChangedDirectory(live["/"].status, live["/"].mtime)}}
    for path, change in changes.items():
        found.setdefault(of(path, places), {})[path] = change
    return {place: with_parents(each, live) for place, each in found.items()}


def _blocks(size: int) -> int:
    return max(1, -(-size // BLOCK)) * BLOCK


def room(needs: Needs, free: int, free_inodes: int | None, size: int, inodes: int) -> str:
    """The reason why there is no room for a sheet, with the numbers; empty: there is.

    ``free`` and ``size``: bytes of the file system; ``inodes``: that it has in all; ``free_inodes``: None if it makes them as
    it needs them. 5 % or 1 GiB stay free, whichever is less.
    """
    keep = min(size // 20, 1 << 30)
    if free - needs.bytes < keep:
        return (
            f"the sheet takes {needs.bytes >> 20} MiB ({needs.directories} directories, {needs.copies} copies), "
            f"{free >> 20} MiB are free, and {keep >> 20} MiB must stay free"
        )
    if free_inodes is not None and free_inodes - needs.inodes < inodes // 20:
        return (
            f"the sheet takes {needs.inodes} inodes ({needs.directories} directories, {needs.copies} copies), "
            f"{free_inodes} are free, and {inodes // 20} must stay free"
        )
    return ""
