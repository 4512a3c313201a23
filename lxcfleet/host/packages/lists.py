"""The files of packages, from the lists that dpkg keeps: without a program, as they are read often."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

INFO = Path("/var/lib/dpkg/info")
_LIST = ".list"

GENERATED = {"ca-certificates": ("/etc/ssl/certs",)}
"""Directories of files that packages' scripts make; dpkg does not list these files."""


def changed_since(moment: float, info: Path = INFO) -> dict[str, list[str]]:
    """The files of each package that was installed after ``moment``, in seconds since the epoch, directories among them.

    dpkg writes a package's list anew whenever it installs it, also in the same version.
    """
    found = {}
    for entry in _entries(info):
        if entry.name.endswith(_LIST) and entry.stat().st_mtime > moment:
            found[entry.name.removesuffix(_LIST)] = _read(Path(entry.path))
    return found


def of(packages: Iterable[str], info: Path = INFO) -> dict[str, list[str]]:
    """The files of each of these packages, by the names that dpkg-query has for them."""
    return {package: _read(info / f"{package}{_LIST}") for package in packages}


def generated(info: Path = INFO) -> Iterator[tuple[str, str]]:
    """Package and path of each file that a package's scripts made."""
    for package, directories in GENERATED.items():
        if (info / f"{package}{_LIST}").exists():
            for directory in directories:
                yield from ((package, entry.path) for entry in _entries(Path(directory)))


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except OSError:
        return []


def _read(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    return [line for line in lines if line.startswith("/")]
