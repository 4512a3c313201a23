"""rollout status, pause, resume, abort and undo."""

from __future__ import annotations

import click

from lxcfleet.api.client import Client
from lxcfleet.api.records import RolloutRecord
from lxcfleet.api.requests import ResumeRequest
from lxcfleet.cli import options
from lxcfleet.cli.session import connect
from lxcfleet.cli.statuses import FOUND
from lxcfleet.cli.ui import output, rolling


@click.group(cls=options.Suggesting)
def rollout() -> None:
    """Restarts in waves: how far they are; pause, abort, undo.

    There is one at a time. A patch of the host begins one, and so do `patch apply`, `restart --rolling` and changes by
    `set` that take a restart. A patch that comes meanwhile is taken up by it.

    \b
    Examples:
      lxcfleet rollout status --follow
      lxcfleet rollout pause
    """


@rollout.command()
@click.option("--follow", is_flag=True, help="Until it has ended or is halted.")
@options.formatted
@options.quiet("Print only the names of those that were restarted.")
@click.pass_context
def status(ctx: click.Context, *, follow: bool, style: str, quiet: bool) -> int:
    """Show the rollout that is under way, or was last.

    Exit status 4: it is halted.

    \b
    Examples:
      lxcfleet rollout status
      lxcfleet rollout status --follow
      lxcfleet rollout status -f json | jq -r '.containers[] | select(.phase == "failed") | .name'
    """
    client = connect(ctx)
    record = client.rollout()
    if record is None:
        if style == "json":
            output.write("null\n")
        elif not quiet:
            output.say("lxcfleet: there was no rollout since the host was booted")
        return 0
    if follow and record["ended"] is None:
        try:
            record = rolling.follow(client, record, quiet=quiet)
        except KeyboardInterrupt:
            return rolling.INTERRUPTED
    rolling.show(record, style, quiet=quiet)
    return FOUND if record["status"] == "halted" else 0


@rollout.command()
@options.formatted
@options.quiet("Print nothing.")
@click.pass_context
def pause(ctx: click.Context, *, style: str, quiet: bool) -> int:
    """Begin no further wave. The one that has begun comes to its end.

    \b
    Examples:
      lxcfleet rollout pause
    """
    return _changed(connect(ctx).rollout_pause(), style, quiet)


@rollout.command()
@click.option("--accept", is_flag=True, help="Leave what failed as it is. It counts among those that may be down.")
@click.option("--no-wait", is_flag=True, help="Leave the rest to the daemon.")
@options.formatted
@options.quiet("Print only the names of those that were restarted.")
@click.pass_context
def resume(ctx: click.Context, *, accept: bool, no_wait: bool, style: str, quiet: bool) -> int:
    """Go on with a rollout that is paused or halted.

    After a halt stale containers are looked for again. What failed is restarted if it is stale, started if it does not run,
    and else gets new time to become healthy. A new change of the host's packages does the same by itself.

    \b
    Examples:
      lxcfleet rollout resume
      lxcfleet rollout resume --accept
    """
    client: Client = connect(ctx)
    record = client.rollout_resume(ResumeRequest(accept))
    if no_wait:
        return _changed(record, style, quiet)
    return _to_its_end(client, record, style, quiet)


@rollout.command()
@options.formatted
@options.quiet("Print nothing.")
@click.pass_context
def abort(ctx: click.Context, *, style: str, quiet: bool) -> int:
    """End a rollout as it is. What is being restarted comes up; the rest runs on, stale or not.

    \b
    Examples:
      lxcfleet rollout abort
    """
    return _changed(connect(ctx).rollout_abort(), style, quiet)


@rollout.command()
@click.option("--redo", is_flag=True, help="Do again what the last rollout undid.")
@click.option("--no-wait", is_flag=True, help="Begin it, and leave the rest to the daemon.")
@options.formatted
@options.quiet("Print only the names of those that were restarted.")
@click.pass_context
def undo(ctx: click.Context, *, redo: bool, no_wait: bool, style: str, quiet: bool) -> int:
    """Put back the specs that the last rollout of `apply`, `set` or `app use` replaced.

    That is a rollout, too, with the same waves and gates. A rollout that is under way or halted ends. Specs that somebody
    changed since stay. The fleet's file is not changed: mend it, or the difference stays until its own values move.

    Once more, it puts back the rest: what was left out, or not reached, as the undo was aborted. It never gives containers
    again what was taken back; --redo does.

    Exit status 3: some failed, or are left out, as it can't be told whether they were changed.

    \b
    Examples:
      lxcfleet rollout undo
      lxcfleet rollout undo --redo
    """
    client: Client = connect(ctx)
    record = client.rollout_undo(redo)
    if no_wait or record["ended"] is not None:
        return rolling.show(record, style, quiet=quiet)
    return _to_its_end(client, record, style, quiet)


def _to_its_end(client: Client, record: RolloutRecord, style: str, quiet: bool) -> int:
    """Follow the rollout until it has ended or is halted, and show it; the exit status."""
    try:
        record = rolling.follow(client, record, quiet=quiet)
    except KeyboardInterrupt:
        return rolling.INTERRUPTED
    return rolling.show(record, style, quiet=quiet)


def _changed(record: RolloutRecord, style: str, quiet: bool) -> int:
    if not quiet:
        rolling.show(record, style)
    return 0


VERBS = {"rollout": rollout}
