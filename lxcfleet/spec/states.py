"""A container's states and health, and the actions that can be asked for. Values only."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """The observed state of a container."""

    STOPPED = "stopped"
    """Somebody stopped it, or it never ran, or nobody knows how it ended."""
    EXITED = "exited"
    """It ended by itself, with exit status 0."""
    FAILED = "failed"
    """It ended by itself, with another exit status; or it failed too often, and is started no more by itself."""
    BACKOFF = "backoff"
    """It ended, or its start failed, and it is started again in a moment."""
    BLOCKED = "blocked"
    """It is to run, and lacks something that it needs before, such as a container that it depends on."""
    STARTING = "starting"
    RUNNING = "running"
    FROZEN = "frozen"
    STOPPING = "stopping"
    BROKEN = "broken"
    """The container's files on disk can't be used; ``info`` says why."""
    UNKNOWN = "unknown"
    """Its monitor runs, and liblxc does not tell of its processes; the log of the daemon says more."""

    @property
    def ended(self) -> bool:
        """Whether a container in this state has no processes, and nothing starts it again by itself."""
        return self in (State.STOPPED, State.EXITED, State.FAILED, State.BROKEN)

    @property
    def alive(self) -> bool:
        """Whether a container in this state has processes."""
        return self in (State.RUNNING, State.FROZEN, State.STOPPING)


class Health(StrEnum):
    """Whether a running container does its work; see health.judge."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class Action(StrEnum):
    """An action on existing containers."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"
    FREEZE = "freeze"
    UNFREEZE = "unfreeze"
    DESTROY = "destroy"


class CveState(StrEnum):
    """The state of a CVE in a container, the worst first."""

    OLD_CODE_RUNS = "old-code-runs"
    """The fix is in its packages, and code from before still runs."""
    FIX_AVAILABLE = "fix-available"
    """Its packages do not have the fix, and there is one."""
    OPEN = "open"
    """No fix is known."""
    UNKNOWN = "unknown"
    PROVEN = "proven"
    """The fix is in its packages, and nothing old of them runs."""

    @property
    def words(self) -> str:
        """For people."""
        return "patched, old code runs" if self is CveState.OLD_CODE_RUNS else self.value.replace("-", " ")
