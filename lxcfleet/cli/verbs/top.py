"""top."""

from __future__ import annotations

import math
import sys
import time

import click

from lxcfleet.api.client import Client
from lxcfleet.api.records import UsageRecord
from lxcfleet.cli import options
from lxcfleet.cli.session import connect
from lxcfleet.cli.ui import output, usage
from lxcfleet.cli.ui.screen import Screen
from lxcfleet.errors import InvalidInput, Unreachable
from lxcfleet.spec.selection import Selection

INTERVAL = 2.0
"""Seconds between two readings."""
SHARE = 0.005
"""Without -i, the measured cost of the readings is kept below this part of one processor. The cost of the transfer is not
measured, but is smaller still, so that both together stay below 1 %."""
ONCE_SECONDS = 1.0
"""Seconds between the two readings for one table."""

_SORTS = {
    "c": "cpu", "m": "memory", "p": "processes", "i": "io", "t": "net", "h": "throttled", "w": "waited", "n": "name",
    "s": "state",
}  # fmt: skip
_HELP = (
    "q quit  sort by: c cpu  m memory  p processes  i io  t net traffic  h throttled  w waited  n name  s state"
    "  r the other way round"
)


@click.command()
@options.selected
@click.option(
    "-i",
    "--interval",
    type=options.Time(0.1, 3600),
    default=None,
    metavar="TIME",
    help="Between two readings; default: 2, or more where looking would take over 1 % of a processor.",
)
@click.option("--sort", "order", type=click.Choice(usage.ORDERS), default="cpu", help="The column to sort by; default: cpu.")
@click.option("--once", is_flag=True, help="Print one table, or with -f one set of data, and end.")
@options.formatted
@click.pass_context
def top(
    ctx: click.Context,
    *,
    patterns: tuple[str, ...],
    labels: tuple[str, ...],
    everything: bool,
    interval: float | None,
    order: str,
    once: bool,
    style: str,
) -> None:
    """Watch what containers use, as a table that lives.

    CPU % is of one processor, so 200 is two of them; OF is the limit, in the same way. READ/S and WRITTEN/S are block
    devices', RECEIVED/S and SENT/S those of the container's port of the bridge. THROTTLED % is the part of the time for
    which its limit kept it from a processor that it wanted; WAITED the part in which some process of it waited for
    processors, memory or block devices (pressure stall information). They are shown where the host counts that: the latter
    takes cgroup v2. Keys: the last line shows them; arrows and page up and down move on.

    \b
    Examples:
      lxcfleet top
      lxcfleet top -l tier=front --sort memory
      lxcfleet top --once --sort throttled
      lxcfleet top --once -f json | jq '.[] | select(.cpu_percent > 90) | .name'
    """
    if interval is not None and not math.isfinite(interval):
        raise InvalidInput("-i takes a number of seconds")
    chosen = options.optional_selection(patterns, labels, everything)
    if not once:
        if style != "table":
            options.refuse([f"-f {style}"], "the live table is for people", "add --once")
        if not (sys.stdin and sys.stdin.isatty() and sys.stdout and sys.stdout.isatty()):
            raise InvalidInput("top needs a terminal", hint="`lxcfleet top --once` prints one table and ends")
    client = connect(ctx)
    if once:
        _print(client, chosen, ONCE_SECONDS if interval is None else interval, order, style)
    else:
        _Live(client, chosen, interval, order).run()


def _print(client: Client, chosen: Selection, seconds: float, order: str, style: str) -> None:
    before = client.usage(chosen)
    time.sleep(seconds)
    found = usage.in_order(usage.rows(before, client.usage(chosen)), order)
    output.show(
        style,
        found,
        lines=lambda: output.cut(usage.table(found), output.terminal_width()) if found else [],
        rows=lambda: [usage.FIELDS, *(["" if value is None else str(value) for value in row.values()] for row in found)],
    )
    if style == "table" and not found:
        output.say(output.NOT_CHOSEN if chosen.patterns or chosen.labels else "lxcfleet: no containers")


class _Live:
    """The live table."""

    def __init__(self, client: Client, chosen: Selection, interval: float | None, order: str) -> None:
        self._client, self._chosen = client, chosen
        self._interval = interval
        self._order, self._reverse = order, False
        self._first = 0
        """How many rows are above the first that is shown."""
        self._before: UsageRecord | None = None
        self._now = client.usage(chosen)  # an error of the first reading is printed before the screen is taken
        self._problem = ""
        self._pause = 0.3  # the first rates need a second reading, so that one comes soon

    def run(self) -> None:
        """Show the table until q or Ctrl-C."""
        with Screen() as screen:
            due = time.monotonic() + self._pause
            self._draw(screen)
            while (key := screen.key(due - time.monotonic())) not in ("q", "Q"):
                if key is None or key == " ":
                    self._read()
                    due = time.monotonic() + self._pause
                else:
                    self._pressed(key, screen.size()[1])
                self._draw(screen)

    def _read(self) -> None:
        began = time.process_time()
        try:
            now = self._client.usage(self._chosen)
        except Unreachable as error:  # the daemon may be restarting
            self._problem, self._pause = error.message, INTERVAL
            return
        self._problem = ""
        self._before, self._now = self._now, now
        if self._interval is not None:
            self._pause = self._interval
        else:
            cost = now["cost"] + time.process_time() - began
            self._pause = max(INTERVAL, cost / SHARE)

    def _pressed(self, key: str, lines: int) -> None:
        if key in _SORTS:
            self._order, self._reverse, self._first = _SORTS[key], False, 0
        elif key == "r":
            self._reverse = not self._reverse
        else:
            page = max(1, lines - 3)
            steps = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -page, "page down": page}
            steps |= {"home": -self._first, "end": len(self._now["containers"])}
            self._first += steps.get(key, 0)

    def _draw(self, screen: Screen) -> None:
        rows = usage.in_order(usage.rows(self._before, self._now), self._order, reverse=self._reverse)
        heading, *lines = usage.table(rows)
        shown = max(1, screen.size()[1] - 3)
        self._first = max(0, min(self._first, len(lines) - shown))
        summary = self._problem or usage.summary(self._now, rows)
        screen.draw([summary, heading], lines[self._first :][:shown], _HELP)


VERBS = {"top": top}
