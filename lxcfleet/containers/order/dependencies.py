"""Dependencies of containers on others: whether their conditions are met, and which of them could never be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from lxcfleet.containers.container import Container
from lxcfleet.containers.desired import Lack
from lxcfleet.containers.outside import Healths
from lxcfleet.containers.registry import Registry
from lxcfleet.errors import InvalidInput
from lxcfleet.spec.container.depends import Condition, Graph
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.states import Health, State


class Dependencies:
    """The ``depends_on`` of all containers; a prerequisite of their starts."""

    waived = True

    def __init__(self, registry: Registry, healths: Healths, is_group: Callable[[str], bool]) -> None:
        """``is_group``: whether a fleet has a group of that name, be it without containers."""
        self._registry = registry
        self._healths = healths
        self._is_group = is_group

    async def look(self, spec: Spec) -> None:
        """See Prerequisite. What runs is known at any time."""

    def lack(self, spec: Spec) -> Lack | None:
        """See Prerequisite."""
        for name, condition in spec.depends_on.items():
            members = self._meant(name)
            if not members:
                return Lack(f"{name} has no containers" if self._is_group(name) else f"{name} does not exist")
            for each in members:
                found = self._unmet(each, Condition(condition))
                if found is not None:
                    return found
        return None

    def _meant(self, name: str) -> Sequence[Container]:
        if name in self._registry:
            return [self._registry[name]]
        return [each for each in self._registry if each.wanted is not None and each.wanted.group == name]

    def _unmet(self, other: Container, condition: Condition) -> Lack | None:
        reason, runs = f"{other.name} not {condition}", other.running is not None
        if condition is Condition.STARTED and runs:
            return None
        if condition is Condition.HEALTHY and runs:
            health = self._healths.of(other)
            if health is Health.HEALTHY:
                return None
            return Lack(reason, health is Health.STARTING, self._healths.matures(other))
        if condition is Condition.COMPLETED:
            if other.state is State.EXITED:
                return None
            past = other.exit
            if not runs and past is not None and not past.asked and past.exit_status != 0:
                reason = f"{reason}: {past.words}"
            return Lack(reason, runs or self._comes(other), remedy="" if runs else _remedy(other))
        return Lack(reason, self._comes(other), remedy=_remedy(other))

    def _comes(self, other: Container) -> bool:
        """Whether a container that does not run does so in a moment, as far as anybody can tell."""
        return other.state is State.STARTING or (other.lack is not None and other.lack.passing)

    # -- all of them together --------------------------------------------------------------------------------

    def graph(self, changed: Mapping[str, Spec] = {}) -> Graph:
        """The graph of dependencies. ``changed``: specs by name that hold instead of those on disk, or that are new."""
        specs = {each.name: each.wanted for each in self._registry if each.wanted is not None} | changed
        return graph_of(specs)

    def check(self, changed: Mapping[str, Spec]) -> None:
        """Refuse specs, by name, that name what does not exist, or that make a circle. Raises InvalidInput."""
        if not any(spec.depends_on for spec in changed.values()):
            return
        graph = self.graph(changed)
        unknown = dict.fromkeys(
            other for spec in changed.values() for other in spec.depends_on
            if other not in self._registry and not graph.meant(other) and not self._is_group(other)
        )  # fmt: skip
        if unknown:
            raise InvalidInput(
                f"depends_on: there is no container and no group named {', '.join(unknown)}",
                hint="create it first, or leave it out",
            )
        refuse_circle(graph)


def _remedy(other: Container) -> str:
    """The command that has a container run that does not, if nothing else does that."""
    return f"lxcfleet start {other.name}" if other.state in (State.STOPPED, State.EXITED, State.FAILED) else ""


def graph_of(specs: Mapping[str, Spec]) -> Graph:
    """The graph of dependencies among containers with these specs."""
    groups: dict[str, list[str]] = {}
    for name, spec in specs.items():
        if spec.group is not None:
            groups.setdefault(spec.group, []).append(name)
    return Graph({name: spec.depends_on for name, spec in specs.items()}, groups)


def refuse_circle(graph: Graph) -> None:
    """Raise InvalidInput if some wait for each other in a circle."""
    circle = graph.cycle()
    if circle:
        raise InvalidInput(
            "depends_on makes a circle, so none of them could ever start", why=in_words(circle), hint="take one of these out"
        )


def in_words(circle: Iterable[str]) -> str:
    """A circle in words."""
    return " waits for ".join(circle)
