"""The rule by which profiles, groups and members are merged: its cases, and that it is associative."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as some

from lxcfleet.spec.files import layering
from lxcfleet.spec.files.profiles import rows
from lxcfleet.spec.reading import marked_yaml
from lxcfleet.spec.reading.reader import Marked

RULE = layering.LayeringRule(rows())


def layer(text: str) -> Marked:
    return marked_yaml.load(text.encode(), "f", pytest.fail)


def merged(*texts: str) -> Any:
    return layering.resolved(RULE.merge([layer(text) for text in texts]))


@pytest.mark.parametrize(
    ("texts", "result"),
    [
        (("memory: 1G", "memory: 2G"), {"memory": "2G"}),
        (("memory: 1G", "pids: 5"), {"memory": "1G", "pids": 5}),
        (("memory: 1G", "memory: null"), {}),
        (("memory: 1G", "memory: null", "memory: 3G"), {"memory": "3G"}),
        (("labels: {a: x, b: y}", "labels: {b: z, c: w}"), {"labels": {"a": "x", "b": "z", "c": "w"}}),
        (("labels: {a: x, b: y}", "labels: {b: null}"), {"labels": {"a": "x"}}),
        (("labels: {a: x}", "labels: null", "labels: {b: y}"), {"labels": {"b": "y"}}),
        (("command: [a, b]", "command: [c]"), {"command": ["c"]}),
        (("ports: [http=80, dns=53]", "ports: [http=8080]"), {"ports": ["http=8080", "dns=53"]}),
        (("ports: [dns=53]", "ports: [dns=53/udp]"), {"ports": ["dns=53", "dns=53/udp"]}),
        (("publish: ['80:80']", "publish: ['80:8080', '443:443']"), {"publish": ["80:8080", "443:443"]}),
        (("publish: ['80-82:80-82']", "publish: ['81:8080']"), {"publish": ["80:80", "81:8080", "82:82"]}),
        (("publish: ['80-81:1']", "publish: ['81:8080']"), {"publish": ["80-81:1", "81:8080"]}),
        (("ports: [http=80]", "ports: null", "ports: [dns=53]"), {"ports": ["dns=53"]}),
        (("health: {http: /ready, interval: 3}", "health: {tcp: 80}"), {"health": {"tcp": 80, "interval": 3}}),
        (("health: {http: /ready}", "health: {interval: 9}"), {"health": {"http": "/ready", "interval": 9}}),
        (("rollout: {priority: 1}", "rollout: {max_unavailable: 2}"), {"rollout": {"priority": 1, "max_unavailable": 2}}),
        ((), {}),
    ],
)  # fmt: skip
def test_layers_are_merged_by_one_rule(texts: tuple[str, ...], result: dict[str, Any]) -> None:
    assert merged(*texts) == result


def test_each_value_keeps_its_place() -> None:
    whole = RULE.merge([layer("labels: {a: x}\nmemory: 1G"), layer("# c\nlabels:\n  b: y\n")])
    assert (whole.places["memory"], whole["labels"].places) == ("f:2", {"a": "f:1", "b": "f:3"})


def marked(data: dict[str, Any]) -> Marked:
    made = Marked("f")
    for key, value in data.items():
        made.put(key, marked(value) if isinstance(value, dict) else value, "f")
    return made


WORDS = some.sampled_from(["a", "b", "c"])
MAPPINGS = some.none() | some.dictionaries(WORDS, some.none() | WORDS, max_size=3)
PORTS = some.none() | some.lists(some.sampled_from(["a=1", "a=2", "b=1", "b=2/udp"]), max_size=3, unique_by=lambda t: t[0])
CHECKS = some.none() | some.dictionaries(
    some.sampled_from(["tcp", "exec", "interval", "ignore_units"]), some.none() | WORDS, max_size=3
)
KEYS: dict[str, some.SearchStrategy[Any]] = {
    "memory": some.none() | WORDS, "command": some.none() | some.lists(WORDS, max_size=2), "labels": MAPPINGS,
    "environment": MAPPINGS, "ports": PORTS, "health": CHECKS,
}  # fmt: skip
NOTHING: dict[str, some.SearchStrategy[Any]] = {}
LAYERS = some.fixed_dictionaries(NOTHING, optional=KEYS).map(marked)


@settings(max_examples=400, deadline=None)
@given(LAYERS, LAYERS, LAYERS)
@example(marked({"health": {"interval": "a"}}), marked({"health": None}), marked({"health": {"tcp": "a"}}))
def test_it_does_not_matter_which_two_are_merged_first(one: Marked, two: Marked, three: Marked) -> None:
    def both(under: Marked, over: Marked) -> Marked:
        return RULE.merge([under, over])

    left, right = both(both(one, two), three), both(one, both(two, three))
    assert layering.resolved(left) == layering.resolved(right)
    assert layering.resolved(left) == layering.resolved(RULE.merge([one, two, three]))
