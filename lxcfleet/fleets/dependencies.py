"""Dependencies in a fleet file, held against the containers that there are: what does not exist, and circles. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping

from lxcfleet.spec.container.depends import Graph
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files.fleet_file import FleetFile
from lxcfleet.spec.files.fleet_groups import Group, depends_of, place_of


def wrong(
    file: FleetFile, members: Mapping[str, Collection[str]], present: Mapping[str, Spec], groups: Collection[str]
) -> Iterator[str]:
    """The faults of dependencies, each with its place. ``members``: the containers of each group of the file; ``present``:
    the specs of containers that will be there besides; ``groups``: names of groups that other files have."""
    depends: dict[str, Collection[str]] = {name: spec.depends_on for name, spec in present.items()}
    owners: dict[str, Group] = {}
    for group in file.groups.values():
        for name in members[group.name]:
            owners[name] = group
            depends[name] = depends_of(group, name)
    in_groups: dict[str, list[str]] = {name: list(names) for name, names in members.items()}
    for name, spec in present.items():
        if spec.group is not None:
            in_groups.setdefault(spec.group, []).append(name)
    known = {*depends, *in_groups, *groups}
    for group in file.groups.values():
        for name in dict.fromkeys(other for member in members[group.name] for other in depends[member]):
            if name not in known:
                what = "there is no container and no group of this name"
                yield f"{place_of(group, name)}: groups: {group.name}: depends_on.{name}: {what}"
    circle = Graph(depends, in_groups).cycle()
    if circle:
        # The file by itself has none, so it goes through containers besides.
        group, other = next((owners[one], two) for one, two in itertools.pairwise(circle) if one in owners)
        yield f"{place_of(group, other)}: groups: {group.name}: depends_on.{other}: a circle: {' waits for '.join(circle)}"
