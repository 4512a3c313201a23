"""Completion for the shell's TAB key: names and labels of the existing containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lxcfleet.api.client import Client
from lxcfleet.cli.session import Session
from lxcfleet.errors import FleetError
from lxcfleet.paths import Paths
from lxcfleet.spec.selection import Selection

if TYPE_CHECKING:
    from lxcfleet.api.apps import AppRecord
    from lxcfleet.api.fleets import FleetRecord
    from lxcfleet.api.records import ContainerRecord

AFTER_DASHES = "lxcfleet.command"
"""The key in click's context under which options.TakesCommand stores the command after ``--``."""

PATIENCE = 2.0
"""Seconds to wait for the daemon, as somebody waits at a prompt. After that nothing is offered."""


def names(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Matching containers that are not on the line yet; none within the command after ``--``."""
    if AFTER_DASHES in ctx.meta:
        return []
    given = ctx.params.get("patterns") or ()
    return [each["name"] for each in _containers(ctx) if each["name"].startswith(incomplete) and each["name"] not in given]


def names_and_keys(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Matching containers, and the keys that ``set`` can change; after ``KEY=`` the words that the key may have."""
    from lxcfleet.spec.container.fields import table
    from lxcfleet.spec.reading.rows import Effect
    from lxcfleet.spec.reading.types import Choice, Flag

    key, equals, typed = incomplete.partition("=")
    if equals:
        kind = table()[key].type if key in table() else None
        words = [*map(str, kind.words)] if isinstance(kind, Choice) else ["yes", "no"] if isinstance(kind, Flag) else []
        return [f"{key}={word}" for word in words if word.startswith(typed)]
    given = ctx.params.get("words") or ()
    keys = [f"{key}=" for key, row in table().items() if row.change is not Effect.NEVER]
    found = [name for name in names(ctx, parameter, incomplete) if name not in given]
    return found + [key for key in keys if key.startswith(incomplete)]


def names_and_releases(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Matching containers, and releases of apps."""
    return names(ctx, parameter, incomplete) + releases(ctx, parameter, incomplete)


def fleets(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Matching fleets that were applied from a file."""
    return [each["name"] for each in _fleets(ctx) if each["name"].startswith(incomplete)]


def groups(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Matching groups of these, which can be scaled."""
    found = {group["name"] for each in _fleets(ctx) for group in each["groups"] if group["count"] is not None}
    return sorted(name for name in found if name.startswith(incomplete))


def _fleets(ctx: click.Context) -> list[FleetRecord]:
    try:
        return _client(ctx).fleets()
    except (FleetError, OSError, ValueError):
        return []


def labels(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The labels of containers, as KEY=VALUE."""
    pairs = {f"{key}={value}" for each in _containers(ctx) for key, value in each["labels"].items()}
    return sorted(pair for pair in pairs if pair.startswith(incomplete))


def volumes(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Matching volumes."""
    try:
        found = _client(ctx).volumes()
    except (FleetError, OSError, ValueError):
        return []
    return [each["name"] for each in found if each["name"].startswith(incomplete)]


def apps(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Matching apps."""
    return sorted({each["name"] for each in _releases(ctx) if each["name"].startswith(incomplete)})


def releases(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Matching releases of apps."""
    return [each["release"] for each in _releases(ctx) if each["release"].startswith(incomplete)]


def _releases(ctx: click.Context) -> list[AppRecord]:
    try:
        return _client(ctx).apps()
    except (FleetError, OSError, ValueError):
        return []


def snapshots(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Matching snapshots of the container that was named before."""
    try:
        found = _client(ctx).snapshots(Selection((ctx.params["name"],)))
    except (FleetError, OSError, ValueError, KeyError):
        return []
    return [each["name"] for each in found if each["name"].startswith(incomplete)]


def generations(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Matching numbers of generations."""
    try:
        found = _client(ctx).generations()
    except (FleetError, OSError, ValueError):
        return []
    return [number for each in found if (number := str(each["number"])).startswith(incomplete)]


def secrets(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Matching secrets."""
    try:
        found = _client(ctx).secrets()
    except (FleetError, OSError, ValueError):
        return []
    return [each["name"] for each in found if each["name"].startswith(incomplete)]


def _client(ctx: click.Context) -> Client:
    session = ctx.find_object(Session)
    return Client(session.paths if session else Paths.from_environment(), PATIENCE)


def _containers(ctx: click.Context) -> list[ContainerRecord]:
    try:
        return _client(ctx).containers(Selection(everything=True))
    except (FleetError, OSError, ValueError):
        return []
