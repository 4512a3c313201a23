"""snapshot list, create, restore and rm."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import click

from lxcfleet.api.client import Client
from lxcfleet.api.records import OperationRecord
from lxcfleet.api.snapshots import (
    CreateSnapshotsRequest,
    RemoveSnapshotsRequest,
    RestoreSnapshotRequest,
    SnapshotRecord,
)
from lxcfleet.cli import complete, options
from lxcfleet.cli.session import connect
from lxcfleet.cli.ui import follow, output
from lxcfleet.cli.ui.follow import run_operation
from lxcfleet.errors import InvalidInput, Unconfirmed
from lxcfleet.spec.container.snapshots import check_snapshot
from lxcfleet.spec.selection import Selection

_FIELDS = ("container", "name", "created", "bytes", "shared", "frozen_ms", "made_by", "why", "exists", "path", "problem")

R = TypeVar("R", CreateSnapshotsRequest, RestoreSnapshotRequest)

_yes = click.option("--yes", is_flag=True, help="Copy however much there is, where the file system can't share blocks.")


@click.group(cls=options.Suggesting)
def snapshot() -> None:
    """Snapshots: the way back to what a container had written.

    One holds a container's delta, and not the host's files below it: these stay as they are by then. On xfs and
    btrfs it shares the blocks with the container; elsewhere, as on ext4, it is a full copy.

    \b
    Examples:
      lxcfleet snapshot create db1 --name before-upgrade
      lxcfleet snapshot restore db1 before-upgrade --stop
    """


@snapshot.command("list")
@options.selected
@options.formatted
@options.quiet("Print only CONTAINER NAME of each.")
@click.pass_context
def list_(
    ctx: click.Context, *, patterns: tuple[str, ...], labels: tuple[str, ...], everything: bool, style: str, quiet: bool
) -> None:
    """Show the snapshots of containers, the oldest first; those of all if none is chosen.

    SIZE is what the delta took then. Snapshots outlive their container only if somebody else removes its directory.

    \b
    Examples:
      lxcfleet snapshot list
      lxcfleet snapshot list db1 -f json | jq '.[-1].name'
    """
    records = connect(ctx).snapshots(options.optional_selection(patterns, labels, everything))
    if quiet:
        for record in records:
            output.write(f"{record['container']} {record['name']}\n")
        return
    output.show_list(style, False, records, _FIELDS, table=lambda: _table(records), text=_text, nothing="no snapshots")


def _table(records: Sequence[SnapshotRecord]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("CONTAINER", "NAME", "CREATED", "SIZE", "FROZEN", "BY", "WHY")]
    for record in records:
        last = f"! {record['problem'].splitlines()[0]}" if record["problem"] else record["why"]
        frozen = "" if record["frozen_ms"] is None else f"{record['frozen_ms']} ms"
        name = record["container"] if record["exists"] else f"{record['container']} (gone)"
        size = f"{output.size(record['bytes'])}{', shared' if record['shared'] else ''}"
        rows.append((name, record["name"], record["created"], size, frozen, record["made_by"], last))
    return rows


def _text(record: SnapshotRecord, key: str) -> str:
    value: Any = record[key]  # type: ignore[literal-required]
    return "" if value is None else str(value)


@snapshot.command()
@options.selected
@click.option("--name", default="", metavar="NAME", help="Its name. Default: the time, as 20260131-235959.")
@click.option("--why", default="", metavar="TEXT", help="A reason, which `snapshot list` shows.")
@_yes
@options.dry_run
@options.formatted
@options.quiet("Print only the names of containers that have got one.")
@click.pass_context
def create(
    ctx: click.Context,
    /,
    *,
    patterns: tuple[str, ...],
    labels: tuple[str, ...],
    everything: bool,
    name: str,
    why: str,
    yes: bool,
    dry_run: bool,
    style: str,
    quiet: bool,
) -> int:
    """Make a snapshot of each chosen container. One that runs is frozen for it, and its hooks run.

    Where the file system can't share blocks, more than 1 GiB is copied only with --yes, or if you say so when asked.

    \b
    Examples:
      lxcfleet snapshot create db1 --name before-upgrade --why "db 14 to 15"
      lxcfleet snapshot create 'web*' --dry-run
    """
    if name:
        check_snapshot(name)
    chosen = options.selection(patterns, labels, everything)
    request = CreateSnapshotsRequest(chosen, name, why, yes, dry_run)
    begin = _asking(request, lambda client, each: client.create_snapshots(each))
    return run_operation(ctx, begin, style=style, quiet=quiet, dry_run=dry_run)


@snapshot.command()
@click.argument("name", metavar="CONTAINER", shell_complete=complete.names)
@click.argument("snapshot_name", metavar="SNAPSHOT", shell_complete=complete.snapshots)
@click.option("--stop", is_flag=True, help="Stop it for that if it runs, and start it again.")
@click.option("--discard-present", is_flag=True, help="Remove its present delta, and don't keep it as a snapshot.")
@_yes
@options.dry_run
@options.formatted
@options.quiet("Print only the container's name, if it was restored.")
@click.pass_context
def restore(
    ctx: click.Context,
    /,
    *,
    name: str,
    snapshot_name: str,
    stop: bool,
    discard_present: bool,
    yes: bool,
    dry_run: bool,
    style: str,
    quiet: bool,
) -> int:
    """Give a stopped container the delta of one of its snapshots. The snapshot stays.

    Its present delta becomes a snapshot, too, unless --discard-present is said. Spec, limits and volumes stay as they are.

    \b
    Examples:
      lxcfleet snapshot restore db1 before-upgrade --stop
      lxcfleet snapshot restore db1 before-upgrade --discard-present --dry-run
    """
    request = RestoreSnapshotRequest(
        options.one_name(name), check_snapshot(snapshot_name), stop, discard_present, yes, dry_run
    )  # fmt: skip
    begin = _asking(request, lambda client, each: client.restore_snapshot(each))
    return run_operation(ctx, begin, style=style, quiet=quiet, dry_run=dry_run)


def _asking(request: R, begin: Callable[[Client, R], OperationRecord]) -> Callable[[Client], OperationRecord]:
    """Begin it; if there is more to copy than is done without being asked, and this is a terminal, ask."""

    def ask(client: Client) -> OperationRecord:
        try:
            return begin(client, request)
        except Unconfirmed as error:
            if not (sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()):
                raise
            output.say(f"lxcfleet: {error.message}\n  {error.why}")
            click.confirm("Go on?", abort=True, err=True)
        return begin(client, replace(request, yes=True))

    return ask


@snapshot.command()
@click.argument("name", metavar="CONTAINER", shell_complete=complete.names)
@click.argument("names", nargs=-1, metavar="SNAPSHOT...", shell_complete=complete.snapshots)
@click.option("--all", "everything", is_flag=True, help="All snapshots of that container.")
@options.dry_run
@options.formatted
@options.quiet("Print only the names of those that were removed.")
@click.pass_context
def rm(
    ctx: click.Context, /, *, name: str, names: tuple[str, ...], everything: bool, dry_run: bool, style: str, quiet: bool
) -> int:
    """Remove snapshots of a container, also of one that no longer exists. This can't be undone.

    \b
    Examples:
      lxcfleet snapshot rm db1 before-upgrade
      lxcfleet snapshot rm db1 --all --dry-run
    """
    options.one_name(name)
    if everything == bool(names):
        raise InvalidInput("name snapshots, or say --all", hint=f"`lxcfleet snapshot list {name}` shows them")
    if everything:
        names = tuple(each["name"] for each in connect(ctx).snapshots(Selection((name,))))
        if not names:
            follow.show_results([], style, quiet, nothing=f"lxcfleet: nothing to do: {name} has no snapshots")
            return 0
    request = RemoveSnapshotsRequest(name, tuple(map(check_snapshot, names)), dry_run)
    return run_operation(ctx, lambda client: client.remove_snapshots(request), style=style, quiet=quiet, dry_run=dry_run)


VERBS = {"snapshot": snapshot}
