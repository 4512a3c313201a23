"""The containers whose consoles a client is shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lxcfleet.api.queries import LinesRequest
from lxcfleet.containers.registry import Registry
from lxcfleet.logs.reading import Reading
from lxcfleet.paths import Paths
from lxcfleet.spec.selection import Selection, is_glob


def reading(registry: Registry, paths: Paths, ask: LinesRequest) -> Reading:
    """The reading that shows the lines of the chosen containers, also of those that come later. Raises NotFound."""
    chosen = ask.selection if ask.selection.narrow else Selection(everything=True)
    registry.choose(chosen)

    def directories() -> dict[str, Path]:
        present = {each.name: each.labels for each in registry}
        patterns = tuple(each for each in chosen.patterns if is_glob(each) or each in present)
        if chosen.patterns and not patterns:  # all of them were destroyed meanwhile
            return {}
        names = replace(chosen, patterns=patterns).choose(present)
        return {name: paths.container(name).directory for name in names}

    return Reading(directories, ask.lines, ask.since)
