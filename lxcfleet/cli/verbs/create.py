"""create."""

from __future__ import annotations

from typing import Any

import click

from lxcfleet.api.requests import CreateRequest
from lxcfleet.cli import options
from lxcfleet.cli.fields import field_options, said_with_command
from lxcfleet.cli.ui.follow import run_operation
from lxcfleet.spec.reading.names import check_count, check_name


@click.command(cls=options.TakesCommand)
@click.argument("name", required=False)
@click.option(
    "-n",
    "--count",
    type=int,
    metavar="N",
    help="How many; they are named NAME1, NAME2, …; without NAME c1, c2, …",
)
@field_options
@click.option("--no-start", is_flag=True, help="Create them stopped.")
@click.option("--ensure", is_flag=True, help="Make sure that they exist and run; leave those that do, and say what differs.")
@click.option("--update", is_flag=True, help="With --ensure: give those that exist the values that are asked for, too.")
@click.option("--no-wait", is_flag=True, help="With --update: do not wait for the rollout that restarts those which need it.")
@options.dry_run
@options.formatted
@options.quiet("Print only the names that changed.")
@click.pass_context
def create(
    ctx: click.Context,
    /,
    *,
    name: str | None,
    count: int | None,
    no_start: bool,
    ensure: bool,
    update: bool,
    no_wait: bool,
    dry_run: bool,
    style: str,
    quiet: bool,
    **taken: Any,
) -> int:
    """Clone the host into new containers and start them.

    With a command after -- they are app containers, which run just that; without one they are system
    containers, which boot the host's systemd. NAME alone makes one container of that name; -n N adds N new
    ones with the next free numbers, and with --ensure it makes sure that 1 to N exist and run.
    If any of it can't be had (names, memory, disk, uid ranges, …) nothing is created.
    With --ensure --update those that exist are changed as `set` does it: what takes a restart is restarted in waves.

    \b
    Examples:
      lxcfleet create web                          one system container
      lxcfleet create -n 100                       c1 to c100
      lxcfleet create web -n 3 -l tier=front -- /usr/sbin/nginx -g 'daemon off;'
      lxcfleet create api -n 3 --health-http 8080/ready -- /usr/bin/api
      lxcfleet create api -n 3 -l role=api -p 8080:80 -- /usr/sbin/nginx -g 'daemon off;'
      lxcfleet create job -e MODE=night -- sh -c 'sleep 60; echo $MODE'
      lxcfleet create calc -n 4 --memory 2G --cpus 1.5 --disk 10G -- /opt/calc/run
      lxcfleet create db -n 2 --ensure -f json     for scripts: changes nothing the second time
      lxcfleet create db -n 2 --ensure --update --memory 4G     and those that exist get 4G, too
    """
    _check_update(ensure=ensure, update=update, no_wait=no_wait)
    if name is not None:
        check_name(name)
    request = CreateRequest(
        name=name,
        count=check_count(count) if count is not None else None if name is not None else 1,
        ensure=ensure,
        update=update,
        start=not no_start,
        dry_run=dry_run,
        said=said_with_command(ctx, taken),
    )
    return run_operation(
        ctx, lambda client: client.create(request), style=style, quiet=quiet, dry_run=dry_run, update=update,
        wait=not no_wait,
    )  # fmt: skip


def _check_update(*, ensure: bool, update: bool, no_wait: bool) -> None:
    """Refuse options about changes where nothing changes."""
    if no_wait and not update:
        options.refuse(["--no-wait"], "it is about the rollout of changes", "add --ensure --update")
    if update and not ensure:
        options.refuse(["--update"], "it is about containers that exist", "add --ensure")


VERBS = {"create": create}
