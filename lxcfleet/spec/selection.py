"""Which containers an action is meant for. Values only."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lxcfleet.errors import InvalidInput, NotFound
from lxcfleet.spec.reading.names import LONGEST_GLOB
from lxcfleet.units import some

MAX_GLOBS = 128
"""So many globs may choose together: each is held against each name, and everybody waits for that."""
_TOLD = 10


def _check_globs(texts: Iterable[str]) -> None:
    """Raise InvalidInput if there are too many globs among the texts, or too long ones."""
    globs = [each for each in texts if is_glob(each)]
    if len(globs) > MAX_GLOBS:
        raise InvalidInput(f"{len(globs)} globs are too many", why=f"at most {MAX_GLOBS} are looked for")
    for each in globs:
        if len(each) > LONGEST_GLOB:
            raise InvalidInput(f"the glob {each[:40]}… is too long", why=f"it may have {LONGEST_GLOB} characters")


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
        plain = {each for each in self.patterns if not is_glob(each)}
        if missing := natural_order(plain - containers.keys()):
            named = some(missing, _TOLD)
            raise NotFound(f"no container named {named}", hint="`lxcfleet list` shows the ones that exist")
        _check_globs(self.patterns)
        globs = [re.compile(fnmatch.translate(each)) for each in set(self.patterns) - plain]
        chosen = (
            name
            for name, labels in containers.items()
            if (not self.patterns or name in plain or any(glob.match(name) for glob in globs))
            and all(labels.get(key) == value for key, value in self.labels)
        )
        return natural_order(chosen)


def is_glob(pattern: str) -> bool:
    """Whether ``pattern`` is a glob and not a plain name."""
    return any(c in pattern for c in "*?[")


def natural_key(name: str) -> tuple[str, int, str]:
    """The key to sort names by so that c2 stands before c10."""
    stem = name.rstrip("0123456789")
    return stem, int(name[len(stem) :] or 0), name


def natural_order(names: Iterable[str]) -> tuple[str, ...]:
    """``names`` sorted so that c2 stands before c10."""
    return tuple(sorted(names, key=natural_key))
