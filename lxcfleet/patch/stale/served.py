"""Files of packages that a container is served in their old version, though it may run none of them.

The overlay stands since the container was started. For each file that the kernel has looked up there once, it goes on
showing the old version; for a file that it looks up for the first time, it shows the host's present one. So a process that
opens certificates, time zones, modules or programs of jobs now may get old ones. The kernel's cache can be asked without
a new look-up (RESOLVE_CACHED), so the question changes nothing.
"""

from __future__ import annotations

import bisect
import contextlib
import math
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lxcfleet.base.present import Bottom, Found, Made, Present, Upper
from lxcfleet.host.kernel import syscalls
from lxcfleet.host.packages import lists
from lxcfleet.host.packages.losses import Loss
from lxcfleet.host.process import maps
from lxcfleet.host.process.alike import Alike
from lxcfleet.host.process.maps import Identity
from lxcfleet.patch.stale.judge import replaced_at, same
from lxcfleet.patch.stale.scripts import MODULES

DOCUMENTATION = ("/usr/share/doc/", "/usr/share/man/", "/usr/share/locale/", "/usr/share/info/", "/usr/share/lintian/")
"""Files for which nobody restarts a container."""
SLACK_SECONDS = 3600.0
"""Seconds: a file that changed at most so long before a container's start is compared, too, as a clock may have been set. The
comparison itself is exact."""
OWN_PACKAGE = "lxcfleet"
"""Compared only where it is asked for by name. No container runs it, but each version of it would make every container stale,
and each program of an interpreter besides, as its modules lie among the others."""
_ACCESS_LIST = "system.posix_acl_access"
_AT_ONCE = 200
"""So many files are open at the same moment."""
_MOST = 1000
"""The most files that are reported of one container."""


@dataclass(frozen=True)
class ComparedFiles:
    """The files that are compared."""

    changed: bool = True
    """Whether files of packages that changed since the container's start are compared."""
    documentation: bool = False
    """Whether documentation, manual pages and translations are compared, too."""
    packages: tuple[str, ...] = ()
    """Packages whose files are all compared, whenever they changed."""

    def to_json(self) -> dict[str, Any]:
        """For the request to the process that looks."""
        return {"changed": self.changed, "documentation": self.documentation, "packages": list(self.packages)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ComparedFiles:
        """The choice that ``to_json`` wrote."""
        return cls(data["changed"], data["documentation"], tuple(data["packages"]))


@dataclass(frozen=True)
class Candidate:
    """A file that may be served in its old version."""

    name: str
    package: str
    changed: float
    """The time of its change, in seconds since the epoch."""
    always: bool
    """Whether it is compared whenever it changed."""
    lost: bool = False
    """Whether no package has it any more."""


class Branch:
    """A directory with candidates in it or below it."""

    def __init__(self) -> None:
        self.candidates: list[Candidate] = []
        """Those in the directory itself."""
        self.below: dict[str, Branch] = {}
        """The directories in it, by name."""
        self._moments: list[float] = []
        """When each candidate in it and below it changed, in order; infinity if it is compared always."""

    def grow(self, parts: Iterable[str], candidates: Sequence[Candidate]) -> None:
        """Add those of one directory, which is ``parts`` below this one."""
        here, moments = self, [math.inf if each.always else each.changed for each in candidates]
        here._moments += moments
        for part in parts:
            if part not in here.below:
                here.below[part] = Branch()
            here = here.below[part]
            here._moments += moments
        here.candidates += candidates

    def settle(self) -> None:
        """All candidates are there."""
        waiting = [self]
        while waiting:
            branch = waiting.pop()
            branch._moments.sort()
            waiting += branch.below.values()

    def number(self, started: float) -> int:
        """The number of candidates in it and below it that count for a container which started at that time."""
        return len(self._moments) - bisect.bisect_right(self._moments, started - SLACK_SECONDS)


@dataclass
class Served:
    """The findings in one container."""

    files: list[tuple[str, str, str]] = field(default_factory=list)
    """Path, package, and the name of the layer that has the present file."""
    compared: int = 0


class Candidates:
    """Files to compare, by directory; the same for many containers."""

    def __init__(self, wanted: ComparedFiles, since: float, lost: Sequence[Loss] = ()) -> None:
        """``since``: the earliest start of the containers, in seconds since the epoch; ``lost``: files that packages have no
        more."""
        self.wanted = wanted
        self._since = since - SLACK_SECONDS
        self._places: dict[str, str] = {}
        self._seen: set[str] = set()
        self._modules: dict[str, list[tuple[str, str, float]]] = {}
        self.directories: dict[str, list[Candidate]] = {}
        asked = lists.of(wanted.packages)
        lately = lists.changed_since(self._since) if wanted.changed else {}
        for package, paths in asked.items():
            self._add(package, paths, always=True)
        for package, paths in lately.items():
            if package != OWN_PACKAGE:
                self._add(package, paths, always=False)
        self._add_alternatives({**lately, **asked})
        for package, path in lists.generated():
            if wanted.changed or package in wanted.packages:
                self._add(package, [path], always=package in wanted.packages)
        for loss in lost:
            always = loss.package in wanted.packages
            if always or (wanted.changed and loss.noticed > self._since and loss.package != OWN_PACKAGE):
                self._add_lost(loss, always=always)
        self.top = Branch()
        for directory, candidates in self.directories.items():
            self.top.grow(directory.split("/")[1:], candidates)
        self.top.settle()

    def none_since(self, started: float) -> bool:
        """Whether no file is to be compared with those that a container serves which started at that time."""
        return not self.top.number(started)

    def modules(self, kind: str, began: float) -> Iterator[tuple[str, str]]:
        """Package and path of each module of an interpreter that changed after ``began``, in seconds since the epoch."""
        if kind not in self._modules:
            place = MODULES[kind]
            self._modules[kind] = sorted(
                (candidate.package, f"{directory}/{candidate.name}", candidate.changed)
                for directory, candidates in self.directories.items()
                if place.match(f"{directory}/")
                for candidate in candidates
                if not candidate.lost
            )
        yield from ((package, path) for package, path, changed in self._modules[kind] if changed > began)

    def _add(self, package: str, paths: Iterable[str], *, always: bool) -> None:
        for path in paths:
            if not self.wanted.documentation and path.startswith(DOCUMENTATION):
                continue
            directory, name = self._split(path)
            whole = f"{directory}/{name}"
            if whole in self._seen:
                continue
            try:
                status = os.lstat(whole)
            except OSError:
                continue
            ordinary = stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)
            if ordinary and (always or status.st_ctime > self._since):
                # Few files have several names; for those it takes a closer look.
                born = syscalls.born(whole) if status.st_nlink > 1 else None
                changed = replaced_at(born, status.st_ctime, status.st_nlink)
                if not always and changed <= self._since:
                    continue
                self._seen.add(whole)
                candidate = Candidate(name, package, changed, always)
                self.directories.setdefault(directory, []).append(candidate)

    def _add_alternatives(self, known: Mapping[str, Collection[str]]) -> None:
        """Add the links of update-alternatives: each is a file of the package to which it leads, or else of dpkg.

        ``known``: the files of the packages that are asked for, and of those that changed.
        """
        links = lists.alternatives()
        targets = set(links.values())
        owners = {path: package for package, paths in known.items() for path in targets.intersection(paths)}
        for link, target in links.items():
            package = owners.get(target, "dpkg")
            always = package in self.wanted.packages
            # A generation that was removed has moved the change time of each link of the host.
            if always or (self.wanted.changed and _made(link) > self._since):
                self._add(package, [link], always=always)

    def _add_lost(self, loss: Loss, *, always: bool) -> None:
        directory, name = self._split(loss.path)
        whole = f"{directory}/{name}"
        if whole not in self._seen and not os.path.lexists(whole):
            self._seen.add(whole)
            candidate = Candidate(name, loss.package, loss.noticed, always, lost=True)
            self.directories.setdefault(directory, []).append(candidate)

    def _split(self, path: str) -> tuple[str, str]:
        above, _, name = path.rpartition("/")
        return self._place(above), name

    def _place(self, directory: str) -> str:
        """The real path of a directory: /lib is a link into /usr."""
        if directory not in self._places:
            self._places[directory] = os.path.realpath(directory or "/").rstrip("/")
        return self._places[directory]


@dataclass
class Notes:
    """Results that hold for all containers of one scan."""

    primed: set[tuple[str, str]] = field(default_factory=set)
    """Layers, and directories of theirs, whose access lists the kernel has in its cache; see ``CachedEntries._prime``."""
    old: set[tuple[str, Identity]] = field(default_factory=set)
    """Files that are certainly not those at their paths any more."""


class CachedEntries:
    """The kernel's cached entries for one container's files."""

    def __init__(
        self, pid: int, top: Collection[str], mounted: Sequence[tuple[str, str | None]], present: Present, alike: Alike,
        notes: Notes,
    ) -> None:  # fmt: skip
        """``pid``: process 1. ``top``: the device that its root should be on. ``mounted``: the result of ``scan.places``.
        ``notes``: of the same scan.

        Raises OSError if its root can't be entered, ProcessLookupError if the process has ended.
        """
        try:
            self._root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise ProcessLookupError(error.errno, error.strerror, error.filename) from error
        self._mounted, self._present, self._alike, self._notes = dict(mounted), present, alike, notes
        self._above_mounts = {above for point, _ in mounted for above in _above(point)}
        # The kernel answers from its cache alone only to a directory's owner. For others it has to read access lists,
        # which it does not do from the cache in a layer with shifted owners (fs/overlayfs/inode.c, do_ovl_get_acl).
        status = os.fstat(self._root)
        self._owner = status.st_uid
        self.rooted = maps.device_name(status.st_dev) in top
        """Whether the root of process 1 is that of the layers; else nothing can be asked."""
        self._handles: dict[str, int | None] = {}

    def close(self) -> None:
        """Close the descriptors."""
        for handle in (self._root, *self._handles.values()):
            if handle is not None and handle >= 0:
                os.close(handle)

    def shows(self, directory: str) -> bool:
        """Whether the container has the layers' directory at this path, and not something mounted there."""
        return self._point(directory) is not None

    def has(self, directory: str) -> bool:
        """Whether the kernel has the directory in its cache."""
        return self._directory(directory) is not None

    def mounts_below(self, directory: str) -> bool:
        """Whether something is mounted below the directory."""
        return directory in self._above_mounts

    def differs(self, path: str) -> Found | None:
        """The file of a fresh mount at ``path``, or that it has none, if the host decides that, and the kernel's cache has
        another file."""
        directory, _, name = path.rpartition("/")
        return next((found for _, found in self.differing(directory, [name])), None)

    def differing(self, directory: str, names: Sequence[str]) -> Iterator[tuple[str, Found]]:
        """The same for many files of a directory: those that differ, by their names."""
        handle = self._directory(directory) if self.rooted else None
        if handle is None:
            return
        for start in range(0, len(names), _AT_ONCE):
            files = self._remembered(handle, names[start : start + _AT_ONCE])
            try:
                for name, file in files.items():
                    found = self._judge(file, f"{directory}/{name}")
                    if found is not None:
                        yield name, found
            finally:
                for file in files.values():
                    if file is not None:
                        os.close(file)

    def has_same(self, path: str) -> bool:
        """Whether the kernel's cached file is another one than that of a fresh mount, with the same content."""
        directory, _, name = path.rpartition("/")
        handle = self._directory(directory) if self.rooted else None
        file = None if handle is None else self._remembered(handle, [name]).get(name)
        if file is None:
            return False
        try:
            found = self._present.find(path)
            other = found.identity is not None and not same(Identity.of(os.fstat(file)), found.identity, copied=False)
            return other and self._judge(file, path) is None
        finally:
            os.close(file)

    def _judge(self, file: int | None, path: str) -> Found | None:
        """``file``: the kernel's cached file; None: the cache says that nothing is there."""
        status = None if file is None else os.fstat(file)
        known = None if status is None else (path, Identity.of(status))
        for attempt in (1, 2):
            found = self._present.find(path)
            if not found.layer.hosts:
                return None
            if found.status is None:
                if status is None or stat.S_ISDIR(status.st_mode):
                    return None
            elif file is not None and status is not None:
                if known in self._notes.old:
                    return found
                if self._same(file, status, path, found):
                    return None
            if attempt == 1:
                self._present.bottom.forget(path)  # remembered results may be older than the container's file
        if known is not None:
            self._notes.old.add(known)
        return found

    def _same(self, file: int, status: os.stat_result, path: str, found: Found) -> bool:
        now = found.identity
        assert now is not None
        assert found.status is not None
        before = Identity.of(status)
        if same(before, now, copied=False):
            return True
        if stat.S_IFMT(status.st_mode) != stat.S_IFMT(found.status.st_mode):
            return False
        there = found.layer.outside(path)
        if stat.S_ISLNK(status.st_mode):
            with contextlib.suppress(FileNotFoundError):  # gone since it was found: it is looked for once more
                return os.readlink("", dir_fd=file) == os.readlink(there)
            return False
        return self._alike.same(before, f"/proc/self/fd/{file}", now, there)

    def _directory(self, directory: str) -> int | None:
        """A descriptor of the directory, if the kernel has it in its cache."""
        if directory not in self._handles:
            self._handles[directory] = self._look(directory)
        return self._handles[directory]

    def _look(self, directory: str) -> int | None:
        """If the kernel has no entry for a directory, it has none for what is below, which need not be asked for."""
        point = self._point(directory)
        if point is None:
            return None
        if directory == point:
            try:
                handle: int | None = syscalls.look_across(self._root, point.lstrip("/") or ".")
            except OSError:  # the container has a link there, or no entry
                return None
        else:
            above, _, name = directory.rpartition("/")
            start = self._directory(above)
            handle = None if start is None else self._remembered(start, [name]).get(name)
        if handle is not None:
            self._prime(directory)
        return handle

    def _remembered(self, directory: int, names: Iterable[str]) -> dict[str, int | None]:
        """Descriptors of the files that the kernel has in its cache, by name; None: the cache says that nothing is there."""
        found: dict[str, int | None] = {}
        with syscalls.as_owner(self._owner):
            for name in names:
                try:
                    file = syscalls.look_remembered(directory, name)
                except FileNotFoundError:
                    found[name] = None
                except OSError:
                    continue  # the container has a link or a mount of its own there
                else:
                    if file is not None:
                        found[name] = file
        return found

    def _prime(self, directory: str) -> None:
        """Have the kernel cache the directory's access list, or that there is none, before it is asked for names there.

        The kernel reads that at the first question, and counts what it must read as not cached (fs/namei.c, check_acl).
        """
        for layer in (*self._present.uppers, self._present.bottom):
            key = layer.layer.source, directory
            if key not in self._notes.primed:
                self._notes.primed.add(key)
                with contextlib.suppress(OSError):
                    _read_access_list(layer, directory)

    def _point(self, directory: str) -> str | None:
        """The mount point above the directory, if that shows the layers' directory of the same path; empty for the root."""
        here = directory
        while here and here not in self._mounted:
            here = here.rpartition("/")[0]
        return here if not here or self._mounted[here] == here else None


def _made(link: str) -> float:
    """When a link was made that no package has brought, in seconds since the epoch."""
    try:
        return os.lstat(link).st_mtime
    except OSError:
        return 0.0


def _read_access_list(layer: Upper | Made | Bottom, directory: str) -> None:
    if isinstance(layer, Bottom):
        os.getxattr(layer.layer.outside(directory), _ACCESS_LIST)
        return
    with layer.opened(directory) as handle:
        if handle is not None:
            os.getxattr(f"/proc/self/fd/{handle}", _ACCESS_LIST)


def _counts(candidate: Candidate, started: float) -> bool:
    return candidate.always or candidate.changed > started - SLACK_SECONDS


def compare(memory: CachedEntries, candidates: Candidates, started: float) -> Served:
    """Compare the files that a container is served. ``started``: its start, in seconds since the epoch.

    What lies below a directory that the kernel does not have in its cache needs no look at each directory.
    """
    served = Served()
    waiting = [("", candidates.top)]
    while waiting:
        directory, branch = waiting.pop()
        number = branch.number(started)
        if not number:
            continue
        shown, mounts = memory.shows(directory), memory.mounts_below(directory)
        if not mounts and not (shown and memory.has(directory)):
            served.compared += number if shown else 0
            continue
        waiting += [(f"{directory}/{name}", below) for name, below in branch.below.items()]
        if shown:
            chosen = {each.name: each.package for each in branch.candidates if _counts(each, started)}
            served.compared += len(chosen)
            for name, found in memory.differing(directory, [*chosen]):
                if len(served.files) < _MOST:
                    served.files.append((f"{directory}/{name}", chosen[name], found.layer.name))
    return served


def _above(point: str) -> Iterator[str]:
    """The directories above a mount point, up to the root, which is the empty path."""
    while point:
        point = point.rpartition("/")[0]
        yield point
