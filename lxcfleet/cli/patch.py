"""patch status and patch apply: how far patches of the host are, and bringing them into the containers."""

from __future__ import annotations

from typing import Any

import click

from lxcfleet.cli import options, output, rolling
from lxcfleet.cli.session import connect
from lxcfleet.model import Selection
from lxcfleet.wire import RolloutRequest

FOUND = 4
"""Exit status of a check that found something."""


@click.group()
def patch() -> None:
    """Patches of the host, and how they come into the containers.

    \b
    Examples:
      lxcfleet patch status
      lxcfleet patch apply --dry-run
    """


@patch.command()
@options.formatted
@options.quiet("Print only the names of stale containers.")
@click.pass_context
def status(ctx: click.Context, *, style: str, quiet: bool) -> int:
    """Show which containers are stale, and how far the rollout is.

    Exit status 4: some are stale.

    \b
    Examples:
      lxcfleet patch status
      lxcfleet patch status -f json | jq .rollout.status
    """
    client = connect(ctx)
    records = client.stale(Selection())
    stale = [record["name"] for record in records if record["stale"]]
    rollout = client.rollout()
    if quiet:
        output.write("".join(f"{name}\n" for name in stale))
    else:
        going = f"{rollout['status']}, {rollout['done']} of {rollout['total']}" if rollout else "none yet"
        data = {"containers": len(records), "stale": stale, "rollout": rollout}
        lines = [f"stale:    {' '.join(stale) or 'none'}", f"rollout:  {going}"]
        output.show(style, data, lines=lambda: lines, rows=lambda: [["stale"], *([name] for name in stale)])
    return FOUND if stale else 0


@patch.command()
@options.selected
@rolling.policy_options
@options.dry_run
@options.formatted
@options.quiet("Print only the names of those that were restarted.")
@click.pass_context
def apply(
    ctx: click.Context,
    *,
    patterns: tuple[str, ...],
    labels: tuple[str, ...],
    everything: bool,
    dry_run: bool,
    style: str,
    quiet: bool,
    **more: Any,
) -> int:
    """Restart what is stale, in waves: all containers, or those chosen.

    No more than --max-unavailable are down at the same moment, each wave has to be healthy before the next one begins,
    and one that is not halts it. Nothing is restarted that is not stale, and nothing twice. Without options the
    settings below `rollout:` in lxcfleet.yaml hold. The daemon does it: Ctrl-C only stops looking.

    Exit status 1: nothing was done. 3: some failed or were not reached.

    \b
    Examples:
      lxcfleet patch apply --dry-run
      lxcfleet patch apply
      lxcfleet patch apply -l tier=front --max-unavailable 10% --min-healthy-time 30
    """
    chosen = options.optional_selection(patterns, labels, everything)
    request = RolloutRequest("patch", chosen, rolling.policy_of(more), dry_run)
    return rolling.roll(ctx, request, wait=not more["no_wait"], style=style, quiet=quiet)


VERBS = {"patch": patch}
