"""config check and config show."""

from __future__ import annotations

from pathlib import Path

import click

from lxcfleet.cli.output import write
from lxcfleet.cli.session import session_of
from lxcfleet.errors import InvalidInput


@click.group()
def config() -> None:
    """Check or show the daemon's settings."""


@config.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.pass_context
def check(ctx: click.Context, file: Path | None) -> None:
    """Check a file of settings; without FILE, the one that the daemon reads. Says all that is wrong with it.

    \b
    Examples:
      lxcfleet config check
      lxcfleet config check ./new.yaml && cp ./new.yaml /etc/lxcfleet/lxcfleet.yaml
    """
    from lxcfleet.config import load

    path = file or session_of(ctx).paths.config_file
    if file and not file.is_file():
        raise InvalidInput(f"{file} is not a file")
    load(path)
    write(f"{path}: {'ok' if path.exists() else 'missing, all settings have their defaults'}\n")


@config.command()
@click.pass_context
def show(ctx: click.Context) -> None:
    """Show all settings as YAML, those with their defaults too.

    \b
    Examples:
      lxcfleet config show
    """
    from lxcfleet.config import describe, load

    write(describe(load(session_of(ctx).paths.config_file)).rstrip("\n") + "\n")


VERBS = {"config": config}
