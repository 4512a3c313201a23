"""Which packages would lack what they depend on: relations between the packages of one dpkg status file. Pure.

A container's root has written the file, so whatever is read is capped; what is beyond that is not judged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from lxcfleet.base.merge.records import Entries, stanzas
from lxcfleet.host.packages import order

MOST_PACKAGES = 20_000
_MOST_STEPS = 1_000_000
"""Comparisons of versions and names for one container. 2,000 packages take some 20,000."""
_MOST_FIELD = 1 << 16
"""Characters of one field of relations; Debian's longest have 8,000."""
MOST_TOLD = 10
_LONGEST = 200
"""Characters of one that is told."""
_THERE = ("installed", "triggers-awaited", "triggers-pending")
"""States in which a package satisfies what depends on it; dpkg(1)."""
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]{0,127}")
_RELATION = re.compile(
    r"\s*(?P<name>[a-z0-9][a-z0-9+.-]*)(?::(?P<architecture>[a-z0-9-]+))?"
    r"\s*(?:\(\s*(?P<sign><<|<=|=|>=|>>|<|>)\s*(?P<version>[^\s()]+)\s*\))?"
)
"""One alternative of deb-control(5)'s Depends and the like. dpkg's status has no restrictions of architectures in it."""
_FIELDS = frozenset((
    b"package", b"architecture", b"version", b"status", b"multi-arch", b"pre-depends", b"depends", b"breaks", b"conflicts",
    b"provides",
))  # fmt: skip


class TooMuch(Exception):
    """A file has more in it than is looked at."""


# -- versions ------------------------------------------------------------------------------------------------

def holds(version: str, sign: str, wanted: str) -> bool:
    """Whether ``version`` is one that the relation names; ``<`` and ``>`` are old signs for ``<=`` and ``>=``."""
    later = order.compare(version, wanted)
    match sign:
        case "<<":
            return later < 0
        case "<=" | "<":
            return later <= 0
        case "=":
            return later == 0
        case ">=" | ">":
            return later >= 0
        case _:
            return later > 0


# -- packages ------------------------------------------------------------------------------------------------


class Relation(NamedTuple):
    """One package that is named in a relation."""

    name: str
    architecture: str
    """Empty: that of the package which has the relation."""
    sign: str
    """Empty: in any version."""
    version: str

    def __str__(self) -> str:
        return f"{self.name} ({self.sign} {self.version})" if self.sign else self.name


@dataclass(frozen=True)
class InstalledPackage:
    """An installed package."""

    name: str
    architecture: str
    version: str
    foreign: bool
    """Whether it serves packages of all architectures (Multi-Arch: foreign)."""
    needs: tuple[tuple[Relation, ...], ...]
    """Alternatives, one of each of which it depends on."""
    against: tuple[Relation, ...]
    """The packages that it breaks, or conflicts with."""
    provides: tuple[Relation, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass
class World:
    """The installed packages of one status file."""

    entries: Entries
    """The records, by NAME:ARCHITECTURE."""
    packages: dict[str, InstalledPackage] = field(default_factory=dict)
    _having: dict[str, list[tuple[InstalledPackage, str | None]]] = field(default_factory=dict)
    """By name, what has it, and in which version; None: in none, as it is provided without one."""
    steps: int = 0

    @classmethod
    def of(cls, status: bytes) -> World:
        """That of a status file. Raises TooMuch."""
        if status.count(b"\n\n") > MOST_PACKAGES:
            raise TooMuch(f"dpkg's records have more than {MOST_PACKAGES} packages")
        world = cls(stanzas(status))
        for key, stanza in world.entries.items():
            package = _package(stanza)
            if package is None:
                continue
            world.packages[key] = package
            world._having.setdefault(package.name, []).append((package, package.version))
            for each in package.provides:
                world._having.setdefault(each.name, []).append((package, each.version or None))
        return world

    def lacking(self, key: str) -> set[tuple[Relation, ...]]:
        """The dependencies of a package that are not there."""
        package = self.packages.get(key)
        if package is None:
            return set()
        return {each for each in package.needs if not any(self._there(package, relation) for relation in each)}

    def hit(self, key: str) -> set[tuple[Relation, str]]:
        """The relations by which a package breaks, or conflicts with, another one that is there: each with the
        NAME:ARCHITECTURE of that package."""
        package = self.packages.get(key)
        if package is None:
            return set()
        return {
            (relation, f"{other.name}:{other.architecture}")
            for relation in package.against
            for other, version in self._named(relation)
            # A package never breaks or conflicts with itself, nor with another architecture's package of its name.
            if other.name != package.name and _meant(relation, version)
        }

    def versions(self, name: str) -> list[str]:
        """The versions in which packages of this name are installed."""
        return sorted({version for package, version in self._having.get(name, ()) if version and package.name == name})

    def _there(self, package: InstalledPackage, relation: Relation) -> bool:
        return any(
            _meant(relation, version) and _serves(package, relation, other) for other, version in self._named(relation)
        )

    def _named(self, relation: Relation) -> Iterator[tuple[InstalledPackage, str | None]]:
        self.steps += 1
        for each in self._having.get(relation.name, ()):
            self.steps += 1
            if self.steps > _MOST_STEPS:
                raise TooMuch("dpkg's records have too many relations between packages")
            yield each


def _meant(relation: Relation, version: str | None) -> bool:
    if not relation.sign:
        return True
    return version is not None and holds(version, relation.sign, relation.version)


def _serves(package: InstalledPackage, relation: Relation, other: InstalledPackage) -> bool:
    """Whether ``other`` is of an architecture that counts; deb-control(5), and dpkg's deppossi."""
    if relation.architecture in ("any", "native") or other.foreign:
        return True
    wanted = relation.architecture or package.architecture
    return wanted in ("all", "", other.architecture) or other.architecture == "all"


@lru_cache(maxsize=8192)
def _package(stanza: bytes) -> InstalledPackage | None:
    """The installed package that a record is of; None: it is of none. Containers share most records with their bases."""
    fields: dict[bytes, bytes] = {}
    name = b""
    for line in stanza.split(b"\n"):
        if line.startswith((b" ", b"\t")):
            if name in fields and len(fields[name]) < _MOST_FIELD:
                fields[name] += line  # deb822 lets a field go on in the next line
            continue
        word, colon, value = line.partition(b":")
        name = word.lower()
        if colon and name in _FIELDS:
            fields[name] = value.strip()
    found = {name.decode(): value[:_MOST_FIELD].decode("utf-8", "replace") for name, value in fields.items()}
    if not _NAME.fullmatch(found.get("package", "")) or found.get("status", "").rpartition(" ")[2] not in _THERE:
        return None
    needs = [group for key in ("pre-depends", "depends") for group in _groups(found.get(key, ""))]
    against = [each for key in ("breaks", "conflicts") for group in _groups(found.get(key, "")) for each in group]
    return InstalledPackage(
        found["package"], found.get("architecture", ""), found.get("version", ""),
        found.get("multi-arch", "").lower() == "foreign", tuple(needs), tuple(against),
        tuple(each for group in _groups(found.get("provides", "")) for each in group),
    )  # fmt: skip


def _groups(text: str) -> Iterator[tuple[Relation, ...]]:
    """The parts of a field; a part with something in it that is not understood is left out."""
    for part in text.split(",") if text.strip() else ():
        matches = [_RELATION.fullmatch(each.strip()) for each in part.split("|")]
        relations = [
            Relation(each["name"], each["architecture"] or "", each["sign"] or "", each["version"] or "")
            for each in matches
            if each is not None
        ]
        if len(relations) == len(matches):
            yield tuple(relations)


# -- the judgement -------------------------------------------------------------------------------------------


def broken(now: bytes, then: bytes, base: bytes, called: str) -> list[str]:
    """In words, the packages that would lack something, or clash, in a container whose dpkg gets the records ``then``, and do
    not with ``now``. Empty: there are none.

    ``base``: the record of the base that it would get: what is wrong there already is not the container's. ``called``: what
    that base is called. Raises TooMuch.
    """
    before, after, alone = World.of(now), World.of(then), World.of(base)
    found: list[str] = []
    for key in after.packages:
        told = [*_newly_lacking(key, before, after, alone, called), *_newly_hit(key, before, after, alone, called)]
        found += told
        if len(found) >= MOST_TOLD:
            break
    return [_clipped(each) for each in found[:MOST_TOLD]]


def _newly_lacking(key: str, before: World, after: World, alone: World, called: str) -> Iterable[str]:
    lacking = after.lacking(key)
    if not lacking:
        return
    known = before.lacking(key) | (alone.lacking(key) if _from(alone, after.entries, key) else set())
    for group in sorted(lacking - known):
        there = [f"{each.name} {', '.join(versions)}" for each in group if (versions := after.versions(each.name))]
        wanted = " or ".join(map(str, group))
        yield f"{after.packages[key]} needs {wanted}, and with {called} it has {' and '.join(there) or 'none'}"


def _newly_hit(key: str, before: World, after: World, alone: World, called: str) -> Iterable[str]:
    hit = after.hit(key)
    if not hit:
        return
    known = before.hit(key) | alone.hit(key)
    for relation, other in sorted(hit - known):
        yield f"{after.packages[key]} does not go with {relation}, and with {called} it has {after.packages[other]}"


def _from(alone: World, entries: Mapping[str, bytes], key: str) -> bool:
    return alone.entries.get(key) == entries[key]


def _clipped(text: str) -> str:
    plain = "".join(each if each.isprintable() else "?" for each in text)
    return plain if len(plain) <= _LONGEST else f"{plain[: _LONGEST - 1]}…"
