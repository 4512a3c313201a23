"""What can be said of a container at a moment, and what can be asked of one. Values only."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """What a container does at the moment, as observed."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    FROZEN = "frozen"
    STOPPING = "stopping"
    BROKEN = "broken"
    """Its files on disk can't be used; ``info`` says why."""

    @property
    def alive(self) -> bool:
        """Whether it has processes."""
        return self in (State.RUNNING, State.FROZEN, State.STOPPING)


class Health(StrEnum):
    """Whether a container that runs does its work; see health.judge."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class Action(StrEnum):
    """What can be asked of containers that exist."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"
    FREEZE = "freeze"
    UNFREEZE = "unfreeze"
    DESTROY = "destroy"
