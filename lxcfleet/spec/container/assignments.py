"""``KEY=VALUE``, as `lxcfleet set` takes it: changes of the specs of existing containers. Pure."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.container import combinations
from lxcfleet.spec.container.fields import table
from lxcfleet.spec.container.merging import usual
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading.rows import Effect, Row
from lxcfleet.spec.reading.types import Items, Pairs


@dataclass(frozen=True)
class Assignment:
    """One change of one field."""

    row: Row
    value: Any
    """The new value. If ``partial``: the pairs to add to the mapping; a pair with the value None is taken away."""
    partial: bool = False
    """Whether ``value`` holds single pairs of a mapping instead of the whole mapping."""
    reset: bool = False
    """Whether the field gets its default again, as in a new container."""

    def apply(self, has: Any, settings: object) -> Any:
        """The value after the change, where ``has`` is the value before it."""
        if self.reset:
            return usual(self.row, settings)
        if not self.partial:
            return self.value
        return {key: value for key, value in {**has, **self.value}.items() if value is not None}


def parse(text: str) -> Assignment:
    """``memory=512M``, ``labels.role=web``, ``publish=8080:80,8443:443``. An empty value gives the default, or takes the
    pair of a mapping away. Raises InvalidInput for a key that does not exist or can't change, or for a bad value."""
    key, equals, value = text.partition("=")
    if not equals:
        raise InvalidInput(f"{text!r} says no value", hint="write it as KEY=VALUE, for example memory=512M")
    name, dot, inner = key.partition(".")
    row = _row(name)
    try:
        if dot:
            return _of_pair(row, inner, value)
        return Assignment(row, row.type.parse(value)) if value else Assignment(row, None, reset=True)
    except InvalidInput as error:
        raise InvalidInput(f"{key}: {error.message}", why=error.why, hint=error.hint) from error


def parse_all(texts: Iterable[str]) -> tuple[Assignment, ...]:
    """Parse all texts and combine the assignments. Raises InvalidInput with everything that is wrong with any text."""
    found, wrong = [], []
    for text in texts:
        try:
            found.append(parse(text))
        except InvalidInput as error:
            wrong.append(error)
    if len(wrong) == 1:
        raise wrong[0]
    if wrong:
        lines = [": ".join(part for part in (error.message, error.why) if part) for error in wrong]
        raise InvalidInput("nothing was changed: some of that can't be set", why="\n".join(lines), hint=wrong[0].hint)
    return combine(found)


def _row(key: str) -> Row:
    try:
        row = table()[key]
    except KeyError:
        close = difflib.get_close_matches(key, table(), 1)
        known = ", ".join(each.key for each in table().values() if each.change is not Effect.NEVER)
        raise InvalidInput(
            f"there is no field {key!r}", why=f"did you mean {close[0]!r}?" if close else "",
            hint=textwrap.fill(f"what can be changed: {known}", 76),
        ) from None  # fmt: skip
    if row.change is Effect.NEVER:
        raise InvalidInput(
            f"{key} of a container that exists can't be changed", why=row.why, hint="destroy it and create it anew"
        )
    return row


def _of_pair(row: Row, inner: str, value: str) -> Assignment:
    if not isinstance(row.type, Pairs):
        raise InvalidInput(f"{row.key} has no keys of its own", hint=f"write it as {row.key}=VALUE")
    if value:
        return Assignment(row, row.type.parse(f"{inner}={value}"), partial=True)
    return Assignment(row, {row.type.key(inner): None}, partial=True)


def combine(assignments: Iterable[Assignment]) -> tuple[Assignment, ...]:
    """One assignment for each key. Several assignments of one list or mapping are joined; of another field they raise
    InvalidInput."""
    found: dict[str, Assignment] = {}
    for each in assignments:
        key = each.row.key
        before = found.get(key)
        if before is None:
            found[key] = each
        elif each.partial and before.partial:
            found[key] = replace(before, value={**before.value, **each.value})
        elif isinstance(each.row.type, Items) and each.value and before.value:
            value = (*before.value, *each.value)
            each.row.type.check(value)
            found[key] = replace(before, value=value)
        else:
            raise InvalidInput(f"{key} is given twice", hint="choose one")
    return tuple(found.values())


def apply(spec: Spec, assignments: Iterable[Assignment], settings: object) -> Spec:
    """The spec with the changes. ``settings`` give defaults. Raises InvalidInput if the changed fields don't go together."""
    values: Mapping[str, Any] = {
        each.row.key: each.apply(getattr(spec, each.row.key), settings) for each in assignments
    }
    changed = replace(spec, **values)
    if changed != spec:
        combinations.check(changed)
    return changed
