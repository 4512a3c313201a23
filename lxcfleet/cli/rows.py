"""Options of the command line made from rows of a table, and the values that they give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from lxcfleet.cli.options import F, Time, read_all_by, read_by
from lxcfleet.spec.reading.durations import Seconds
from lxcfleet.spec.reading.rows import Row
from lxcfleet.spec.reading.types import Choice, Flag, Items, Number, Pairs, Whole


def option_of(row: Row, name: str = "", *, usual: str = "", offered: Any = None) -> Callable[[F], F]:
    """The option for a row. ``name``: the name of its parameter, if not the row's key; ``usual``: the default in words;
    ``offered``: click's completion of its values."""
    return click.option(*row.option, name or row.key, **_how(row, usual or row.usual, offered))


def _how(row: Row, usual: str, offered: Any) -> dict[str, Any]:
    """The arguments for click.option."""
    text = f"{row.help} Default: {usual}." if usual else row.help
    if isinstance(row.type, Flag):
        # A flag takes no value. Its default is None, as a missing flag leaves the value to the profile.
        return {"is_flag": True, "default": None, "help": text}
    how: dict[str, Any] = {"metavar": row.metavar or None, "help": text, "shell_complete": offered}
    match row.type:
        case Choice() if not row.type.prefix:
            how["type"] = click.Choice([str(word) for word in row.type.words])
        case Whole():
            how["type"] = click.IntRange(row.type.low, row.type.high)
        case Seconds():
            how["type"] = Time(row.type.low, row.type.high)
        case Number():
            how["type"] = click.FloatRange(row.type.low, row.type.high)
        case Items():
            how |= {"multiple": True, "callback": read_all_by(row.type.parse_all), "help": text + " May be repeated."}
        case Pairs():
            more = " NAME alone takes its value from here." if row.key == "environment" else ""
            how |= {"multiple": True, "help": f"{text} May be repeated.{more}"}
        case _:
            how["callback"] = read_by(row.type.parse)
    return how
