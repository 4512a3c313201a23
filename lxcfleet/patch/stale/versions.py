"""The host's packages at containers' last starts, beside the present ones; for the process that looks at containers."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

from lxcfleet.base.merge import reconcile
from lxcfleet.base.merge.records import STATUS, taking_over, versions
from lxcfleet.host.kernel import syscalls
from lxcfleet.paths import Paths

_DOCUMENTATION = Path("/usr/share/doc")


class Versions:
    """Knows which packages have the version that a container began with. Each record is read once, and only if needed."""

    def __init__(self, paths: Paths, status: Path = Path(STATUS), documentation: Path = _DOCUMENTATION) -> None:
        """``status``: dpkg's present record; ``documentation``: where each package has a directory."""
        self._paths, self._status, self._documentation = paths, status, documentation
        self._now: Mapping[str, str] | None = None
        self._takers: set[str] = set()
        self._bases: dict[str, Mapping[str, str]] = {}

    def as_at_start(self, name: str, package: str) -> bool:
        """Whether the package has the same version on the host as at the last start of the container ``name``.

        False if that is not known. ``package``: as dpkg names its list, with or without an architecture.
        """
        before = _of(package, self._before(name))
        return bool(before) and before == _of(package, self._present())

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
            status = reconcile.file_at_last_start(self._paths, name, STATUS)
            self._bases[base] = {} if status is None else versions(status)
        return self._bases[base]

    def _present(self) -> Mapping[str, str]:
        if self._now is None:
            try:
                status = self._status.read_bytes()
            except OSError:
                status = b""
            self._now, self._takers = versions(status), taking_over(status)
        return self._now


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
