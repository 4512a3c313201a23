"""events."""

from __future__ import annotations

from collections.abc import Callable

import click

from lxcfleet.api.client import BrokenOff
from lxcfleet.api.queries import EventsRequest
from lxcfleet.api.records import EventRecord
from lxcfleet.cli import options
from lxcfleet.cli.session import connect
from lxcfleet.cli.ui import output
from lxcfleet.errors import Unreachable


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with new events, until Ctrl-C.")
@click.option(
    "--since", callback=options.read_by(options.moment), metavar="TIME",
    help="Events from then on, also from before the daemon started: 10m (ago), today, yesterday, 18:30, or a date.",
)  # fmt: skip
@click.option(
    "--format",
    "style",
    type=click.Choice(["table", "json"]),
    default="table",
    help="How to print; json: one object per line. Default: table.",
)
@click.pass_context
def events(ctx: click.Context, follow: bool, since: float | None, style: str) -> None:
    """Show what happened to the fleet.

    Without --since this is what the daemon saw since it started.

    \b
    Examples:
      lxcfleet events --since yesterday
      lxcfleet events -f --format json | jq 'select(.what == "unhealthy")'
    """
    line: Callable[[EventRecord], str] = _as_json if style == "json" else _as_text
    client, told = connect(ctx), False
    try:
        for event in client.events(EventsRequest(follow, since or 0.0)):
            output.write(line(event) + "\n")
            told = True
        if follow:
            raise BrokenOff("", why="it closed the connection")
        if not told:
            # A daemon starts itself anew after a patch of what it runs itself: what came before is what is looked for then.
            when = "since then" if since else "since the daemon started; earlier ones: lxcfleet events --since yesterday"
            output.say(f"lxcfleet: nothing happened {when}")
    except BrokenOff as error:
        raise Unreachable(
            "the daemon went away: no more events come", why=error.why,
            hint="those of a restarted daemon, and those between: lxcfleet events -f --since 1m",
        ) from error  # fmt: skip
    except KeyboardInterrupt:
        if not follow:
            raise


def _as_json(event: EventRecord) -> str:
    return output.to_json(event, indent=None)


def _as_text(event: EventRecord) -> str:
    text = f"{event['time']}  {event['what']:<10}  {event['container'] or '-':<12}  {event['message']}"
    return output.printable(text.rstrip())


VERBS = {"events": events}
