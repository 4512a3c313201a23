"""The commands that run in a container before and after it is frozen for a copy. Values only."""

from __future__ import annotations

from dataclasses import dataclass

from lxcfleet.spec.reading.durations import Seconds
from lxcfleet.spec.reading.parts import PartsType
from lxcfleet.spec.reading.rows import row
from lxcfleet.spec.reading.types import Command

MAX_SECONDS = 60.0
"""The launcher's children may not take longer than 120."""


@dataclass(frozen=True)
class Hooks:
    """Commands inside, as root, with the container's variables."""

    pre_freeze: tuple[str, ...] = row(
        Command(), "Runs before it is frozen, such as a database's command to write all to the disk. If it fails, there is no"
        " freeze and no copy.", default=(),
    )
    post_freeze: tuple[str, ...] = row(
        Command(), "Runs once it is unfrozen, also after a copy or a pre_freeze that failed.", default=()
    )
    timeout: float = row(Seconds(0.1, MAX_SECONDS), "Seconds that each of them may take.", default=30.0)


NO_HOOKS = Hooks()

HOOKS = PartsType(Hooks, "[snapshots](snapshots.md#a-container-held-still)")
