"""logs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import click

from lxcfleet.api.client import BrokenOff
from lxcfleet.api.queries import LogsRequest
from lxcfleet.cli import complete
from lxcfleet.cli.session import connect
from lxcfleet.cli.ui.output import write_bytes
from lxcfleet.errors import Unreachable
from lxcfleet.spec.names import check_name


@click.command()
@click.argument("name", shell_complete=complete.names)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is added, until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(1), metavar="N", help="Only the last N lines.")
@click.option(
    "--lxc", is_flag=True, help="What liblxc said about starts and stops, not what the container said."
)
@click.pass_context
def logs(ctx: click.Context, name: str, follow: bool, lines: int | None, lxc: bool) -> None:
    """Show what a container printed on its console.

    \b
    Examples:
      lxcfleet logs web1
      lxcfleet logs web1 -f -n 20
      lxcfleet logs web1 --lxc            why did it not start?
    """
    check_name(name)
    client = connect(ctx)
    try:
        pieces = client.logs(LogsRequest(name, "lxc" if lxc else "console", lines or 0, follow))
        for piece in pieces if lxc else plain_line_ends(pieces):
            write_bytes(piece)
        if follow:
            raise BrokenOff("", why="it closed the connection")
    except BrokenOff as error:
        again = f"lxcfleet logs{' --lxc' if lxc else ''}{' -f' if follow else ''} {name}"
        raise Unreachable(
            f"the daemon went away in the middle of the log of {name}", why=error.why,
            hint=f"the log is kept meanwhile; once the daemon is back: {again}",
        ) from error  # fmt: skip
    except KeyboardInterrupt:
        if not follow:
            raise


def plain_line_ends(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Replace ``\\r\\n`` by ``\\n``: a console is a terminal and ends lines with ``\\r\\n``, unlike a file."""
    held = b""
    for piece in pieces:
        data = held + piece
        held = b"\r" if data.endswith(b"\r") else b""
        yield data.removesuffix(held).replace(b"\r\n", b"\n")
    if held:
        yield held


VERBS = {"logs": logs}
