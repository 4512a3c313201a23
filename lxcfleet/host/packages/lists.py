"""The files of packages, from the lists that dpkg keeps: without a program, as they are read often."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

INFO = Path("/var/lib/dpkg/info")
LIST = ".list"
ALTERNATIVES = Path("/etc/alternatives")

GENERATED = {"ca-certificates": ("/etc/ssl/certs",), "ca-certificates-java": ("/etc/ssl/certs/java",)}
"""Directories of files that packages' scripts make; dpkg does not list these files."""


def changed_since(moment: float, info: Path = INFO) -> dict[str, list[str]]:
    """The files of each package that was installed after ``moment``, in seconds since the epoch, directories among them.

    dpkg writes a package's list anew whenever it installs it, also in the same version. It renames the new list to its
    place, which changes the directory, so most calls need not look at each list.
    """
    found: dict[str, list[str]] = {}
    if _changed(info) <= moment * 1e9:
        return found
    for entry in _entries(info):
        if entry.name.endswith(LIST) and (_modified(entry) or 0) > moment * 1e9:
            found[entry.name.removesuffix(LIST)] = _read(Path(entry.path))
    return found


def of(packages: Iterable[str], info: Path = INFO) -> dict[str, list[str]]:
    """The files of each of these packages, by the names that dpkg-query has for them."""
    return {package: _read(info / f"{package}{LIST}") for package in packages}


def every(info: Path = INFO) -> Iterator[str]:
    """The files of all packages, directories among them."""
    for entry in _entries(info):
        if entry.name.endswith(LIST):
            yield from _read(Path(entry.path))


def changes(info: Path = INFO) -> list[int]:
    """Times that differ as soon as a package's list, or a file that its scripts make, comes or goes."""
    return [_changed(info), *(_changed(Path(each)) for directories in GENERATED.values() for each in directories)]


def stamps(info: Path = INFO) -> dict[str, int]:
    """By package, the time of its list, in nanoseconds since the epoch, or of the files that its scripts make, if later."""
    found = {}
    for entry in _entries(info):
        modified = _modified(entry) if entry.name.endswith(LIST) else None
        if modified is not None:
            package = entry.name.removesuffix(LIST)
            found[package] = max(modified, *(_changed(Path(each)) for each in GENERATED.get(package, ())), 0)
    return found


def generated(info: Path = INFO) -> Iterator[tuple[str, str]]:
    """Package and path of each file that a package's scripts made."""
    for package, directories in GENERATED.items():
        if (info / f"{package}{LIST}").exists():
            for directory in directories:
                yield from ((package, entry.path) for entry in _entries(Path(directory)))


def alternatives(directory: Path = ALTERNATIVES) -> dict[str, str]:
    """The links of update-alternatives(1), each with where it leads. Packages' scripts switch them, and dpkg lists none."""
    found = {}
    for entry in _entries(directory):
        with suppress(OSError):
            found[entry.path] = os.readlink(entry.path)
    return found


def _modified(entry: os.DirEntry[str]) -> int | None:
    """In nanoseconds since the epoch; None: it is gone, as dpkg may remove its package at this moment."""
    try:
        return entry.stat().st_mtime_ns
    except OSError:
        return None


def _changed(directory: Path) -> int:
    try:
        return directory.stat().st_mtime_ns
    except OSError:
        return 0


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
