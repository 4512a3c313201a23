"""The patches of the host that a container on a generation lacks, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lxcfleet.units import counted, some

_NAMED = 5
_CVES = 2
Closed = Mapping[str, Sequence[str]]
"""CVEs by package, without its architecture."""
_NOTHING: Closed = {}


def words(generation: int, held: str, names: Sequence[str], closed: Closed = _NOTHING) -> str:
    """The reason why it is not proven: *on generation 41, held until 2027-01-31, 3 packages behind (libc6, openssl, …)*.

    ``held``: the hold, in words; empty: it is not held. ``names``: the packages of which the host has another version; none:
    it lacks nothing, and the reason is empty. ``closed``: the CVEs that the host's versions closed, by package.
    """
    if not names:
        return ""
    many = f"{counted(len(names), 'package')} behind"
    parts = [f"on generation {generation}", *([held] if held else []), f"{many} ({listed(names, closed)})"]
    return ", ".join(parts)


def listed(names: Iterable[str], closed: Closed = _NOTHING) -> str:
    """The first packages, those with CVEs before the others: *openssl: CVE-2026-1234, CVE-2026-1235 and 3 more; libc6*."""
    ordered = sorted(names, key=lambda name: (not _cves(name, closed), name))
    told = [f"{name}: {some(cves, _CVES)}" if (cves := _cves(name, closed)) else name for name in ordered]
    return some(told, _NAMED, "; " if any(_cves(name, closed) for name in ordered[:_NAMED]) else ", ")


def _cves(name: str, closed: Closed) -> Sequence[str]:
    return closed.get(name.partition(":")[0], ())
