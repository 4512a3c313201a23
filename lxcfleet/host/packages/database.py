"""The host's packages in dpkg's records: the owner of a file, and versions."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from lxcfleet.errors import HostError
from lxcfleet.host.packages import lists
from lxcfleet.host.process import command

STATUS = Path("/var/lib/dpkg/status")
_MERGED = ("/bin/", "/sbin/", "/lib/", "/lib32/", "/lib64/", "/libx32/", "/libo32/")
"""Directories that are links into /usr, while packages of Debian 12 still name files below /lib and /bin."""
_AT_ONCE = 2000
"""The most paths in one command line."""
_ENGLISH = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
_ESCAPED = str.maketrans({character: f"\\{character}" for character in "*?[]\\"})


class OwningPackage(NamedTuple):
    """A package, and its version on the host."""

    package: str
    version: str


def names_of(path: str) -> tuple[str, ...]:
    """The names under which dpkg may know ``path``: with and without /usr, where both are the same directory."""
    if path.startswith("/usr/") and path[4:].startswith(_MERGED):
        return path, path[4:]
    if path.startswith(_MERGED):
        return path, f"/usr{path}"
    return (path,)


def merged(path: str) -> str:
    """``path`` as it is on a host whose /bin, /lib and the like are links into /usr."""
    return f"/usr{path}" if path.startswith(_MERGED) else path


def owned(info: Path = lists.INFO) -> set[str]:
    """All that packages have, directories too, also as ``merged`` has it. Takes 0.3 s for 130,000 paths."""
    found = set(lists.every(info))
    return found | {f"/usr{path}" for path in found if path.startswith(_MERGED)}


def owners(paths: Iterable[str], *, admin: Path | None = None) -> dict[str, OwningPackage]:
    """The package of each of ``paths``; without those that belong to none. Takes 0.2 s. Raises HostError.

    A diverted file (dpkg-divert) belongs to the diverting package at its old name, and to the other package at its new name.
    ``admin``: another database than the host's.
    """
    known = {name: path for path in paths for name in names_of(path)}
    found: dict[str, str] = {}
    for start in range(0, len(known), _AT_ONCE):
        patterns = [name.translate(_ESCAPED) for name in list(known)[start : start + _AT_ONCE]]
        text = _query(["--search", "--", *patterns], admin, none=True)
        for package, name in parse_search(text.splitlines()):
            if name in known:
                found.setdefault(known[name], package)
    versions = _versions(sorted(set(found.values())), admin)
    return {path: OwningPackage(package, versions.get(package, "")) for path, package in found.items()}


def owners_below(directory: str) -> dict[str, int]:
    """The packages that have files below ``directory``, each with how many, directories among them. Raises HostError."""
    patterns = [f"{name.translate(_ESCAPED)}/*" for name in names_of(directory)]
    found: dict[str, int] = {}
    for package, _ in parse_search(_query(["--search", "--", *patterns], None, none=True).splitlines()):
        found[package] = found.get(package, 0) + 1
    return found


def parse_search(lines: Iterable[str]) -> list[tuple[str, str]]:
    """Package and path from the output of ``dpkg-query --search``; if there are several packages, the first.

    Before the line of a diverted path there are two about the diversion: its package, and the new path. A file that was moved
    has only those, and is left out. A path from which another package's file was moved away belongs to the diverter.
    """
    found = []
    diverter: dict[str, str] = {}
    for line in lines:
        packages, colon, path = line.partition(": ")
        if not colon or not path.startswith("/"):
            continue
        if packages.startswith("diversion by "):
            package, _, direction = packages.removeprefix("diversion by ").rpartition(" ")
            if direction == "from":
                diverter[path] = package
        elif not packages.startswith("local diversion "):
            owners = packages.split(", ")
            mine = [owner for owner in owners if owner.partition(":")[0] == diverter.get(path, owner).partition(":")[0]]
            found.append(((mine or owners)[0], path))
    return found


def installed(*, admin: Path | None = None) -> dict[str, str]:
    """Every installed package, with its version; raises HostError."""
    lines = _query(["--show", "--showformat", _FORMAT], admin).splitlines()
    return {name: version for name, version, status in map(_fields, lines) if status.startswith(("ii", "hi"))}


def states(*, admin: Path | None = None) -> list[tuple[str, str]]:
    """Every package that dpkg knows, with its three letters of state: wanted, present, error; raises HostError."""
    lines = _query(["--show", "--showformat", _FORMAT], admin).splitlines()
    return [(name, status) for name, _, status in map(_fields, lines)]


def by_architecture() -> dict[str, str]:
    """Every installed package, NAME:ARCHITECTURE to version; raises HostError."""
    text = _query(["--show", "--showformat", "${Package}:${Architecture}\\t${Version}\\t${db:Status-Abbrev}\\n"], None)
    return {name: version for name, version, status in map(_fields, text.splitlines()) if status[1:2] == "i"}


def substitutes(names: Iterable[str]) -> dict[str, list[str]]:
    """The installed packages that took over from packages of these names, as after a release upgrade (liblxc1, liblxc1t64).

    A name without any is left out. Raises HostError.
    """
    wanted = set(names)
    asked = "${binary:Package}\\t${db:Status-Abbrev}\\t${Provides}\\t${Replaces}\\n"
    return parse_relations(wanted, _query(["--show", "--showformat", asked], None).splitlines()) if wanted else {}


def parse_relations(names: Collection[str], lines: Iterable[str]) -> dict[str, list[str]]:
    """The successors of packages, from lines with a package, its state, what it provides and what it replaces.

    A package that both provides and replaces a name is its successor. Without one, those that provide it count, and
    without these those that replace it.
    """
    found = dict[str, tuple[list[str], list[str], list[str]]]()
    for line in lines:
        package, status, *relations = line.split("\t")
        if status[1:2] == "i":
            provided, replaced = map(_named, relations)
            for name in (provided | replaced).intersection(names):
                both, provides, replaces = found.setdefault(name, ([], [], []))
                (replaces if name not in provided else both if name in replaced else provides).append(package)
    return {name: both or provides or replaces for name, (both, provides, replaces) in found.items()}


def _named(relation: str) -> set[str]:
    """The names in a field such as Provides: without versions and architectures; deb-control(5)."""
    return {name for part in re.split("[,|]", relation) if (name := part.partition("(")[0].strip().partition(":")[0])}


def files(packages: Sequence[str]) -> dict[str, list[str]]:
    """The files of each installed package, directories among them; raises HostError."""
    found = {}
    for package in packages:
        lines = _query(["--listfiles", package], None).splitlines()
        found[package] = [line for line in lines if line.startswith("/")]
    return found


_FORMAT = "${binary:Package}\\t${Version}\\t${db:Status-Abbrev}\\n"


def _versions(packages: Sequence[str], admin: Path | None) -> dict[str, str]:
    if not packages:
        return {}
    lines = _query(["--show", "--showformat", _FORMAT, *packages], admin, none=True).splitlines()
    return {name: version for name, version, _ in map(_fields, lines)}


def _fields(line: str) -> tuple[str, str, str]:
    name, version, status = line.split("\t")
    return name, version, status


def _query(arguments: Sequence[str], admin: Path | None, *, none: bool = False) -> str:
    """The output of dpkg-query; ``none``: it may find nothing, for which its exit status is 1."""
    place = [] if admin is None else ["--admindir", os.fspath(admin)]
    if admin is None and not STATUS.exists():
        raise HostError("the host's packages are not known", why=f"there is no {STATUS}: this is no Debian")
    return command.run(["/usr/bin/dpkg-query", *place, *arguments], environment=_ENGLISH, allowed=(0, 1) if none else (0,))
