"""lxcfleet's own parts that run old code, as `stale`, `verify` and `patch status` show them."""

from __future__ import annotations

from collections.abc import Sequence

from lxcfleet.api.findings import PartRecord, StaleRecord
from lxcfleet.cli.ui import output

ON_HOST = "on the host"
"""The state of a part, in a record like a container's."""
_NAMED = 3


def lines(parts: Sequence[PartRecord]) -> list[str]:
    """One line for each part that runs old code."""
    return [output.printable(f"lxcfleet's own {p['name']} runs old code ({_files(p)}): {p['hint']}") for p in _stale(parts)]


def as_stale(parts: Sequence[PartRecord]) -> list[StaleRecord]:
    """A record like a container's for each part that runs old code."""
    return [
        {
            "name": part["name"],
            "state": ON_HOST,
            "stale": True,
            "processes": 1,
            "mappings": len(part["files"]),
            "files": part["files"],
            "problem": None,
        }
        for part in _stale(parts)
    ]


def _stale(parts: Sequence[PartRecord]) -> list[PartRecord]:
    return [part for part in parts if part["stale"]]


def _files(part: PartRecord) -> str:
    names = list(dict.fromkeys(file["package"] or file["path"] for file in part["files"]))
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
