"""events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from http.client import HTTPException

import click

from lxcfleet.api.records import EventRecord
from lxcfleet.cli.session import connect
from lxcfleet.cli.ui import output
from lxcfleet.errors import Unreachable


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens next, until Ctrl-C.")
@click.option(
    "--format",
    "style",
    type=click.Choice(["table", "json"]),
    default="table",
    help="How to print; json: one object per line. Default: table.",
)
@click.pass_context
def events(ctx: click.Context, follow: bool, style: str) -> None:
    """Show what happened to the fleet since the daemon started.

    \b
    Examples:
      lxcfleet events
      lxcfleet events -f --format json | jq 'select(.what == "unhealthy")'
    """
    line: Callable[[EventRecord], str] = _as_json if style == "json" else _as_text
    client = connect(ctx)
    try:
        for event in _received(client.events(follow=follow)):
            output.write(line(event) + "\n")
    except KeyboardInterrupt:
        if not follow:
            raise


def _received(events: Iterable[EventRecord]) -> Iterator[EventRecord]:
    """``events``; raises Unreachable where they break off. A stdout that takes no more is not the daemon's doing."""
    try:
        yield from events
    except (OSError, HTTPException, ValueError) as error:
        raise Unreachable("the daemon went away", why=str(error)) from error


def _as_json(event: EventRecord) -> str:
    return output.to_json(event, indent=None)


def _as_text(event: EventRecord) -> str:
    text = f"{event['time']}  {event['what']:<10}  {event['container'] or '-':<12}  {event['message']}"
    return output.printable(text.rstrip())


VERBS = {"events": events}
