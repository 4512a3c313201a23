"""The freezing of the host as it is now."""

from __future__ import annotations

import contextlib
import errno
import gc
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lxcfleet.base.generations import changes as differences
from lxcfleet.base.generations import manifest, store
from lxcfleet.base.generations.changes import Changes, Needs
from lxcfleet.base.generations.manifest import FileIdentity, Folders, Manifest, MergedSheets
from lxcfleet.base.generations.places import SheetPlace, check, make, present
from lxcfleet.base.generations.record import Generation
from lxcfleet.base.generations.scan import LiveDirectory, Scan, attributes
from lxcfleet.base.generations.scope import scope
from lxcfleet.base.generations.sheets import Sheets
from lxcfleet.base.generations.writing import Writer
from lxcfleet.base.tree import Tree, join
from lxcfleet.errors import Broken, Busy, HostError, NoCapacity
from lxcfleet.host.kernel import mounts, syscalls, tree
from lxcfleet.host.packages import database, dpkg
from lxcfleet.paths import Paths
from lxcfleet.spec.files import mask_rules

_ROOT = Path("/")
_ADMIN = "var/lib/dpkg"


@dataclass(frozen=True)
class _Survey:
    """The host as it is, and what a new generation of it takes."""

    changes: Mapping[SheetPlace, Changes]
    """The changes that each new sheet has; the sheet beside the records comes first."""
    before: MergedSheets
    """The sheets that the new ones lie over, as one tree."""
    sheets: tuple[str, ...]
    """The names of its sheets."""
    needs: Mapping[SheetPlace, Needs]


def freeze(paths: Paths, why: str, *, root: Path = _ROOT, now: float, waiting: bool = False) -> Generation | None:
    """Freeze the host as it is; returns the new generation, or None if the newest one is the same. Then nothing is written.

    ``now``: seconds since the epoch; ``root``: of the host; ``waiting``: an apt that holds its lock waits for this
    (DPkg::Pre-Invoke). Takes some seconds for the first generation, and about one for others. Broken off anywhere, it leaves
    the generations as they were or with the new one, and perhaps something that ``store.leftovers`` names.

    Raises Busy while dpkg is at work or has left packages unfinished, NoCapacity before anything is written if there is
    no room, Unsupported for a host of several file systems, HostError for all else.
    """
    admin = root / _ADMIN
    try:
        with store.locked(paths), _uncollected():
            before = _quiet(admin, waiting)
            survey = _survey(paths, root)
            if survey is None:
                return None
            _check_room(survey.needs)
            number = store.next_number(paths)
            store.give(paths, number)
            made = _make(paths, survey, f"s{number}", root)
            if _quiet(admin, waiting) != before:
                _drop(made)
                raise Busy("the base was not frozen: dpkg changed packages meanwhile", hint="freeze it once dpkg is done")
            return _keep(paths, survey, made, number, why, now, root)
    except OSError as error:
        raise HostError.from_os_error("the base can't be frozen", error) from error


def room(paths: Paths, *, root: Path = _ROOT) -> Needs:
    """The needs of a freeze now: none, if the newest generation is the same as the host. Raises NoCapacity if there is no
    room for it, and else what ``freeze`` raises."""
    try:
        with store.locked(paths), _uncollected():
            survey = _survey(paths, root)
            if survey is None:
                return differences.needs({})
            _check_room(survey.needs)
            return differences.together(survey.needs.values())
    except OSError as error:
        raise HostError.from_os_error("the base can't be looked at", error) from error


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Do not look for cycles meanwhile: among so many values, of which none makes one, that is an eighth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _quiet(admin: Path, waiting: bool) -> tuple[int, ...]:
    """Make sure that dpkg is not at work; returns what changes when it was."""
    process = dpkg.holder(admin, waiting=waiting)
    if process is not None:
        raise Busy(
            "the base can't be frozen while dpkg is at work", why=f"process {process} holds dpkg's lock",
            hint="freeze it once dpkg is done",
        )  # fmt: skip
    trouble = dpkg.trouble(admin)
    if trouble:
        hint = "dpkg --configure -a, then try again"
        raise Busy("the base can't be frozen: packages are unfinished", why=trouble, hint=hint)
    stamps = []
    for file in (admin / "status", admin / "info"):
        try:
            status = file.stat()
        except FileNotFoundError:
            continue
        stamps += [status.st_ino, status.st_mtime_ns]
    return tuple(stamps)


def _survey(paths: Paths, root: Path) -> _Survey | None:
    """Look at the host, and compare it with the newest generation; None: they are the same."""
    places = present(paths, root)
    parts = {place.point for place in places} - {"/", ""}
    points = _mounts(root) - parts
    newest, sheets = _newest(paths)
    before = MergedSheets(each.folders for each in reversed(sheets))
    what = scope(paths, mask_rules.load(paths.mask_rules), Tree(root), points)
    live = Scan(str(root), what, before.folders, points, parts).run()
    changes = differences.compare(live, before)
    if newest is not None:
        _drop_same(changes, root, store.view(paths, newest))
        if not changes:
            return None
    below: tuple[str, ...] = newest.sheets if newest is not None else ()
    if newest is not None and len(newest.levels) >= differences.MOST_SHEETS:
        below = newest.levels[-1]
        before = MergedSheets(each.folders for each in reversed(sheets[-len(below) :]))
        changes = differences.compare(live, before)
        if differences.count(changes) > differences.MOST_CHANGED * differences.total(live):
            below, before = (), MergedSheets()
            changes = differences.compare(live, before)
    _settle(changes, live, before, root)
    apart = differences.apart(changes, live, places)
    for place in apart:
        if place.word:
            check(place)
    return _Survey(apart, before, below, {place: differences.needs(each) for place, each in apart.items()})


def _newest(paths: Paths) -> tuple[Generation | None, list[Manifest]]:
    """The newest generation that is whole, and the lists of its sheets, the topmost first; None: there is none."""
    for number in reversed(store.numbers(paths)):
        try:
            found = store.load(paths, number)
            return found, [store.listed(paths, name) for name in found.sheets]
        except Broken:
            continue
    return None, []


def _mounts(root: Path) -> frozenset[str]:
    """The mount points below the host's root."""
    return mounts.points() - {"/"} if root == _ROOT else frozenset()


def _drop_same(changes: Changes, root: Path, sheets: Sheets) -> None:
    """Take copies out of the changes of which the generation has the same already: programs write files anew with what was in
    them before."""
    top = os.fspath(root).rstrip("/")
    for path, change in list(changes.items()):
        for name in [each for each in change.copy if each in change.known and each not in change.hollow]:
            if _same(f"{top}{join(path, name)}", sheets.outside(join(path, name))):
                del change.copy[name]
        if not change.entries and not change.moved:
            del changes[path]


_MOST_COMPARED = 4 << 20
"""Bytes of a file whose content is compared."""


def _same(one: str, other: str) -> bool:
    """Whether two regular files have the same content, owner, mode and attributes."""
    found = []
    for path in (one, other):
        try:
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode) or status.st_size >= _MOST_COMPARED:
                return False
            content = os.read(file, _MOST_COMPARED)
            found.append((status.st_mode, status.st_uid, status.st_gid, attributes(file), content))
        finally:
            os.close(file)
    return found[0] == found[1]


def _settle(changes: Changes, live: Mapping[str, LiveDirectory], before: MergedSheets, root: Path) -> None:
    """Decide which of the files that no package owns are copied."""
    names = differences.doubtful(changes, live)
    if not names:
        return
    top = os.fspath(root).rstrip("/")
    foreign: dict[str, FileIdentity | None] = {}
    for path in differences.unowned(names, database.owned(root / _ADMIN / "info")):
        try:
            status = os.lstat(top + path)
        except OSError:
            foreign[path] = None
            continue
        public = stat.S_ISREG(status.st_mode) and bool(status.st_mode & stat.S_IROTH)
        foreign[path] = FileIdentity.of(status) if public else None
    differences.settle(changes, foreign, before)


def _check_room(needs: Mapping[SheetPlace, Needs]) -> None:
    for place, each in needs.items():
        top = place.directory.parent if place.word else place.directory
        now = os.statvfs(top)
        free, size = now.f_bavail * now.f_frsize, now.f_blocks * now.f_frsize
        why = differences.room(each, free, now.f_favail if now.f_files else None, size, now.f_files)
        if why:
            raise NoCapacity(
                "the base can't be frozen: there is no room", why=why,
                hint=f"make room on the file system of {top}, or remove generations",
            )  # fmt: skip


@dataclass(frozen=True)
class _Made:
    """A sheet that has no name yet."""

    directory: Path
    name: str
    folders: Folders
    size: int


def _drop(made: Iterable[_Made]) -> None:
    for each in made:
        tree.remove(each.directory)


def _make(paths: Paths, survey: _Survey, stem: str, root: Path) -> list[_Made]:
    """Make the sheets that have the same number."""
    make(paths, survey.changes)
    made: list[_Made] = []
    try:
        for place, changes in survey.changes.items():
            made.append(_make_one(place, changes, stem, root))
    except BaseException:
        _drop(made)
        raise
    return made


def _make_one(place: SheetPlace, changes: Changes, stem: str, root: Path) -> _Made:
    name = place.sheet(stem)
    directory = place.directory / f"{store.NEW}{name}"
    tree.remove(directory)
    directory.mkdir(mode=0o700)
    writer = Writer(os.fspath(root), directory)
    try:
        writer.write(changes)
        top = os.lstat(directory / "tree").st_ino
        content = manifest.encode(Manifest(top, writer.folders))
        (directory / "manifest").write_bytes(content)
        tree.sync_file_system(directory)
    except BaseException as error:
        tree.remove(directory)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoCapacity("the base can't be frozen: there is no room", why=f"{directory}: {error.strerror}") from error
        raise
    return _Made(directory, name, writer.folders, writer.bytes + len(content))


def _keep(paths: Paths, survey: _Survey, made: Sequence[_Made], number: int, why: str, now: float, root: Path) -> Generation:
    """Give the sheets their names, and write the record. Until then none of them belongs to a generation."""
    folders = MergedSheets([survey.before.folders, *(each.folders for each in made)]).folders.values()
    own = [folder for each in made for folder in each.folders.values()]
    generation = Generation(
        number=number,
        created=datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        sheets=(*(each.name for each in made), *survey.sheets),
        why=why,
        files=sum(len(folder.linked) + len(folder.copied) for folder in folders),
        linked=sum(len(folder.linked) for folder in own),
        copied=sum(len(folder.copied) for folder in own),
        bytes=sum(each.size for each in made),
        packages=_digest(root / _ADMIN / "status"),
        linked_foreign=sum(len(folder.foreign) for folder in folders),
        linked_foreign_bytes=sum(sum(folder.foreign.values()) for folder in folders),
    )
    try:
        for each in made:
            syscalls.rename_new(each.directory, each.directory.with_name(each.name))
            tree.sync_directory(each.directory.parent)
        store.save(paths, generation)
    except BaseException:
        store.take_back(paths, number, [each.name for each in made])
        raise
    return generation


def _digest(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except FileNotFoundError:
        return hashlib.sha256(b"").hexdigest()
