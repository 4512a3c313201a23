"""wait."""

from __future__ import annotations

import click

from lxcfleet.api.client import BrokenOff
from lxcfleet.api.requests import WaitRequest
from lxcfleet.cli import options
from lxcfleet.cli.session import connect
from lxcfleet.cli.ui.follow import show_results, status_of
from lxcfleet.cli.ui.output import say_error
from lxcfleet.errors import Unreachable


@click.command()
@options.selected
@click.option(
    "--for",
    "until",
    type=click.Choice(["running", "stopped", "healthy"]),
    default="running",
    help="What to wait for; default: running.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, 86400),
    default=60.0,
    metavar="SECONDS",
    help="How long; default: 60.",
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
    style: str,
    quiet: bool,
) -> int:
    """Wait until containers are running, stopped or healthy.

    One that is broken is not waited for, unless it runs or is to be stopped: it fails at once. One that is destroyed
    meanwhile counts as stopped, and fails at once where another state is waited for.

    \b
    Examples:
      lxcfleet wait web1
      lxcfleet wait --all --for healthy --timeout 120
      lxcfleet wait 'job*' --for stopped && echo done
    """
    chosen = options.selection(patterns, labels, everything)
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
    return status_of(results)


VERBS = {"wait": wait}
