"""debsecan's data: which versions of Debian's packages have which CVEs. Pure.

The security tracker writes one file for each suite. It is a zlib stream of text with a first line ``VERSION 0`` or
``VERSION 1``, as debsecan 0.2 and 0.4.20 read it:

    VERSION 0   bug,flags,package,version,description                   one line for each bug and package
    VERSION 1   bug,flags,description                                   bugs, numbered from 0; then an empty line
                package,number of the bug,flags,version,other versions  then an empty line
                source package,its binary packages

Flags are four characters: B for a binary package; the urgency, L, M or H; R if it can be used over a network, ? if that is
not known; F if the suite has a version with the fix. A package of a version older than ``version`` is vulnerable, unless
its version is one of the other ones. Without a version all are.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from lxcfleet.host.packages import order

_HEAD = "VERSION "
_MOST = 256 << 20
"""Bytes of the text; that of Debian 12 has 12 MiB."""
_URGENCY = {"L": "low", "M": "medium", "H": "high"}
_REMOTE = {"R": True, " ": False}
_FLAGS = 4
_DESCRIPTION = 200


@dataclass(frozen=True)
class Hole:
    """A CVE in one package."""

    cve: str
    package: str
    """The source package, unless ``binary``."""
    binary: bool
    before: str
    """Versions before this one have it; empty: all do."""
    others: tuple[str, ...]
    """Versions that do not have it, besides."""
    fixed: bool
    """Whether the suite has a version with the fix."""
    urgency: str
    remote: bool | None
    description: str

    def has(self, version: str) -> bool:
        """Whether the package of this version is vulnerable."""
        if any(order.compare(version, other) == 0 for other in self.others):
            return False
        return not self.before or order.compare(version, self.before) < 0


def unpack(packed: bytes) -> bytes:
    """The text of a file of data. Raises ValueError."""
    try:
        worker = zlib.decompressobj()
        text = worker.decompress(packed, _MOST)
    except zlib.error as error:
        raise ValueError(f"it is no zlib stream ({error})") from error
    if worker.unconsumed_tail:
        raise ValueError(f"it has more than {_MOST >> 20} MiB")
    if not worker.eof:
        raise ValueError("its end is missing")
    return text


def parse(text: bytes, packages: Collection[str], cves: Collection[str] = ()) -> dict[str, list[Hole]]:
    """The holes of these source and binary packages, by package; ``cves``: of all packages these ones, too.

    Raises ValueError.
    """
    head, _, body = text.decode("utf-8", "replace").partition("\n")
    try:
        if head == f"{_HEAD}0":
            return _by_package(_old(body, packages, cves))
        if head == f"{_HEAD}1":
            return _by_package(_new(body, packages, cves))
    except (IndexError, ValueError) as error:
        raise ValueError(f"its records make no sense ({error})") from error
    raise ValueError(f"its first line is {head[:40]!r}, and only versions 0 and 1 of the form are known")


def _old(body: str, packages: Collection[str], cves: Collection[str]) -> Iterator[Hole]:
    for line in body.split("\n"):
        if line:
            bug, flags, package, version, description = line.split(",", 4)
            if package in packages or bug in cves:
                yield _hole(bug, package, flags, version, (), description)


def _new(body: str, packages: Collection[str], cves: Collection[str]) -> Iterator[Hole]:
    bugs, empty, rest = body.partition("\n\n")
    if not empty:
        raise ValueError("it has no list of packages")
    names = bugs.split("\n")
    for line in rest.partition("\n\n")[0].split("\n"):
        if not line:
            continue
        package, number, flags, before, others = line.split(",", 4)
        if not number.isdigit():
            raise ValueError(f"{number[:20]!r} is no number of a bug")
        if package in packages or cves:
            bug, _, description = names[int(number)].split(",", 2)
            if package in packages or bug in cves:
                yield _hole(bug, package, flags, before, others.split(" ") if others else (), description)


def _hole(bug: str, package: str, flags: str, before: str, others: Sequence[str], description: str) -> Hole:
    if len(flags) < _FLAGS:
        raise ValueError(f"{flags!r} are no flags")
    return Hole(
        bug, package, flags[0] == "B", before, tuple(others), flags[3] == "F", _URGENCY.get(flags[1], ""),
        _REMOTE.get(flags[2]), description[:_DESCRIPTION],
    )  # fmt: skip


def _by_package(holes: Iterator[Hole]) -> dict[str, list[Hole]]:
    found: dict[str, list[Hole]] = {}
    for hole in holes:
        found.setdefault(hole.package, []).append(hole)
    return found

