"""Whether a container that is to be stopped can leave its ports of the host and its groups to others. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from lxcfleet.spec.container.spec import Spec


class MemberPlace(Enum):
    """The place of a member that leaves."""

    SHARED = "shared"
    """Others are members everywhere where it is one."""
    AWAITED = "awaited"
    """It is the only member somewhere, and another one will be there soon."""
    ALONE = "alone"
    """It is the only member somewhere, and no other one is on its way."""


def place(own: Spec, members: Iterable[Spec], coming: Iterable[Spec]) -> MemberPlace:
    """The place of the member ``own``.

    ``members``: those that stand for their groups now, ``coming``: those that will soon, both without ``own``. No more of
    them are looked at than it takes: when all of a large group are stopped, this is asked for each of them.
    Where it publishes ports of the host, each of them counts. Otherwise it is enough to share one of its groups: a label
    that is only its own names no group.
    """
    if own.publish:
        lonely = set(own.publish)
        for spec in members:
            lonely.difference_update(spec.publish)
            if not lonely:
                return MemberPlace.SHARED
        return MemberPlace.AWAITED if any(not lonely.isdisjoint(spec.publish) for spec in coming) else MemberPlace.ALONE
    groups = own.labels.items()
    if not groups or any(not groups.isdisjoint(spec.labels.items()) for spec in members):
        return MemberPlace.SHARED
    return MemberPlace.AWAITED if any(not groups.isdisjoint(spec.labels.items()) for spec in coming) else MemberPlace.ALONE


def meets(one: Spec, other: Spec) -> bool:
    """Whether two containers can be behind the same port of the host, or stand for the same group."""
    shared_port = not set(one.publish).isdisjoint(other.publish)
    return shared_port or not one.labels.items().isdisjoint(other.labels.items())
