"""Rows: all that is told of one key of a spec or of the settings, in one place.

A dataclass declares its keys as attributes whose default is a ``row``. What reads, writes, shows or documents them goes
through ``rows_of``, so that a key is told once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.reader import Fields
from lxcfleet.spec.terms import Init
from lxcfleet.spec.types import ValueType

_KEY = "row"


class Change(StrEnum):
    """How a container that exists comes to another value."""

    LIVE = "live"
    """At once, while it runs."""
    RESTART = "restart"
    """By its next start."""
    NEVER = "never"
    """Not at all: it is to be created anew."""


@dataclass(frozen=True)
class Row:
    """One key. What concerns containers alone says nothing of the settings' keys."""

    type: ValueType[Any]
    help: str
    """One sentence or two. Of a container: about "it"."""
    key: str = ""
    default: Any = None
    usual: str = ""
    """The default in words, where the value alone does not tell it."""
    change: Change = Change.RESTART
    why: str = ""
    """Why it can't change, or not at once."""
    create: bool = True
    """Whether ``create`` takes it; else lxcfleet gives it."""
    profile: bool = True
    """Whether profiles take it."""
    stored: bool = True
    """Whether it stands in the file; else it follows from others."""
    setting: str = ""
    """The setting that holds where neither a request nor a profile says it, such as ``network.drain``."""
    option: tuple[str, ...] = ()
    """The names of its option of ``create``."""
    metavar: str = ""
    secret: bool = False
    """Whether it is shown only to those who may change containers."""
    init: Init | None = None
    """The only kind of container that may have it; None: both."""
    init_why: str = ""
    """Why the other kind may not, and after a line break: what to do instead."""

    def read(self, fields: Fields) -> Any:
        """The value in ``fields``, which is there."""
        return self.type.read(fields, self.key)

    def render(self, value: Any) -> Any:
        """The value as it stands in files and requests."""
        return None if value is None else self.type.render(value)

    def schema(self) -> dict[str, Any]:
        """Its JSON Schema, with what editors show."""
        inner = self.type.schema()
        either = {"enum": [*inner["enum"], None]} if "enum" in inner else _or_null(inner)
        usual = {} if self.default is None or self.setting or self.usual else {"default": self.render(self.default)}
        return {"description": self.help, **either, **usual}

    def tell(self, value: Any) -> str:
        """The value in words."""
        return "none" if value is None else self.type.tell(value)


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of the same or nothing: a key without a value is as good as a missing one."""
    if isinstance(schema.get("type"), str) and "oneOf" not in schema:
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def row(
    type: ValueType[Any], help: str, *, default: Any = None, **told: Any
) -> Any:
    """The default of an attribute that is a key."""
    metadata = {_KEY: Row(type, help, default=default, **told)}
    if isinstance(default, Mapping):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def rows_of(table: Any) -> Mapping[str, Row]:
    """The rows of a dataclass by key, in order."""
    return _rows_of(table)


@cache
def _rows_of(table: Any) -> Mapping[str, Row]:
    return {
        field.name: dataclasses.replace(field.metadata[_KEY], key=field.name)
        for field in dataclasses.fields(table)
        if _KEY in field.metadata
    }


def read_said(rows: Iterable[Row], fields: Fields) -> dict[str, Any]:
    """The values of those keys that ``fields`` has, by key; complaints go to ``fields``, and what is wrong is left out."""
    said = {}
    for each in rows:
        if fields.has(each.key):
            before = fields.complaints
            value = each.read(fields)
            if fields.complaints == before:
                said[each.key] = value
    return said


def render_said(rows: Mapping[str, Row], said: Mapping[str, Any]) -> dict[str, Any]:
    """Values by key as they stand in files and requests, in the rows' order."""
    return {key: each.render(said[key]) for key, each in rows.items() if key in said}


# -- sections: keys that have keys of their own ---------------------------------------------------------------


class Checked:
    """A section whose keys may not be together in every way."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with it: keys, and why."""
        yield from ()


S = TypeVar("S")


def read_section(kind: type[S], fields: Fields) -> S:
    """A section from what ``fields`` say and the defaults; complaints go to ``fields``."""
    section = kind(**read_said(rows_of(kind).values(), fields))
    fields.close()
    if isinstance(section, Checked):
        for key, problem in section.problems():
            fields.complain(key, problem)
    return section


def render_section(section: object) -> dict[str, Any]:
    """A section as it stands in the file, with the keys that have a value."""
    values = {key: each.render(getattr(section, key)) for key, each in rows_of(type(section)).items()}
    return {key: value for key, value in values.items() if value is not None}


def schema_of(rows: Iterable[Row]) -> dict[str, Any]:
    """The JSON Schema of a mapping with those keys, each of which may be missing or null."""
    return {
        "type": "object",
        "properties": {each.key: each.schema() for each in rows},
        "additionalProperties": False,
    }


class SectionType(ValueType[S]):
    """A mapping whose keys are the rows of a dataclass."""

    def __init__(self, kind: type[S]) -> None:
        self.kind = kind

    def read(self, fields: Fields, key: str) -> S:
        """See ValueType."""
        return read_section(self.kind, fields.nested(key))

    def parse(self, text: str) -> S:
        """See ValueType."""
        raise InvalidInput(f"{text!r} can't stand for several keys")

    @property
    def form(self) -> str:
        """See ValueType."""
        return "a mapping"

    def schema(self) -> dict[str, Any]:
        """See ValueType."""
        return schema_of(rows_of(self.kind).values())

    def render(self, value: S) -> dict[str, Any]:
        """See ValueType."""
        return render_section(value)


def section(kind: type[Any]) -> Any:
    """The default of an attribute that is a section."""
    text = " ".join((kind.__doc__ or "").split())
    return dataclasses.field(default_factory=kind, metadata={_KEY: Row(SectionType(kind), text, default=kind())})
