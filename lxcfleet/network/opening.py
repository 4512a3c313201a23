"""Whether the program of a container that was just started listens on the ports that are published. Pure."""

from __future__ import annotations

from collections.abc import Set

from lxcfleet.spec.container.spec import Spec

OPEN_SECONDS = 10.0
"""A container of this age counts as open in any case: a program inside may have its own ways to take connections, as by
rules of a packet filter."""


def is_watched(spec: Spec | None) -> bool:
    """Whether it counts only once its ports are open. One with a health check counts once that passes."""
    return spec is not None and bool(spec.publish) and spec.check is None


def is_open(spec: Spec, listening: Set[tuple[str, int]] | None, age: float) -> bool:
    """Whether clients can be led to the container. ``listening``: protocols and ports; None: not known.

    ``age``: seconds since it started.
    """
    if listening is None or age >= OPEN_SECONDS:
        return True
    return all((publication.protocol, publication.container) in listening for publication in spec.publish)
