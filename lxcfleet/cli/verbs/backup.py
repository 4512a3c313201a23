"""backup run."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from lxcfleet.api.client import Client
from lxcfleet.api.snapshots import CreateSnapshotsRequest, RemoveSnapshotsRequest
from lxcfleet.cli import complete, options
from lxcfleet.cli.session import connect
from lxcfleet.cli.ui import output
from lxcfleet.cli.verbs.execute import RunsCommand
from lxcfleet.errors import Denied, FleetError, from_body
from lxcfleet.spec.container.snapshots import check_snapshot, name_at
from lxcfleet.spec.selection import Selection

_PACKAGE = str(Path(__file__).resolve().parents[3])
_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from lxcfleet.data.view import main; main()"


@click.group(cls=options.Suggesting)
def backup() -> None:
    """Run backup programs on what containers have written.

    \b
    Examples:
      lxcfleet backup run db1 -- restic backup --ignore-inode --ignore-ctime .
      lxcfleet backup run db1 -- borg create --files-cache=mtime,size /srv/repo::db1-{now} .
    """


@backup.command(cls=RunsCommand)
@click.argument("name", metavar="CONTAINER", shell_complete=complete.names)
@click.option("--snapshot", "chosen", default="", metavar="NAME", help="This snapshot, which stays. Default: one of now.")
@click.option("--yes", is_flag=True, help="Copy however much there is, where the file system can't share blocks.")
@click.pass_context
def run(ctx: click.Context, /, *, name: str, chosen: str, yes: bool) -> int:
    """Run a program that sees a snapshot of a container's delta.

    The program runs as root on the host. Its directory, and the only place where it sees the files, is
    /run/lxcfleet/backup/CONTAINER: read-only, without setuid and devices, with owners 0 to 65535 as in the container. The
    mount is the program's alone, and gone with it. The snapshot is made before (the container is frozen for it, and its
    hooks run), and removed afterwards. The exit status is the program's; 125: lxcfleet failed.

    \b
    Examples:
      lxcfleet backup run db1 -- restic backup --ignore-inode --ignore-ctime .
      lxcfleet backup run db1 --snapshot before-upgrade -- tar --xattrs -cf /srv/db1.tar .
    """
    command = options.command_after_dashes(ctx)
    options.one_name(name)
    if not command:
        raise click.UsageError("no program after --", ctx)
    if os.geteuid() != 0:
        raise Denied("only root can run a program on a snapshot", why="it mounts something", hint="use sudo")
    if chosen:
        return _run(name, check_snapshot(chosen), command)
    made = f"backup-{name_at(datetime.now(UTC))}-{os.getpid()}"
    client = connect(ctx)
    _make(client, name, made, yes=yes)
    try:
        return _run(name, made, command)
    finally:
        _remove(client, name, made)


def _make(client: Client, name: str, made: str, *, yes: bool) -> None:
    """Make the snapshot; one that is interrupted is removed again. Raises FleetError."""
    request = CreateSnapshotsRequest(Selection((name,)), made, "for `lxcfleet backup run`", yes)
    begun = client.create_snapshots(request)["id"]
    try:
        _tell(client, begun, name)
    except KeyboardInterrupt:
        output.say("lxcfleet: interrupted: the snapshot is removed once it is made")
        for _ in client.follow(begun):
            pass
        _remove(client, name, made)
        raise


def _tell(client: Client, begun: str, name: str) -> None:
    """Follow the operation that makes a snapshot. Raises FleetError."""
    for record in client.follow(begun):
        for result in [record] if "status" in record and "results" not in record else []:
            error = result["error"]
            if error:
                raise from_body(error)
            for note in result.get("notes", []):
                output.say(f"lxcfleet: {output.printable(f'{name}: {note}')}")


def _remove(client: Client, name: str, made: str) -> None:
    """Remove it; the program's exit status counts all the same if that fails."""
    try:
        for _ in client.follow(client.remove_snapshots(RemoveSnapshotsRequest(name, (made,)))["id"]):
            pass
    except FleetError as error:
        output.say_error(error)
        output.say(f"  it stays: lxcfleet snapshot rm {name} {made}")


def _run(name: str, made: str, command: Sequence[str]) -> int:
    """Run the program; its exit status. Signals of the terminal are the program's."""
    arguments = [sys.executable, "-I", "-c", _START, _PACKAGE, name, made, *command]
    kept = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGQUIT)}
    try:
        pid = os.posix_spawn(
            sys.executable, arguments, os.environ, setsigdef=[signal.SIGINT, signal.SIGQUIT]
        )  # fmt: skip
        for number in (signal.SIGTERM, signal.SIGHUP):
            kept[number] = signal.signal(number, lambda which, _: os.kill(pid, which))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
    return 128 - code if code < 0 else code


VERBS = {"backup": backup}
