"""drain."""

from __future__ import annotations

import click

from lxcfleet.api.drain import DrainRequest, EndDrainRequest
from lxcfleet.cli import options
from lxcfleet.cli.session import connect
from lxcfleet.cli.ui import output
from lxcfleet.cli.ui.follow import run_operation
from lxcfleet.errors import InvalidInput


@click.command()
@click.option("--why", default="", metavar="TEXT", help="A reason, which `list` and `doctor` show.")
@click.option("--end", is_flag=True, help="End it: start the containers that ran.")
@click.option("--status", is_flag=True, help="Only say whether this host is drained.")
@click.option(
    "--timeout", type=options.Time(0, 86400), default=None, metavar="TIME",
    help="How long they may take to shut down until they are killed; default: each one's stop_timeout.",
)  # fmt: skip
@options.drain("How long they stay up after they left names and ports; default: each one's drain.")
@options.dry_run
@options.formatted
@options.quiet("Print only the names of those that were stopped or started.")
@click.pass_context
def drain(
    ctx: click.Context,
    /,
    *,
    why: str,
    end: bool,
    status: bool,
    timeout: float | None,
    drain: float | None,
    dry_run: bool,
    style: str,
    quiet: bool,
) -> int:
    """Stop this host's containers for work on it.

    They stop in the order that follows from what depends on what, and nothing starts until `drain --end`: not after
    a reboot either, nor by a restart policy or a rollout. `start --force` starts one all the same. --end starts those that
    ran.

    \b
    Examples:
      lxcfleet drain --why "new disks"
      lxcfleet drain --status
      lxcfleet drain --end
    """
    said = [f"--{key}" for key, value in (("why", why), ("timeout", timeout), ("drain", drain)) if value not in ("", None)]
    if end and status:
        raise InvalidInput("--end and --status exclude each other", hint="leave out one of them")
    if (end or status) and said:
        options.refuse(said, "it says how containers are stopped", "leave it out")
    if status:
        return _status(ctx, style)
    if end:
        request = EndDrainRequest(dry_run)
        nothing = _nothing("the drain would end" if dry_run else "this host is not drained any more")
        return run_operation(
            ctx, lambda client: client.end_drain(request), style=style, quiet=quiet, dry_run=dry_run, nothing=nothing
        )
    begin = DrainRequest(why, timeout, drain, dry_run)
    nothing = _nothing("this host would be drained" if dry_run else "this host is drained")
    return run_operation(
        ctx, lambda client: client.begin_drain(begin), style=style, quiet=quiet, dry_run=dry_run, nothing=nothing
    )


def _nothing(what: str) -> str:
    return f"lxcfleet: {what}; no container has to be stopped or started"


def _status(ctx: click.Context, style: str) -> int:
    record = connect(ctx).drain()
    fields = ("since", "why", "containers", "running")

    def row() -> list[str]:
        if record is None:
            return ["", "", "", ""]
        return [record["since"], record["why"], ",".join(record["containers"]), ",".join(record["running"])]

    def lines() -> list[str]:
        if record is None:
            return ["this host is not drained"]
        words = [(f"{key}:", text) for key, text in zip(fields, row(), strict=True)]
        return ["this host is drained", *output.columns(words)]

    output.show(style, record, lines=lines, rows=lambda: [fields, row()])
    return 0


VERBS = {"drain": drain}
