"""Which CVEs concern sets of packages, and which of these have the fix on disk. Pure, but for the shelves, which read.

CVEs come from changelogs, which name what the versions closed that came since a container's start, or that its base does not
have; and from debsecan's data, if there is any.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from lxcfleet.host.packages import order, reboot
from lxcfleet.patch.cve.changelog import Changelog, Mention, MentionKind
from lxcfleet.patch.cve.inventory import Package, Set, by_source
from lxcfleet.patch.cve.shelf import ChangelogShelf
from lxcfleet.patch.cve.tracker import Hole

_SECONDS = 20.0
_MOST_RESULTS = 60_000
_MOST_OF_ALL = 1_000_000
"""Limits of all sets together: of different results, and of results of each set. Containers choose the packages that they say
they have. 100 containers on the host's root with 6,000 CVEs have 6,000."""
_MOST_NEW = 60_000
"""Different results that one set may add, and packages in them."""
_MOST_OWN = 2000
"""CVEs that a container's own changelogs may name."""


class _TooMuchError(Exception):
    """One set has more than is looked at."""


class FixState(StrEnum):
    """The state of a fix in a set of packages."""

    FIXED = "fixed"
    FIXABLE = "fixable"
    """It has not got it; the host has, or Debian does."""
    OPEN = "open"
    """It has not got it, and nobody knows of one."""
    DOUBT = "doubt"
    """A changelog names the CVE in words that do not say that it is closed."""


class CveResult(NamedTuple):
    """A CVE in the packages of one source in some sets."""

    cve: str
    source: str
    packages: tuple[Package, ...]
    disk: FixState
    own: bool
    """Whether some of the packages are not those of the base."""
    began: bool
    """Whether the containers of the set began with the fix."""
    without: tuple[Package, ...]
    """The packages that have not got it."""
    fixed: str
    """The version of the source that has the fix; empty: not known."""
    line: str
    """The words of the changelog."""
    words: MentionKind | None
    """The meaning of these words."""
    holes: tuple[Hole, ...] = ()


class Unread(NamedTuple):
    """A source of which it is not known which CVEs its new version closes."""

    source: str
    packages: tuple[str, ...]
    why: str


@dataclass
class PackageSet:
    """A distinct set of packages that containers have."""

    disk: Set
    """The packages that a fresh start has."""
    began: Set | None
    """The packages with which they began; None: not known."""
    shelf: ChangelogShelf
    """The changelogs of ``disk``."""
    same: bool = True
    """Whether ``disk`` is the host's."""
    base: Set | None = None
    """The packages of the base, if ``disk`` has others."""
    results: list[int] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)
    cut: bool = False
    """Whether there was more than is looked at; then there are no results."""


@dataclass(frozen=True)
class Data:
    """debsecan's data."""

    holes: Mapping[str, Sequence[Hole]]
    """By package."""
    moment: float
    """Its age, as the time since the epoch."""


class _Candidate(NamedTuple):
    cve: str
    mention: Mention | None
    log: Changelog | None
    """The changelog that it comes from."""
    holes: tuple[Hole, ...]


Candidates = dict[str, dict[str, _Candidate]]
"""By source and CVE."""


class Findings:
    """The findings about all groups together."""

    def __init__(self, host: Set, shelf: ChangelogShelf, data: Data | None = None, only: Sequence[str] = ()) -> None:
        """``host``: the host's packages, and ``shelf`` their changelogs. ``only``: no other CVEs count, and these wherever a
        changelog names them."""
        self._host, self._shelf, self._only = by_source(_newest(host.values())), shelf, frozenset(only)
        self._holes = _holes_by_cve(data)
        self._moment = data.moment if data else 0.0
        self.results: list[CveResult] = []
        self._known: dict[tuple[object, ...], list[int]] = {}
        self._alike: dict[tuple[object, ...], int] = {}
        self._count = self._new = 0
        self._shared: Candidates = {}
        self._judged: set[tuple[str | Package, ...]] = set()
        """The packages of which it is known which holes of the data they have."""
        self._looked: dict[tuple[str, str], list[Unread]] = {}
        """The gaps in the host's changelogs, by source and the version since which they were read."""
        self.named: set[str] = set()
        """Those of ``only`` that a changelog or the data names."""

    def find(self, groups: Sequence[PackageSet]) -> None:
        """Fill in the results of the groups."""
        own: list[Candidates] = []
        deadline = time.monotonic() + _SECONDS
        if self._only:
            self._search()
        for group in groups:
            own.append({})
            disk, began = by_source(_newest(group.disk.values())), _by_source(group.began)
            if self._only:
                self._search_own(group, disk, own[-1])
            else:
                self._closed_on_host(group, disk, began)
                self._closed_in(group, disk, own[-1])
            self._of_data(disk, began)
        # Those without packages of their own first: they do not depend on what containers say.
        for group, more in sorted(zip(groups, own, strict=True), key=lambda pair: pair[0].base is not None):
            late = time.monotonic() > deadline or len(self.results) > _MOST_RESULTS or self._count > _MOST_OF_ALL
            if late:
                group.cut = True
                continue
            try:
                self._evaluate(group, more)
            except _TooMuchError:
                group.cut, group.results = True, []
            self._count += len(group.results)

    # -- which CVEs --------------------------------------------------------------------------------------------

    def _closed_on_host(
        self, group: PackageSet, disk: Mapping[str, Sequence[Package]], began: Mapping[str, Sequence[Package]]
    ) -> None:
        """Add the CVEs closed by the host's versions that are newer than the group's, or than those with which it began."""
        for source, packages in self._host.items():
            others = () if group.same else disk.get(source, ())
            before = [each.source_version for each in (*began.get(source, ()), *others)]
            if not before:
                continue
            old = _oldest(before)
            if order.compare(_latest(packages), old) <= 0:
                continue
            if (source, old) not in self._looked:
                log = self._shelf.of(source, packages)
                self._looked[source, old] = _missing(source, packages, log, old)
                for cve, mention in log.closed_since(old).items() if isinstance(log, Changelog) else ():
                    self._add(self._shared, source, cve, mention, log if isinstance(log, Changelog) else None)
            group.unread += self._looked[source, old]

    def _closed_in(self, group: PackageSet, disk: Mapping[str, Sequence[Package]], own: Candidates) -> None:
        """Add the CVEs closed by the group's versions that are newer than the host's."""
        for source, packages in _ahead(group, disk, self._host):
            if source in self._host:
                old = _latest(self._host[source])
                log = group.shelf.of(source, packages)
                group.unread += _missing(source, packages, log, old)
                if isinstance(log, Changelog) and sum(map(len, own.values())) <= _MOST_OWN:
                    for cve, mention in log.closed_since(old).items():
                        self._add(own, source, cve, mention, log)

    def _search(self) -> None:
        """Look for the CVEs that are asked for in all changelogs of the host, and in the data."""
        for source, packages in self._host.items():
            log = self._shelf.of(source, packages)
            for cve in self._only.intersection(log.mentions) if isinstance(log, Changelog) else ():
                assert isinstance(log, Changelog)
                self._add(self._shared, source, cve, log.told(cve), log)
        self.named |= {cve for holes in self._holes.values() for cve in holes} & self._only

    def _search_own(self, group: PackageSet, disk: Mapping[str, Sequence[Package]], own: Candidates) -> None:
        for source, packages in _ahead(group, disk, self._host):
            log = group.shelf.of(source, packages)
            if isinstance(log, str):
                group.unread.append(Unread(source, tuple(sorted({each.name for each in packages})), log))
                continue
            for cve in self._only.intersection(log.mentions):
                self._add(own, source, cve, log.told(cve), log)

    def _of_data(self, disk: Mapping[str, Sequence[Package]], began: Mapping[str, Sequence[Package]]) -> None:
        """Add the CVEs that the data knows of the packages: each one that they have, or had when the containers began."""
        for packages in (disk, began):
            for source, present in packages.items():
                key: tuple[str | Package, ...] = (source, *present)
                if key in self._judged:
                    continue
                self._judged.add(key)
                for name in {source, *(each.name for each in present)}:
                    for cve, holes in self._holes.get(name, {}).items():
                        if not self._only or cve in self._only:
                            mine = tuple(hole for hole in holes if self._only or any(_has(hole, each) for each in present))
                            if mine:
                                self._add(self._shared, source, cve, None, None, mine)

    def _add(
        self, where: Candidates, source: str, cve: str, mention: Mention | None, log: Changelog | None,
        holes: tuple[Hole, ...] = (),
    ) -> None:
        known = where.setdefault(source, {}).get(cve)
        if known is not None:
            mention, log = (known.mention, known.log) if known.mention is not None else (mention, log)
            holes = tuple(dict.fromkeys((*known.holes, *holes)))
        elif not holes:
            holes = tuple(self._holes.get(source, {}).get(cve, ()))
        where[source][cve] = _Candidate(cve, mention, log, holes)
        self.named |= {cve} & self._only

    # -- what they have ----------------------------------------------------------------------------------------

    def _evaluate(self, group: PackageSet, own: Candidates) -> None:
        disk, began = by_source(_newest(group.disk.values())), _by_source(group.began)
        self._new = 0
        if sum(map(len, own.values())) > _MOST_OWN:
            raise _TooMuchError
        for source, packages in disk.items():
            if source not in self._shared and source not in own:
                continue
            before = None if group.began is None else tuple(sorted(began.get(source, ())))
            differs = group.base is not None and not set(packages) <= set(group.base.values())
            key = (source, tuple(sorted(packages)), before, differs)
            mine = own.get(source, {})
            if mine:
                group.results += self._results(source, packages, before, mine, own=differs, alike={})
            if source in self._shared:
                if key not in self._known:
                    shared = self._shared[source]
                    self._known[key] = self._results(source, packages, before, shared, own=differs, alike=self._alike)
                group.results += [each for each in self._known[key] if not mine or self.results[each].cve not in mine]

    def _results(
        self, source: str, packages: Sequence[Package], before: Sequence[Package] | None, of: Mapping[str, _Candidate],
        *, own: bool, alike: dict[tuple[object, ...], int],
    ) -> list[int]:  # fmt: skip
        """Their indices. ``alike``: those that are known, as many sets have the same ones."""
        found = []
        names = tuple(sorted({each.names for each in packages}))
        for candidate in of.values():
            with_fix = self._complete(source, candidate)
            without = tuple(each for each in packages if self._lacks(each, with_fix))
            mention = with_fix.mention
            doubt = not with_fix.holes and mention is not None and mention.kind is not MentionKind.CLOSED
            if doubt:
                disk = FixState.DOUBT
            elif without:
                disk = FixState.FIXABLE if self._fix_is_known(source, with_fix) else FixState.OPEN
            else:
                disk = FixState.FIXED
            sure = bool(before) and {each.name for each in packages} <= {each.name for each in before or ()}
            began = sure and not doubt and not any(self._lacks(each, with_fix) for each in before or ())
            without = () if doubt else without
            key = (source, candidate.cve, names, disk, own, began, without)
            if key not in alike:
                alike[key] = len(self.results)
                self._new += 1 + len(packages)
                if self._new > _MOST_NEW:
                    raise _TooMuchError
                closed = mention is not None and mention.kind is MentionKind.CLOSED
                self.results.append(
                    CveResult(
                        candidate.cve, source, tuple(packages), disk, own, began, without,
                        mention.version if mention is not None and closed else "", mention.line if mention else "",
                        mention.kind if mention else None, with_fix.holes,
                    )
                )  # fmt: skip
            found.append(alike[key])
        return found

    def _complete(self, source: str, candidate: _Candidate) -> _Candidate:
        """With the words of the host's changelog, if that came after the data, which can't know of it then."""
        if candidate.mention is not None or source not in self._host:
            return candidate
        if not any(_has(hole, each) for hole in candidate.holes for each in self._host[source]):
            return candidate
        log = self._shelf.of(source, self._host[source])
        if isinstance(log, Changelog) and log.date > self._moment and (told := log.told(candidate.cve)) is not None:
            return candidate._replace(mention=told, log=log)
        return candidate

    def _lacks(self, package: Package, candidate: _Candidate) -> bool:
        mention, log = candidate.mention, candidate.log
        closed = mention is not None and mention.kind is MentionKind.CLOSED
        later = mention is None or log is None or not _includes(log, package, mention.version)
        if candidate.holes:
            newer = closed and log is not None and log.date > self._moment
            return any(_has(hole, package) for hole in candidate.holes) and (later or not newer)
        return closed and later

    def _fix_is_known(self, source: str, candidate: _Candidate) -> bool:
        if any(hole.fixed for hole in candidate.holes) or not candidate.holes:
            return True
        return source in self._host and not any(self._lacks(each, candidate) for each in self._host[source])


def _includes(log: Changelog, package: Package, change: str) -> bool:
    """Whether a package has what an entry tells. A build without a change of the source may have an entry of its own."""
    return log.includes(package.source_version, change) or (
        package.version in log.versions and log.includes(package.version, change)
    )


def _has(hole: Hole, package: Package) -> bool:
    if hole.binary:
        return package.name == hole.package and hole.has(package.version)
    return package.source == hole.package and hole.has(package.source_version)


def _holes_by_cve(data: Data | None) -> dict[str, dict[str, list[Hole]]]:
    found: dict[str, dict[str, list[Hole]]] = {}
    for name, holes in data.holes.items() if data else ():
        for hole in holes:
            found.setdefault(name, {}).setdefault(hole.cve, []).append(hole)
    return found


def _newest(packages: Iterable[Package]) -> list[Package]:
    """Without kernels of which a newer version is there: Debian leaves the old ones installed, beside the new one."""
    found: list[Package] = []
    kernels: dict[str, list[Package]] = {}
    for package in packages:
        if reboot.is_kernel(package.name):
            kernels.setdefault(package.source, []).append(package)
        else:
            found.append(package)
    for same in kernels.values():
        latest = _latest(same)
        found += [each for each in same if each.source_version == latest]
    return found


def _by_source(packages: Set | None) -> dict[str, list[Package]]:
    return {} if packages is None else by_source(_newest(packages.values()))


def _ahead(
    group: PackageSet, disk: Mapping[str, Sequence[Package]], host: Mapping[str, Sequence[Package]]
) -> Iterable[tuple[str, Sequence[Package]]]:
    """The sources of which a group has newer packages than the host, or which the host does not have."""
    if not group.same:
        for source, packages in disk.items():
            if source not in host or order.compare(_latest(packages), _latest(host[source])) > 0:
                yield source, packages


def _missing(source: str, packages: Sequence[Package], log: Changelog | str, old: str) -> list[Unread]:
    """That a changelog does not tell all that came after the version ``old``."""
    names = tuple(sorted({each.name for each in packages}))
    if isinstance(log, str):
        return [Unread(source, names, log)]
    if not log.reaches(old):
        why = "is cut: older entries were removed" if log.cut else "has no entry of it or of an older one"
        return [Unread(source, names, f"its changelog does not reach back to {old}: it {why}")]
    return []


def _latest(packages: Iterable[Package]) -> str:
    found = ""
    for each in packages:
        if not found or order.compare(each.source_version, found) > 0:
            found = each.source_version
    return found


def _oldest(versions: Iterable[str]) -> str:
    found = ""
    for each in versions:
        if not found or order.compare(each, found) < 0:
            found = each
    return found
