"""Rows: a row declares one key of a spec or of the settings, with everything about it in one place.

A dataclass declares its keys as attributes whose default is a ``row``. Code that reads, writes, shows or documents keys
goes through ``rows_of``, so that each key is declared once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.reading.terms import Init
from lxcfleet.spec.reading.types import ValueType

_KEY = "row"


class Effect(StrEnum):
    """When a changed value takes effect in an existing container."""

    LIVE = "live"
    """At once, while it runs."""
    RESTART = "restart"
    """At its next start."""
    NEVER = "never"
    """Never: the container has to be created anew."""


@dataclass(frozen=True, eq=False, repr=False)
class Row:
    """One key. Attributes about containers alone mean nothing for keys of the settings."""

    type: ValueType[Any]
    help: str
    """One or two sentences. In a container's row "it" is the container."""
    key: str = ""
    default: Any = None
    usual: str = ""
    """The default in words, where the value alone does not tell it."""
    change: Effect = Effect.RESTART
    why: str = ""
    """Why the value can't change, or not at once."""
    create: bool = True
    """Whether ``create`` takes the key; otherwise lxcfleet assigns the value."""
    profile: bool = True
    """Whether a profile may have the key."""
    stored: bool = True
    """Whether the key stands in the spec's file; otherwise its value follows from other keys."""
    setting: str = ""
    """The setting that gives the value where neither request nor profile does, such as ``network.drain``."""
    taken_over: bool = True
    """Whether a new container takes the setting's value over. Otherwise it has none, and the setting is read each time that
    the value is used."""
    stays: bool = False
    """Whether a container that exists keeps its value where nobody says one, as others than its operator give it, too."""
    option: tuple[str, ...] = ()
    """The names of the key's option of ``create``."""
    metavar: str = ""
    secret: bool = False
    """Whether the value is shown only to callers that may change containers."""
    init: Init | None = None
    """The only kind of container that may have the key; None: both."""
    init_why: str = ""
    """Why the other kind may not have the key, and after a line break a hint."""

    def read(self, fields: Fields) -> Any:
        """The value in ``fields``, which must have the key."""
        return self.type.read(fields, self.key)

    def render(self, value: Any) -> Any:
        """The value in the form of files and requests."""
        return None if value is None else self.type.render(value)

    def schema(self, *, part: bool = False) -> dict[str, Any]:
        """The key's JSON Schema, with the description that editors show. ``part``: of what one of several layers may say."""
        inner = self.type.part() if part else self.type.schema()
        either = {"enum": [*inner["enum"], None]} if "enum" in inner else _or_null(inner)
        usual = {} if self.default is None or self.setting or self.usual else {"default": self.render(self.default)}
        return {"description": self.help, **either, **usual}

    def tell(self, value: Any) -> str:
        """The value in words."""
        return "none" if value is None else self.type.tell(value)


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema, with null allowed, too: a key without a value counts as missing."""
    if isinstance(schema.get("type"), str) and "oneOf" not in schema:
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def row(
    type: ValueType[Any], help: str, *, default: Any = None, **told: Any
) -> Any:
    """Declare a key: gives the default for the attribute of the dataclass."""
    metadata = {_KEY: Row(type, help, default=default, **told)}
    if isinstance(default, Mapping):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def rows_of(table: Any) -> Mapping[str, Row]:
    """The rows of a dataclass by key, in the order of declaration."""
    return _rows_of(table)


@cache
def _rows_of(table: Any) -> Mapping[str, Row]:
    return {
        field.name: dataclasses.replace(field.metadata[_KEY], key=field.name)
        for field in dataclasses.fields(table)
        if _KEY in field.metadata
    }


def read_said(rows: Iterable[Row], fields: Fields) -> dict[str, Any]:
    """The values of the keys that ``fields`` has, by key. Complaints go to ``fields``, and wrong values are left out."""
    said = {}
    for each in rows:
        if fields.has(each.key):
            before = fields.complaints
            value = each.read(fields)
            if fields.complaints == before:
                said[each.key] = value
    return said


def render_said(rows: Mapping[str, Row], said: Mapping[str, Any]) -> dict[str, Any]:
    """Values by key in the form of files and requests, in the rows' order."""
    return {key: each.render(said[key]) for key, each in rows.items() if key in said}


# -- sections: keys that have keys of their own ---------------------------------------------------------------


class CheckedSection:
    """A section with rules on its keys together."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """The broken rules: the key to blame, and why."""
        yield from ()


S = TypeVar("S")


def read_section(kind: type[S], fields: Fields) -> S:
    """A section from the values in ``fields`` and the defaults; complaints go to ``fields``."""
    section = kind(**read_said(rows_of(kind).values(), fields))
    fields.close()
    if isinstance(section, CheckedSection):
        for key, problem in section.problems():
            fields.complain(key, problem)
    return section


def render_section(section: object) -> dict[str, Any]:
    """A section in the form of files, with the keys that have a value."""
    values = {key: each.render(getattr(section, key)) for key, each in rows_of(type(section)).items()}
    return {key: value for key, value in values.items() if value is not None}


def schema_of(rows: Iterable[Row], *, part: bool = False) -> dict[str, Any]:
    """The JSON Schema of a mapping with these keys, each of which may be missing or null. ``part``: see Row.schema."""
    return {
        "type": "object",
        "properties": {each.key: each.schema(part=part) for each in rows},
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
    """Declare a section: gives the default for the attribute of the dataclass."""
    text = " ".join((kind.__doc__ or "").split())
    return dataclasses.field(default_factory=kind, metadata={_KEY: Row(SectionType(kind), text, default=kind())})
