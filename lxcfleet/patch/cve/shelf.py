"""The changelogs that a base and a container have on disk; read by a child of the launcher.

A container chooses what is in its delta: no link leads out of its layers, and bytes and seconds are limited.
"""

from __future__ import annotations

import os
import stat
import time
import zlib
from collections.abc import Collection, Iterable, Sequence
from typing import Protocol

from lxcfleet.base.present import Bottom, Present, Upper
from lxcfleet.patch.cve import changelog
from lxcfleet.patch.cve.changelog import Changelog
from lxcfleet.patch.cve.inventory import Package

_DOC = "/usr/share/doc"
_NAMES = ("changelog.Debian.gz", "changelog.gz", "changelog.Debian", "changelog")
"""A native package has the second; Debian Policy, section 12.7."""
_MOST_PACKED = 8 << 20
_MOST = 32 << 20
"""Bytes of one changelog, as it is on disk and unpacked; what is over that is cut. Debian's longest has 2 and 6 MiB."""
_MOST_TRIED = 40
"""How many packages of one source are looked at for its changelog."""
_OWN_BYTES = 64 << 20
_OWN_SECONDS = 3.0
"""The bytes and the seconds that all changelogs of one container's own may take."""


class Files(Protocol):
    """Where files of packages are found."""

    def read(self, path: str, most: int) -> bytes | None:
        """At most so many bytes of the regular file at ``path``, links followed; None: there is none. Raises OSError."""


class OfBase:
    """The files of the host, or of a generation: only root writes there."""

    def __init__(self, bottom: Bottom) -> None:
        self._tree = bottom.layer.tree()

    def read(self, path: str, most: int) -> bytes | None:
        """See Files."""
        place = self._tree.real(path, last=True)
        if not self._tree.is_file(place):
            return None
        with open(os.open(self._tree.outside(place), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            return file.read(most)


class OfContainer:
    """The files that a container has, in whichever layer."""

    def __init__(self, present: Present) -> None:
        self._present = present
        self._base = OfBase(present.bottom)
        self._left, self._deadline = _OWN_BYTES, time.monotonic() + _OWN_SECONDS

    def read(self, path: str, most: int) -> bytes | None:
        """See Files. Raises TimeoutError once all limits of the container are used up."""
        if self._left <= 0 or time.monotonic() > self._deadline:
            raise TimeoutError("the changelogs of its own are more than are read")
        place = self._present.resolve(path)
        found = self._present.find(place)
        layer = self._present.opened(found.layer)
        if found.status is None or not stat.S_ISREG(found.status.st_mode):
            return None
        if layer is self._present.bottom:
            return self._base.read(place, most)
        if not isinstance(layer, Upper):
            return None
        with layer.opened(place) as handle:
            if handle is None or not stat.S_ISREG(os.fstat(handle).st_mode):
                return None
            with open(f"/proc/self/fd/{handle}", "rb") as file:
                text = file.read(min(most, self._left))
        self._left -= len(text)
        return text

    def charge(self, count: int) -> None:
        """Count bytes that came of what was read."""
        self._left -= count


class ChangelogShelf:
    """The changelogs of one set of packages, each read once."""

    def __init__(self, files: Files, only: Sequence[str] = ()) -> None:
        """``only``: no other CVEs count."""
        self._files, self._only = files, tuple(only)
        self._known: dict[str, Changelog | str] = {}

    def of(self, source: str, packages: Collection[Package]) -> Changelog | str:
        """The changelog of a source, from one of ``packages`` that were built from it; else in words why there is none."""
        if source not in self._known:
            self._known[source] = self._look(source, packages)
        return self._known[source]

    def _look(self, source: str, packages: Collection[Package]) -> Changelog | str:
        why = "it has no changelog"
        for package in sorted(packages)[:_MOST_TRIED]:
            for path in _places(package):
                try:
                    text, whole = self._text(path)
                except (OSError, zlib.error, EOFError) as error:
                    why = f"its changelog can't be read ({error})"
                    continue
                found = changelog.parse(text, whole=whole, only=self._only) if text else None
                if found is None:
                    continue
                if found.source == source and is_of(found, package):
                    return found
                why = f"its changelog is that of {found.source} {found.versions[0]}"
        return why

    def _text(self, path: str) -> tuple[bytes, bool]:
        """The text of a changelog, and whether it is whole. An empty one: there is none."""
        packed = self._files.read(path, _MOST_PACKED + 1)
        if packed is None:
            return b"", True
        if not path.endswith(".gz"):
            return packed[:_MOST_PACKED], len(packed) <= _MOST_PACKED
        worker = zlib.decompressobj(31)
        text = worker.decompress(packed, _MOST)
        if isinstance(self._files, OfContainer):
            self._files.charge(len(text))
        return text, worker.eof


def is_of(found: Changelog, package: Package) -> bool:
    """Whether a changelog belongs to the version of a package. A build without a change of the source has a version, and
    at times an entry, of its own."""
    return any(version in (package.source_version, package.version) for version in found.versions[:2])


def _places(package: Package) -> Iterable[str]:
    return (f"{_DOC}/{package.name}/{name}" for name in _NAMES)
