"""wait."""

from __future__ import annotations

from collections.abc import Sequence

import click

from lxcfleet.api.client import BrokenOff
from lxcfleet.api.records import ResultRecord
from lxcfleet.api.requests import WaitRequest
from lxcfleet.cli import options
from lxcfleet.cli.session import connect
from lxcfleet.cli.ui.follow import show_results, status_of
from lxcfleet.cli.ui.output import say, say_error
from lxcfleet.errors import Unreachable

NOT_KNOWN = 125
"""The exit status of ``--status`` where there is none to pass on: no program uses it, as with podman."""


@click.command()
@options.selected
@click.option(
    "--for",
    "until",
    type=click.Choice(["running", "stopped", "healthy"]),
    default="running",
    help="The state to wait for; default: running.",
)
@click.option(
    "--timeout",
    type=options.Time(0, 86400),
    default=60.0,
    metavar="TIME",
    help="How long; default: 60.",
)
@click.option(
    "--status",
    "pass_on",
    is_flag=True,
    help="With --for stopped: exit with the container's own exit status; of several, with the first that is not 0.",
)
@options.formatted
@options.quiet("Print nothing; the exit status tells.")
@click.pass_context
def wait(
    ctx: click.Context,
    *,
    patterns: tuple[str, ...],
    labels: tuple[str, ...],
    everything: bool,
    until: str,
    timeout: float,
    pass_on: bool,
    style: str,
    quiet: bool,
) -> int:
    """Wait until containers are running, stopped or healthy.

    One that is broken is not waited for, unless it runs or is to be stopped: it fails at once. One that is destroyed
    meanwhile counts as stopped, and fails at once where another state is waited for. One whose restart policy starts it
    again in a moment is not stopped.

    With --status the exit status is 125 if it is not known how a container ended, or the time is up.

    \b
    Examples:
      lxcfleet wait web1
      lxcfleet wait --all --for healthy --timeout 120
      lxcfleet wait 'job*' --for stopped && echo done
      lxcfleet wait migration --for stopped --status --timeout 3600
    """
    chosen = options.selection(patterns, labels, everything)
    if pass_on and until != "stopped":
        options.refuse(["--status"], f"it is about the end, and {until} is waited for", "add --for stopped")
    try:
        results = connect(ctx).wait(WaitRequest(chosen, until, timeout))
    except BrokenOff as error:
        raise Unreachable(
            f"the daemon went away while it waited for containers to be {until}", why=error.why,
            hint="containers run on; the same command again goes on waiting, for its whole time",
        ) from error  # fmt: skip
    for result in results:
        if result["error"] is not None:
            say_error(result["error"], result["name"])
    if not quiet:
        show_results(results, style, quiet=False)
    return _own_status(results) if pass_on else status_of(results)


def _own_status(results: Sequence[ResultRecord]) -> int:
    """The exit status of the containers themselves."""
    statuses = [result.get("exit_status") for result in results]
    for result, status in zip(results, statuses, strict=True):
        if result["error"] is None and status is None:
            say(f"lxcfleet: {result['name']}: its exit status is not known")
    if None in statuses:
        return NOT_KNOWN
    return next((status for status in statuses if status), 0)


VERBS = {"wait": wait}
