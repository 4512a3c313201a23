"""The dependencies that a container waits for before it starts: those in a spec, and the order that follows. Pure.

A container names others, or groups of them, each with a condition. ``Graph`` has all these names. It finds cycles, and gives
the order in which containers are started, stopped and restarted. It never fails on a cycle, as one may stand in specs on
disk: containers that wait in a circle have no order among themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.reading.names import check_name
from lxcfleet.spec.reading.types import Pairs

MAX_DEPENDS = 64
"""A container waits for so many names at most."""


class Condition(StrEnum):
    """The state of a container that another one waits for."""

    STARTED = "started"
    """It runs."""
    HEALTHY = "healthy"
    """It runs, and is healthy."""
    COMPLETED = "completed"
    """Its last run ended by itself, with exit status 0."""


def check_dependency(name: str, condition: str) -> tuple[str, str]:
    """A name with its condition. Raises InvalidInput."""
    check_name(name)
    if condition not in list(Condition):
        raise InvalidInput(f"{condition!r} is none of {', '.join(Condition)}")
    return name, Condition(condition)


class DependsType(Pairs):
    """Conditions by the name of a container or of a group."""

    written = f"NAME=CONDITION: {', '.join(Condition)}"

    def __init__(self) -> None:
        super().__init__(check_dependency)

    @property
    def form(self) -> str:
        """See ValueType."""
        return f"a mapping of names to one of {', '.join(Condition)}"

    def schema(self) -> dict[str, Any]:
        """See ValueType."""
        return {"type": "object", "additionalProperties": {"enum": [str(each) for each in Condition]}}

    def part(self) -> dict[str, Any]:
        """See ValueType."""
        return {"type": "object", "additionalProperties": {"enum": [*(str(each) for each in Condition), None]}}

    def render(self, value: Mapping[str, str]) -> dict[str, str]:
        """See ValueType."""
        return {name: str(condition) for name, condition in value.items()}


class _Node(NamedTuple):
    """A container, or a group as a whole: there are fewer arrows through it than from each container to each other one."""

    name: str
    group: bool = False


_Edges = Mapping[_Node, Collection[_Node]]


@dataclass(frozen=True)
class Graph:
    """The graph of dependencies: each container with the names that it waits for."""

    depends: Mapping[str, Collection[str]]
    """The names in the ``depends_on`` of each container; of all containers that there are."""
    groups: Mapping[str, Collection[str]]
    """The members of each group."""

    def meant(self, name: str) -> Collection[str]:
        """The containers that a name in a ``depends_on`` stands for: that container, else the members of that group."""
        return (name,) if name in self.depends else self.groups.get(name, ())

    def cycle(self) -> tuple[str, ...]:
        """Names of containers and groups that wait for each other in a circle, the first one once more at the end; empty:
        there is no circle."""
        edges = self._edges()
        done: set[_Node] = set()
        for start in edges:
            if start in done:
                continue
            path: dict[_Node, Any] = {start: iter(edges[start])}
            while path:
                node = next(reversed(path))
                target = next(path[node], None)
                if target is None:
                    done.add(node)
                    del path[node]
                elif target in path:
                    nodes = list(path)
                    return tuple(each.name for each in (*nodes[nodes.index(target) :], target))
                elif target not in done:
                    path[target] = iter(edges.get(target, ()))
        return ()

    def awaited(self, names: Iterable[str]) -> frozenset[str]:
        """All containers that one with these names in its ``depends_on`` waits for, be it through others."""
        edges = self._edges()
        left = [_Node(name, name not in self.depends) for name in names]
        found: dict[_Node, None] = {}
        while left:
            node = left.pop()
            if node not in found:
                found[node] = None
                left += edges.get(node, ())
        return frozenset(node.name for node in found if not node.group and node.name in self.depends)

    def turns_to_start(self, names: Iterable[str]) -> list[list[str]]:
        """These containers in turns: each comes after all of them that it waits for, be it through others. Within a turn
        they have the order in which they were given."""
        chosen = dict.fromkeys(names)
        return _turns(chosen, _longest(self._edges(), chosen))

    def turns_to_stop(self, names: Iterable[str]) -> list[list[str]]:
        """The same for stops: each comes after all that wait for it. What nobody waits for is in the first turn."""
        chosen = dict.fromkeys(names)
        return _turns(chosen, _longest(_reversed(self._edges()), chosen))

    def lifted(self, numbers: Mapping[str, int]) -> dict[str, int]:
        """The numbers, where each container has no lower one than any that it waits for."""
        lowest = min(numbers.values(), default=0)

        def highest(node: _Node, others: Iterable[tuple[_Node, int]]) -> int:
            own = lowest if node.group else numbers.get(node.name, lowest)
            return max([own, *(value for _, value in others)])

        found = _fold(self._edges(), highest)
        return {name: found.get(_Node(name), number) for name, number in numbers.items()}

    def _edges(self) -> dict[_Node, list[_Node]]:
        edges: dict[_Node, list[_Node]] = {}
        for name, others in self.depends.items():
            edges[_Node(name)] = [_Node(each, each not in self.depends) for each in others]
            for each in others:
                if each not in self.depends and _Node(each, True) not in edges:
                    edges[_Node(each, True)] = [_Node(member) for member in self.groups.get(each, ())]
        return edges


def _reversed(edges: _Edges) -> dict[_Node, list[_Node]]:
    found: dict[_Node, list[_Node]] = {node: [] for node in edges}
    for node, targets in edges.items():
        for target in targets:
            found.setdefault(target, []).append(node)
    return found


def _fold(edges: _Edges, combine: Callable[[_Node, Iterable[tuple[_Node, int]]], int]) -> dict[_Node, int]:
    """A value for each node, from the values of those to which its arrows lead; without the last arrow of a circle."""
    values: dict[_Node, int] = {}
    for start in edges:
        if start in values:
            continue
        path: dict[_Node, Any] = {start: iter(edges[start])}
        while path:
            node = next(reversed(path))
            target = next((each for each in path[node] if each not in values and each not in path), None)
            if target is not None:
                path[target] = iter(edges.get(target, ()))
            else:
                values[node] = combine(node, [(each, values[each]) for each in edges.get(node, ()) if each in values])
                del path[node]
    return values


def _longest(edges: _Edges, chosen: Collection[str]) -> dict[_Node, int]:
    """How many of the chosen containers are on the longest way that begins at each node, without the node itself."""

    def longest(_: _Node, others: Iterable[tuple[_Node, int]]) -> int:
        return max((value + (not each.group and each.name in chosen) for each, value in others), default=0)

    return _fold(edges, longest)


def _turns(chosen: Iterable[str], ranks: Mapping[_Node, int]) -> list[list[str]]:
    turns: dict[int, list[str]] = {}
    for name in chosen:
        turns.setdefault(ranks.get(_Node(name), 0), []).append(name)
    return [turns[rank] for rank in sorted(turns)]
