"""The packages of a generation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from lxcfleet.base.generations.roots import sheets_at, sheets_of
from lxcfleet.host.packages import database
from lxcfleet.paths import Paths


def of(paths: Paths, number: int) -> Mapping[str, str]:
    """Every package that it has installed, with its version. Raises NotFound, Broken, HostError."""
    return _installed(sheets_at(sheets_of(paths, number)).outside(str(database.STATUS)))


@lru_cache(maxsize=16)
def _installed(status: str) -> Mapping[str, str]:
    """The same by the path of its dpkg's status, which does not change."""
    return database.installed(admin=Path(status).parent)
