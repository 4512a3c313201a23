"""The conditions of a start."""

from __future__ import annotations

from dataclasses import dataclass

from lxcfleet.containers.drain import Drain
from lxcfleet.containers.order.dependencies import Dependencies
from lxcfleet.containers.reconciling.prerequisites import Prerequisites


@dataclass(frozen=True)
class StartConditions:
    """The conditions under which a container starts."""

    prerequisites: Prerequisites
    """All of them, with the next two."""
    dependencies: Dependencies
    drain: Drain
    """Nothing starts while the host is drained."""
