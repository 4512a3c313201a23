"""The changes that a fleet file would make to apps: how many releases are kept, and which ones. Pure.

A release comes onto the host by `app add` or `app bake` alone, and is never removed because a file does not name it: only as
one of the old ones of which `keep` leaves no more, once another one is sealed, or once another `keep` is applied.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lxcfleet.errors import InvalidInput
from lxcfleet.fleets.applied import Applied
from lxcfleet.spec.container.apps import AppUse
from lxcfleet.spec.files import fleet_apps
from lxcfleet.spec.files.fleet_apps import ROWS, Present
from lxcfleet.spec.files.fleet_file import FleetFile
from lxcfleet.spec.files.fleet_sources import in_order

_SAYS = ("keep", "releases")
"""The keys that change an app as a whole. Where a group has it, and at which place, are changes of its containers."""


@dataclass(frozen=True)
class AppChange:
    """One app of which the file says something else than before."""

    name: str
    change: str
    """create, live or remove."""
    differs: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """By key, what was said of it and what is, in words."""


def plan_apps(file: FleetFile, applied: Applied | None, present: Present) -> tuple[AppChange, ...]:
    """The changes for the apps of a file. ``present``: the releases of each that the host has. Raises InvalidInput for
    those that the host does not have, or that are not as the file says."""
    named: dict[AppUse, str] = {}
    for group in file.groups.values():
        for name in group.names(group.count):
            app = group.of(name).get("app")
            if app is not None and app.name in file.apps:
                named.setdefault(app, f"{group.place}: groups: {group.name}")
    lacking = [*fleet_apps.missing(file.apps, named, present)]
    if lacking:
        raise InvalidInput("the file can't be applied; nothing is changed", why="\n".join(in_order(lacking)))
    before = {} if applied is None else applied.apps
    found = []
    for name in sorted({*file.apps, *before}):
        has, wants = before.get(name), file.apps[name].said if name in file.apps else None
        differs = {
            key: (_words(has, key), _words(wants, key)) for key in _SAYS if _words(has, key) != _words(wants, key)
        }  # fmt: skip
        if differs:
            found.append(AppChange(name, "create" if has is None else "remove" if wants is None else "live", differs))
    return tuple(found)


def _words(said: Mapping[str, Any] | None, key: str) -> str:
    return ROWS[key].tell(said[key]) if said is not None and said.get(key) else "none"


def kept(fleets: Iterable[Applied], name: str) -> int | None:
    """How many releases of an app the files of these fleets have kept: as the one says that keeps most of them; 0: all. None:
    no file says so."""
    found = [each.apps[name]["keep"] for each in fleets if "keep" in each.apps.get(name, {})]
    return None if not found else 0 if 0 in found else max(found)


def wanted(fleets: Iterable[Applied]) -> set[str]:
    """The releases, as NAME@VERSION, that the files of these fleets say the host is to have."""
    return {
        f"{name}@{version}" for each in fleets for name, said in each.apps.items() for version in said.get("releases", ())
    }  # fmt: skip
