"""The host's packages at containers' last starts, beside the present ones; for the process that looks at containers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lxcfleet.base.merge import reconcile
from lxcfleet.base.merge.records import STATUS, versions
from lxcfleet.paths import Paths


class Versions:
    """Knows which packages have the version that a container began with. Each record is read once, and only if needed."""

    def __init__(self, paths: Paths, status: Path = Path(STATUS)) -> None:
        """``status``: dpkg's present record."""
        self._paths, self._status = paths, status
        self._now: Mapping[str, str] | None = None
        self._bases: dict[str, Mapping[str, str]] = {}

    def as_at_start(self, name: str, package: str) -> bool:
        """Whether the package has the same version on the host as at the last start of the container ``name``.

        False if that is not known. ``package``: as dpkg names its list, with or without an architecture.
        """
        if self._now is None:
            self._now = self._read_now()
        base = reconcile.last_base(self._paths, name)
        if base not in self._bases:
            status = reconcile.file_at_last_start(self._paths, name, STATUS)
            self._bases[base] = {} if status is None else versions(status)
        before = _of(package, self._bases[base])
        return bool(before) and before == _of(package, self._now)

    def _read_now(self) -> Mapping[str, str]:
        try:
            return versions(self._status.read_bytes())
        except OSError:
            return {}


def _of(package: str, known: Mapping[str, str]) -> dict[str, str]:
    """The versions of a package by its full name; of all architectures, if it is given without one."""
    return {name: version for name, version in known.items() if package in (name, name.partition(":")[0])}
