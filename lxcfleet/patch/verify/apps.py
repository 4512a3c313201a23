"""The things that the apps of containers bring along: copies of the host's libraries, which patches of the host do not reach;
and releases that were built against another version of a package than the host has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from lxcfleet.spec.container.apps import AppUse
from lxcfleet.units import some

_NAMED = 5


@dataclass(frozen=True)
class Brought:
    """The things that the release of a container's app brings along."""

    release: str
    copies: tuple[str, ...] = ()
    """Its files that have the name of one of the host's libraries."""
    libraries: tuple[str, ...] = ()
    """Those libraries of the host."""
    packages: tuple[str, ...] = ()
    """Their packages."""
    older: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)
    """Packages that it was built against, and that the host has in another version now: the versions then, and now."""
    problem: str = ""
    """Why that is not known."""

    @property
    def words(self) -> list[str]:
        """The facts that the operator should know of it."""
        said = []
        name = self.release.partition("@")[0]
        if self.problem:
            said.append(f"what its app {self.release} brings along is not known: {self.problem}")
        if self.copies:
            said.append(
                f"its app {self.release} brings {_some(self.copies)} of its own, which patches of the host do not reach:"
                f" rebuild {name}"
            )
        if self.older:
            changed = [f"{package} {then} (now {now or 'not installed'})" for package, (then, now) in self.older.items()]
            said.append(f"its app {self.release} was built against {_some(changed)}: rebuild {name}")
        return said


def _some(items: Iterable[str]) -> str:
    return some(list(items), _NAMED)


Look = Callable[[Mapping[str, AppUse], Mapping[str, str]], Mapping[str, Brought]]
"""Reads what apps bring along, by container; takes the app of each, and the host's packages. The packages of libraries are
left to the caller. It may take a while."""


def nothing(_uses: Mapping[str, AppUse], _installed: Mapping[str, str]) -> Mapping[str, Brought]:
    """Where nobody has an app."""
    return {}
