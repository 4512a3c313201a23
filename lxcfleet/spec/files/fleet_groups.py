"""Groups of a fleet file, and what is wrong about several of them together. Pure."""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.container.depends import MAX_DEPENDS, Graph
from lxcfleet.spec.policies.rollout import ProfileRollout
from lxcfleet.spec.reading.names import check_name
from lxcfleet.spec.reading.reader import Marked

MOST_CIRCLES = 10
"""So many circles of dependencies are enough."""


@dataclass(frozen=True)
class Group:
    """One group of the file."""

    name: str
    place: str
    count: int | None
    said: Mapping[str, Any]
    """Values by key of the table, for each member that says nothing for itself."""
    members: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The values of members that say something for themselves."""
    hosts: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    rollout: ProfileRollout = field(default_factory=ProfileRollout)
    merged: Marked = field(default_factory=Marked, compare=False, repr=False)
    """Its values in the form of the file, with the place of each."""
    merged_members: Mapping[str, Marked] = field(default_factory=dict, compare=False, repr=False)
    """The same for members that say something for themselves."""

    def names(self, count: int | None) -> tuple[str, ...]:
        """The names of its containers, if there are so many."""
        if self.count is None or count is None:
            return (self.name,)
        return tuple(f"{self.name}{number}" for number in range(1, count + 1))

    def of(self, name: str) -> Mapping[str, Any]:
        """The values for one of its containers."""
        return self.members.get(name, self.said)

    def is_on(self, host: str) -> bool:
        """Whether the group exists on a host of that name."""
        return fits(self.hosts, host)


def fits(hosts: tuple[str, ...], host: str) -> bool:
    """Whether a host of that name is one of ``hosts``, which are globs; none: all are."""
    return not hosts or any(fnmatch.fnmatchcase(host, glob) for glob in hosts)


def said_of(group: Group, member: str | None = None) -> Iterator[tuple[str, Any, str]]:
    """Each value that the group has, or one of its members, with its key and its place."""
    merged = group.merged if member is None else group.merged_members.get(member, group.merged)
    for key, value in merged.items():
        if isinstance(value, Marked):
            for inner, each in value.items():
                yield f"{key}.{inner}", each, value.places[inner]
        else:
            yield key, value, merged.places[key]


def depends_of(group: Group, member: str) -> Mapping[str, str]:
    """The names that one of the group's containers waits for, each with its condition."""
    found: Mapping[str, str] = group.of(member).get("depends_on", {})
    return found


def place_of(group: Group, name: str) -> str:
    """Where the group, or the first of its members that does, says that it waits for ``name``."""
    for layer in (group.merged, *group.merged_members.values()):
        said = layer.get("depends_on")
        if isinstance(said, Marked) and name in said:
            return said.places.get(name) or said.place
    return group.place


def circles(groups: Mapping[str, Group]) -> Iterator[str]:
    """A complaint for each circle in which containers of the file wait for each other; whatever hosts they are for."""
    members = {name: group.names(group.count) for name, group in groups.items()}
    owners = {each: groups[name] for name, names in members.items() for each in names}
    said = {each: depends_of(group, each) for each, group in owners.items()}
    depends = {each: set(names if len(names) <= MAX_DEPENDS else ()) for each, names in said.items()}
    for _ in range(MOST_CIRCLES):
        circle = Graph(depends, members).cycle()
        if not circle:
            return
        one, other = next((one, other) for one, other in itertools.pairwise(circle) if one in depends)
        group = owners[one]
        yield f"{place_of(group, other)}: groups: {group.name}: depends_on.{other}: a circle: {' waits for '.join(circle)}"
        for each in members[group.name]:
            depends[each].discard(other)


def collisions(groups: Mapping[str, Group]) -> Iterator[str]:
    """A complaint for each container that two groups would have, and for names that are too long."""
    seen: dict[str, Group] = {}
    for group in groups.values():
        for name in group.names(group.count):
            other = seen.setdefault(name, group)
            if other is not group and not _apart(group, other):
                yield f"{group.place}: groups: {group.name}: {name} is in the group {other.name}, too ({other.place})"
                break
        if group.count:
            for end in (1, group.count):
                yield from _wrong_name(group, f"{group.name}{end}")


def _wrong_name(group: Group, name: str) -> Iterator[str]:
    try:
        check_name(name)
    except InvalidInput as error:
        yield f"{group.place}: groups: {group.name}: {error.message}: {error.why}"


def _apart(one: Group, other: Group) -> bool:
    """Whether two groups name hosts without globs, and none in common."""
    plain = not any(set("*?[") & set(glob) for glob in (*one.hosts, *other.hosts))
    return bool(one.hosts and other.hosts) and plain and not {*one.hosts} & {*other.hosts}
