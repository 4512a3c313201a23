"""du, and diff NAME: what containers have on the disk."""

from __future__ import annotations

import click

from lxcfleet.api.disk import MOST_DEPTH, MOST_PATHS, DiffRequest, DiskRecord, DiskRequest, PathChangeRecord
from lxcfleet.cli import options
from lxcfleet.cli.session import connect
from lxcfleet.cli.statuses import FOUND, SOME_FAILED
from lxcfleet.cli.ui import output
from lxcfleet.errors import FleetError
from lxcfleet.spec.selection import is_glob

DEPTH = 2
"""How deep the paths of a single container are told, if nothing else is said."""


@click.command()
@options.selected
@click.option(
    "--depth", type=click.IntRange(0, MOST_DEPTH), default=None, metavar="N",
    help="Also the largest paths, down to so many levels; default: 2 for one name, else 0.",
)  # fmt: skip
@click.option(
    "--top", type=click.IntRange(1, MOST_PATHS), default=20, metavar="N", help="At most so many paths of each; default: 20."
)
@click.option("--volumes", is_flag=True, help="Also the chosen containers' volumes; without a choice, all volumes.")
@options.formatted
@options.quiet("Print only names, those that take most first.")
@click.pass_context
def du(
    ctx: click.Context,
    *,
    patterns: tuple[str, ...],
    labels: tuple[str, ...],
    everything: bool,
    depth: int | None,
    top: int,
    volumes: bool,
    style: str,
    quiet: bool,
) -> int:
    """Show what containers' deltas take on the disk, and by path.

    All, or those chosen; those that take most come first. ON DISK is the space in use, APPARENT the sizes of the files,
    which have holes. A file with several names counts once. With one name, the largest paths in its delta are shown, too.
    What containers share, the host's files and the mask, takes nothing more for each. Running containers are looked at
    as they are.

    Exit status 3: some could not be looked at.

    \b
    Examples:
      lxcfleet du
      lxcfleet du web1 --depth 4
      lxcfleet du -l tier=db --volumes
      lxcfleet du -f json | jq '.[] | select(.disk_bytes > 1e9) | .name'
    """
    chosen = options.optional_selection(patterns, labels, everything)
    alone = len(patterns) == 1 and not is_glob(patterns[0])
    deep = (DEPTH if alone and not quiet else 0) if depth is None else depth
    records = connect(ctx).du(DiskRequest(chosen, deep, top, volumes))
    records.sort(key=lambda each: -each["disk_bytes"])
    if quiet:
        output.write("".join(f"{each['name']}\n" for each in records))
    else:
        output.show(
            style,
            records,
            lines=lambda: output.columns(_table(records, paths=deep > 0), output.terminal_width()) if records else [],
            rows=lambda: [_FIELDS, *(row for each in records for row in _rows(each))],
        )
    return _tell(records, style, narrow=chosen.narrow, quiet=quiet)


_FIELDS = ("name", "kind", "path", "disk_bytes", "apparent_bytes", "items", "cut")


def _rows(record: DiskRecord) -> list[tuple[str, ...]]:
    head = record["name"], record["kind"]
    numbers = str(record["disk_bytes"]), str(record["apparent_bytes"]), str(record["items"])
    paths = [
        (*head, each["path"], str(each["disk_bytes"]), str(each["apparent_bytes"]), str(each["items"]), "")
        for each in record["paths"]
    ]
    return [(*head, "/", *numbers, str(record["cut"]).lower()), *paths]


def _table(records: list[DiskRecord], *, paths: bool) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("NAME", "PATH", "ON DISK", "APPARENT", "FILES")]
    for record in records:
        name = record["name"] if record["kind"] == "container" else f"volume {record['name']}"
        least = "over " if record["cut"] else ""
        sizes = least + output.size(record["disk_bytes"]), least + output.size(record["apparent_bytes"])
        rows.append((name, "/", *sizes, least + str(record["items"])))
        for each in record["paths"]:
            sizes = output.size(each["disk_bytes"]), output.size(each["apparent_bytes"])
            rows.append(("", output.printable(each["path"]), *sizes, str(each["items"])))
    return [(row[0] or " ", *row[1:]) if paths else (row[0], *row[2:]) for row in rows]


def _tell(records: list[DiskRecord], style: str, *, narrow: bool, quiet: bool) -> int:
    failed = [each for each in records if each["problem"]]
    for each in failed:
        output.say_error(FleetError("it could not be looked at", why=each["problem"] or ""), each["name"])
    if style == "table" and not quiet:
        if not records:
            output.say(output.NOT_CHOSEN if narrow else "lxcfleet: no containers")
        for each in records:
            if each["cut"] and not each["problem"]:
                output.say(f"lxcfleet: {each['name']}: not all was looked at: it is too deep, too much, or took too long")
    return SOME_FAILED if failed else 0


def changes(ctx: click.Context, name: str, path: str, most: int, style: str, *, quiet: bool) -> int:
    """Show what a container changed; gives the exit status."""
    record = connect(ctx).diff(DiffRequest(options.one_name(name), path, most))
    if quiet:
        output.write("".join(f"{output.printable(each['path'])}\n" for each in record["changes"]))
        return FOUND if record["changed"] else 0
    rows = [(each["change"], each["type"], each["path"], _what(each)) for each in record["changes"]]
    output.show(
        style,
        record,
        lines=lambda: output.columns([("CHANGE", "TYPE", "PATH", "WAS"), *rows], output.terminal_width()) if rows else [],
        rows=lambda: [("change", "type", "path", "was"), *rows],
    )
    if style == "table":
        counts = ", ".join(f"{count} {change}" for change, count in record["counts"].items())
        output.say(f"lxcfleet: {name}: {counts or 'nothing is changed'}")
        if record["cut"]:
            output.say("lxcfleet: not all is listed, or was looked at: choose a PATH, or more of them with --most")
    return FOUND if record["changed"] else 0


def _what(change: PathChangeRecord) -> str:
    """The attributes that differ, as they were and are."""
    parts = [
        f"{change['was']}" if change["was"] else "",
        f"{change['was_mode']} -> {change['mode']}" if change["mode"] else "",
        f"{change['was_owner']} -> {change['owner']}" if change["owner"] else "",
    ]
    return ", ".join(part for part in parts if part)


VERBS = {"du": du}
