"""The one rule by which what stands in profiles, groups and members is merged. Pure.

Of scalars and plain lists the last one wins. Mappings are merged key by key. Lists of things that have a name are merged by
that name. ``null`` removes what stands below it. The rule is associative: it does not matter which two layers are merged
first. So ``null`` leaves a mark: what a later layer adds to a mapping that was removed does not bring the old keys back.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import reduce
from itertools import islice
from typing import Any

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.reading.reader import Marked
from lxcfleet.spec.reading.rows import Row
from lxcfleet.spec.reading.types import MAX_ITEMS, Items

Naming = Callable[[Any], Hashable]
"""The name of one thing of a list."""


class Cut(Marked):
    """A mapping that stands for itself: of the layers below it nothing is left."""


class CutList(list[Any]):
    """A list of things with names that stands for itself."""


class LayeringRule:
    """The rule for the keys that ``rows`` have."""

    def __init__(self, rows: Mapping[str, Row]) -> None:
        self._rows = rows
        self._names = {key: naming for key, row in rows.items() if (naming := _naming(row)) is not None}

    def merge(self, layers: Iterable[Marked]) -> Marked:
        """The layers as one, the last on top; nulls are still there. See ``resolved``."""
        prepared = [_prepared(self._rows, layer) for layer in layers]
        return reduce(lambda under, over: _mappings(under, over, self._names), prepared) if prepared else Marked()


def resolved(layer: Marked) -> Marked:
    """The layer without what null removed."""
    made = Marked(layer.place)
    for key, value in layer.items():
        if value is not None:
            made.put(key, resolved(value) if isinstance(value, Marked) else value, layer.places[key])
    return made


def _prepared(rows: Mapping[str, Row], layer: Marked) -> Marked:
    made = layer.copy()
    for key, value in layer.items():
        if isinstance(value, Marked) and key in rows:
            alone = rows[key].type.alone(value)
            made[key] = _cut(alone) if isinstance(value, Cut) and isinstance(alone, Marked) else alone
        elif isinstance(value, list) and key in rows:
            made[key] = type(value)(islice((each for item in value for each in _spread(rows[key], item)), MAX_ITEMS + 1))
    return made


def _spread(row: Row, item: Any) -> Sequence[Any]:
    """The single things that one item of a list stands for, as each of them has a name of its own."""
    if not isinstance(row.type, Items) or not isinstance(item, str):
        return (item,)
    try:
        single: Sequence[str] = row.type.spread(item)
        return single
    except InvalidInput:
        return (item,)  # it is complained of elsewhere


def _naming(row: Row) -> Naming | None:
    if not isinstance(row.type, Items) or row.type.name_of is None:
        return None
    parse, name_of = row.type.parse_one, row.type.name_of

    def naming(item: Any) -> Hashable:
        try:
            return name_of(parse(item))
        except (InvalidInput, TypeError, AttributeError):
            return str(item)  # it is complained of elsewhere

    return naming


def _mappings(under: Marked, over: Marked, names: Mapping[str, Naming]) -> Marked:
    made = under.copy()
    made.place = over.place or under.place
    for key, value in over.items():
        joined = _values(under[key], value, names.get(key)) if key in under else value
        made.put(key, joined, over.places[key])
    return made


def _values(under: Any, over: Any, naming: Naming | None) -> Any:
    if isinstance(over, Cut | CutList) or over is None:
        return over
    if isinstance(over, Marked):
        if isinstance(under, Marked):
            merged = _mappings(under, over, {})
            return _cut(merged) if isinstance(under, Cut) else merged
        return _cut(over)
    if isinstance(over, list) and naming is not None:
        if not isinstance(under, list):
            return CutList(over)
        things = {naming(item): item for item in under} | {naming(item): item for item in over}
        return (CutList if isinstance(under, CutList) else list)(things.values())
    return over


def _cut(mapping: Marked) -> Cut:
    made = Cut(mapping.place)
    made.update(mapping)
    made.places.update(mapping.places)
    return made
