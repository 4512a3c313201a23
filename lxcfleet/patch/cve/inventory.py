"""Sets of packages with the source that each was built from, as dpkg's status file has them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

_FIELD = re.compile(rb"^(Package|Status|Version|Source|Architecture):[ \t]*(.*?)[ \t]*$", re.MULTILINE)
_SOURCE = re.compile(r"([^ (]+)(?: \(([^()]*)\))?")
_ABSENT = ("not-installed", "config-files")
_MOST_FIELD = 200
MOST = 20_000
"""Packages of a set that are read."""


class Package(NamedTuple):
    """A package whose files are there, whether or not dpkg has finished it."""

    name: str
    architecture: str
    version: str
    source: str
    source_version: str

    @property
    def names(self) -> tuple[str, str]:
        """The names that dpkg-query may have for it: without its architecture, and with it."""
        return self.name, f"{self.name}:{self.architecture}"


Set = Mapping[str, Package]
"""Packages by NAME:ARCHITECTURE."""


def read(status: bytes, most: int = MOST) -> dict[str, Package]:
    """The packages of dpkg's ``status`` file; deb-control(5). At most ``most``."""
    found: dict[str, Package] = {}
    for paragraph in status.split(b"\n\n"):
        fields = {key: value for key, value in _FIELD.findall(paragraph)}
        name, state = _text(fields, b"Package"), _text(fields, b"Status").rpartition(" ")[2]
        version = _text(fields, b"Version")
        if not name or not version or not state or state in _ABSENT:
            continue
        match = _SOURCE.fullmatch(_text(fields, b"Source"))
        source, source_version = (match[1], match[2] or version) if match else (name, version)
        architecture = _text(fields, b"Architecture")
        found[f"{name}:{architecture}"] = Package(name, architecture, version, source, source_version)
        if len(found) >= most:
            break
    return found


def by_source(packages: Iterable[Package]) -> dict[str, list[Package]]:
    """The packages that were built from each source."""
    found: dict[str, list[Package]] = {}
    for package in packages:
        found.setdefault(package.source, []).append(package)
    return found


def _text(fields: Mapping[bytes, bytes], key: bytes) -> str:
    return fields.get(key, b"")[:_MOST_FIELD].decode("utf-8", "replace")
