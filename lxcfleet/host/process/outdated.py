"""The files that a process of the host runs in an old version: others are at their paths by now, or none."""

from __future__ import annotations

import os
from typing import NamedTuple

from lxcfleet.host.process import maps
from lxcfleet.host.process.alike import Alike


class OutdatedFile(NamedTuple):
    """A file that was replaced or removed."""

    path: str
    removed: bool


def files(pid: int) -> list[OutdatedFile]:
    """The files that the process maps executable and that were replaced by files of other content, or removed.

    Empty if the process has ended. This does not work on an overlay.
    """
    try:
        mapped = maps.deleted(pid)
        old = set(maps.replaced(mapped))
        found = {path: False for mapping in mapped if (path := mapping.file.path) in old and _differs(pid, mapping)}
    except ProcessLookupError:
        return []
    return [OutdatedFile(path, not os.path.exists(path)) for path in sorted(found)]


def any_replaced(pid: int) -> bool:
    """Whether the process maps a file executable that was replaced, be it by one of the same content, or removed."""
    try:
        return bool(maps.replaced(maps.deleted(pid)))
    except ProcessLookupError:
        return False


def _differs(pid: int, mapping: maps.Mapping) -> bool:
    had = maps.mapped_file(pid, mapping.range)
    if had is None:
        return False
    try:
        now = maps.Identity.of(os.stat(mapping.file.path))
    except OSError:
        return True
    return not Alike().same(had, f"/proc/{pid}/map_files/{mapping.range}", now, mapping.file.path)
