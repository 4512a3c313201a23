"""logs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

import click

from lxcfleet.api.client import BrokenOff, Client
from lxcfleet.api.queries import LinesRequest, LogsRequest
from lxcfleet.api.records import LineRecord
from lxcfleet.cli import options
from lxcfleet.cli.session import connect
from lxcfleet.cli.ui import output
from lxcfleet.cli.ui.output import FORMATS, on_terminal, write_bytes
from lxcfleet.errors import InvalidInput, NotFound, Unreachable
from lxcfleet.spec.selection import Selection, is_glob


@click.command()
@options.selected
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines, until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(1), metavar="N", help="Only the last N lines of each.")
@click.option(
    "--since", callback=options.read_by(options.moment), metavar="TIME",
    help="Only what was printed then or later: 10m (ago), today, yesterday, 18:30, or a date and time.",
)  # fmt: skip
@click.option("-t", "--timestamps", is_flag=True, help="Begin each line with the time at which it was printed.")
@click.option(
    "--format", "style", type=click.Choice(["table", "json"]), default="table",
    help="How to print; json: one object per line. Default: table.",
)  # fmt: skip
@click.option(
    "--lxc", is_flag=True, help="liblxc's own log of the starts and stops of one container, instead of its lines."
)
@click.pass_context
def logs(
    ctx: click.Context, patterns: tuple[str, ...], labels: tuple[str, ...], everything: bool, follow: bool, lines: int | None,
    since: float | None, timestamps: bool, style: str, lxc: bool,
) -> None:  # fmt: skip
    """Show what containers printed on their consoles.

    Of several, all lines come in the order of time, each with its container's name. What commands a terminal, such as a
    colour, is left out; a single container's console comes as it is if it goes to a file or a pipe.

    \b
    Examples:
      lxcfleet logs web1
      lxcfleet logs -l role=web -f --since 10m
      lxcfleet logs web1 --lxc            why did it not start?
    """
    chosen = options.selection(patterns, labels, everything)
    single = patterns[0] if len(patterns) == 1 and not is_glob(patterns[0]) and not labels else None
    special = since is not None or timestamps or style == "json"
    if lxc and (single is None or special):
        raise InvalidInput("--lxc is for one container, as a whole", hint="lxcfleet logs NAME --lxc")
    client = connect(ctx)
    try:
        if lxc or (single is not None and not special and not _on_terminal()):
            request = LogsRequest(single or "", "lxc" if lxc else "console", lines or 0, follow)
            pieces = client.logs(request)
            for piece in _for_a_terminal(pieces) if _on_terminal() else pieces if lxc else plain_line_ends(pieces):
                write_bytes(piece)
        else:
            _show(client, LinesRequest(chosen, lines or 0, since or 0.0, follow), _form(style, single is None, timestamps))
        if follow:
            raise BrokenOff("", why="it closed the connection")
    except NotFound as error:
        if follow and {*patterns} & {*FORMATS}:
            error.hint = f"-f is --follow here; {error.hint}"
        raise
    except BrokenOff as error:
        raise Unreachable(
            f"the daemon went away in the middle of the log of {_subject(chosen)}", why=error.why,
            hint=f"the log is kept meanwhile; once the daemon is back: {_again(chosen, lxc=lxc, follow=follow)}",
        ) from error  # fmt: skip
    except KeyboardInterrupt:
        if not follow:
            raise


def _on_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def _show(client: Client, request: LinesRequest, form: Callable[[LineRecord], str]) -> None:
    for record in client.consoles(request):
        output.write(form(record) + "\n")


def _form(style: str, prefixed: bool, timestamps: bool) -> Callable[[LineRecord], str]:
    """How a line is printed."""
    if style == "json":
        return lambda record: output.to_json(record, indent=None)
    width = 0

    def text(record: LineRecord) -> str:
        nonlocal width
        width = max(width, len(record["container"]))
        parts = []
        if timestamps:
            parts.append((record["time"] or "-").ljust(_TIME))
        if prefixed:
            parts.append(f"{record['container']:<{width}} |")
        return " ".join([*parts, record["text"]])

    return text


_TIME = len("2026-01-01T00:00:00.000Z")


def _subject(chosen: Selection) -> str:
    return chosen.patterns[0] if len(chosen.patterns) == 1 else "the containers"


def _again(chosen: Selection, *, lxc: bool, follow: bool) -> str:
    words: Sequence[str] = [
        *chosen.patterns, *(f"-l {key}={value}" for key, value in chosen.labels), *(["--all"] if chosen.everything else []),
    ]  # fmt: skip
    return f"lxcfleet logs{' --lxc' if lxc else ''}{' -f' if follow else ''} {' '.join(words)}"


def plain_line_ends(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Replace ``\\r\\n`` by ``\\n``: a console is a terminal and ends lines with ``\\r\\n``, unlike a file."""
    held = b""
    for piece in pieces:
        data = held + piece
        held = b"\r" if data.endswith(b"\r") else b""
        yield data.removesuffix(held).replace(b"\r\n", b"\n")
    if held:
        yield held


def _for_a_terminal(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same lines with what commands a terminal spelled out."""
    held = b""
    for piece in pieces:
        whole, end, held = (held + piece).rpartition(b"\n")
        if len(held) > _LONGEST:
            whole, end, held = whole + end + held, b"", b""
        if whole or end:
            yield _spelled(whole + end)
    if held:
        yield _spelled(held)


_LONGEST = 1 << 16
"""Of a line that has not ended, so many bytes are held back."""


def _spelled(lines: bytes) -> bytes:
    return b"\n".join(on_terminal(line.removesuffix(b"\r")) for line in lines.split(b"\n"))


VERBS = {"logs": logs}
