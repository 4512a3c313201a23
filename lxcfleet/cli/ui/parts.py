"""lxcfleet's own parts that run old code, as `stale`, `verify` and `patch status` show them."""

from __future__ import annotations

from collections.abc import Sequence

from lxcfleet.api.findings import PartRecord, StaleRecord
from lxcfleet.cli.ui import output
from lxcfleet.spec.selection import Selection

ON_HOST = "on the host"
"""The state of a part, in a record like a container's."""
_NAMED = 3


def lines(parts: Sequence[PartRecord]) -> list[str]:
    """One line for each part that runs old code."""
    return [output.printable(f"{_subject(p)} runs old code ({_files(p)}): {p['hint']}") for p in _stale(parts)]


def title(part: PartRecord) -> str:
    """A short name of the part."""
    return part["name"] if part["container"] is None else f"{part['name']} in {part['container']}"


def counted(parts: Sequence[PartRecord], chosen: Selection, containers: Sequence[StaleRecord]) -> list[PartRecord]:
    """The parts that count for a check of the chosen ``containers``: all, or only sessions in these."""
    names = {record["name"] for record in containers}
    return [part for part in parts if not chosen.narrow or part["container"] in names]


def as_stale(parts: Sequence[PartRecord]) -> list[StaleRecord]:
    """A record like a container's for each part that runs old code."""
    return [
        {
            "name": title(part),
            "state": ON_HOST,
            "stale": True,
            "processes": 1,
            "mappings": len(part["files"]),
            "files": part["files"],
            "base": None,
            "problem": None,
        }
        for part in _stale(parts)
    ]


def _stale(parts: Sequence[PartRecord]) -> list[PartRecord]:
    return [part for part in parts if part["stale"]]


def _subject(part: PartRecord) -> str:
    if part["container"] is None:
        return f"lxcfleet's own {part['name']}"
    return f"a session of `exec` in {part['container']} since {part['since']} (pid {part['pid']})"


def _files(part: PartRecord) -> str:
    names = list(dict.fromkeys(file["package"] or file["path"] for file in part["files"]))
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
