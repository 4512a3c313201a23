"""Options of ``create`` made from the table of fields, and the values that they give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from lxcfleet.cli import complete, options
from lxcfleet.cli.rows import option_of
from lxcfleet.errors import InvalidInput
from lxcfleet.spec.container import health
from lxcfleet.spec.container.fields import askable
from lxcfleet.spec.reading.rows import Row
from lxcfleet.spec.reading.terms import Init
from lxcfleet.spec.reading.types import Choice, Pairs

_OFFERED = {
    "labels": complete.labels, "app": complete.releases, "secrets": complete.secrets, "volumes": complete.volumes,
    "depends_on": complete.names,
}  # fmt: skip
"""Completion for the option of a field."""


def field_options(function: options.F) -> options.F:
    """Add an option for each field that has one. A health check has an option for each of its own keys."""
    for row in reversed(askable().values()):
        if isinstance(row.type, health.HealthType):
            for inner in reversed(health.rows().values()):
                function = option_of(inner, f"health_{inner.key}", usual=_default(inner))(function)
        elif row.option:
            function = option_of(row, offered=_OFFERED.get(row.key))(function)
    return function


def _default(row: Row) -> str:
    return "" if row.default is None else row.tell(row.default)


def said(taken: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the options that were given, by key of the table. Raises InvalidInput."""
    found: dict[str, Any] = {}
    for key, row in askable().items():
        value = _check(taken) if isinstance(row.type, health.HealthType) else _typed(row, taken.get(key))
        if value is not None and value != ():
            found[key] = value
    return found


def said_with_command(ctx: click.Context, taken: Mapping[str, Any]) -> dict[str, Any]:
    """The same, with the command after ``--`` if there is one. Raises InvalidInput."""
    command = options.command_after_dashes(ctx)
    found = said(taken)
    if not command:
        return found
    if found.get("init") is Init.SYSTEM:
        raise InvalidInput(
            "a system container runs the host's systemd, not a command", hint="leave out the command or --init system"
        )
    return {**found, "command": command}


def _check(taken: Mapping[str, Any]) -> health.HealthCheck | None:
    """The health check that the options ask for; None: they ask for none."""
    given = {key: taken.get(f"health_{key}") for key in health.rows()}
    given = {key: value for key, value in given.items() if value not in (None, ())}
    kinds = [kind for kind in health.KINDS if kind in given]
    if given and len(kinds) != 1:
        what = "only one of them" if kinds else "one of them"
        raise InvalidInput(f"give {what}: {', '.join(row.option[-1] for row in health.KINDS.values())}")
    return health.check_of(given) if given else None


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
