"""Options of ``create`` made from the table of fields, and the values that they give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from lxcfleet.cli import complete, options
from lxcfleet.cli.checks import health, health_options
from lxcfleet.errors import InvalidInput
from lxcfleet.spec.fields import askable
from lxcfleet.spec.health import HealthType
from lxcfleet.spec.rows import Row
from lxcfleet.spec.types import Choice, Flag, Items, Number, Pairs, Whole

_OFFERED = {"labels": complete.labels}
"""Completion for the option of a field."""


def field_options(function: options.F) -> options.F:
    """Add an option for each field that has one."""
    for row in reversed(askable().values()):
        if isinstance(row.type, HealthType):
            function = health_options(function)
        elif row.option:
            function = click.option(*row.option, row.key, **_how(row))(function)
    return function


def _how(row: Row) -> dict[str, Any]:
    """The arguments for click.option."""
    text = f"{row.help} Default: {row.usual}." if row.usual else row.help
    if isinstance(row.type, Flag):
        # A flag takes no value. Its default is None, as a missing flag leaves the value to the profile.
        return {"is_flag": True, "default": None, "help": text}
    how: dict[str, Any] = {"metavar": row.metavar or None, "help": text, "shell_complete": _OFFERED.get(row.key)}
    match row.type:
        case Choice() if not row.type.prefix:
            how["type"] = click.Choice([str(word) for word in row.type.words])
        case Whole():
            how["type"] = click.IntRange(row.type.low, row.type.high)
        case Number():
            how["type"] = click.FloatRange(row.type.low, row.type.high)
        case Items():
            how |= {"multiple": True, "callback": options.read_by(row.type.parse_one), "help": text + " May be repeated."}
        case Pairs():
            more = " NAME alone takes its value from here." if row.key == "environment" else ""
            how |= {"multiple": True, "help": f"{text} May be repeated.{more}"}
        case _:
            how["callback"] = options.read_by(row.type.parse)
    return how


def said(taken: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the options that were given, by key of the table. Raises InvalidInput."""
    found: dict[str, Any] = {}
    for key, row in askable().items():
        if isinstance(row.type, HealthType):
            value: Any = health(**{name: inner for name, inner in taken.items() if name.startswith("health_")})
        else:
            value = _typed(row, taken.get(key))
        if value is not None and value != ():
            found[key] = value
    return found


def _typed(row: Row, value: Any) -> Any:
    if value is None:
        return None
    match row.type:
        case Choice() if not row.type.prefix:
            return row.type.parse(value)
        case Pairs():
            return _pairs(row, value)
        case _:
            return value


def _pairs(row: Row, texts: tuple[str, ...]) -> dict[str, str] | None:
    if row.key == "environment":
        return options.environment(texts) or None
    found: dict[str, str] = {}
    for text in texts:
        for key, value in row.type.parse(text).items():
            if found.setdefault(key, value) != value:
                raise InvalidInput(
                    f"{row.key}: {key} is given twice: as {found[key]!r} and as {value!r}", hint="choose one"
                )
    return found or None
