"""What the shell offers at TAB: names and labels of the containers that there are."""

from __future__ import annotations

import click

from lxcfleet.api.client import Client
from lxcfleet.api.records import ContainerRecord
from lxcfleet.cli.session import Session
from lxcfleet.errors import FleetError
from lxcfleet.paths import Paths
from lxcfleet.spec.selection import Selection

AFTER_DASHES = "lxcfleet.command"
"""Where options.TakesCommand leaves the command after ``--`` in the context."""

PATIENCE = 2.0
"""Seconds: somebody waits at a prompt. What is not known by then is not offered."""


def names(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Containers that begin so and are not on the line yet; none in the command after ``--``."""
    if AFTER_DASHES in ctx.meta:
        return []
    given = ctx.params.get("patterns") or ()
    return [each["name"] for each in _containers(ctx) if each["name"].startswith(incomplete) and each["name"] not in given]


def names_and_keys(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Containers, and the keys of what can be changed of them."""
    from lxcfleet.spec.fields import table
    from lxcfleet.spec.rows import Change

    given = ctx.params.get("words") or ()
    keys = [f"{key}=" for key, row in table().items() if row.change is not Change.NEVER]
    found = [name for name in names(ctx, parameter, incomplete) if name not in given]
    return found + [key for key in keys if key.startswith(incomplete)]


def labels(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """KEY=VALUE that containers have."""
    pairs = {f"{key}={value}" for each in _containers(ctx) for key, value in each["labels"].items()}
    return sorted(pair for pair in pairs if pair.startswith(incomplete))


def _containers(ctx: click.Context) -> list[ContainerRecord]:
    session = ctx.find_object(Session)
    paths = session.paths if session else Paths.from_environment()
    try:
        return Client(paths, PATIENCE).containers(Selection(everything=True))
    except (FleetError, OSError, ValueError):
        return []
