"""The taking away of a package's shadows as a whole: what goes, and what stays. Pure.

A package that was installed once more in a container, or upgraded there, leaves its files in the delta, with dpkg's own files
about it and its record. All of that goes, and so the container has the host's package again, patched with the host.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from lxcfleet.patch.shadow.files import Shadow, ShadowKind
from lxcfleet.patch.verify.evidence import OwnedShadow

_INFO = re.compile(r"/var/lib/dpkg/info/(?P<package>[^/:]+?(:[^/.]+)?)\.[a-z0-9]+")
"""dpkg's own files about a package, NAME.list or NAME:ARCHITECTURE.list; dpkg-query(1), --control-path."""


@dataclass(frozen=True)
class WholeDecision:
    """A decision about one container."""

    removed: tuple[str, ...]
    kept: Mapping[str, str] = field(default_factory=dict)
    """The package's shadows that stay, with the reason for each."""
    records: tuple[str, ...] = ()
    """The packages, NAME:ARCHITECTURE, that the container has in another version: they get the host's record."""


def whole(
    names: Sequence[str], owned: Collection[OwnedShadow], shadows: Collection[Shadow], changed: Collection[str]
) -> WholeDecision:
    """The part of a container's ``shadows`` that goes with the packages of these ``names``. ``changed``: the packages that it
    has in another version than the host.

    Shadows that no package owns stay, and so do settings that differ from the host's: they are somebody's work.
    """
    mine = [each.shadow for each in owned if is_meant(names, each.package) and each.shadow.own]
    removed, kept = [], {}
    for shadow in mine:
        if shadow.kind is ShadowKind.DIRECTORY:
            kept[shadow.path] = "a directory of the container's own, which may have files of its own"
        elif shadow.path.startswith("/etc/") and not shadow.same:
            kept[shadow.path] = "a setting of the container's own; --fix takes it away by its path"
        else:
            removed.append(shadow.path)
    about = (shadow.path for shadow in shadows if shadow.own and shadow.kind is not ShadowKind.DIRECTORY)
    removed += [path for path in about if (match := _INFO.fullmatch(path)) and is_meant(names, match["package"])]
    return WholeDecision(tuple(sorted(set(removed))), kept, tuple(name for name in changed if is_meant(names, name)))


def is_meant(names: Sequence[str], package: str) -> bool:
    """Whether one of ``names``, with or without an architecture, stands for this package."""
    bare = package.partition(":")[0]
    return any(name in (package, bare) or (":" not in package and name.partition(":")[0] == bare) for name in names)
