"""How a change of a spec affects a container that runs: the part in force at once, and the part that waits. Pure."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from math import inf

from lxcfleet.spec.container.fields import stored
from lxcfleet.spec.container.io import IoLimit
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading.rows import Effect, rows_of
from lxcfleet.spec.reading.swap import NO_LIMIT


def different(one: Spec, other: Spec, change: Effect | None = None) -> tuple[str, ...]:
    """The keys in which two specs differ, in the table's order; with ``change`` only those that change that way."""
    return tuple(key for key in _keys(change) if getattr(one, key) != getattr(other, key))


@cache
def _keys(change: Effect | None) -> tuple[str, ...]:
    return tuple(key for key, row in stored().items() if change in (None, row.change))


def put_live(in_force: Spec, wanted: Spec) -> Spec:
    """The spec in force after a run with ``in_force`` has taken over what can change live in ``wanted``."""
    taken = {key: getattr(wanted, key) for key in different(in_force, wanted, Effect.LIVE)}
    return replace(in_force, **taken) if taken else in_force


_LIMITS = ("memory", "cpus", "pids", "disk")


def risky(former: Spec, wanted: Spec) -> tuple[str, ...]:
    """The keys that change live, and whose new values may harm a container that was well with the former ones: lower limits,
    another check, and ports of the host that do not lead to it any more. Higher limits and weights can't."""
    lower = [key for key in _LIMITS if _is_lower(getattr(former, key), getattr(wanted, key))]
    io = ["io"] if _reads_less(former, wanted) else []
    swap = ["swap"] if _swap(wanted) < _swap(former) else []
    check = ["health"] if wanted.health is not None and wanted.health != former.health else []
    ports = [] if {*former.publish} <= {*wanted.publish} else ["publish"]
    return (*lower, *io, *swap, *check, *ports)


def _is_lower(former: float, wanted: float) -> bool:
    """Of two limits, where 0 is none."""
    return wanted > 0 and (former == 0 or wanted < former)


def _reads_less(former: Spec, wanted: Spec) -> bool:
    """Whether a disk may give or take less than before."""
    return any(
        _is_lower(getattr(former.io.get(disk, IoLimit()), key), getattr(limit, key))
        for disk, limit in wanted.io.items() for key in rows_of(IoLimit)
    )  # fmt: skip


def _swap(spec: Spec) -> float:
    """The most swap space that it may use; 0 is none at all, unlike with the other limits."""
    return inf if spec.swap in (None, NO_LIMIT) else float(spec.swap or 0)


def await_restart(in_force: Spec | None, wanted: Spec | None) -> tuple[str, ...]:
    """The keys in which a run differs from the wanted spec until it is restarted."""
    return () if in_force is None or wanted is None else different(in_force, wanted, Effect.RESTART)
