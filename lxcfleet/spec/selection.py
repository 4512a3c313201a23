"""Which containers an action is meant for. Values only."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lxcfleet.errors import InvalidInput, NotFound


@dataclass(frozen=True)
class Selection:
    """Which containers an action is meant for: names and globs, or labels, or all."""

    patterns: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    everything: bool = False

    @property
    def narrow(self) -> bool:
        """Whether the selection may leave containers out."""
        return bool(self.patterns or self.labels)

    def choose(self, containers: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
        """The chosen names out of ``containers`` (name to labels), in natural order.

        Patterns and labels narrow each other down. Raises InvalidInput if nothing was asked for, NotFound if a
        plain name does not exist; a glob or label may match nothing.
        """
        if not (self.patterns or self.labels or self.everything):
            raise InvalidInput("no container chosen", hint="give names, globs, -l KEY=VALUE or --all")
        if self.everything and self.patterns:
            raise InvalidInput("--all and names exclude each other")
        missing = [p for p in self.patterns if not is_glob(p) and p not in containers]
        if missing:
            raise NotFound(
                f"no container named {', '.join(sorted(missing))}", hint="`lxcfleet list` shows the ones that exist"
            )
        chosen = (
            name
            for name, labels in containers.items()
            if (not self.patterns or any(fnmatch.fnmatchcase(name, p) for p in self.patterns))
            and all(labels.get(key) == value for key, value in self.labels)
        )
        return natural_order(chosen)


def is_glob(pattern: str) -> bool:
    """Whether ``pattern`` is a glob and not a plain name."""
    return any(c in pattern for c in "*?[")


def natural_order(names: Iterable[str]) -> tuple[str, ...]:
    """``names`` sorted so that c2 stands before c10."""

    def key(name: str) -> tuple[str, int, str]:
        stem = name.rstrip("0123456789")
        return stem, int(name[len(stem) :] or 0), name

    return tuple(sorted(names, key=key))
