"""The host's packages at containers' last starts, beside the present ones; for the process that looks at containers."""

from __future__ import annotations

import bisect
import math
import stat
from collections.abc import Mapping, Set
from pathlib import Path

from lxcfleet.base.merge import reconcile
from lxcfleet.base.merge.records import STATUS, taking_over, versions
from lxcfleet.host.kernel import syscalls
from lxcfleet.host.packages.sightings import GONE, Sighting
from lxcfleet.patch.stale.served import SLACK_SECONDS
from lxcfleet.paths import Paths

_DOCUMENTATION = Path("/usr/share/doc")


class Versions:
    """Knows which packages have the version that a container began with. Each record is read once, and only if needed."""

    def __init__(
        self,
        paths: Paths,
        status: Path = Path(STATUS),
        documentation: Path = _DOCUMENTATION,
        *,
        sightings: Mapping[str, Sighting] | None = None,
    ) -> None:
        """``status``: dpkg's present record; ``documentation``: where each package has a directory; ``sightings``: when
        packages were first seen in their present state."""
        self._paths, self._status, self._documentation = paths, status, documentation
        self._sightings = sightings or {}
        self._moments = sorted(sighting.stamp for sighting in self._sightings.values())
        self._recent: dict[tuple[int, int], tuple[Set[str], float]] = {}
        self._differing: dict[str, Set[str] | None] = {}
        self._records: dict[str, bytes | None] = {}
        self._read: bytes | None = None
        self._now: Mapping[str, str] | None = None
        self._takers: set[str] = set()
        self._bases: dict[str, Mapping[str, str]] = {}

    def as_at_start(self, name: str, package: str) -> bool:
        """Whether the package has the same version on the host as at the last start of the container ``name``.

        False if that is not known. ``package``: as dpkg names its list, with or without an architecture.
        """
        before = _of(package, self._before(name))
        return bool(before) and before == _of(package, self._present())

    def is_settled(self, name: str, since: float, began: float) -> bool:
        """Whether all packages that by their times may have changed after the start of the container ``name`` were there
        before it, in their present state: then files that are older than the start are those that it was mounted with.

        ``since``: the start in seconds since the epoch; ``began``: the same since the machine booted. False if that is not
        known. A package that comes between the mount and the start has another version than at the mount.
        """
        recent, seen = self._lately(since)
        if seen >= began:
            return False
        changed = self._changed(name) if recent else frozenset()
        return changed is not None and not changed & recent

    def _lately(self, since: float) -> tuple[Set[str], float]:
        """The packages that may have changed after a start at ``since``, and when the last of them was seen first."""
        first, last = (int((since + sign * SLACK_SECONDS) * 1e9) for sign in (-1, 1))
        part = bisect.bisect(self._moments, first), bisect.bisect(self._moments, last)
        if part not in self._recent:  # containers began between the same changes, most often
            every = self._sightings.items()
            recent = {package: each.seen for package, each in every if each.stamp == GONE or first < each.stamp <= last}
            self._recent[part] = recent.keys(), max(recent.values(), default=-math.inf)
        return self._recent[part]

    def _changed(self, name: str) -> Set[str] | None:
        """The packages whose versions differ from those at the last start of a container, by all their names; None if the
        former ones are not known."""
        base = reconcile.last_base(self._paths, name)
        if base not in self._differing:
            record = self._record_before(name)
            if record is None or record == self._content():  # most often: to take both apart takes as long as all processes
                self._differing[base] = None if record is None else frozenset()
            else:
                before, now = self._before(name), self._present()
                differing = {each for each in before.keys() | now.keys() if before.get(each) != now.get(each)}
                self._differing[base] = differing | {each.partition(":")[0] for each in differing}
        return self._differing[base]

    def is_new(self, name: str, package: str, path: str, since: float) -> bool:
        """Whether the package, which has the file ``path``, came to the host after ``since``, in seconds since the epoch, and
        after the last start of the container ``name``: a process that is older has not read the file. False if that is not
        known.

        A package that may have taken files from another one does not count. dpkg makes the directory of a package's
        documentation, and that of its modules, with its first installation, and keeps both when it installs another version.
        """
        before = self._before(name)
        now = _of(package, self._present())
        if not before or _of(package, before) or not now or now.keys() & self._takers:
            return False
        documentation = self._documentation / package.partition(":")[0]
        return any(_born_since(each, since) for each in (documentation, Path(path).parent))

    def _before(self, name: str) -> Mapping[str, str]:
        """The packages at the last start of a container; none if they are not known."""
        base = reconcile.last_base(self._paths, name)
        if base not in self._bases:
            self._bases[base] = versions(self._record_before(name) or b"")
        return self._bases[base]

    def _record_before(self, name: str) -> bytes | None:
        """dpkg's record at the last start of a container; None if it is not known."""
        base = reconcile.last_base(self._paths, name)
        if base not in self._records:
            self._records = {base: reconcile.file_at_last_start(self._paths, name, STATUS)}  # one: they are large
        return self._records[base]

    def _present(self) -> Mapping[str, str]:
        if self._now is None:
            status = self._content()
            self._now, self._takers = versions(status), taking_over(status)
        return self._now

    def _content(self) -> bytes:
        """dpkg's present record."""
        if self._read is None:
            try:
                self._read = self._status.read_bytes()
            except OSError:
                self._read = b""
        return self._read


def _of(package: str, known: Mapping[str, str]) -> dict[str, str]:
    """The versions of a package by its full name; of all architectures, if it is given without one."""
    return {name: version for name, version in known.items() if package in (name, name.partition(":")[0])}


def _born_since(directory: Path, moment: float) -> bool:
    """Whether this is a directory, and made since. A link would be made anew with each version."""
    try:
        if not stat.S_ISDIR(directory.lstat().st_mode):
            return False
    except OSError:
        return False
    born = syscalls.born(str(directory))
    return born is not None and born > moment
