"""Dependencies of containers: how they are read, circles, and the order that follows from them."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.container.depends import Condition, DependsType, Graph
from lxcfleet.spec.reading.reader import Fields

NAMES = [f"c{number}" for number in range(8)]
GROUPS = ["g1", "g2", "g3"]

GRAPHS = st.builds(
    Graph,
    st.fixed_dictionaries({name: st.lists(st.sampled_from([*NAMES, *GROUPS, "gone"]), max_size=3) for name in NAMES}),
    st.fixed_dictionaries({group: st.lists(st.sampled_from(NAMES), max_size=3, unique=True) for group in GROUPS}),
)


def direct(graph: Graph) -> dict[str, set[str]]:
    """The containers that each one waits for itself."""
    return {name: {each for other in others for each in graph.meant(other)} for name, others in graph.depends.items()}


def reachable(graph: Graph) -> dict[str, set[str]]:
    """The containers that each one waits for, be it through others: by the plain way, to compare with."""
    found = direct(graph)
    for _, name in itertools.product(NAMES, NAMES):
        found[name] |= {far for near in found[name] for far in found[near]}
    return found


def test_conditions_are_read_from_files_and_options() -> None:
    kind = DependsType()
    assert kind.parse("db=healthy") == {"db": Condition.HEALTHY}
    fields = Fields({"depends_on": {"db": "healthy", "web1": "sometimes", "a b": "started", "x": None}}, "file")
    assert kind.read(fields, "depends_on") == {"db": "healthy"}
    with pytest.raises(InvalidInput) as told:
        fields.finish("no")
    assert [line.split(": ")[1] for line in told.value.why.splitlines()] == [
        "depends_on.web1", "depends_on.a b", "depends_on.x"
    ]  # fmt: skip
    for wrong in ("db", "db=", "db=up", "=healthy"):
        with pytest.raises(InvalidInput):
            kind.parse(wrong)


@given(GRAPHS)
def test_a_circle_is_found_if_there_is_one_and_is_one(graph: Graph) -> None:
    circle = graph.cycle()
    assert bool(circle) == any(name in others for name, others in reachable(graph).items())
    if circle:
        assert circle[0] == circle[-1]
        for one, other in itertools.pairwise(circle):
            assert other in graph.depends.get(one, ()) or other in graph.groups.get(one, ())


def check_turns(turns: list[list[str]], chosen: Collection[str], before: Mapping[str, set[str]]) -> None:
    """``before``: for each container, those whose turn must have come."""
    assert sorted(name for turn in turns for name in turn) == sorted(chosen)
    place = {name: number for number, turn in enumerate(turns) for name in turn}
    for name in chosen:
        assert all(place[other] < place[name] for other in before[name] if other in place)
        if place[name]:
            assert any(place[other] == place[name] - 1 for other in before[name] if other in place), "it waits for nothing"


@given(GRAPHS, st.sets(st.sampled_from(NAMES)))
def test_turns_are_in_order_and_nobody_waits_without_need(graph: Graph, chosen: set[str]) -> None:
    far = reachable(graph)
    if graph.cycle():
        for turns in (graph.turns_to_start(chosen), graph.turns_to_stop(chosen)):
            assert sorted(name for turn in turns for name in turn) == sorted(chosen)
        return
    check_turns(graph.turns_to_start(chosen), chosen, far)
    back = {name: {other for other in NAMES if name in far[other]} for name in NAMES}
    check_turns(graph.turns_to_stop(chosen), chosen, back)


@given(GRAPHS, st.fixed_dictionaries({name: st.integers(-3, 3) for name in NAMES}))
def test_nobody_has_a_lower_number_than_what_it_waits_for(graph: Graph, numbers: dict[str, int]) -> None:
    lifted = graph.lifted(numbers)
    assert lifted.keys() == numbers.keys()
    if not graph.cycle():
        far = reachable(graph)
        assert lifted == {name: max([number, *(numbers[each] for each in far[name])]) for name, number in numbers.items()}


def test_many_containers_that_wait_for_many_take_no_time_for_each_pair() -> None:
    """A thousand that wait for a group of a thousand: a million arrows, if each were followed."""

    class Once(dict[str, list[str]]):
        """Groups whose members are looked up once at most."""

        def get(self, name: str, default: Any = None) -> Any:
            assert name not in looked_up
            looked_up.add(name)
            return super().get(name, default)

    looked_up: set[str] = set()
    groups = Once(db=[f"db{number}" for number in range(1000)], web=[f"web{number}" for number in range(1000)])
    graph = Graph({**dict.fromkeys(groups["db"], ()), **dict.fromkeys(groups["web"], ("db",))}, groups)
    assert sum(map(len, graph._edges().values())) == 2000
    looked_up.clear()
    assert graph.cycle() == ()
    looked_up.clear()
    assert graph.turns_to_start([*groups["web"], *groups["db"]]) == [groups["db"], groups["web"]]
    looked_up.clear()
    assert graph.turns_to_stop([*groups["db"], *groups["web"]]) == [groups["web"], groups["db"]]


def test_a_long_chain_is_no_trouble() -> None:
    graph = Graph({f"c{number}": (f"c{number + 1}",) for number in range(5000)}, {})
    assert len(graph.turns_to_start(graph.depends)) == 5000
    assert graph.cycle() == ()
